#!/usr/bin/env node
// Measures what actors and their data cost with the unmodified npm package, for one engine or for two in turn. See README.md.
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";

process.env.RIVET_LOG_LEVEL ??= "silent";
const { Bench } = await import("./lib/bench.mjs");
const { KeepAliveClient, observe, rate, residentMb, syncMs } = await import("./lib/measuring.mjs");
const { bulk, space } = await import("./lib/measuring-storage.mjs");
const { pause, until } = await import("./lib/wait.mjs");

const USAGE =
  "usage: node measure.mjs --engine PATH [--against PATH] [--only create|wake|idle|bulk|space] [--rounds N] [--clients N] " +
  "[--count N] [--setting NAME=VALUE]";
/** Clients, and how many actors they create or wake unless told otherwise. */
const COUNTS = new Map([
  [1, 40],
  [16, 160],
  [64, 320],
]);
/** Actors that are awake in the case `idle`, unless told otherwise. */
const AWAKE = 1_000;
/** Fresh actors whose space on disk is measured, unless told otherwise. */
const FRESH = 500;
/** For what an engine still does after all actors are asleep or awake. */
const SETTLE_MS = 3_000;
const IDLE_MS = 30_000;
const HTTP_REQUESTS = 200;
const MANY_MS = 15 * 60_000;

/** Actors that did not exist, and their first action. */
async function create(bench, { clients, count }) {
  const operation = (i) => bench.actor(`new${i}`).get();
  return [{ measured: `create, ${clients} clients`, ...(await rate(bench.pids, { count, clients, operation })) }];
}

/** Actors that sleep, and an action that wakes them. */
async function wake(bench, { clients, count }) {
  const before = await bench.prepare(count, async (actor) => {
    await actor.increment(1);
    return actor.look();
  });
  const slots = async () => (await bench.host.listing()).slots;
  const awake = await slots();
  await bench.prepare(count, (actor) => actor.nap());
  await until("all actors to sleep", async () => (await slots()) === awake - count, { deadlineMs: MANY_MS });
  await pause(SETTLE_MS);
  const operation = async (i) => {
    const after = await bench.actor(`a${i}`).look();
    if (after.count !== 1 || after.instance === before[i].instance) throw new Error(`actor ${i} was not woken`);
  };
  return [{ measured: `wake, ${clients} clients`, ...(await rate(bench.pids, { count, clients, operation })) }];
}

/** What the engine does for actors that are awake and have nothing to do, and how fast it answers beside them. */
async function idle(bench, { count: awake }) {
  const http = new KeepAliveClient(bench.engine.endpoint);
  const key = "rvt-namespace=default&rvt-method=getOrCreate&rvt-runner=default&rvt-key=first&rvt-crash-policy=sleep";
  const operation = () => http.post(`/gateway/plain/action/get?${key}`, { args: [] });
  const requests = () => rate(bench.pids, { count: HTTP_REQUESTS, clients: 1, operation });
  await requests();
  const results = [{ measured: "HTTP action, 1 awake", ...(await requests()) }];
  await bench.prepare(awake, (actor) => actor.get());
  await pause(SETTLE_MS);
  const observed = await observe(bench.pids, () => pause(IDLE_MS));
  const percent = (name) => (100 * observed.processorMs[name]) / observed.wallMs;
  results.push({
    measured: `idle, ${awake} awake`,
    engine_percent: percent("engine"),
    host_percent: percent("host"),
    engine_mb: residentMb(bench.pids.engine),
    others_percent: observed.othersPercent,
  });
  results.push({ measured: `HTTP action, ${awake} awake`, ...(await requests()) });
  http.close();
  return results;
}

function readOptions() {
  const { values } = parseArgs({
    options: {
      engine: { type: "string" },
      against: { type: "string" },
      rounds: { type: "string", default: "1" },
      only: { type: "string" },
      clients: { type: "string" },
      count: { type: "string" },
      setting: { type: "string", multiple: true, default: [] },
    },
  });
  if (values.engine === undefined) throw new Error("--engine is missing");
  const number = (text, otherwise) => (text === undefined ? otherwise : Number(text));
  const clients = values.clients === undefined ? [...COUNTS.keys()] : [Number(values.clients)];
  const starts = clients.map((clients) => ({ clients, count: number(values.count, COUNTS.get(clients) ?? 5 * clients) }));
  const sizes = { create: starts, wake: starts, idle: [{ count: number(values.count, AWAKE) }], bulk: [{}], space: [{ count: number(values.count, FRESH) }] };
  if (values.only !== undefined && sizes[values.only] === undefined) throw new Error(`there is no case ${values.only}`);
  const wanted = Object.keys(sizes).filter((name) => [undefined, name].includes(values.only));
  return {
    engines: Object.entries({ against: values.against, engine: values.engine }).filter(([, binary]) => binary),
    rounds: Number(values.rounds),
    settings: Object.fromEntries(values.setting.map((text) => text.split("=", 2))),
    cases: wanted.flatMap((name) => sizes[name].map((size) => ({ name, size }))),
  };
}

async function main({ engines, rounds, cases, settings }) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "measure-"));
  process.on("exit", () => fs.rmSync(folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 50 }));
  const steps = { create, wake, idle, bulk, space };
  let benches = 0;
  for (let round = 1; round <= rounds; round++) {
    for (const { name, size } of cases) {
      for (const [which, binary] of engines) {
        const bench = await Bench.start({
          binary: path.resolve(binary),
          folder: path.join(folder, String(benches++)),
          settings: which === "engine" ? settings : {},
        });
        try {
          for (const result of await steps[name](bench, size)) {
            console.log(JSON.stringify({ which, round, ...result, sync_ms: syncMs(folder) }));
          }
        } finally {
          await bench.stop();
        }
      }
    }
  }
}

for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => process.exit(130));
let options;
try {
  options = readOptions();
} catch (error) {
  console.error(`${error.message}\n${USAGE}`);
  process.exit(2);
}
await main(options);
process.exit(0);
