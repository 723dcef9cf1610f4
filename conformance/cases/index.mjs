// All cases in the order in which they run: first those that share an engine, then those that kill one.
import { cases as actions } from "./actions.mjs";
import { cases as events } from "./events.mjs";
import { cases as lifecycle } from "./lifecycle.mjs";
import { cases as history } from "./history.mjs";
import { cases as storage } from "./storage.mjs";
import { cases as storageSdk } from "./storage-sdk.mjs";
import { cases as flavours } from "./flavours.mjs";
import { cases as sqlDifferential } from "./sql-differential.mjs";
import { cases as background } from "./background.mjs";
import { cases as http } from "./http.mjs";
import { cases as rawHttp } from "./raw-http.mjs";
import { cases as gateway } from "./gateway.mjs";
import { cases as waiting } from "./waiting.mjs";
import { cases as websocket } from "./websocket.mjs";
import { cases as hibernation } from "./hibernation.mjs";
import { cases as browser } from "./browser.mjs";
import { cases as errors } from "./errors.mjs";
import { cases as faults } from "./faults.mjs";
import { cases as lostReplies } from "./lost-replies.mjs";
import { cases as oldInstance } from "./old-instance.mjs";
import { cases as management } from "./management.mjs";
import { cases as serverless } from "./serverless.mjs";
import { cases as serverlessPools } from "./serverless-pools.mjs";
import { cases as serverlessFaults } from "./serverless-faults.mjs";
import { cases as disk } from "./disk.mjs";
import { cases as engineRestart } from "./engine-restart.mjs";
import { cases as hostRestart } from "./host-restart.mjs";
import { cases as upgrade } from "./upgrade.mjs";
import { cases as launch } from "./launch.mjs";
import { cases as rustCrate } from "./rust-crate.mjs";

const topics = {
  actions,
  events,
  lifecycle,
  storage: [...storage, ...storageSdk, ...history],
  flavours: [...flavours, ...sqlDifferential],
  background,
  http,
  "raw-http": rawHttp,
  gateway,
  waiting,
  websocket,
  hibernation,
  browser,
  errors,
  management,
  faults: [...faults, ...lostReplies, ...oldInstance],
  serverless: [...serverless, ...serverlessPools, ...serverlessFaults],
  disk,
  "engine-restart": engineRestart,
  "host-restart": hostRestart,
  upgrade,
  launch,
  "rust-crate": rustCrate,
};

export const allCases = Object.entries(topics).flatMap(([topic, cases]) => cases.map((one) => ({ topic, ...one })));
