// An engine with application hosts, in a folder of its own.
import fs from "node:fs";
import path from "node:path";
import { Browser } from "./browser.mjs";
import { Engine } from "./engine.mjs";
import { Host } from "./host.mjs";
import { ProxyProcess } from "./proxy.mjs";
import { Tap } from "./tap.mjs";
import { BackendProcess } from "./serverless.mjs";
import { logTail } from "./child.mjs";

/** Behind a proxy the engine soon notices that a host has fallen silent. */
const FAULTY_SETTINGS = {
  RIVET__PEGBOARD__ENVOY_UPDATE_PING_INTERVAL: "300",
  RIVET__PEGBOARD__ENVOY_PING_TIMEOUT: "1500",
};

export class Stack {
  /**
   * Starts an engine and one host below `folder`, which must not exist yet. With a `proxy` binary the host reaches the
   * engine through the stack's `hostLink`, and clients may through its `clientLink`. If it is `tapped`, the host reaches the
   * engine through the stack's `tap`. `settings` are the engine's, `rustLedger` is the program of apps/rust-ledger.
   */
  static async start({
    binary,
    rustLedger,
    folder,
    proxy = null,
    tapped = false,
    settings = proxy === null ? {} : FAULTY_SETTINGS,
  }) {
    fs.mkdirSync(folder, { recursive: true });
    const stack = new Stack();
    stack.folder = folder;
    stack.rustLedger = rustLedger;
    stack.hosts = [];
    stack.startedBrowser = null;
    stack.startedBackends = null;
    stack.proxy = null;
    stack.tap = null;
    stack.engine = await Engine.prepare({ binary, folder, settings });
    try {
      await stack.engine.start();
      if (proxy !== null) await stack.startProxy(proxy);
      if (tapped) stack.tap = await Tap.inFrontOf(stack.engine.port);
      stack.host = await stack.addHost();
    } catch (error) {
      error.message += `\n${stack.logTails().join("\n")}`;
      await stack.stop("SIGKILL");
      throw error;
    }
    return stack;
  }

  async startProxy(binary) {
    const logFile = path.join(this.folder, "proxy.log");
    this.proxy = new ProxyProcess({ binary, folder: this.folder, logFile });
    this.clientLink = await this.proxy.inFrontOf("clients", this.engine.port);
    this.hostLink = await this.proxy.inFrontOf("hosts", this.engine.port);
  }

  /** Starts one more host process for the same actors; `options` are those of `Host`. */
  async addHost(options = {}) {
    const host = new Host({
      engine: this.engine,
      folder: this.folder,
      name: `host-${this.hosts.length + 1}`,
      endpoint: (this.tap ?? this.hostLink)?.endpoint,
      rustLedger: this.rustLedger,
      ...options,
    });
    this.hosts.push(host);
    await host.start();
    return host;
  }

  /** A browser; started by the first case that wants one, and kept for the others. */
  async browser() {
    if (this.startedBrowser?.child.alive !== true) this.startedBrowser = await Browser.start(this.folder);
    return this.startedBrowser;
  }

  /** The process that serves serverless pools; started by the first case that wants one, and kept for the others. */
  async backends() {
    if (this.startedBackends?.child.alive !== true) this.startedBackends = await BackendProcess.start(this.folder, this.engine);
    return this.startedBackends;
  }

  /** Whether both processes are there and the engine answers. */
  async healthy() {
    if (!this.engine.child.alive || !this.host.child.alive || this.proxy?.child.alive === false) return false;
    try {
      return (await fetch(`${this.engine.endpoint}/health`, { signal: AbortSignal.timeout(2_000) })).ok;
    } catch {
      return false;
    }
  }

  logFiles() {
    const names = fs.readdirSync(this.folder).filter((name) => name.endsWith(".log"));
    return names.map((name) => path.join(this.folder, name));
  }

  /** Marks the present end of all logs; `logTails(mark)` then shows only what came later. */
  logMark() {
    return new Map(this.logFiles().map((file) => [file, fs.statSync(file).size]));
  }

  logTails(mark = new Map()) {
    return this.logFiles().flatMap((file) => logTail(file, mark.get(file) ?? 0));
  }

  async stop(signal = "SIGTERM") {
    await this.startedBrowser?.stop();
    await this.startedBackends?.stop();
    await Promise.all(this.hosts.map((host) => host.stop(signal)));
    await this.engine.stop(signal);
    await this.proxy?.stop();
    await this.tap?.stop();
  }
}
