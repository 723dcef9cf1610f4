// The engine ends and starts again on its data; the hosts keep running.
import assert from "node:assert/strict";
import { assertWokenOnce } from "./lifecycle.mjs";

/** Stops the engine, starts it again and waits until the host, which kept running, is back. */
async function restartEngine(t, signal) {
  t.doing(`stopping the engine with ${signal}`);
  const ended = await t.engine.stop(signal);
  if (signal === "SIGTERM") assert.equal(ended, "exit code 0", "SIGTERM is an orderly end");
  t.doing("starting the engine again");
  await t.engine.start();
  t.doing("waiting for the host to reconnect");
  await t.host.reconnected();
}

async function survives(t, signal) {
  const scenes = t.encodings.map((encoding) => {
    const client = t.clientFor(encoding);
    return {
      awake: client.counter.getOrCreate(t.key("awake")),
      asleep: client.counter.getOrCreate(t.key("asleep")),
    };
  });
  t.doing("preparing one actor that is awake, with a connection, and one that sleeps, for each encoding");
  for (const scene of scenes) {
    await scene.awake.incrementDurably(5);
    await scene.asleep.incrementDurably(7);
    scene.before = await scene.awake.whoami();
    scene.sleeper = await scene.asleep.whoami();
    await scene.awake.connect().get();
    await scene.asleep.nap();
  }
  // The sleepers have left the host, so that no commit of theirs is under way when the engine ends.
  await t.hosting(scenes.length);
  const hostPid = t.host.child.pid;
  await restartEngine(t, signal);
  for (const [i, scene] of scenes.entries()) {
    t.doing(`calling the actor that was awake (${t.encodings[i]})`);
    assert.equal(await scene.awake.get(), 5);
    assert.deepEqual(
      await scene.awake.whoami(),
      scene.before,
      "a host that comes back in time keeps its actors in memory",
    );
    t.doing(`calling the actor that slept (${t.encodings[i]})`);
    assert.equal(await scene.asleep.get(), 7);
    assertWokenOnce(scene.sleeper, await scene.asleep.whoami());
    // The client gives its old connection up when the engine is away for more than one of its attempts.
    t.doing(`using a new connection (${t.encodings[i]})`);
    const connection = scene.awake.connect();
    const events = [];
    connection.on("changed", (value) => events.push(value));
    assert.equal(await connection.increment(1), 6);
    assert.deepEqual(events, [6]);
  }
  assert.equal(t.host.child.pid, hostPid);
  assert.ok(t.host.child.alive, "the host was never restarted");
}

async function alarmDuringOutage(t) {
  const timer = t.client.timer.getOrCreate(t.key("outage"));
  const before = await timer.whoami();
  const { due } = await timer.plan(2_000, "overdue");
  await timer.nap();
  await t.hosting(0);
  await t.engine.stop("SIGKILL");
  await t.until("the alarm to become due while no engine runs", () => Date.now() > due);
  t.doing("starting the engine again");
  await t.engine.start();
  await t.host.reconnected();
  await t.running(before.id);
  await t.until("the overdue action", async () => (await timer.fired()).length === 1);
  assertWokenOnce(before, await timer.whoami());
}

/** What actors own beside their state, read by instances that have never had it in memory. */
async function killAsleep(t) {
  const names = ["kv", "worker", "timer", "library"];
  const [kv, worker, timer, library] = names.map((name) => t.client[name].getOrCreate(t.key(name)));
  t.doing("storing pairs, jobs, a schedule, and tables through drizzle");
  await kv.put("k", "v");
  await kv.putBytes("bytes", [0, 255]);
  for (const n of [1, 2]) await worker.push("kept", { n });
  await timer.plan(600_000, "far");
  assert.equal(await library.addAll([["Dune", 412], ["Emma", 474]]), 2);
  const actors = [kv, worker, timer, library];
  const before = await Promise.all(actors.map((actor) => actor.whoami()));
  for (const [i, actor] of actors.entries()) {
    await actor.nap();
    await t.asleep(before[i].id);
  }
  await t.hosting(0);
  await restartEngine(t, "SIGKILL");
  t.doing("reading all of it after the restart");
  assert.deepEqual([await kv.get("k"), await kv.getBytes("bytes")], ["v", [0, 255]]);
  assert.deepEqual([await worker.take(), await worker.take(), await worker.take()], [{ n: 1 }, { n: 2 }, null]);
  assert.equal((await timer.pending()).length, 1);
  const books = await library.all();
  assert.deepEqual(books.map(({ title }) => title), ["Dune", "Emma"]);
  for (const [i, actor] of actors.entries()) assertWokenOnce(before[i], await actor.whoami());
}

const WRITERS = 8;
const ROWS_PER_WRITER = 250;

/** Inserts until `ROWS_PER_WRITER` rows are acknowledged; a row that failed is never tried again, the next one is. */
async function write(writer, engineBack, acknowledged) {
  for (let n = 1; writer.rows.length < ROWS_PER_WRITER; n++) {
    writer.attempted = n;
    try {
      await writer.sql.insert(n, `row ${n}`);
      writer.rows.push(n);
      acknowledged();
    } catch {
      writer.failed += 1;
      await engineBack();
    }
  }
}

async function killUnderLoad(t) {
  const writers = Array.from({ length: WRITERS }, (_, i) => {
    const client = t.clientFor(t.encodings[i % t.encodings.length]);
    return { sql: client.sql.getOrCreate(t.key(`writer-${i}`)), rows: [], attempted: 0, failed: 0 };
  });
  t.doing("starting the writers");
  await Promise.all(writers.map((writer) => writer.sql.whoami()));
  const total = WRITERS * ROWS_PER_WRITER;
  let count = 0;
  let restart = null;
  const acknowledged = () => {
    count += 1;
    if (count % 100 === 0) t.doing(`inserting rows, ${count} of ${total} acknowledged`);
    if (count === total / 2) restart = restartEngine(t, "SIGKILL");
  };
  // Before the kill no insert may fail at all: then there is no restart to wait for, and the case fails.
  const engineBack = async () => {
    assert.notEqual(restart, null, "an insert failed while the engine was running");
    await restart;
  };
  await Promise.all(writers.map((writer) => write(writer, engineBack, acknowledged)));
  await restart;
  assert.ok(t.host.child.alive, "the same host process goes on");

  for (const writer of writers) {
    await checkWriter(t, writer);
    // The host may answer from memory; after a wake the rows can only come from the engine.
    const before = await writer.sql.whoami();
    await writer.sql.nap();
    await t.asleep(before.id);
    await checkWriter(t, writer);
    assertWokenOnce(before, await writer.sql.whoami());
  }
}

async function checkWriter(t, writer) {
  t.doing("reading the rows back");
  const rows = await writer.sql.select("SELECT n, body FROM entry ORDER BY n");
  const found = new Set(rows.map((row) => row.n));
  assert.deepEqual(
    writer.rows.filter((n) => !found.has(n)),
    [],
    "every acknowledged row is there",
  );
  assert.ok(
    rows.every((row) => row.n <= writer.attempted && row.body === `row ${row.n}`),
    "and nothing else",
  );
  assert.ok(rows.length <= writer.rows.length + writer.failed);
  assert.deepEqual(await writer.sql.select("PRAGMA integrity_check"), [{ integrity_check: "ok" }]);
}

const shared = { stack: "own", encodings: "together" };

export const cases = [
  {
    ...shared,
    name: "engine-restart-sigterm",
    about: "actors, sleepers and connections survive an orderly restart",
    run: (t) => survives(t, "SIGTERM"),
  },
  {
    ...shared,
    name: "engine-restart-sigkill",
    about: "the same after kill -9",
    run: (t) => survives(t, "SIGKILL"),
  },
  {
    ...shared,
    name: "engine-restart-belongings",
    about: "`c.kv`, queue, schedule and drizzle of actors that slept during a kill -9",
    run: killAsleep,
    encodings: "none",
  },
  {
    ...shared,
    name: "engine-restart-alarm",
    about: "an alarm that came due without an engine fires after the restart",
    run: alarmDuringOutage,
    encodings: "none",
  },
  {
    ...shared,
    name: "engine-kill-under-load",
    about: `kill -9 amid ${WRITERS * ROWS_PER_WRITER} inserts: no acknowledged row is missing`,
    run: killUnderLoad,
    deadlineMs: 60_000,
  },
];
