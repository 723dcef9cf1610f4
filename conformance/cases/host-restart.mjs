// The host ends; the engine and its data stay.
import assert from "node:assert/strict";

/** One running actor per encoding, with durable state and an open connection. */
async function prepare(t) {
  t.doing("preparing one actor for each encoding");
  return Promise.all(
    t.encodings.map(async (encoding) => {
      const counter = t.clientFor(encoding).counter.getOrCreate(t.key(encoding));
      await counter.incrementDurably(11);
      const connection = counter.connect();
      await connection.get();
      return { encoding, counter, connection, before: await counter.whoami() };
    }),
  );
}

async function assertMoved(t, actors, host, orderly) {
  for (const { encoding, counter, connection, before } of actors) {
    t.doing(`calling the actor on its new host (${encoding})`);
    assert.equal(await counter.get(), 11, "state moves along");
    const after = await counter.whoami();
    assert.equal(after.id, before.id);
    assert.equal(after.pid, host.child.pid, "the new host serves it");
    assert.equal(after.wakes, before.wakes + 1, "it was started once, not twice");
    // A killed host takes along what it had not saved yet, and that may include its newest connections.
    t.doing(`calling over ${orderly ? "the connection from before" : "a new connection"} (${encoding})`);
    assert.equal(await (orderly ? connection : counter.connect()).increment(1), 12);
  }
}

/** SIGTERM with a second host at hand. */
async function drain(t) {
  const actors = await prepare(t);
  t.doing("starting a second host");
  const second = await t.stack.addHost();
  t.doing("draining the first host");
  await t.host.stop("SIGTERM");
  await assertMoved(t, actors, second, true);
}

/** The only host ends with `signal`, and another one is started after it is gone. */
async function replace(t, signal) {
  const actors = await prepare(t);
  t.doing(`ending the host with ${signal}`);
  await t.host.stop(signal);
  t.doing("starting another host");
  const second = await t.stack.addHost();
  await assertMoved(t, actors, second, signal === "SIGTERM");
}

async function requestWaitsForHost(t) {
  const counter = t.client.counter.getOrCreate(t.key("waits"));
  const before = await counter.whoami();
  await counter.nap();
  await t.asleep(before.id);
  t.doing("ending the only host");
  await t.host.stop("SIGTERM");
  t.doing("calling the actor while no host is there");
  const answer = counter.whoami();
  answer.catch(() => {});
  const second = await t.stack.addHost();
  t.doing("waiting for the answer of the next host");
  assert.equal((await answer).pid, second.child.pid, "the request waited for a host");
}

const shared = { stack: "own", encodings: "together" };

export const cases = [
  {
    ...shared,
    name: "host-drain",
    about: "SIGTERM moves running actors to the other host",
    run: drain,
  },
  {
    ...shared,
    name: "host-restart-sigterm",
    about: "actors go on when the host is replaced",
    run: (t) => replace(t, "SIGTERM"),
  },
  {
    ...shared,
    name: "host-restart-sigkill",
    about: "actors go on when the host is killed and replaced",
    run: (t) => replace(t, "SIGKILL"),
    deadlineMs: 60_000,
  },
  {
    ...shared,
    name: "host-absent",
    about: "a request waits until a host appears",
    run: requestWaitsForHost,
    encodings: "none",
  },
];
