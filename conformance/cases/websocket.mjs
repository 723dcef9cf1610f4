// Plain WebSockets served by the actor's onWebSocket, and sockets that outlive the sleep of their actor.
import assert from "node:assert/strict";
import WebSocket from "ws";
import { Inbox } from "../lib/sockets.mjs";
import { assertWokenOnce } from "./lifecycle.mjs";

const LARGE_BYTES = 48 * 1024;

async function openSocket(t, handle, path = "/room") {
  t.doing("opening a WebSocket");
  const inbox = new Inbox(await handle.webSocket(path));
  t.atEnd(() => inbox.socket.close());
  await inbox.opened;
  return inbox;
}

async function messages(t) {
  const raw = t.client.raw.getOrCreate(t.key("socket"));
  const inbox = await openSocket(t, raw);
  t.doing("exchanging messages");
  assert.equal(await inbox.ask("hello"), "echo:hello");
  assert.equal(await inbox.ask("żółć 🐸"), "echo:żółć 🐸");
  assert.equal(await inbox.ask(""), "echo:");
  assert.deepEqual(new Uint8Array(await inbox.ask(new Uint8Array([0, 1, 255]))), new Uint8Array([0, 1, 255]));
  assert.equal((await inbox.ask(new Uint8Array(0))).byteLength, 0);
  const large = new Uint8Array(LARGE_BYTES).map((_, i) => i % 251);
  assert.deepEqual(new Uint8Array(await inbox.ask(large)), large);
  t.doing("sending 200 messages in a row");
  for (let n = 0; n < 200; n++) inbox.socket.send(String(n));
  for (let n = 0; n < 200; n++) assert.equal(await inbox.next(), `echo:${n}`);
}

/** A WebSocket client that knows nothing of rivetkit. */
async function plainClient(t) {
  const raw = t.client.raw.getOrCreate(t.key("plain"));
  const target = new URL(await raw.getGatewayUrl());
  const dial = (path, query) => {
    const socket = new WebSocket(`ws://${target.host}${path}?${query}`, ["rivet"]);
    t.atEnd(() => socket.terminate());
    return { socket, inbox: new Inbox(socket) };
  };
  t.doing("opening a WebSocket at the actor's gateway address");
  const query = target.search.slice(1);
  const { socket, inbox } = dial(`${target.pathname}/websocket/some/path`, `a=b&${query}`);
  await inbox.opened;
  assert.equal(socket.protocol, "rivet");
  assert.equal(await inbox.ask("where"), "/websocket/some/path?a=b", "the actor sees its path and its own query only");
  t.doing("waiting for the answer to a ping");
  const pong = new Promise((resolve) => socket.once("pong", (data) => resolve(data.toString())));
  socket.ping("are you there");
  assert.equal(await pong, "are you there");
  t.doing("opening a WebSocket to an actor that does not exist");
  const nobody = dial(
    "/gateway/raw/websocket/",
    `rvt-namespace=default&rvt-method=get&rvt-key=${t.key("nobody").join(",")}`,
  );
  const { code, reason } = await nobody.inbox.closed;
  assert.equal(code, 1011);
  assert.match(reason, /^actor\.not_found#[0-9a-z]{30}$/, "refusals come as a close reason, which a browser can read");
}

async function closing(t) {
  const raw = t.client.raw.getOrCreate(t.key("close"));
  const first = await openSocket(t, raw);
  assert.equal(await first.ask("x"), "echo:x");
  t.doing("closing from the client");
  first.socket.close(4001, "bye");
  assert.deepEqual(await first.closed, { code: 4001, reason: "bye" });
  await t.until("the actor to see the client's close code", async () => (await raw.log()).includes("close 4001 bye"));
  const second = await openSocket(t, raw);
  t.doing("closing from the actor");
  second.socket.send("close:4002");
  assert.deepEqual(await second.closed, { code: 4002, reason: "asked to" });
  t.doing("calling the actor after both closes");
  assert.equal((await raw.log()).filter((line) => line === "open").length, 2);
}

async function manySockets(t) {
  const raw = t.client.raw.getOrCreate(t.key("sockets"));
  await raw.whoami();
  const inboxes = await Promise.all(Array.from({ length: 10 }, () => openSocket(t, raw)));
  t.doing("echoing on ten sockets of one actor");
  const answers = await Promise.all(inboxes.map((inbox, i) => inbox.ask(`socket ${i}`)));
  assert.deepEqual(
    answers,
    inboxes.map((_, i) => `echo:socket ${i}`),
    "no message goes to another socket",
  );
}

async function hibernatingConnection(t) {
  const handle = t.client.counter.getOrCreate(t.key("hibernate"));
  const connection = handle.connect();
  const received = [];
  let opened = 0;
  connection.onOpen(() => {
    opened += 1;
  });
  connection.on("changed", (value) => received.push(value));
  t.doing("using the connection");
  assert.equal(await connection.increment(1), 1);
  const before = await connection.whoami();
  await handle.nap();
  await t.asleep(before.id);
  assert.equal(connection.connStatus, "connected", "the client does not notice the sleep");
  t.doing("calling the sleeping actor over the connection it left behind");
  assert.equal(await connection.increment(2), 3);
  assert.deepEqual(received, [1, 3], "the subscription survives");
  assertWokenOnce(before, await connection.whoami());
  assert.equal(opened, 1, "it is still the first connection");
  t.doing("waking the actor over HTTP and hearing of it on the connection");
  await handle.nap();
  await t.asleep(before.id);
  await handle.increment(4);
  await t.until("the event", () => received.length === 3);
  assert.deepEqual(received, [1, 3, 7]);
  assert.equal(opened, 1);
}

async function hibernatingClose(t) {
  const handle = t.client.counter.getOrCreate(t.key("hibernate-close"));
  const connection = handle.connect();
  const { id } = await connection.whoami();
  await handle.nap();
  await t.asleep(id);
  t.doing("closing the connection of a sleeping actor");
  await connection.dispose();
  // The call below is a connection of its own; the closed one must not come back with the actor.
  await t.until("only live connections", async () => (await handle.connections()) === 1);
}

async function hibernatingSocket(t) {
  const handle = t.client.hibernating.getOrCreate(t.key("hibernate-raw"));
  const inbox = await openSocket(t, handle);
  assert.equal(await inbox.ask("before"), "echo:before");
  const before = await handle.whoami();
  await handle.nap();
  await t.asleep(before.id);
  assert.equal(inbox.socket.readyState, 1, "the client does not notice the sleep");
  t.doing("sending messages that wake the actor");
  for (let n = 0; n < 5; n++) inbox.socket.send(`wake ${n}`);
  for (let n = 0; n < 5; n++) assert.equal(await inbox.next(), `echo:wake ${n}`, "all messages, in order, once");
  assertWokenOnce(before, await handle.whoami());
  t.doing("closing the socket after the wake");
  inbox.socket.close(4003, "done");
  assert.deepEqual(await inbox.closed, { code: 4003, reason: "done" });
}

export const cases = [
  {
    name: "websocket-messages",
    about: "text, binary, empty and large messages, 200 in order",
    encodings: "none",
    run: messages,
  },
  {
    name: "websocket-plain-client",
    about: "path, query, ping and refusal for a client without rivetkit",
    encodings: "none",
    run: plainClient,
  },
  {
    name: "websocket-close",
    about: "close codes in both directions",
    encodings: "none",
    run: closing,
  },
  {
    name: "websocket-many",
    about: "ten sockets of one actor do not mix",
    encodings: "none",
    run: manySockets,
  },
  {
    name: "hibernating-connection",
    about: "a connection and its subscription survive the actor's sleep",
    run: hibernatingConnection,
  },
  {
    name: "hibernating-close",
    about: "a connection closed during sleep is gone after the wake",
    run: hibernatingClose,
  },
  {
    name: "hibernating-websocket",
    about: "a plain WebSocket wakes its sleeping actor",
    encodings: "none",
    run: hibernatingSocket,
  },
];
