// What the SDK asks of the storage, message by message, and large databases. SQLite runs in the host process here.
import assert from "node:assert/strict";
import { isStateSave } from "../lib/envoy.mjs";
import { assertWokenOnce } from "./lifecycle.mjs";

const MIB = 1024 * 1024;

/** Exchanges as short texts. */
function describe({ kind, operation, pages, first, size }) {
  switch (kind) {
    case "kv":
      return `kv ${operation}`;
    case "commit":
      return `commit ${ranges(pages)} of ${size}`;
    case "stage segment":
      return `stage segment ${first}: ${pages.length} pages`;
    case "get pages":
      return `get pages ${ranges(pages)}`;
    default:
      return kind;
  }
}

/** Numbers in ascending order as text: "1,4-6". */
function ranges(numbers) {
  const parts = [];
  for (const n of numbers) {
    const last = parts.at(-1);
    if (last?.to === n - 1) last.to = n;
    else parts.push({ from: n, to: n });
  }
  return parts.map(({ from, to }) => (from === to ? `${from}` : `${from}-${to}`)).join(",");
}

/** What was exchanged for an actor while `work` was done, without saves of its state. */
async function exchanged(t, actorId, work) {
  const before = t.tap.of(actorId).length;
  await work();
  return check(t.tap.of(actorId, before)).filter((one) => !isStateSave(one)).map(describe);
}

/** No storage message has failed; the last may not have been answered yet. */
function check(exchanges) {
  for (const one of exchanges) assert.equal(one.reply?.error ?? null, null, describe(one));
  return exchanges;
}

const FIRST_START = [
  "get pages 1-128",
  "commit 1-2 of 2",
  "commit 1-2 of 2",
  "commit 1-17 of 17",
  "commit 1-2 of 17",
  "kv get",
  "kv list",
  "kv list",
  "kv list",
  "kv list",
  "commit 2 of 17",
  "commit 3 of 17",
  "kv put",
  "commit 4-5 of 17",
];

async function counterMessages(t) {
  const counter = t.client.counter.getOrCreate(t.key("messages"));
  const before = await counter.whoami();
  const [opening, ...start] = t.tap.of(before.id);
  if (!t.reference) assert.deepEqual([opening.reply.error, opening.reply.bytes], [null, 16], "a new database has no pages");
  assert.deepEqual([opening, ...check(start)].slice(0, FIRST_START.length).map(describe), FIRST_START);
  assert.deepEqual(start.slice(FIRST_START.length - 1).filter((one) => !isStateSave(one)), []);
  t.doing("changing the state");
  assert.equal(await counter.incrementDurably(3), 3);
  assert.ok(isStateSave(t.tap.of(before.id).at(-1)));
  assert.deepEqual(await exchanged(t, before.id, () => counter.get()), [], "reading costs nothing");
  t.doing("sleeping and waking");
  const wake = await exchanged(t, before.id, async () => {
    await counter.nap();
    await t.asleep(before.id);
    assert.equal(await counter.get(), 3);
  });
  assert.deepEqual(wake, ["get pages 1-128", "commit 1,18 of 18"]);
  assertWokenOnce(before, await counter.whoami());
}

/** The token that opens an actor's inspector is what the dashboard reads from the actor's pairs. */
async function inspectorToken(t) {
  const counter = t.client.counter.getOrCreate(t.key("inspected"));
  assert.equal(await counter.incrementDurably(4), 4);
  const { id } = await counter.whoami();
  const inspect = (token) =>
    fetch(`${t.engine.endpoint}/gateway/${id}/inspector/state`, { headers: { authorization: `Bearer ${token}` } });
  assert.equal((await inspect("wrong")).status, 401);
  const key = encodeURIComponent(Buffer.from([3]).toString("base64"));
  const stored = await t.api("GET", `/actors/${id}/kv/keys/${key}?namespace=default`);
  assert.equal(stored.status, 200, stored.text);
  assert.ok(stored.json.update_ts <= Date.now());
  const answer = await inspect(Buffer.from(stored.json.value, "base64").toString());
  assert.equal(answer.status, 200);
  assert.equal((await answer.json()).state.count, 4);
}

async function otherMessages(t) {
  const diary = t.client.diary.getOrCreate(t.key("messages"));
  const { id } = await diary.whoami();
  const steps = [
    [() => diary.put("k", "v"), ["commit 17 of 18"]],
    [() => diary.get("k"), []],
    [() => diary.insert(1, "one"), ["commit 18 of 18"]],
    [() => diary.select("SELECT * FROM entry"), []],
    [() => diary.insertMany(2, 101, "many", false), ["commit 18 of 18"]],
    [() => diary.insertMany(102, 201, "undone", true).catch(() => {}), []],
  ];
  for (const [work, expected] of steps) assert.deepEqual(await exchanged(t, id, work), expected, String(work));
  t.doing("sending a job through the queue");
  const job = await exchanged(t, id, async () => {
    await diary.push(1);
    await t.until("the job to be done", async () => (await diary.memory()).jobs.length === 1);
  });
  // SQLite counts changes on page 1, once before and once again after a rollback.
  assert.deepEqual(job.slice(0, 2), ["commit 1,3,14-15 of 18", "commit 14-15 of 18"], "pushed and received");
  t.doing("scheduling an action");
  const plan = await exchanged(t, id, () => diary.plan(60_000, "never"));
  assert.equal(plan[0], "commit 6-7 of 18");
}

const ROW_BYTES = 4_000;

async function stagedMessages(t) {
  const sql = t.client.sql.getOrCreate(t.key("messages"));
  const { id } = await sql.whoami();
  t.doing("writing what fits into one commit, and what does not");
  assert.deepEqual(await exchanged(t, id, () => sql.fill(1, 300, ROW_BYTES)), ["commit 1,18-318 of 318"]);
  const staged = await exchanged(t, id, () => sql.fill(301, 700, ROW_BYTES));
  assert.deepEqual(
    staged.map((one) => one.replace(/\d+ pages/, "pages")),
    ["stage begin", "stage segment 0: pages", "stage segment 320: pages", "stage segment 640: pages", "finalize"],
  );
  t.doing("deleting all, and compacting");
  await sql.select("DELETE FROM entry");
  const vacuum = await exchanged(t, id, () => sql.vacuum());
  assert.deepEqual(vacuum, ["commit 1-18 of 720", "commit  of 18"]);
  assert.deepEqual(await sql.select("PRAGMA page_count"), [{ page_count: 18 }]);
  if (!t.reference) await readAhead(t, sql, id);
}

/** What SQLite reads next comes along with what it asks for: pages of the schema, of the list of free pages, of long rows. */
async function readAhead(t, sql, id) {
  await sql.fill(1, 300, ROW_BYTES);
  await sql.fill(301, 301, 10 * ROW_BYTES);
  for (const [waking, pages] of [["a database with more pages than are asked for at once", 0], ["one with free pages", 100]]) {
    t.doing(`waking ${waking}`);
    await sql.select(`DELETE FROM entry WHERE n BETWEEN 100 AND ${99 + pages}`);
    await sql.nap();
    await t.asleep(id);
    const [opening, selfTest, ...others] = await exchanged(t, id, () => sql.whoami());
    assert.deepEqual([opening, others], ["get pages 1-128", []]);
    assert.match(selfTest, /^commit 1,/);
  }
  t.doing("reading a row of ten pages");
  const read = await exchanged(t, id, () => sql.select("SELECT substr(body, -3) FROM entry WHERE n = 301"));
  assert.equal(read.length, 1, `the leaf, with the rest of the row: ${read}`);
}

async function hundredMebibytes(t) {
  const sql = t.client.sql.getOrCreate(t.key("large"));
  const rows = Math.ceil((100 * MIB) / ROW_BYTES);
  const { id } = await sql.whoami();
  t.doing("writing 100 MiB in one transaction");
  await sql.select(
    `INSERT INTO entry WITH RECURSIVE s(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM s WHERE n < ${rows})
     SELECT n, printf('%08d', n) || hex(zeroblob(${(ROW_BYTES - 8) / 2})) FROM s`,
  );
  for (const [direction, first] of [
    ["ASC", 1],
    ["DESC", rows],
  ]) {
    t.doing(`reading them back after a wake (${direction})`);
    await sql.nap();
    await t.asleep(id);
    // The limit keeps SQLite from leaving out the order.
    const scan = `SELECT n, body FROM entry ORDER BY n ${direction} LIMIT ${rows}`;
    const [found] = await sql.select(
      `SELECT count(*) AS rows, sum(length(body)) AS bytes, sum(substr(body, 1, 8) = n) AS good,
         (SELECT n FROM entry ORDER BY n ${direction} LIMIT 1) AS first FROM (${scan})`,
    );
    assert.deepEqual(found, { rows, bytes: rows * ROW_BYTES, good: rows, first });
  }
}

async function drizzle(t) {
  const library = t.client.library.getOrCreate(t.key("drizzle"));
  const before = await library.whoami();
  t.doing("using tables through drizzle");
  assert.equal(await library.add("Dune", 412), 1);
  assert.equal(await library.addAll([["Emma", 474], ["Ulysses", 730]]), 2);
  await assert.rejects(library.addAll([["Ghost", 100], ["Empty", 0]]));
  const books = [
    { id: 1, title: "Dune", pages: 412 },
    { id: 2, title: "Emma", pages: 474 },
    { id: 3, title: "Ulysses", pages: 730 },
  ];
  assert.deepEqual(await library.all(), books);
  await library.nap();
  await t.asleep(before.id);
  t.doing("waking the actor, whose migrations have run already");
  assert.deepEqual(await library.all(), books);
  assertWokenOnce(before, await library.whoami());
}

export const cases = [
  {
    name: "messages-counter",
    about: "each storage message of a first start, a state change, a sleep and a wake",
    stack: "tapped",
    encodings: "none",
    run: counterMessages,
  },
  { name: "inspector-token", about: "the actor's pair 03 opens its inspector", encodings: "none", run: inspectorToken },
  {
    name: "messages-others",
    about: "each storage message of KV, SQL, queue and schedule",
    stack: "tapped",
    encodings: "none",
    run: otherMessages,
  },
  {
    name: "messages-staged",
    about: "the largest single commit, staged commits, VACUUM, read-ahead",
    stack: "tapped",
    encodings: "none",
    run: stagedMessages,
  },
  {
    name: "hundred-mebibytes",
    about: "100 MiB in one transaction, read forwards and backwards after a wake",
    encodings: "none",
    deadlineMs: 60_000,
    run: hundredMebibytes,
  },
  { name: "drizzle", about: "migrations, queries and transactions of drizzle; after a wake", encodings: "none", run: drizzle },
];
