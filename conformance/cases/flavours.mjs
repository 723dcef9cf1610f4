// Everything an actor stores, with each flavour of the SDK: SQLite in the host process, or SQL that the engine executes.
import assert from "node:assert/strict";
import { assertWokenOnce } from "./lifecycle.mjs";

const ROWS = 20;

/** What `first` to `last` were inserted as. */
const rowsOf = (first, last, body) => Array.from({ length: last - first + 1 }, (_, i) => ({ n: first + i, body }));

const allRows = (diary) => diary.select("SELECT n, body FROM entry ORDER BY n");

async function sleepAndWake(t, diary) {
  const before = await diary.whoami();
  await diary.nap();
  await t.asleep(before.id);
  t.doing("waking the actor");
  assertWokenOnce(before, await diary.whoami());
}

async function useSql(t, diary) {
  t.doing("using SQL");
  await diary.insertMany(1, ROWS, "kept", false);
  await assert.rejects(diary.insertMany(ROWS + 1, 2 * ROWS, "undone", true));
  await assert.rejects(diary.insert(1, "twice"));
  assert.deepEqual(await allRows(diary), rowsOf(1, ROWS, "kept"), "a failed transaction leaves no trace");
  const values = "SELECT NULL AS a, 7 AS b, 1.5 AS c, 'żółć 🐸' AS d, ? AS e, '' AS f";
  assert.deepEqual(await diary.select(values, "x"), [{ a: null, b: 7, c: 1.5, d: "żółć 🐸", e: "x", f: "" }]);
  await assert.rejects(diary.select("SELEC 1"));
}

async function useRest(t, diary) {
  t.doing("changing the state");
  assert.equal(await diary.note("one"), 1);
  t.doing("using KV");
  assert.equal(await diary.get("k"), null);
  await diary.put("k", "v1");
  await diary.put("k", "v2");
  assert.equal(await diary.get("k"), "v2");
  t.doing("sending jobs through the queue");
  await diary.push(1);
  await diary.push(2);
  await t.until("the jobs to be done", async () => (await diary.memory()).jobs.length === 2);
}

/** A scheduled action that becomes due while the actor sleeps starts it. */
async function useSchedule(t, diary) {
  t.doing("scheduling an action");
  const before = await diary.whoami();
  const record = await t.record(before.id);
  const due = await diary.plan(700, "alarm");
  await diary.nap();
  await t.startedAgain(record);
  assert.ok(Date.now() >= due);
  await t.until("the scheduled action", async () => (await diary.memory()).rung.length === 1);
  assertWokenOnce(before, await diary.whoami());
}

async function checkAll(t, diary) {
  t.doing("checking what is stored");
  assert.deepEqual(await diary.memory(), { notes: ["one"], rung: ["alarm"], jobs: [1, 2] });
  assert.deepEqual(await allRows(diary), rowsOf(1, ROWS, "kept"));
  assert.equal(await diary.get("k"), "v2");
  assert.deepEqual(await diary.select("PRAGMA integrity_check"), [{ integrity_check: "ok" }]);
}

/** Starts a host of a flavour in a pool of its own, and returns a client for that pool. */
async function clientOfNewHost(t, flavour) {
  t.doing(`starting a host of flavour ${flavour}`);
  // The WebAssembly build does not make its pool known to the engine by itself.
  await t.api("PUT", `/runner-configs/${flavour}?namespace=default`, { datacenters: { default: { normal: {} } } });
  const host = await t.stack.addHost({ flavour, pool: flavour });
  return { host, client: t.newClient("bare", t.engine.endpoint, flavour) };
}

export async function journey(t, flavour) {
  const { client } = await clientOfNewHost(t, flavour);
  const diary = client.diary.getOrCreate(t.key("diary"));
  t.doing("creating an actor");
  await diary.whoami();
  await useSql(t, diary);
  await useRest(t, diary);
  await sleepAndWake(t, diary);
  await useSchedule(t, diary);
  await checkAll(t, diary);
  await sleepAndWake(t, diary);
  await checkAll(t, diary);
  const { id } = await diary.whoami();
  const families = new Set(t.tap.of(id).map(({ family }) => family));
  assert.deepEqual([...families].sort(), ["kv", "sql"], "the engine executes all SQL");
}

/** One actor goes from flavour to flavour: each finds what the others have stored, and adds to it. */
export async function handOver(t, flavours) {
  const diary = t.client.diary.getOrCreate(t.key("handed-over"));
  assert.equal(t.host.flavour, flavours[0]);
  let host = t.host;
  for (const [i, flavour] of flavours.entries()) {
    if (i > 0) {
      t.doing(`replacing the host of flavour ${host.flavour} by one of flavour ${flavour}`);
      await host.stop();
      host = await t.stack.addHost({ flavour });
    }
    t.doing(`using the actor in flavour ${flavour}`);
    const before = flavours.slice(0, i);
    assert.equal((await diary.whoami()).wakes, i + 1);
    assert.deepEqual(await allRows(diary), before.map((body, at) => ({ n: at + 1, body })));
    assert.deepEqual((await diary.memory()).notes, before);
    assert.equal(await diary.get("flavour"), before.at(-1) ?? null);
    await diary.insert(i + 1, flavour);
    await diary.note(flavour);
    await diary.put("flavour", flavour);
    assert.deepEqual(await diary.select("PRAGMA integrity_check"), [{ integrity_check: "ok" }]);
  }
}

const INSERTS = 60;

/** Inserts rows until so many are acknowledged; meanwhile the engine is killed, once, and started again. */
async function insertAmidKill(t, diary, host) {
  const acknowledged = [];
  let restart = null;
  for (let n = 1; acknowledged.length < INSERTS; n++) {
    try {
      await diary.insert(n, "kept");
      acknowledged.push(n);
    } catch (error) {
      if (restart === null) throw error;
      await restart;
    }
    if (acknowledged.length === INSERTS / 2) restart ??= killEngine(t, host);
  }
  await restart;
  return acknowledged;
}

async function killEngine(t, host) {
  t.doing(`killing the engine amid inserts of a host of flavour ${host.flavour}`);
  await t.engine.stop("SIGKILL");
  await t.engine.start();
  await host.reconnected();
}

/** SQL that the engine executes itself, and a `kill -9` of the engine. */
export async function survivesKill(t, flavour) {
  const { host, client } = await clientOfNewHost(t, flavour);
  const diary = client.diary.getOrCreate(t.key("diary"));
  const acknowledged = await insertAmidKill(t, diary, host);
  t.doing("checking the rows");
  const stored = (await allRows(diary)).map(({ n }) => n);
  const lost = acknowledged.filter((n) => !stored.includes(n));
  assert.deepEqual(lost, [], "what was acknowledged is there");
  assert.deepEqual(await diary.select("PRAGMA integrity_check"), [{ integrity_check: "ok" }]);
  await sleepAndWake(t, diary);
  assert.deepEqual((await allRows(diary)).map(({ n }) => n), stored);
}

export const cases = [
  {
    name: "flavour-remote",
    about: "npm package, SQL executed by the engine: state, SQL, KV, queue, schedule, sleep, wake",
    stack: "tapped",
    encodings: "none",
    run: (t) => journey(t, "remote"),
  },
  {
    name: "flavour-wasm",
    about: "the same with the WebAssembly build of the npm package",
    stack: "tapped",
    encodings: "none",
    run: (t) => journey(t, "wasm"),
  },
  {
    name: "flavours-hand-over",
    about: "one actor with SQLite in the host, in the engine, and in the host again",
    stack: "own",
    encodings: "none",
    run: (t) => handOver(t, ["local", "remote", "local"]),
  },
  {
    name: "flavours-engine-killed",
    about: "`kill -9` of the engine amid inserts that it executes itself",
    stack: "own",
    encodings: "none",
    run: (t) => survivesKill(t, "remote"),
  },
];
