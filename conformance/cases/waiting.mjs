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

export const cases = [
  {
    name: "waiting-skipped",
    about: "requests and WebSockets reach an actor on its way to sleep, if they do not want to wait",
    encodings: "none",
    run: earlyRequests,
  },
  {
    name: "parameters-limited",
    about: "4 KiB of connection parameters pass, one byte more does not",
    run: parameterLimit,
  },
];
