// Actors of serverless pools: the engine asks an HTTP endpoint to start each of them.
import assert from "node:assert/strict";
import { Inbox } from "../lib/sockets.mjs";
import { Backend, fieldsOf } from "../lib/serverless.mjs";
import { assertWokenOnce } from "./lifecycle.mjs";

/** What the SDK answers while the actor lives; it ends the request when the actor has stopped. */
export const isOpen = (start) => start.endedAt === undefined;

/** The id of the actor that a start request is about: 30 bytes after the version, the command and a length. */
export const actorOf = (start) => Buffer.from(start.begin, "hex").toString("latin1", 5, 35);

/** A handle for an actor of the backend's pool. */
const counterOf = (t, backend, label, encoding) => backend.client(encoding).counter.getOrCreate(t.key(label));

async function actors(t) {
  // What the application tells clients that know only its own address.
  const setup = () => ({ serverless: { publicEndpoint: t.engine.endpoint } });
  const backend = await Backend.create(t, { setup });
  const counters = t.encodings.map((encoding) => counterOf(t, backend, "first", encoding));
  t.doing("calling an actor with each encoding");
  assert.deepEqual(await Promise.all(counters.map((counter) => counter.increment(5))), counters.map(() => 5));
  t.doing("using connections");
  for (const counter of counters) {
    const connection = counter.connect();
    const events = [];
    connection.on("changed", (value) => events.push(value));
    assert.equal(await connection.increment(2), 7);
    assert.deepEqual(events, [7], "the event comes before the answer");
  }
  const { id, pid } = await counters[0].whoami();
  assert.equal(pid, backend.process.child.pid, "the endpoint's process serves it");
  t.doing("calling with a client that is given the application's address");
  assert.equal(await t.newClient(t.encodings[0], backend.url, backend.name).counter.getForId(id).get(), 7);
  const starts = await backend.starts();
  assert.equal(starts.length, counters.length, "one start request for each actor");
  assert.ok(starts.every(isOpen), "which stays open as long as the actor runs");
  const envoys = await backend.envoys();
  assert.deepEqual(
    envoys.map(({ slots, version }) => [slots, version]),
    [[counters.length, 1]],
    "one connection serves all of them",
  );
}

async function startRequest(t) {
  // The published engine sends the last of them besides its own, and the SDK believes it.
  const another = t.reference ? {} : { "x-rivet-pool-name": "another" };
  const headers = { "x-mine": "yes", "x-rivet-token": "of the pool", ...another };
  const backend = await Backend.create(t, { pool: { headers } });
  const counter = counterOf(t, backend, "headers");
  const { id } = await counter.whoami();
  const [start] = await backend.starts();
  assert.deepEqual([start.method, start.path], ["POST", "/api/rivet/start"]);
  const fields = new Map();
  for (const [name, value] of fieldsOf(start)) fields.set(name, [...(fields.get(name) ?? []), value]);
  assert.deepEqual(fields.get("x-mine"), ["yes"]);
  assert.deepEqual(fields.get("x-rivet-token"), ["of the pool"]);
  assert.deepEqual(fields.get("accept"), ["text/event-stream"]);
  assert.match(fields.get("user-agent")[0], /^RivetEngine\//);
  assert.deepEqual(fields.get("content-length"), [String(start.bytes)]);
  assert.equal(fields.has("content-type"), false);
  assert.deepEqual(fields.get("x-rivet-namespace-name"), ["default"]);
  assert.deepEqual(fields.get("x-rivet-pool-name"), [backend.name]);
  // The published engine names its default port, whatever it listens on.
  if (!t.reference) assert.deepEqual(fields.get("x-rivet-endpoint"), [`${t.engine.endpoint}/`]);
  // Protocol version 8, one command, the actor's id, generation 1, index 0.
  const begin = ["08000101", "1e", Buffer.from(id).toString("hex"), "01000000", "0000000000000000"].join("");
  assert.equal(start.begin.slice(0, begin.length), begin);
  t.doing("looking at the request for metadata");
  const [asked] = await backend.requests("metadata");
  assert.deepEqual([asked.method, asked.path], ["GET", "/api/rivet/metadata"]);
  assert.ok(fieldsOf(asked).some(([name, value]) => name === "x-mine" && value === "yes"));
}

async function sleepAndWake(t) {
  const backend = await Backend.create(t);
  const counter = counterOf(t, backend, "sleep");
  await counter.incrementDurably(3);
  const connection = counter.connect();
  assert.equal(await connection.get(), 3);
  const before = await counter.whoami();
  await counter.nap();
  await t.asleep(before.id);
  await t.until("its start request to end", async () => !(await backend.starts()).some(isOpen));
  t.doing("waking it with ten requests at once");
  const answers = await Promise.all(Array.from({ length: 10 }, () => counter.get()));
  assert.deepEqual(answers, Array(10).fill(3));
  assertWokenOnce(before, await counter.whoami());
  assert.equal((await backend.starts()).length, 2, "one start request for each of its lives");
  t.doing("calling over the connection from before");
  assert.equal(await connection.increment(1), 4);
}

async function wakesByAlarm(t) {
  const backend = await Backend.create(t);
  const timer = backend.client().timer.getOrCreate(t.key("alarm"));
  const before = await timer.whoami();
  const { due } = await timer.plan(1_500, "once");
  await timer.nap();
  await t.asleep(before.id);
  const [start, again] = await t.until("the engine to start it at the time of its alarm", async () => {
    const starts = await backend.starts();
    return starts.length > 1 && starts;
  });
  assert.equal(isOpen(start), false);
  assert.ok(again.at >= due - 100, "not before its time");
  const [{ at }] = await t.until("the scheduled action", async () => {
    const fired = await timer.fired();
    return fired.length > 0 && fired;
  });
  assert.ok(at >= due, "not before its time");
  assertWokenOnce(before, await timer.whoami());
}

async function destroyed(t) {
  const backend = await Backend.create(t);
  const [first, second] = ["by itself", "by the api"].map((label) => counterOf(t, backend, label));
  const ids = [(await first.whoami()).id, (await second.whoami()).id];
  t.doing("destroying two actors");
  await first.destroy();
  const answer = await t.api("DELETE", `/actors/${ids[1]}?namespace=default`);
  assert.equal(answer.status, 200);
  for (const id of ids) {
    await t.until("the record to be marked destroyed", async () => (await t.record(id)).destroy_ts !== null);
  }
  await t.until("the start requests to end", async () => !(await backend.starts()).some(isOpen));
  t.doing("using the keys again");
  for (const [handle, id] of [
    [first, ids[0]],
    [second, ids[1]],
  ]) {
    const after = await handle.whoami();
    assert.notEqual(after.id, id);
    assert.equal(after.wakes, 1);
  }
}

async function hibernation(t) {
  const backend = await Backend.create(t);
  const handle = backend.client().hibernating.getOrCreate(t.key("socket"));
  const inbox = new Inbox(await handle.webSocket("/room"));
  t.atEnd(() => inbox.socket.close());
  await inbox.opened;
  assert.equal(await inbox.ask("a"), "echo:a");
  const before = await handle.whoami();
  await handle.nap();
  await t.until("its start request to end", async () => !(await backend.starts()).some(isOpen));
  t.doing("sending to the socket of the sleeping actor");
  assert.equal(await inbox.ask("b"), "echo:b");
  assert.equal(await inbox.ask("c"), "echo:c");
  assertWokenOnce(before, await handle.whoami());
  const starts = await backend.starts();
  assert.equal(starts.length, 2);
  assert.equal(starts[1].bytes, starts[0].bytes + 8, "the second start request names the socket that waits");
}

/** Calls an actor without pause until `over`; returns how many calls were answered. */
async function keepCalling(counter, over) {
  for (let calls = 1; ; calls++) {
    assert.equal(await counter.incrementDurably(1), calls, "no call is lost or repeated");
    if (over()) return calls;
  }
}

async function lifespan(t) {
  const LIFESPAN = 3;
  const GRACE = 2;
  const ACTORS = 20;
  const backend = await Backend.create(t, { pool: { request_lifespan: LIFESPAN, drain_grace_period: GRACE } });
  // Streams stay open when their actor has stopped, so that the engine has to end them.
  await backend.behave("start", { kind: "hold" });
  const client = backend.client();
  const counters = Array.from({ length: ACTORS }, () => client.counter.getOrCreate(t.key("handover")));
  const began = Date.now();
  const before = await Promise.all(counters.map((counter) => counter.whoami()));
  t.doing(`calling ${ACTORS} actors while each is started anew`);
  const until = Date.now() + LIFESPAN * 1_000 + 500;
  const calls = await Promise.all(counters.map((counter) => keepCalling(counter, () => Date.now() > until)));
  assert.ok(Math.min(...calls) > 0);
  for (const [i, counter] of counters.entries()) {
    const after = await counter.whoami();
    assert.equal(after.id, before[i].id);
    assert.ok(after.wakes > before[i].wakes, "each was handed over");
  }
  const byActor = new Map();
  for (const start of await backend.starts()) {
    const id = actorOf(start);
    byActor.set(id, [...(byActor.get(id) ?? []), start]);
  }
  assert.equal(byActor.size, ACTORS);
  for (const [first, second] of byActor.values()) {
    const drain = second.at - began;
    assert.ok(drain >= (LIFESPAN - GRACE) * 1_000, `moved ${drain} ms after the first call, which is too early`);
    assert.ok(second.at <= first.endedAt, "the next start request comes before the end of the one before");
    // Both times are taken in a process that has a lot to do.
    const open = first.endedAt - first.at;
    assert.ok(open < LIFESPAN * 1_000 + 1_000, `a start request was open for ${open} ms`);
  }
}

const together = { encodings: "together" };
const once = { encodings: "none" };

export const cases = [
  {
    ...together,
    name: "serverless-actors",
    about: "calls, events and connections of actors that an HTTP endpoint starts",
    run: actors,
  },
  {
    ...once,
    name: "serverless-start-request",
    about: "method, path, header fields and body of a start request",
    run: startRequest,
  },
  {
    ...once,
    name: "serverless-sleep",
    about: "an actor that sleeps ends its start request; the next call makes another one",
    run: sleepAndWake,
  },
  {
    ...once,
    name: "serverless-alarm",
    about: "a sleeping actor is started for its alarm",
    run: wakesByAlarm,
  },
  {
    ...once,
    name: "serverless-destroy",
    about: "a destroyed actor is gone and its start request ends",
    run: destroyed,
  },
  {
    ...once,
    name: "serverless-hibernation",
    about: "a WebSocket outlives the sleep of its actor",
    run: hibernation,
  },
  {
    ...once,
    name: "serverless-lifespan",
    about: "at the end of their request's lifespan 20 actors are started anew while they are being called",
    run: lifespan,
  },
];
