#!/usr/bin/env node
// The part of the crash suite that runs on the published npm package: applications that write while somebody else kills the
// engine. `cargo xtask torture` starts it. Orders come as lines of JSON on standard input; each is answered with one line,
// which has the counts of all writes, the ids of the actors, and a `violation` if there is one:
//
//   {"do":"audit"}                               the engine is up: waits for the host, starts one if there is none, compares
//   {"do":"load"}                                begins to write; answered when each writer has had an answer
//   {"do":"down","killedAt":MS,"hostDies":BOOL}  the engine was killed then
import fs from "node:fs";
import path from "node:path";
import readline from "node:readline";
import { parseArgs } from "node:util";

process.env.RIVET_LOG_LEVEL ??= "silent";
const { createClient } = await import("rivetkit/client");
const { call } = await import("./lib/api.mjs");
const { Host } = await import("./lib/host.mjs");
const { VaultWriter } = await import("./lib/vault-writer.mjs");
const { until, within } = await import("./lib/wait.mjs");

const ACTORS = 3;
/** rivetkit waits twice as long after each loss of its connection: a host that has lost it so often is replaced. */
const LOSSES_MAX = 2;
const ENCODINGS = ["bare", "cbor", "json"];
const DEADLINE_MS = 40_000;

class Load {
  constructor({ endpoint, folder, seed }) {
    /** What a host wants to know of an engine. */
    this.engine = { endpoint, startedAt: 0 };
    this.folder = path.join(folder, "sdk");
    fs.mkdirSync(this.folder);
    this.host = null;
    this.hosts = 0;
    this.losses = 0;
    this.actors = new Set();
    this.writers = Array.from({ length: ACTORS }, (_, i) => {
      const client = createClient({ endpoint, encoding: ENCODINGS[i % ENCODINGS.length] });
      return new VaultWriter(client.vault.getOrCreate([`vault-${i}`]), seed + i);
    });
  }

  async audit() {
    const isNew = this.host === null;
    if (isNew) {
      this.host = new Host({ engine: this.engine, folder: this.folder, name: `host-${++this.hosts}` });
      await this.host.start();
      this.losses = 0;
    } else {
      await this.host.reconnected();
    }
    await Promise.all(this.writers.map((writer) => this.#auditOne(writer, isNew)));
  }

  async #auditOne(writer, isNew) {
    // An instance that has kept its memory would answer from it. It may be ending: the reply to its last commit was lost.
    if (!isNew) await until("an actor to take a nap", () => this.#nap(writer), { deadlineMs: DEADLINE_MS });
    const found = await writer.handle.audit();
    this.actors.add(found.id);
    writer.check(found);
    await writer.forget();
  }

  async #nap({ handle }) {
    const { id, instance } = await handle.whoami();
    await handle.nap();
    await until(`actor ${id} to be asleep`, async () => {
      const answer = await call(this.engine.endpoint, "GET", `/actors?namespace=default&actor_ids=${id}`);
      return answer.json.actors[0].sleep_ts !== null;
    });
    return instance !== (await handle.whoami()).instance;
  }

  async load() {
    await Promise.all(this.writers.map((writer) => writer.load()));
  }

  async down({ killedAt, hostDies }) {
    this.losses += 1;
    if (hostDies || this.losses > LOSSES_MAX) {
      await this.host.stop("SIGKILL");
      this.host = null;
    }
    await Promise.all(this.writers.map((writer) => writer.ended(killedAt)));
    // A connection that is older than this was made to the engine before.
    this.engine.startedAt = Date.now();
  }

  get counts() {
    const sum = { hosts: this.hosts };
    for (const { counts } of this.writers) {
      for (const [name, count] of Object.entries(counts)) sum[name] = (sum[name] ?? 0) + count;
    }
    return sum;
  }
}

const { values } = parseArgs({
  options: { endpoint: { type: "string" }, folder: { type: "string" }, seed: { type: "string" } },
});
const load = new Load({ ...values, seed: Number(values.seed) });
const orders = { audit: () => load.audit(), load: () => load.load(), down: (order) => load.down(order) };

// Whoever gives the orders is gone. The host goes with this process.
process.stdin.once("end", () => process.exit(0));
for await (const line of readline.createInterface({ input: process.stdin })) {
  const order = JSON.parse(line);
  let violation;
  try {
    await within(`the order ${order.do}`, orders[order.do](order), DEADLINE_MS);
  } catch (error) {
    const code = error.group === undefined ? "" : ` (${error.group}.${error.code})`;
    violation = `npm package, ${order.do}: ${error.stack}${code}`;
  }
  console.log(JSON.stringify({ counts: load.counts, actors: [...load.actors], violation }));
}
