// One application host: a Node process with an unmodified rivetkit that serves the actors of apps/.
import path from "node:path";
import { fileURLToPath } from "node:url";
import { Child } from "./child.mjs";
import { call } from "./api.mjs";
import { until } from "./wait.mjs";

export const APPLICATION = fileURLToPath(new URL("../apps/main.mjs", import.meta.url));
/**
 * What a host may be: the npm package with SQLite in the host process ("local", the default), the same with SQL executed by
 * the engine ("remote"), its WebAssembly build, which knows nothing but the latter ("wasm"), or the application on the Rust
 * crate, which by default does so, too ("rust").
 */
const FLAVOURS = {
  local: {},
  remote: { APP_SQLITE: "remote" },
  // The package hands the WebAssembly build any engine binary that it finds, and that build then refuses to start.
  wasm: { APP_SQLITE: "remote", RIVETKIT_RUNTIME: "wasm", RIVET_ENGINE_BINARY: "/none" },
  rust: {},
};

const START_DEADLINE_MS = 30_000;
// Longer than the 15 s that rivetkit gives the actors of a draining host.
const STOP_DEADLINE_MS = 20_000;

export class Host {
  /**
   * `endpoint`: where the host finds the engine, if not at the engine's own address. `version`: the build number of the
   * application on it. `pool`: whose actors it runs. `rustLedger`: the program of apps/rust-ledger.
   */
  constructor({
    engine,
    folder,
    name = "host",
    endpoint = engine.endpoint,
    version = 1,
    flavour = "local",
    pool = "default",
    rustLedger = null,
  }) {
    this.engine = engine;
    this.endpoint = endpoint;
    this.version = version;
    this.flavour = flavour;
    this.program = flavour === "rust" ? [rustLedger, []] : [process.execPath, [APPLICATION]];
    this.pool = pool;
    this.folder = folder;
    this.logFile = path.join(folder, `${name}.log`);
    this.name = name;
    this.child = null;
    this.envoyKey = null;
  }

  async envoys() {
    const answer = await call(this.engine.endpoint, "GET", `/envoys?namespace=default&name=${this.pool}`);
    return answer.json.envoys;
  }

  /** Starts the process and waits until the engine lists a host connection that was not there before. */
  async start() {
    const before = new Set((await this.envoys()).map((envoy) => envoy.envoy_key));
    const [command, args] = this.program;
    this.child = new Child({
      name: this.name,
      command,
      args,
      cwd: this.folder,
      logFile: this.logFile,
      env: {
        ...FLAVOURS[this.flavour],
        HOME: this.folder,
        RIVET_ENDPOINT: this.endpoint,
        RIVET_POOL: this.pool,
        // So the Rust crate calls it.
        RIVET_POOL_NAME: this.pool,
        RIVET_ENVOY_VERSION: String(this.version),
        RIVETKIT_ENGINE_SPAWN: "never",
        RIVET_RUN_SERVICES: "0",
        RIVET_LOG_LEVEL: "warn",
      },
    });
    this.envoyKey = await until(
      `${this.name} to be listed by the engine`,
      async () => {
        if (!this.child.alive) return "ended";
        return (await this.envoys()).map((envoy) => envoy.envoy_key).find((key) => !before.has(key));
      },
      { deadlineMs: START_DEADLINE_MS },
    );
    if (!this.child.alive) throw new Error(`${this.name} ended while starting: ${this.child.exitText}`);
  }

  /** Waits until this host, which kept running, is connected to an engine that was started again. */
  async reconnected(deadlineMs = 20_000) {
    await until(
      `${this.name} to reconnect to the restarted engine`,
      async () => {
        const mine = await this.listing();
        return mine !== undefined && mine.last_ping_ts >= this.engine.startedAt;
      },
      { deadlineMs },
    );
  }

  /** The engine's record of this host's connection. */
  async listing() {
    return (await this.envoys()).find((envoy) => envoy.envoy_key === this.envoyKey);
  }

  async stop(signal = "SIGTERM") {
    if (this.child === null || !this.child.alive) return null;
    return this.child.stop(signal, STOP_DEADLINE_MS);
  }
}
