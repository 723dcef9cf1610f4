// Backends of serverless pools: one process for a whole stack (apps/serverless.mjs), a registry and a port for each pool.
import { randomUUID } from "node:crypto";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { Child } from "./child.mjs";
import { call } from "./api.mjs";
import { freePorts } from "./ports.mjs";
import { until } from "./wait.mjs";

const APPLICATION = fileURLToPath(new URL("../apps/serverless.mjs", import.meta.url));
const START_DEADLINE_MS = 30_000;
const STOP_DEADLINE_MS = 5_000;

export class BackendProcess {
  static async start(folder, engine) {
    const backends = new BackendProcess();
    const port = await freePorts(1);
    backends.endpoint = `http://127.0.0.1:${port}`;
    backends.child = new Child({
      name: "serverless",
      command: process.execPath,
      args: [APPLICATION],
      cwd: folder,
      logFile: path.join(folder, "serverless.log"),
      env: {
        HOME: folder,
        CONTROL_PORT: String(port),
        // Without it the package takes its default, and starts the published engine there, whatever the next line says.
        RIVET_ENDPOINT: engine.endpoint,
        RIVETKIT_ENGINE_SPAWN: "never",
        RIVET_RUN_SERVICES: "0",
        RIVET_LOG_LEVEL: "warn",
      },
    });
    await until(
      "the process of the serverless backends",
      async () => !backends.child.alive || (await backends.command("ready")),
      { deadlineMs: START_DEADLINE_MS },
    );
    if (!backends.child.alive) throw new Error(`the backends' process ended at once: ${backends.child.exitText}`);
    return backends;
  }

  async command(command, details) {
    const answer = await call(this.endpoint, "POST", "/", { command, ...details });
    if (answer.status !== 200) throw new Error(`the serverless backends refused ${command}: ${answer.text}`);
    return answer.json;
  }

  stop(signal = "SIGKILL") {
    return this.child.stop(signal, STOP_DEADLINE_MS);
  }
}

/** What a pool's options are unless a case says otherwise. Times in seconds. */
const POOL = { request_lifespan: 120, drain_grace_period: 10 };

export class Backend {
  /**
   * Opens a backend for a pool of its own, and makes the pool known to the engine unless `pool` is null. `setup` gives
   * the registry's options.
   */
  static async create(t, { pool = {}, setup = () => ({}) } = {}) {
    const backend = new Backend();
    backend.t = t;
    backend.process = await t.stack.backends();
    backend.name = `serverless-${randomUUID().slice(0, 8)}`;
    const port = await freePorts(1);
    backend.origin = `http://127.0.0.1:${port}`;
    backend.url = `${backend.origin}/api/rivet`;
    // Whatever its own port is, the published engine names 6420 in start requests.
    const engine = t.reference ? t.engine.endpoint : null;
    backend.settings = { port, engine, options: setup(backend) };
    await backend.command("add", backend.settings);
    // With it the engine has nothing left to start, nor to ask.
    t.atEnd(async () => {
      await t.api("DELETE", `/runner-configs/${backend.name}?namespace=default`);
      if (backend.process.child.alive) await backend.command("close");
    });
    if (pool !== null) await backend.configure(pool);
    return backend;
  }

  command(command, details) {
    return this.process.command(command, { pool: this.name, ...details });
  }

  /** Says what the pool's options are, besides its URL. */
  async configure(options) {
    const answer = await this.put(options);
    if (answer.status !== 200) throw new Error(`the engine refused the pool: ${answer.text}`);
  }

  put(options) {
    const serverless = { url: this.url, ...POOL, ...options };
    const body = { datacenters: { default: { serverless } } };
    return this.t.api("PUT", `/runner-configs/${this.name}?namespace=default`, body);
  }

  /** The pool as the engine lists it. */
  async listing() {
    const answer = await this.t.api("GET", `/runner-configs?namespace=default&runner_name=${this.name}`);
    return answer.json.runner_configs[this.name]?.datacenters.default;
  }

  /** Its hosts' connections as the engine lists them. */
  async envoys() {
    return (await this.t.api("GET", `/envoys?namespace=default&name=${this.name}`)).json.envoys;
  }

  client(encoding = this.t.encodings[0]) {
    return this.t.newClient(encoding, this.t.engine.endpoint, this.name);
  }

  /**
   * Calls `get` of a counter once, without the npm client, which goes on for a minute while a pool fails. Returns the
   * error that the engine answers.
   */
  async refusal(key) {
    const query = new URLSearchParams({
      "rvt-namespace": "default",
      "rvt-method": "getOrCreate",
      "rvt-runner": this.name,
      "rvt-key": key.join(","),
      "rvt-crash-policy": "sleep",
    });
    const answer = await call(this.t.engine.endpoint, "POST", `/gateway/counter/action/get?${query}`, []);
    if (answer.status < 400) throw new Error(`the call was answered: ${answer.text}`);
    return answer.json;
  }

  /** How one of its routes (`start`, `metadata`) is answered from now on. */
  behave(route, behaviour) {
    return this.command("behave", { route, behaviour });
  }

  /** What it was asked, by the last part of the path; times are of this machine's clock. */
  async requests(route) {
    return (await this.command("requests")).filter((request) => request.route === route);
  }

  starts() {
    return this.requests("start");
  }

  close() {
    return this.command("close");
  }

  open() {
    return this.command("open");
  }

  /** Opens it again at its address, in a new process, after the end of the one that it was in. */
  async revive() {
    this.process = await this.t.stack.backends();
    await this.command("add", this.settings);
  }

  /** A new version of the application takes over; start requests that are open stay with the old one. */
  deploy(options) {
    return this.command("deploy", { options });
  }
}

/** A request's header fields as sent: pairs of name and value, in order. */
export function fieldsOf(request) {
  return Array.from({ length: request.headers.length / 2 }, (_, i) => request.headers.slice(2 * i, 2 * i + 2));
}
