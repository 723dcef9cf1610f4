// The proxy of crates/testkit that misbehaves on command: one process, with a port for each thing it stands before.
import readline from "node:readline";
import { Child } from "./child.mjs";
import { within } from "./wait.mjs";

const ANSWER_DEADLINE_MS = 5_000;
const STOP_DEADLINE_MS = 5_000;

/** The process. See crates/testkit/src/bin/faulty-proxy.rs for its commands. */
export class ProxyProcess {
  constructor({ binary, folder, logFile }) {
    this.child = new Child({ name: "proxy", command: binary, args: [], cwd: folder, env: {}, logFile, talks: true });
    this.answers = new Map();
    this.nextId = 1;
    this.links = new Map();
    readline.createInterface({ input: this.child.process.stdout }).on("line", (line) => this.#heard(JSON.parse(line)));
    this.child.exited.then((text) => {
      for (const { reject } of this.answers.values()) reject(new Error(`the proxy ended: ${text}`));
    });
  }

  #heard(line) {
    if (line.id === undefined) {
      this.links.get(line.proxy)?.events.push(line);
      return;
    }
    const waiting = this.answers.get(line.id);
    this.answers.delete(line.id);
    if (line.error === undefined) waiting.resolve(line);
    else waiting.reject(new Error(`the proxy refused: ${line.error}`));
  }

  ask(command, deadlineMs = ANSWER_DEADLINE_MS) {
    const id = this.nextId++;
    const answer = new Promise((resolve, reject) => this.answers.set(id, { resolve, reject }));
    this.child.process.stdin.write(`${JSON.stringify({ id, ...command })}\n`);
    return within(`the proxy's answer to ${command.do}`, answer, deadlineMs);
  }

  /** Puts a proxy in front of a port of 127.0.0.1. */
  async inFrontOf(name, port) {
    const link = new Link(this, name);
    this.links.set(name, link);
    const { address } = await this.ask({ do: "listen", proxy: name, upstream: `127.0.0.1:${port}` });
    link.endpoint = `http://${address}`;
    return link;
  }

  async stop() {
    this.child.process.stdin.end();
    await this.child.stop("SIGTERM", STOP_DEADLINE_MS);
  }
}

/** One listening port of the proxy. Faults are texts like "cut:100", "reset:0", "stall", "half_open", "delay:200". */
export class Link {
  constructor(process, name) {
    this.process = process;
    this.name = name;
    /** What has happened: connections that opened and ended, and the steps of a disturbance. */
    this.events = [];
  }

  /** `scope`: "open", "next", "future" or "all"; `direction`: "up" (to the engine), "down" or "both". */
  set(scope, direction, fault) {
    return this.process.ask({ do: "set", proxy: this.name, scope, direction, fault });
  }

  look() {
    return this.process.ask({ do: "look", proxy: this.name });
  }

  /** Everything passes again; connections that have lost bytes for good are reset. */
  async heal() {
    await this.set("all", "both", "pass");
  }

  /** Random faults for a while; the seed makes the sequence. */
  disturb(seed, ms) {
    return this.process.ask({ do: "disturb", proxy: this.name, seed, ms }, ms + ANSWER_DEADLINE_MS);
  }

  get ended() {
    return this.events.filter(({ event }) => event === "ended");
  }
}
