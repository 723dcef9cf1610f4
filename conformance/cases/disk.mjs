// A disk that takes no more, and an actor that has used up what it may store.
import assert from "node:assert/strict";
import { rowText } from "../apps/storage.mjs";
import { leaveNothing, leaveRoom, makeRoom } from "../lib/disk.mjs";
import { assertWokenOnce } from "./lifecycle.mjs";

const ROW_BYTES = 2_000;
const ROOM_BYTES = 500_000;

/** Rows of one actor, of which it is known which were acknowledged. */
class Rows {
  constructor(sql) {
    this.sql = sql;
    this.last = 0;
  }

  /** Inserts rows in one transaction; null if that is acknowledged, else the error. */
  async add(count) {
    try {
      await this.sql.fill(this.last + 1, this.last + count, ROW_BYTES);
    } catch (error) {
      return error;
    }
    this.last += count;
    return null;
  }

  /** Inserts rows until that is refused. */
  async addUntilRefused(count) {
    let error = null;
    while (error === null) error = await this.add(count);
    return error;
  }

  /** Whatever was acknowledged is there, and nothing else. */
  async check() {
    const [found] = await this.sql.select("SELECT count(*) AS n, max(n) AS last, sum(length(body)) AS bytes FROM entry");
    assert.deepEqual(found, { n: this.last, last: this.last, bytes: this.last * ROW_BYTES });
    assert.deepEqual(await this.sql.select("PRAGMA integrity_check"), [{ integrity_check: "ok" }]);
    assert.deepEqual(await this.sql.select("SELECT body FROM entry WHERE n = ?", this.last), [
      { body: rowText(this.last, ROW_BYTES) },
    ]);
  }
}

const health = async (t) => (await t.api("GET", "/health")).json;

async function full(t) {
  // Its files are others, and what it does then is not known.
  if (t.reference) return;
  const sql = t.client.sql.getOrCreate(t.key("rows"));
  const counter = t.client.counter.getOrCreate(t.key("counter"));
  const rows = new Rows(sql);
  const reader = new Rows(t.client.sql.getOrCreate(t.key("reader")));
  t.doing("storing something while there is room");
  assert.equal(await rows.add(200), null);
  assert.equal(await reader.add(200), null);
  assert.equal(await counter.incrementDurably(5), 5);
  const [before, counterBefore] = [await sql.whoami(), await counter.whoami()];

  // Large transactions go in stages, small ones in one message; each size finds less room than the one before. What is
  // refused the host takes back with one more commit, which may find no room either: its database can only be read again
  // when that was stored.
  for (const count of [700, 100]) {
    t.doing(`inserting ${count} rows at a time until the disk is full`);
    leaveRoom(t.engine, ROOM_BYTES);
    await rows.addUntilRefused(count);
    await reader.check();
    makeRoom(t.engine);
    await rows.check();
  }
  t.doing("writing while there is no room at all");
  leaveNothing(t.engine);
  // The package says that this is saved although it hears that it is not; it keeps the change and saves it later.
  await counter.incrementDurably(1);
  assert.notEqual(await rows.add(1), null);
  await assert.rejects(t.client.counter.getOrCreate(t.key("late")).get(), (error) => {
    assert.deepEqual([error.group, error.code], ["store", "full"]);
    return true;
  });
  const sick = await health(t);
  assert.deepEqual([sick.runtime, sick.status, sick.store.code], ["engine", "ok", "full"]);
  t.doing("reading while there is no room at all");
  await reader.check();
  assert.equal(await counter.get(), 6);
  assert.deepEqual(await sql.whoami(), before, "a refused write costs no actor its instance");
  assert.deepEqual(await counter.whoami(), counterBefore);

  makeRoom(t.engine);
  await t.until("the engine to notice that there is room", async () => (await health(t)).store === undefined);
  t.doing("going on");
  assert.equal(await rows.add(400), null);
  await rows.check();
  assert.equal(await counter.incrementDurably(10), 16);
  assert.equal(await t.client.counter.getOrCreate(t.key("late")).get(), 0);
  await Promise.all([sql.nap(), counter.nap()]);
  await Promise.all([t.asleep(before.id), t.asleep(counterBefore.id)]);
  await rows.check();
  assert.equal(await counter.get(), 16);
  assertWokenOnce(before, await sql.whoami());
}

/** What hosts and clients want while nothing can be stored is not forgotten. */
async function fullAndAsleep(t) {
  // Its files are others, and what it does then is not known.
  if (t.reference) return;
  const [drowsy, asleep] = ["drowsy", "asleep"].map((name) => t.client.counter.getOrCreate(t.key(name)));
  for (const counter of [drowsy, asleep]) assert.equal(await counter.incrementDurably(3), 3);
  const [drowsyBefore, asleepBefore] = [await drowsy.whoami(), await asleep.whoami()];
  await asleep.nap();
  await t.asleep(asleepBefore.id);
  await t.hosting(1);
  leaveNothing(t.engine);
  t.doing("calling an actor whose sleep cannot be stored");
  await drowsy.nap();
  assert.equal(await drowsy.get(), 3);
  t.doing("calling an actor whose wake cannot be stored");
  const waiting = asleep.get();
  await t.until("the engine to notice that nothing can be stored", async () => (await health(t)).store?.code === "full");
  makeRoom(t.engine);
  assert.equal(await waiting, 3);
  assertWokenOnce(asleepBefore, await asleep.whoami());
  await t.asleep(drowsyBefore.id);
  assert.equal(await drowsy.get(), 3);
  assertWokenOnce(drowsyBefore, await drowsy.whoami());
}

const QUOTA_BYTES = 3 * 1024 * 1024;

async function quota(t) {
  const sql = t.client.sql.getOrCreate(t.key("quota"));
  const rows = new Rows(sql);
  const before = await sql.whoami();
  for (const count of [700, 50, 1]) {
    t.doing(`inserting ${count} rows at a time until the actor may store no more`);
    await rows.addUntilRefused(count);
    await rows.check();
  }
  const [{ page_count: pages }] = await sql.select("PRAGMA page_count");
  assert.ok(pages * 4096 > QUOTA_BYTES - 64 * 1024 && pages * 4096 <= QUOTA_BYTES, `${pages} pages`);
  t.doing("writing again what is there");
  await sql.select("UPDATE entry SET body = upper(body)");
  await sql.select("UPDATE entry SET body = lower(body)");
  await rows.check();
  t.doing("making room");
  await sql.select("DELETE FROM entry WHERE n > ?", rows.last / 2);
  rows.last = Math.floor(rows.last / 2);
  await rows.check();
  await sql.vacuum();
  await rows.check();
  const [{ page_count: after }] = await sql.select("PRAGMA page_count");
  assert.ok(after < pages * 0.6, `VACUUM gives back what is not needed: ${pages} pages, then ${after}`);
  assert.deepEqual(await sql.whoami(), before, "the same instance all along");
  t.doing("using the room, after a wake");
  await sql.nap();
  await t.asleep(before.id);
  assert.equal(await rows.add(700), null);
  await rows.check();
}

const shared = { stack: "own", encodings: "none" };

export const cases = [
  {
    ...shared,
    name: "disk-full",
    about: "writes are refused and cost nobody anything; with room again everything goes on, and nothing acknowledged is missing",
    run: full,
  },
  {
    ...shared,
    name: "disk-full-sleep",
    about: "a sleep and a wake that cannot be stored happen when there is room again",
    run: fullAndAsleep,
  },
  {
    ...shared,
    name: "storage-quota",
    about: "an actor at its storage limit goes on, can rewrite, delete and VACUUM, and then grow again",
    settings: { RIVET__SQLITE__MAX_STORAGE_BYTES: String(QUOTA_BYTES) },
    run: quota,
  },
];
