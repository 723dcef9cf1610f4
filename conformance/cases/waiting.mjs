// Requests that do not wait until their actor is ready, and what a client may say of itself.
import assert from "node:assert/strict";
import { Inbox } from "../lib/sockets.mjs";
import { assertWokenOnce } from "./lifecycle.mjs";

async function earlyRequests(t) {
  const key = t.key("early");
  const handle = t.client.lingering.getOrCreate(key);
  const before = await handle.whoami();
  await handle.nap();
  await t.asleep(before.id);
  t.doing("sending requests to an actor on its way to sleep");
  const patient = handle.fetch("/who");
  // With an id these go to the root, and name the actor in headers and subprotocols.
  for (const one of [t.client.lingering.getForId(before.id), handle]) {
    const answer = await one.fetch("/who", { skipReadyWait: true });
    assert.deepEqual(await answer.json(), before, "answered by the instance that is falling asleep");
    const inbox = new Inbox(await one.webSocket("/room", undefined, { skipReadyWait: true }));
    t.atEnd(() => inbox.socket.close());
    await inbox.opened;
    assert.equal(await inbox.ask("early"), "echo:early");
  }
  t.doing("letting the actor fall asleep");
  await handle.fetch("/release", { skipReadyWait: true });
  assertWokenOnce(before, await (await patient).json());
}

async function parameterLimit(t) {
  const key = t.key("params");
  const sized = (bytes) => {
    const params = { p: "x".repeat(bytes - '{"p":""}'.length) };
    return t.client.lingering.getOrCreate(key, { params });
  };
  t.doing("sending 4 KiB of parameters");
  const largest = sized(4_096);
  assert.equal((await largest.fetch("/who")).status, 200);
  const connection = largest.connect();
  assert.equal((await connection.whoami()).id, await largest.resolve());
  await connection.dispose();
  // The published engine has no limit.
  if (t.reference) return;
  t.doing("sending one byte more");
  const refused = { group: "guard", code: "connection_params_too_large" };
  const tooLarge = sized(4_097);
  const answer = await tooLarge.fetch("/who");
  assert.equal(answer.status, 400);
  assert.deepEqual((await answer.json()).metadata, { size: 4_097, max_size: 4_096 });
  await assert.rejects(tooLarge.whoami(), refused);
  const { code, reason } = await new Inbox(await tooLarge.webSocket("/room")).closed;
  assert.deepEqual([code, reason.split("#")[0]], [1011, "guard.connection_params_too_large"]);
  const unwanted = tooLarge.connect();
  const heard = await new Promise((resolve) => unwanted.onError(resolve));
  assert.deepEqual({ group: heard.group, code: heard.code }, refused);
  await unwanted.dispose();
}

/** Fails with this error, and tells in the engine's words what was in the way. */
async function assertTold(t, promise, { code, words, metadata }) {
  await assert.rejects(promise, (error) => {
    assert.deepEqual([error.group, error.code], ["guard", code]);
    // The published engine says no more than that.
    if (t.reference) return true;
    assert.ok(error.message.includes(words), `${error.message} does not say: ${words}`);
    for (const [name, value] of Object.entries(metadata)) assert.deepEqual(error.metadata[name], value, name);
    return true;
  });
}

/** A pool of its own without any host, and the id of an actor in it. */
async function actorOfNobody(t, pool) {
  const normal = { datacenters: { default: { normal: {} } } };
  assert.equal((await t.api("PUT", `/runner-configs/${pool}?namespace=default`, normal)).status, 200);
  const client = t.newClient("json", undefined, pool);
  const handle = client.counter.getOrCreate(t.key(pool));
  const id = await handle.resolve();
  return { handle, id, counter: client.counter.getForId(id) };
}

async function explained(t) {
  const client = t.newClient("json");
  t.doing("asking for actors that nobody can run");
  const nobody = await actorOfNobody(t, "nobody");
  const gone = await actorOfNobody(t, "gone");
  assert.equal((await t.api("DELETE", "/runner-configs/gone?namespace=default")).status, 200);
  const slow = await client.slowStarter.getOrCreate(t.key("slow")).resolve();
  const code = "actor_ready_timeout";
  const noHost = 'no capacity, because no host of pool "nobody" is connected';
  const noPool = 'no pool "gone" is configured';
  const starting = `host "${t.host.envoyKey}" was told to start it `;
  await Promise.all([
    assertTold(t, nobody.counter.whoami(), {
      code,
      words: noHost,
      metadata: { actor_id: nobody.id, waiting_for: "no_hosts", pool: "nobody" },
    }),
    assertTold(t, gone.counter.whoami(), {
      code,
      words: noPool,
      metadata: { actor_id: gone.id, waiting_for: "no_pool", pool: "gone" },
    }),
    assertTold(t, client.slowStarter.getForId(slow).fine(), {
      code,
      words: starting,
      metadata: { actor_id: slow, waiting_for: "starting", envoy_key: t.host.envoyKey },
    }),
  ]);
  t.doing("asking over a connection, where there is room for the name alone");
  const refused = await new Promise((resolve) => nobody.counter.connect().onError(resolve));
  assert.deepEqual([refused.group, refused.code], ["guard", code]);
  if (t.reference) return;
  t.doing("reading in the list what they wait for");
  assert.equal((await t.record(nobody.id)).error, "no_envoys");
  assert.equal((await t.record(nobody.id)).waiting_for, noHost);
  assert.equal((await t.record(gone.id)).waiting_for, noPool);
  assert.ok((await t.record(slow)).waiting_for.startsWith(starting));
  assert.equal(await nobody.handle.resolve(), nobody.id, "the client reads a record with that in it");
}

async function startFailureExplained(t) {
  const client = t.newClient("json");
  const id = await client.nonStarter.getOrCreate(t.key("broken")).resolve();
  t.doing("calling an actor that cannot start");
  await assertTold(t, client.nonStarter.getForId(id).fine(), {
    code: "actor_wake_retries_exceeded",
    words: "start failed: ",
    metadata: { actor_id: id, reason: "actor_stopped_before_ready", wake_retries: 8 },
  });
  const answer = await client.nonStarter.getForId(id).fetch("/");
  const { message, metadata } = await answer.json();
  const { error } = await t.record(id);
  assert.match(error.crashed.message, /the database is on fire/);
  if (t.reference) return;
  assert.match(message, /start failed: .*the database is on fire/);
  assert.equal(metadata.last_end.reason, "start_failed");
}

export const cases = [
  {
    name: "waiting-skipped",
    about: "requests and WebSockets reach an actor on its way to sleep, if they do not want to wait",
    encodings: "none",
    run: earlyRequests,
  },
  {
    name: "waiting-explained",
    about: "a request that waited in vain is told what for: no host, no pool, a start that takes too long",
    stack: "own",
    settings: { RIVET__GUARD__ACTOR_READY_TIMEOUT_MS: "1000" },
    encodings: "none",
    run: explained,
  },
  {
    name: "start-failure-explained",
    about: "a request to an actor that cannot start is told why",
    encodings: "none",
    run: startFailureExplained,
  },
  {
    name: "parameters-limited",
    about: "4 KiB of connection parameters pass, one byte more does not",
    run: parameterLimit,
  },
];
