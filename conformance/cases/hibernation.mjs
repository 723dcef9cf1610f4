// Sockets whose actor sleeps, is destroyed, or loses its engine.
import assert from "node:assert/strict";
import WebSocket from "ws";
import { Inbox } from "../lib/sockets.mjs";
import { assertWokenOnce } from "./lifecycle.mjs";

/** A plain WebSocket to an actor, which sees every close as it is on the wire. */
async function open(t, handle, path = "/room") {
  t.doing("opening a WebSocket");
  const target = new URL(await handle.getGatewayUrl());
  const socket = new WebSocket(`ws://${target.host}${target.pathname}/websocket${path}${target.search}`, ["rivet"]);
  t.atEnd(() => socket.terminate());
  const inbox = new Inbox(socket);
  await inbox.opened;
  return inbox;
}

async function sleep(t, handle) {
  const before = await handle.whoami();
  await handle.nap();
  await t.asleep(before.id);
  return before;
}

const closes = (log) => log.filter((line) => line.startsWith("close"));

async function burstOfCalls(t) {
  const handle = t.client.counter.getOrCreate(t.key("burst"));
  const connection = handle.connect();
  assert.equal(await connection.increment(1), 1);
  const before = await sleep(t, handle);
  t.doing("calling the sleeping actor five times at once");
  const results = await Promise.all([10, 100, 1_000, 10_000, 100_000].map((by) => connection.increment(by)));
  // Calls that are made at once run in any order, also on an actor that is awake.
  const sums = results.toSorted((a, b) => a - b);
  assert.equal(new Set(results).size, 5);
  assert.equal(sums.at(-1), 111_111, "each once");
  assertWokenOnce(before, await connection.whoami());
  await sleep(t, handle);
  assert.equal(await connection.get(), 111_111, "and never again");
}

async function twoSockets(t) {
  const handle = t.client.hibernating.getOrCreate(t.key("two"));
  const [first, second] = [await open(t, handle, "/a"), await open(t, handle, "/b")];
  assert.equal(await first.ask("a"), "echo:a");
  assert.equal(await second.ask("b"), "echo:b");
  const before = await sleep(t, handle);
  t.doing("sending to both sockets of the sleeping actor");
  for (let n = 0; n < 5; n++) {
    first.socket.send(`a${n}`);
    second.socket.send(`b${n}`);
  }
  for (let n = 0; n < 5; n++) {
    assert.equal(await first.next(), `echo:a${n}`);
    assert.equal(await second.next(), `echo:b${n}`);
  }
  assertWokenOnce(before, await handle.whoami());
  t.doing("leaving one of them");
  second.socket.close(4005, "enough");
  assert.deepEqual(await second.closed, { code: 4005, reason: "enough" });
  await sleep(t, handle);
  assert.equal(await first.ask("still"), "echo:still");
  assert.deepEqual(closes(await handle.log()), ["close 4005 enough"]);
}

async function closeWhileAsleep(t) {
  const handle = t.client.hibernating.getOrCreate(t.key("close"));
  const inbox = await open(t, handle);
  assert.equal(await inbox.ask("x"), "echo:x");
  const before = await sleep(t, handle);
  t.doing("closing the socket of the sleeping actor");
  inbox.socket.close(4004, "good night");
  assert.deepEqual(await inbox.closed, { code: 4004, reason: "good night" });
  await t.until("the actor to hear of it", async () => closes(await handle.log()).length > 0);
  assert.deepEqual(closes(await handle.log()), ["close 4004 good night"]);
  assertWokenOnce(before, await handle.whoami());
}

async function destroyWhileAsleep(t) {
  const key = t.key("destroyed");
  const handle = t.client.hibernating.getOrCreate(key);
  const inbox = await open(t, handle);
  assert.equal(await inbox.ask("x"), "echo:x");
  const { id } = await sleep(t, handle);
  t.doing("destroying the sleeping actor");
  const answer = await t.api("DELETE", `/actors/${id}?namespace=default`);
  assert.equal(answer.status, 200);
  const { code, reason } = await inbox.closed;
  assert.equal(code, 1011);
  assert.match(reason, /^actor\.not_found#[0-9a-z]{30}$/);
  const listed = await t.api("GET", `/actors?namespace=default&name=hibernating&key=${encodeURIComponent(key.join("/"))}`);
  assert.deepEqual(listed.json.actors, [], "none was created in its place");
}

/** The engine ends with open sockets; the host goes on, and its actors hear that their clients are gone. */
async function engineEnds(t, signal) {
  const scenes = {
    plain: t.client.raw.getOrCreate(t.key("plain")),
    hibernating: t.client.hibernating.getOrCreate(t.key("hibernating")),
    closed: t.client.raw.getOrCreate(t.key("closed")),
    asleep: t.client.hibernating.getOrCreate(t.key("asleep")),
  };
  const counter = t.client.counter.getOrCreate(t.key("connection"));
  const inboxes = {};
  for (const [name, handle] of Object.entries(scenes)) {
    inboxes[name] = await open(t, handle);
    for (const text of ["1", "2", "3"]) assert.equal(await inboxes[name].ask(text), `echo:${text}`);
  }
  inboxes.closed.socket.close(4001, "bye");
  await inboxes.closed.closed;
  const connection = counter.connect();
  await connection.get();
  await t.until("the connection", async () => (await counter.connections()) === 2);
  await sleep(t, scenes.asleep);
  const before = {};
  for (const name of ["plain", "hibernating", "closed"]) before[name] = await scenes[name].whoami();
  // Sockets are noted without waiting for the disk; what is durable later takes them along.
  await counter.incrementDurably(1);
  t.doing(`ending the engine with ${signal}`);
  await t.engine.stop(signal);
  // It must not come back with the engine.
  await connection.dispose();
  await t.engine.start();
  await t.host.reconnected();
  for (const name of ["plain", "hibernating"]) {
    const handle = scenes[name];
    await t.until(`the ${name} actor to hear that its client is gone`, async () => closes(await handle.log()).length > 0);
    assert.deepEqual(closes(await handle.log()), ["close 1011 ws.downstream_closed"]);
    assert.deepEqual(await handle.whoami(), before[name], "it never stopped");
  }
  assert.deepEqual(closes(await scenes.closed.log()), ["close 4001 bye"], "told once");
  // The call is a connection of its own.
  await t.until("the old connection to be gone", async () => (await counter.connections()) === 1);
  await t.until("the woken actor to hear it, too", async () => closes(await scenes.asleep.log()).length > 0);
  assert.deepEqual(closes(await scenes.asleep.log()), ["close 1011 ws.downstream_closed"]);
  t.doing("connecting anew");
  for (const handle of Object.values(scenes)) {
    const inbox = await open(t, handle);
    assert.equal(await inbox.ask("again"), "echo:again");
  }
}

export const cases = [
  {
    name: "hibernation-burst",
    about: "five calls over the connection of a sleeping actor run once each",
    run: burstOfCalls,
  },
  {
    name: "hibernation-two-sockets",
    about: "two sockets of one sleeping actor, one of which leaves later",
    encodings: "none",
    run: twoSockets,
  },
  {
    name: "hibernation-close",
    about: "a close during sleep reaches the actor with its code, and no second open",
    encodings: "none",
    run: closeWhileAsleep,
  },
  {
    name: "hibernation-destroy",
    about: "the socket of an actor that is destroyed during sleep is closed",
    encodings: "none",
    run: destroyWhileAsleep,
  },
  {
    name: "hibernation-engine-killed",
    about: "after kill -9 of the engine the actors hear that their clients are gone",
    encodings: "none",
    stack: "own",
    run: (t) => engineEnds(t, "SIGKILL"),
  },
  {
    name: "hibernation-engine-stopped",
    about: "the same after an orderly end",
    encodings: "none",
    stack: "own",
    run: (t) => engineEnds(t, "SIGTERM"),
  },
];
