// Events from an actor to its connections.
import assert from "node:assert/strict";

const CLIENTS = 5;
const BURST = 50;
const CROWD = 200;
const CROWD_BURST = 100;

/** A connection that is subscribed to `name` for certain: the actor's answer comes after the subscription was read. */
async function subscriber(handle, name) {
  const connection = handle.connect();
  const received = [];
  const stop = connection.on(name, (...args) => received.push(args));
  await connection.get();
  return { connection, received, stop };
}

async function broadcast(t) {
  const handle = t.client.counter.getOrCreate(t.key("events"));
  t.doing(`opening ${CLIENTS} subscribed connections`);
  const everyone = await Promise.all(Array.from({ length: CLIENTS }, () => subscriber(handle, "tick")));
  const deaf = await subscriber(handle, "changed");
  t.doing("broadcasting");
  await handle.burst(BURST);
  await t.until(`all ${CLIENTS} clients to have all ${BURST} events`, () =>
    everyone.every((one) => one.received.length >= BURST),
  );
  const expected = Array.from({ length: BURST }, (_, i) => [i, `event ${i}`]);
  for (const one of everyone) assert.deepEqual(one.received, expected, "each client has every event once, in order");
  assert.deepEqual(deaf.received, [], "a client gets only what it subscribed to");
}

async function crowd(t) {
  const handle = t.client.counter.getOrCreate(t.key("crowd"));
  t.doing(`opening ${CROWD} subscribed connections`);
  const everyone = await Promise.all(Array.from({ length: CROWD }, () => subscriber(handle, "tick")));
  t.doing("broadcasting");
  await handle.burst(CROWD_BURST);
  await t.until(`all ${CROWD} clients to have all ${CROWD_BURST} events`, () =>
    everyone.every((one) => one.received.length >= CROWD_BURST),
  );
  const expected = Array.from({ length: CROWD_BURST }, (_, i) => [i, `event ${i}`]);
  for (const one of everyone) assert.deepEqual(one.received, expected, "each client has every event once, in order");
}

async function eventBeforeAnswer(t) {
  const handle = t.client.counter.getOrCreate(t.key("order"));
  const { connection, received } = await subscriber(handle, "changed");
  t.doing("calling an action that broadcasts");
  for (let n = 1; n <= 10; n++) {
    assert.equal(await connection.increment(1), n);
    assert.deepEqual(received.at(-1), [n], "the event of an action arrives before its answer");
  }
}

async function targeted(t) {
  const handle = t.client.counter.getOrCreate(t.key("targeted"));
  const [speaker, bystander] = await Promise.all([subscriber(handle, "whisper"), subscriber(handle, "whisper")]);
  t.doing("sending an event to one connection");
  await speaker.connection.whisper("psst");
  await t.until("the event", () => speaker.received.length > 0);
  assert.deepEqual(speaker.received, [["psst"]]);
  await bystander.connection.get();
  assert.deepEqual(bystander.received, [], "nobody else hears it");
}

async function unsubscribe(t) {
  const handle = t.client.counter.getOrCreate(t.key("unsubscribe"));
  const one = await subscriber(handle, "changed");
  t.doing("receiving one event and unsubscribing");
  await one.connection.increment(1);
  assert.deepEqual(one.received, [[1]]);
  one.stop();
  // The first call follows the end of the subscription on the wire; an event of it would precede the second answer.
  await one.connection.increment(1);
  await one.connection.get();
  assert.deepEqual(one.received, [[1]]);
}

export const cases = [
  {
    name: "event-broadcast",
    about: `${CLIENTS} clients each get ${BURST} events in order`,
    run: broadcast,
  },
  {
    name: "event-burst",
    about: `${CROWD} clients each get ${CROWD_BURST} events in order`,
    encodings: "none",
    run: crowd,
  },
  {
    name: "event-before-answer",
    about: "an action's event precedes its answer",
    run: eventBeforeAnswer,
  },
  {
    name: "event-targeted",
    about: "an event for one connection reaches only that one",
    run: targeted,
  },
  { name: "event-unsubscribe", about: "no events after unsubscribing", run: unsubscribe },
];
