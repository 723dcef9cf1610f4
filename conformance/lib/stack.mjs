// An engine with application hosts, in a folder of its own.
import fs from "node:fs";
import path from "node:path";
import { Engine } from "./engine.mjs";
import { Host } from "./host.mjs";
import { logTail } from "./child.mjs";

export class Stack {
  /** Starts an engine and one host below `folder`, which must not exist yet. */
  static async start({ binary, folder }) {
    fs.mkdirSync(folder, { recursive: true });
    const stack = new Stack();
    stack.folder = folder;
    stack.hosts = [];
    stack.engine = await Engine.prepare({ binary, folder });
    try {
      await stack.engine.start();
      stack.host = await stack.addHost();
    } catch (error) {
      error.message += `\n${stack.logTails().join("\n")}`;
      await stack.stop("SIGKILL");
      throw error;
    }
    return stack;
  }

  /** Starts one more host process for the same actors. */
  async addHost() {
    const host = new Host({
      engine: this.engine,
      folder: this.folder,
      name: `host-${this.hosts.length + 1}`,
    });
    this.hosts.push(host);
    await host.start();
    return host;
  }

  /** Whether both processes are there and the engine answers. */
  async healthy() {
    if (!this.engine.child.alive || !this.host.child.alive) return false;
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
    await Promise.all(this.hosts.map((host) => host.stop(signal)));
    await this.engine.stop(signal);
  }
}
