// Ways into an actor that the npm client has and the other topics do not use.
import assert from "node:assert/strict";
import { createClient } from "rivetkit/client";
import { pattern } from "../apps/raw.mjs";
import { Inbox } from "../lib/sockets.mjs";

const MIB = 1024 * 1024;

async function open(t, handle, ...options) {
  t.doing("opening a WebSocket");
  const inbox = new Inbox(await handle.webSocket("/room", ...options));
  t.atEnd(() => inbox.socket.close());
  await inbox.opened;
  return inbox;
}

async function parameters(t) {
  const known = t.client.guarded.getOrCreate(t.key("params"), { params: { name: "me", list: [1, 2] } });
  t.doing("sending parameters over a connection, fetch and a WebSocket");
  assert.equal(await known.connect().who(), "me");
  assert.equal((await (await known.fetch("/who")).json()).name, "me");
  assert.equal(await (await open(t, known)).ask("who"), "me");
  t.doing("being refused");
  const unwanted = t.client.guarded.getOrCreate(t.key("params"), { params: { password: "wrong" } });
  const refusal = { group: "user", code: "no_entry" };
  assert.equal((await (await unwanted.fetch("/who")).json()).code, "no_entry");
  const { code, reason } = await new Inbox(await unwanted.webSocket("/room")).closed;
  assert.deepEqual([code, reason.split("#")[0]], [1011, "user.no_entry"]);
  const connection = unwanted.connect();
  const heard = new Promise((resolve) => connection.onError(resolve));
  const { group, code: heardCode } = await heard;
  assert.deepEqual({ group, code: heardCode }, refusal);
  await connection.dispose();
}

async function creation(t) {
  const key = t.key("input");
  const input = { text: "żółć", nested: [1, { two: null }], bytes: "x".repeat(2_000) };
  t.doing("creating an actor with its first request");
  const handle = t.client.guarded.getOrCreate(key, { createWithInput: input, createInRegion: "default" });
  assert.deepEqual(await handle.input(), input);
  t.doing("asking for it with another input");
  const again = t.client.guarded.getOrCreate(key, { createWithInput: "other" });
  assert.deepEqual(await again.input(), input, "an actor that is there keeps its input");
  t.doing("asking for an actor in a region that does not exist");
  const nowhere = t.client.guarded.getOrCreate(t.key("nowhere"), { createInRegion: "mars" });
  await assert.rejects(nowhere.input(), { group: "datacenter", code: "not_found" });
}

async function withoutWaiting(t) {
  const key = t.key("ready");
  const id = await t.client.guarded.getOrCreate(key).resolve();
  // With an id these go to the root, and name the actor in headers and subprotocols.
  for (const handle of [t.client.guarded.getForId(id), t.client.guarded.getOrCreate(key)]) {
    t.doing("asking not to wait until the actor is ready");
    assert.equal((await handle.fetch("/who", { skipReadyWait: true })).status, 200);
    assert.equal(await handle.connect({ name: "me" }, { skipReadyWait: true }).who(), "me");
    assert.equal(await (await open(t, handle, undefined, { skipReadyWait: true })).ask("hello"), "hello");
  }
}

async function tokens(t) {
  const client = createClient({ endpoint: t.engine.endpoint, encoding: t.encodings[0], token: "pk_of+a/client" });
  t.atEnd(() => client.dispose());
  const handle = client.guarded.getOrCreate(t.key("token"), { params: { name: "me" } });
  t.doing("using a client with a token by key and by id");
  for (const one of [handle, client.guarded.getForId(await handle.resolve(), { params: { name: "me" } })]) {
    assert.equal(await one.input(), null);
    assert.equal(await one.connect().who(), "me");
    assert.equal(await (await open(t, one)).ask("hello"), "hello");
    const { headers } = await (await one.fetch("/who")).json();
    assert.equal(new Map(headers).get("x-rivet-token"), "pk_of+a/client");
  }
}

async function streamedUpload(t) {
  const handle = t.client.guarded.getOrCreate(t.key("upload"));
  t.doing("uploading a stream of 3 MiB");
  const piece = pattern(100_000);
  let left = 3 * MIB;
  const body = new ReadableStream({
    pull: (controller) => {
      if (left === 0) return controller.close();
      const size = Math.min(left, piece.length);
      controller.enqueue(piece.slice(0, size));
      left -= size;
    },
  });
  const answer = await handle.fetch("/upload", { method: "POST", body, duplex: "half" });
  assert.deepEqual(await answer.json(), { bytes: 3 * MIB });
}

async function largeMessages(t) {
  const inbox = await open(t, t.client.guarded.getOrCreate(t.key("large")));
  for (const bytes of [MIB, 32 * MIB]) {
    t.doing(`echoing a message of ${bytes / MIB} MiB`);
    const sent = pattern(bytes);
    inbox.socket.send(sent);
    const back = new Uint8Array(await inbox.next(20_000));
    assert.equal(Buffer.compare(back, sent), 0);
  }
  t.doing("sending one byte more");
  inbox.socket.send(new Uint8Array(32 * MIB + 1));
  assert.equal((await inbox.closed).code, 1009);
}

async function actorStops(t) {
  for (const how of ["nap", "destroy"]) {
    const handle = t.client.guarded.getOrCreate(t.key(how));
    const inbox = await open(t, handle);
    assert.equal(await inbox.ask("x"), "x");
    t.doing(`stopping the actor (${how}) under an open WebSocket that cannot hibernate`);
    await handle[how]();
    const { code, reason } = await inbox.closed;
    assert.deepEqual([code, reason], [1000, "actor.stopped"], how);
  }
}

export const cases = [
  { name: "gateway-parameters", about: "parameters of a connection, fetch and WebSocket", run: parameters },
  { name: "gateway-input", about: "input and region of an actor that its first request creates", run: creation },
  { name: "gateway-skip-ready-wait", about: "fetch, connect and WebSocket that do not wait", run: withoutWaiting },
  { name: "gateway-token", about: "a client with a token, by key and by id", run: tokens },
  { name: "gateway-upload", about: "fetch with a stream as body", encodings: "none", run: streamedUpload },
  {
    name: "gateway-large-messages",
    about: "32 MiB pass a WebSocket, one byte more is 1009",
    encodings: "none",
    run: largeMessages,
  },
  {
    name: "gateway-actor-stops",
    about: "the close of a WebSocket whose actor stops",
    encodings: "none",
    run: actorStops,
  },
];
