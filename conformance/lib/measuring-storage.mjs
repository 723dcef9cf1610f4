// What an actor's data costs: time to write and read much of it, and space on the disk.
import fs from "node:fs";
import path from "node:path";
import { observe } from "./measuring.mjs";
import { pause, until } from "./wait.mjs";

const MIB = 1024 * 1024;
const PAGE_BYTES = 4_096;
/** Pages of a new actor's database, made by the package (counted by the engine's own tools). */
const FRESH_PAGES = 17;
/** Rows of the two tables that are read cold: small ones, and ones that take several pages each. */
const SHAPES = [
  { what: "rows of 1,000 bytes", rows: Math.ceil((50 * MIB) / 1_000), bytes: 1_000 },
  { what: "rows of 64 KiB", rows: 800, bytes: 65_536 },
];

/** Bytes that a folder takes on the disk. */
function diskBytes(folder) {
  return fs
    .readdirSync(folder, { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile())
    .reduce((sum, entry) => sum + fs.statSync(path.join(entry.parentPath, entry.name)).blocks * 512, 0);
}

/** Actors that run on the host. */
async function slots(bench) {
  return (await bench.host.listing()).slots;
}

/** One operation inside an actor, and what the engine and the host needed for it. */
async function once(bench, measured, operation) {
  let answer;
  const { processorMs, wallMs, othersPercent } = await observe(bench.pids, async () => {
    answer = await operation();
  });
  const costs = { wall_ms: wallMs, engine_ms: processorMs.engine, host_ms: processorMs.host, others_percent: othersPercent };
  return { measured, in_actor_ms: answer.ms ?? answer, ...costs };
}

/** A row of 10 MiB, and 50 MiB that are read by an actor that has just woken. */
export async function bulk(bench) {
  const heavy = (key) => bench.client.heavy.getOrCreate([key]);
  await heavy("row").fill(1, 1_000);
  const results = [await once(bench, "insert of 10 MiB in one row", () => heavy("row").fill(1, 10 * MIB))];
  for (const { what, rows, bytes } of SHAPES) {
    const actor = heavy(what);
    await actor.scan();
    results.push(await once(bench, `insert of 50 MiB, ${what}`, () => actor.fill(rows, bytes)));
    const awake = await slots(bench);
    await actor.nap();
    await until("the actor to sleep", async () => (await slots(bench)) === awake - 1);
    const woken = await once(bench, `cold scan of 50 MiB, ${what}, and the wake`, async () => {
      const scanned = await actor.scan();
      if (scanned.bytes !== rows * bytes) throw new Error(`${scanned.bytes} bytes were read`);
      return scanned;
    });
    results.push(woken);
  }
  return results;
}

/** Disk space of actors that have just been made, for each byte of their pages. */
export async function space(bench, { count }) {
  const folder = path.join(bench.engine.folder, "data");
  const before = diskBytes(folder);
  await bench.prepare(count, (actor) => actor.get());
  await pause(3_000);
  const bytes = diskBytes(folder) - before;
  return [{ measured: `disk, ${count} fresh actors`, bytes, bytes_per_page_byte: bytes / (count * FRESH_PAGES * PAGE_BYTES) }];
}
