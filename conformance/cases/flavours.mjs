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

function journey(flavour) {
  return async (t) => {
    t.doing(`starting a host of flavour ${flavour}`);
    // The WebAssembly build does not make its pool known to the engine by itself.
    await t.api("PUT", `/runner-configs/${flavour}?namespace=default`, { datacenters: { default: { normal: {} } } });
    await t.stack.addHost({ flavour, pool: flavour });
    const client = t.newClient("bare", t.engine.endpoint, flavour);
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
  };
}

const FLAVOURS = {
  remote: "npm package, SQL executed by the engine",
  wasm: "WebAssembly build of the npm package",
};

export const cases = Object.entries(FLAVOURS).map(([flavour, what]) => ({
  name: `flavour-${flavour}`,
  about: `${what}: state, SQL, KV, queue, schedule, sleep, wake`,
  encodings: "none",
  run: journey(flavour),
}));
