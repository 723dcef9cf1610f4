// Plain HTTP served by the actor's onRequest.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import http from "node:http";
import { blocks, pattern } from "../apps/raw.mjs";

const MIB = 1024 * 1024;
const UPLOAD_BYTES = 3 * MIB;
const DOWNLOAD_BYTES = 8 * MIB;
const LARGE_STREAM_MIB = 200;
/** The most that a request may carry, and how often it does. */
const LARGE_UPLOAD_MIB = 20;
const LARGE_UPLOADS = 5;
/** What a body may add to the engine's memory, however long it is. */
const GROWTH_MAX_BYTES = 32 * MIB;
/** A window of 1 MiB, and the message that overshoots it. */
const WAITING_MAX_BYTES = MIB + 64 * 1024;

async function requests(t) {
  const raw = t.client.raw.getOrCreate(t.key("http"));
  t.doing("GET with a query");
  const hello = await raw.fetch("/hello?name=a%20b%26c");
  assert.equal(hello.status, 200);
  assert.equal(hello.headers.get("x-greeting"), "yes");
  assert.equal(hello.headers.get("x-rivet-actor"), await raw.resolve());
  assert.equal(await hello.text(), "hello a b&c");

  t.doing("POST, PUT, PATCH and DELETE with a body and headers");
  for (const method of ["POST", "PUT", "PATCH", "DELETE"]) {
    const echo = await raw.fetch("/echo", {
      method,
      body: `body of ${method}`,
      headers: { "content-type": "text/x-test", "x-mark": "42" },
    });
    assert.equal(echo.status, 201);
    assert.deepEqual(
      ["content-type", "x-method", "x-seen"].map((name) => echo.headers.get(name)),
      ["text/x-test", method, "42"],
    );
    assert.equal(await echo.text(), `body of ${method}`);
  }

  t.doing("answers without a body");
  const nothing = await raw.fetch("/nothing");
  assert.equal(nothing.status, 204);
  assert.equal(nothing.headers.get("x-empty"), "yes");
  assert.equal(await nothing.text(), "");
  const head = await raw.fetch("/hello?name=x", { method: "HEAD" });
  assert.equal(head.status, 200);
  assert.equal(head.headers.get("x-greeting"), "yes");
  assert.equal(await head.text(), "");

  t.doing("the actor's own 404, and an actor without onRequest");
  const missing = await raw.fetch("/missing");
  assert.deepEqual([missing.status, await missing.text()], [404, "no such page"]);
  assert.equal((await t.client.counter.getOrCreate(t.key("no-http")).fetch("/hello")).status, 404);
}

async function keepAlive(t) {
  const raw = t.client.raw.getOrCreate(t.key("keep-alive"));
  const target = new URL(await raw.getGatewayUrl());
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  t.atEnd(() => agent.destroy());
  const sockets = new Set();
  const send = (method, path) =>
    new Promise((resolve, reject) => {
      const options = {
        host: target.hostname,
        port: target.port,
        method,
        agent,
        path: `${target.pathname}/request${path}${target.search}`,
      };
      const request = http.request(options, async (response) => {
        let text = "";
        for await (const chunk of response) text += chunk;
        resolve([response.statusCode, text]);
      });
      request.on("socket", (socket) => sockets.add(socket));
      request.on("error", reject);
      request.end();
    });
  // Answers without a body are where a stream most easily gets out of step with the next request on the same socket.
  t.doing("sending requests one after the other on one socket");
  for (let round = 0; round < 3; round++) {
    assert.deepEqual(await send("GET", "/nothing"), [204, ""]);
    assert.deepEqual(await send("GET", "/missing"), [404, "no such page"]);
  }
  assert.equal(sockets.size, 1, "the engine keeps the connection open");
}

const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");

async function upload(t) {
  const raw = t.client.raw.getOrCreate(t.key("upload"));
  t.doing("uploading 3 MiB");
  const body = pattern(UPLOAD_BYTES);
  const digest = await (await raw.fetch("/digest", { method: "POST", body })).json();
  assert.deepEqual(digest, { length: UPLOAD_BYTES, sha256: sha256(body) });
}

async function download(t) {
  const raw = t.client.raw.getOrCreate(t.key("download"));
  t.doing("asking for 8 MiB and not reading them yet");
  const answer = await raw.fetch(`/bytes?count=${DOWNLOAD_BYTES}`);
  assert.equal(answer.status, 200);
  t.doing("calling the actor beside the unread download");
  assert.equal(await (await raw.fetch("/hello?name=x")).text(), "hello x");
  t.doing("reading the download");
  const bytes = new Uint8Array(await answer.arrayBuffer());
  assert.equal(bytes.length, DOWNLOAD_BYTES);
  assert.equal(sha256(bytes), sha256(pattern(DOWNLOAD_BYTES)), "every byte in its place");
}

/** Watches that the engine does not keep what passes through it. */
class MemoryWatch {
  static async begin(t) {
    const watch = new MemoryWatch();
    watch.t = t;
    watch.before = await watch.resident();
    return watch;
  }

  resident() {
    return this.t.engine.metric("process_resident_memory_bytes");
  }

  async look(when) {
    if (this.t.reference) return;
    const growth = (await this.resident()) - this.before;
    assert.ok(growth <= GROWTH_MAX_BYTES, `${when} the engine has grown by ${growth} bytes`);
    const waiting = await this.t.engine.metric("rivet_gateway_waiting_bytes");
    assert.ok(waiting <= WAITING_MAX_BYTES, `${when} ${waiting} bytes wait in the engine`);
  }
}

async function largeStream(t) {
  const raw = t.client.raw.getOrCreate(t.key("large-stream"));
  await (await raw.fetch("/hello?name=x")).text();
  const memory = await MemoryWatch.begin(t);
  t.doing(`reading ${LARGE_STREAM_MIB} MiB`);
  const answer = await raw.fetch(`/blocks?count=${LARGE_STREAM_MIB}`);
  const received = createHash("sha256");
  let length = 0;
  let nextLook = 0;
  for await (const piece of answer.body) {
    received.update(piece);
    length += piece.length;
    if (length < nextLook) continue;
    nextLook += 20 * MIB;
    await memory.look(`after ${length} bytes`);
  }
  const sent = createHash("sha256");
  for (const block of blocks(LARGE_STREAM_MIB)) sent.update(block);
  assert.equal(length, LARGE_STREAM_MIB * MIB);
  assert.equal(received.digest("hex"), sent.digest("hex"), "every byte in its place");
}

async function largeUploads(t) {
  const raw = t.client.raw.getOrCreate(t.key("large-uploads"));
  const body = Buffer.concat([...blocks(LARGE_UPLOAD_MIB)]);
  const expected = { length: body.length, sha256: sha256(body) };
  await (await raw.fetch("/hello?name=x")).text();
  const memory = await MemoryWatch.begin(t);
  for (let n = 1; n <= LARGE_UPLOADS; n++) {
    t.doing(`uploading ${LARGE_UPLOAD_MIB} MiB, time ${n}`);
    let over = false;
    const answer = raw.fetch("/digest", { method: "POST", body }).finally(() => {
      over = true;
    });
    while (!over) await memory.look(`during upload ${n}`);
    assert.deepEqual(await (await answer).json(), expected);
  }
}

async function streaming(t) {
  const raw = t.client.raw.getOrCreate(t.key("stream"));
  t.doing("opening an event stream");
  const answer = await raw.fetch("/stream");
  assert.equal(answer.headers.get("content-type"), "text/event-stream");
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  assert.equal((await reader.read()).value, "data: 0\n\n");
  // The actor sends a part only when it is asked for, so each part has to arrive before the next one exists.
  for (let n = 1; n <= 5; n++) {
    t.doing(`waiting for part ${n} of the stream`);
    await raw.proceed(String(n));
    assert.equal((await reader.read()).value, `data: ${n}\n\n`);
  }
  t.doing("waiting for the end of the stream");
  await raw.proceed(null);
  assert.equal((await reader.read()).done, true);
}

async function streamCancelled(t) {
  const raw = t.client.raw.getOrCreate(t.key("cancel"));
  const abort = new AbortController();
  t.doing("opening an event stream and leaving it");
  const answer = await raw.fetch("/stream", { signal: abort.signal });
  await answer.body.getReader().read();
  assert.equal(await raw.cancelled(), false);
  abort.abort();
  await t.until("the actor to hear that its reader is gone", () => raw.cancelled());
}

export const cases = [
  {
    name: "http-requests",
    about: "methods, query, headers, status, 204, HEAD, 404",
    encodings: "none",
    run: requests,
  },
  {
    name: "http-keep-alive",
    about: "answers with and without a body share one socket",
    encodings: "none",
    run: keepAlive,
  },
  { name: "http-upload", about: "3 MiB up, byte for byte", encodings: "none", run: upload },
  {
    name: "http-download",
    about: "8 MiB down to a reader that starts late, byte for byte",
    encodings: "none",
    run: download,
  },
  {
    name: "http-large-stream",
    about: `${LARGE_STREAM_MIB} MiB down, byte for byte, in constant memory`,
    encodings: "none",
    run: largeStream,
  },
  {
    name: "http-large-uploads",
    about: `${LARGE_UPLOAD_MIB} MiB up ${LARGE_UPLOADS} times, byte for byte, in constant memory`,
    encodings: "none",
    run: largeUploads,
  },
  {
    name: "http-stream",
    about: "every part of a streamed answer arrives when it is sent",
    encodings: "none",
    run: streaming,
  },
  {
    name: "http-stream-cancelled",
    about: "a client that leaves ends the actor's stream",
    encodings: "none",
    run: streamCancelled,
  },
];
