// One engine process: own ports, own data folder, clean environment.
import fs from "node:fs";
import path from "node:path";
import { Child } from "./child.mjs";
import { freePorts } from "./ports.mjs";
import { until } from "./wait.mjs";

/**
 * What rivetkit passes to an engine it starts itself, so that the suite sees the engine as users of the package do.
 * WORKER_CPU_MAX switches off the published engine's load shedding, which would otherwise fail cases on a busy machine.
 */
const SETTINGS = {
  RIVET__FEATURES__GUARD_GATEWAY_V3__MODE: "on",
  RIVET__FEATURES__GUARD_GATEWAY_V3__PERCENTAGE: "100",
  RIVET__PEGBOARD__BASE_RETRY_TIMEOUT: "100",
  RIVET__PEGBOARD__RETRY_RESET_DURATION: "100",
  RIVET__PEGBOARD__RESCHEDULE_BACKOFF_MAX_EXPONENT: "1",
  RIVET__PEGBOARD__RUNNER_ELIGIBLE_THRESHOLD: "5000",
  RIVET__PEGBOARD__RUNNER_LOST_THRESHOLD: "7000",
  RIVET__PEGBOARD__ENVOY_ELIGIBLE_THRESHOLD: "5000",
  RIVET__PEGBOARD__ENVOY_LOST_THRESHOLD: "7000",
  RIVET__PEGBOARD__MIN_METADATA_POLL_INTERVAL: "1000",
  RIVET__RUNTIME__WORKER_SHUTDOWN_DURATION: "1",
  RIVET__RUNTIME__GUARD_SHUTDOWN_DURATION: "1",
  RIVET__RUNTIME__FORCE_SHUTDOWN_DURATION: "2",
  RIVET__RUNTIME__WORKER_CPU_MAX: "64000",
};

const START_DEADLINE_MS = 30_000;
const STOP_DEADLINE_MS = 10_000;

export class Engine {
  /**
   * Reserves ports and a data folder below `folder`; nothing runs yet. `settings` go before the `preset`, which is that of
   * the suite unless another one is given.
   */
  static async prepare({ binary, folder, settings = {}, preset = SETTINGS }) {
    const engine = new Engine();
    engine.binary = binary;
    engine.settings = { ...preset, ...settings };
    engine.folder = folder;
    engine.logFile = path.join(folder, "engine.log");
    engine.port = await freePorts(3);
    engine.endpoint = `http://127.0.0.1:${engine.port}`;
    engine.child = null;
    fs.mkdirSync(path.join(folder, "data"), { recursive: true });
    return engine;
  }

  /** Starts the process on the same ports and data as before and waits until it answers its health route. */
  async start() {
    // Before the process exists, so that anything the engine stamps with a later time came from this process.
    this.startedAt = Date.now();
    const child = new Child({
      name: "engine",
      command: this.binary,
      args: ["start"],
      cwd: this.folder,
      logFile: this.logFile,
      env: {
        ...this.settings,
        HOME: this.folder,
        RIVET__GUARD__HOST: "127.0.0.1",
        RIVET__GUARD__PORT: String(this.port),
        RIVET__API_PEER__HOST: "127.0.0.1",
        RIVET__API_PEER__PORT: String(this.port + 1),
        RIVET__METRICS__HOST: "127.0.0.1",
        RIVET__METRICS__PORT: String(this.port + 2),
        RIVET__FILE_SYSTEM__PATH: path.join(this.folder, "data"),
        RIVET__TELEMETRY__ENABLED: "false",
      },
    });
    this.child = child;
    await until(
      "the engine's health route",
      async () => {
        if (!child.alive) return true;
        const answer = await fetch(`${this.endpoint}/health`);
        return (await answer.json()).runtime === "engine";
      },
      { deadlineMs: START_DEADLINE_MS },
    );
    if (!child.alive) throw new Error(`the engine ended while starting: ${child.exitText}`);
  }

  /** The sum of a metric over all its labels; null when there is no such metric. */
  async metric(name) {
    const answer = await fetch(`http://127.0.0.1:${this.port + 2}/metrics`);
    const lines = (await answer.text()).split("\n").filter((line) => /^[^ {]+/.exec(line)?.[0] === name);
    return lines.length === 0 ? null : lines.reduce((sum, line) => sum + Number(line.split(" ").at(-1)), 0);
  }

  /** Ends the process with `signal` and waits for its end; returns how it ended. */
  async stop(signal = "SIGTERM") {
    if (this.child === null || !this.child.alive) return null;
    return this.child.stop(signal, STOP_DEADLINE_MS);
  }
}
