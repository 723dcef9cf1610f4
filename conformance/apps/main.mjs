// The application host: serves every actor of this folder with the published package, configured by its environment.
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { setup } from "rivetkit";
import WebSocket from "ws";
import { caller, journey, timer, worker } from "./background.mjs";
import { counter, napper } from "./counter.mjs";
import { diary } from "./diary.mjs";
import { failing } from "./failing.mjs";
import { guarded } from "./guarded.mjs";
import { heavy } from "./heavy.mjs";
import { ledger } from "./ledger.mjs";
import { library } from "./library.mjs";
import { lingering } from "./lingering.mjs";
import { migrant } from "./migrant.mjs";
import { plain } from "./plain.mjs";
import { hibernating, raw } from "./raw.mjs";
import { shaky } from "./shaky.mjs";
import { kv, sql } from "./storage.mjs";
import { nonStarter, slowStarter } from "./unready.mjs";
import { stubborn } from "./stubborn.mjs";
import { vault } from "./vault.mjs";
import { wire } from "./wire.mjs";

const { APP_SQLITE: sqlite, RIVETKIT_RUNTIME: runtime } = process.env;

/** What the WebAssembly build expects of its surroundings: a file that Node.js does not fetch, and a WebSocket before Node 22. */
function prepareWasm() {
  globalThis.WebSocket ??= WebSocket;
  const module = import.meta.resolve("@rivetkit/rivetkit-wasm/rivetkit_wasm_bg.wasm");
  return { initInput: { module_or_path: readFileSync(fileURLToPath(module)) } };
}

const registry = setup({
  sqlite,
  wasm: runtime === "wasm" ? prepareWasm() : undefined,
  use: {
    counter,
    napper,
    diary,
    plain,
    failing,
    guarded,
    heavy,
    ledger,
    shaky,
    library,
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
    stubborn,
    vault,
    wire,
  },
  noWelcome: true,
});
registry.start();
