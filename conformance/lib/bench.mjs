// What measurements stand on: an engine with an empty data folder, an application host, and a client.
import fs from "node:fs";
import { createClient } from "rivetkit/client";
import { Engine } from "./engine.mjs";
import { Host } from "./host.mjs";
import { rate } from "./measuring.mjs";
import { until } from "./wait.mjs";

/** The published engine puts work off on a busy machine unless it believes to have many cores. Ours takes no notice. */
const PRESET = { RIVET__RUNTIME__WORKER_CPU_MAX: "64000" };
/** What is prepared and not measured is done by so many clients. */
const PREPARING = 8;

export class Bench {
  static async start({ binary, folder, settings }) {
    fs.mkdirSync(folder, { recursive: true });
    const bench = new Bench();
    bench.engine = await Engine.prepare({ binary, folder, settings, preset: PRESET });
    await bench.engine.start();
    bench.host = new Host({ engine: bench.engine, folder });
    await bench.host.start();
    bench.client = createClient({ endpoint: bench.engine.endpoint, encoding: "bare", disableMetadataLookup: true });
    // The published engine needs a moment before it takes the first actor.
    await until("a first action", async () => (await bench.actor("first").get()) === 0);
    return bench;
  }

  get pids() {
    return { engine: this.engine.child.pid, host: this.host.child.pid };
  }

  actor(key) {
    return this.client.plain.getOrCreate([key]);
  }

  /** Calls the actors `a0` to `a(count - 1)`, which creates those that are new; returns their answers. */
  async prepare(count, call) {
    const answers = [];
    const operation = async (i) => {
      answers[i] = await call(this.actor(`a${i}`));
    };
    await rate(this.pids, { count, clients: PREPARING, operation });
    return answers;
  }

  async stop() {
    await this.client.dispose().catch(() => {});
    await this.host.stop("SIGKILL");
    await this.engine.stop("SIGKILL");
  }
}
