// The application host: serves every actor of this folder with the published package, configured by its environment.
import { setup } from "rivetkit";
import { caller, journey, timer, worker } from "./background.mjs";
import { counter, napper } from "./counter.mjs";
import { failing } from "./failing.mjs";
import { guarded } from "./guarded.mjs";
import { ledger } from "./ledger.mjs";
import { lingering } from "./lingering.mjs";
import { migrant } from "./migrant.mjs";
import { plain } from "./plain.mjs";
import { hibernating, raw } from "./raw.mjs";
import { kv, sql } from "./storage.mjs";
import { nonStarter, slowStarter } from "./unready.mjs";
import { wire } from "./wire.mjs";

const registry = setup({
  use: {
    counter,
    napper,
    plain,
    failing,
    guarded,
    ledger,
    lingering,
    migrant,
    sql,
    kv,
    worker,
    timer,
    caller,
    journey,
    raw,
    hibernating,
    nonStarter,
    slowStarter,
    wire,
  },
  noWelcome: true,
});
registry.start();
