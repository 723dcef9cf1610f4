// A browser that knows nothing of rivetkit: its WebSocket, fetch and EventSource, in a page of another origin.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { pattern } from "../apps/raw.mjs";

const RAY = "[0-9a-z]{30}";

/** Starts the browser if need be, and returns a function that runs another one in its page. */
async function pageOf(t) {
  t.doing("starting the browser");
  const browser = await t.stack.browser();
  return (action, input) => browser.run(action, input);
}

/** An address of an actor, in the form that its handle would use. */
async function addressOf(handle, page) {
  const url = new URL(await handle.getGatewayUrl());
  const [pathname, query] = page.split("?");
  url.pathname += pathname;
  return query === undefined ? url.href : `${url.href}&${query}`;
}

async function webSocketAddress(handle) {
  return (await addressOf(handle, "/websocket/room")).replace(/^http/, "ws");
}

async function plainWebSocket(t) {
  const inPage = await pageOf(t);
  const wire = t.client.wire.getOrCreate(t.key("plain"));
  const url = await webSocketAddress(wire);
  t.doing("opening a WebSocket with an address and nothing else");
  const seen = await inPage(async (url) => {
    const socket = new WebSocket(url);
    socket.binaryType = "arraybuffer";
    const message = () =>
      new Promise((resolve) => {
        socket.onmessage = (event) => resolve(event.data);
      });
    await new Promise((resolve, reject) => {
      socket.onopen = resolve;
      socket.onclose = (event) => reject(new Error(`closed ${event.code} ${event.reason}`));
    });
    const ask = (data) => {
      const answer = message();
      socket.send(data);
      return answer;
    };
    const text = await ask("żółć 🐸");
    const bytes = [...new Uint8Array(await ask(new Uint8Array([0, 1, 255])))];
    const large = new Uint8Array(1_000_000).map((_, i) => i % 251);
    const back = new Uint8Array(await ask(large));
    const same = back.length === large.length && back.every((byte, i) => byte === large[i]);
    const closed = new Promise((resolve) => {
      socket.onclose = ({ code, reason, wasClean }) => resolve({ code, reason, wasClean });
    });
    socket.close(4001, "bye");
    return { protocol: socket.protocol, extensions: socket.extensions, text, bytes, same, closed: await closed };
  }, url);
  assert.deepEqual(seen, {
    protocol: "",
    extensions: "",
    text: "żółć 🐸",
    bytes: [0, 1, 255],
    same: true,
    closed: { code: 4001, reason: "bye", wasClean: true },
  });
  await t.until("the actor to see how the browser closed", async () => (await wire.seen()).closed === "4001 bye");
}

/** Opens a WebSocket in the page, sends a text if it opens, and returns what the browser tells its page of the end. */
const untilClosed = ({ url, protocols, text }) =>
  new Promise((resolve) => {
    const socket = protocols === undefined ? new WebSocket(url) : new WebSocket(url, protocols);
    let opened = false;
    socket.onopen = () => {
      opened = true;
      if (text !== undefined) socket.send(text);
    };
    socket.onclose = ({ code, reason, wasClean }) => {
      resolve({ opened, protocol: socket.protocol, code, reason, wasClean });
    };
  });

async function subprotocols(t) {
  const inPage = await pageOf(t);
  const wire = t.client.wire.getOrCreate(t.key("protocols"));
  const id = await wire.resolve();
  t.doing("naming the actor in the subprotocols");
  const url = `${t.engine.endpoint.replace(/^http/, "ws")}/websocket/room`;
  const protocols = ["rivet", "rivet_target.actor", `rivet_actor.${id}`, "rivet_encoding.json", "rivet_token.abc"];
  assert.deepEqual(await inPage(untilClosed, { url, protocols, text: "close:4002,as asked" }), {
    opened: true,
    protocol: "rivet",
    code: 4002,
    reason: "as asked",
    wasClean: true,
  });
  t.doing("naming the actor in the path, with subprotocols");
  const byId = `${t.engine.endpoint.replace(/^http/, "ws")}/gateway/${id}/websocket/room`;
  const named = await inPage(untilClosed, { url: byId, protocols: ["chat", "rivet"], text: "leave" });
  assert.deepEqual([named.opened, named.protocol, named.code], [true, "rivet", 1000]);
}

async function refusals(t) {
  const inPage = await pageOf(t);
  const root = t.engine.endpoint.replace(/^http/, "ws");
  const nobody = await webSocketAddress(t.client.wire.get(t.key("nobody")));
  const refused = async (about, code, wanted) => {
    t.doing(`opening a WebSocket ${about}`);
    const { opened, wasClean, code: seen, reason } = await inPage(untilClosed, wanted);
    assert.deepEqual({ opened, wasClean, seen }, { opened: true, wasClean: true, seen: 1011 }, `${about}: ${reason}`);
    assert.match(reason, new RegExp(`^${code}#${RAY}$`));
  };
  await refused("to an unknown key", "actor.not_found", { url: nobody });
  await refused("to an unknown id", "actor.not_found", { url: `${root}/gateway/${"0".repeat(30)}/websocket/` });
  await refused("with wrong parameters", "guard.query_invalid_params", { url: `${root}/gateway/wire?rvt-nonsense=1` });
  await refused("to an unknown target", "guard.no_route", { url: root, protocols: ["rivet", "rivet_target.nobody"] });
  await refused("to no actor", "guard.missing_header", { url: root, protocols: ["rivet", "rivet_target.actor"] });
  await refused("to the management API", "guard.websocket_not_supported", { url: `${root}/actors` });
}

async function tooLarge(t) {
  const inPage = await pageOf(t);
  const url = await webSocketAddress(t.client.wire.getOrCreate(t.key("large")));
  t.doing("sending one byte more than 32 MiB");
  const closed = await inPage(
    (url) =>
      new Promise((resolve) => {
        const socket = new WebSocket(url);
        socket.onopen = () => socket.send(new Uint8Array(32 * 1024 * 1024 + 1));
        socket.onclose = ({ code, wasClean }) => resolve({ code, wasClean });
      }),
    url,
  );
  assert.deepEqual(closed, { code: 1009, wasClean: true });
}

async function crossOriginFetch(t) {
  const inPage = await pageOf(t);
  const wire = t.client.wire.getOrCreate(t.key("fetch"));
  const page = await addressOf(wire, "/request/headers");
  const ask = async ({ url, options }) => {
    const answer = await fetch(url, options);
    return { status: answer.status, ray: answer.headers.get("x-rivet-ray-id"), body: await answer.json() };
  };
  for (const credentials of ["include", "omit"]) {
    for (const method of ["GET", "PUT", "PATCH", "DELETE"]) {
      t.doing(`${method} with a header of our own, credentials: ${credentials}`);
      const options = { method, credentials, headers: { "x-mark": "42", "content-type": "application/json" } };
      const { status, body, ray } = await inPage(ask, { url: page, options });
      assert.deepEqual([status, body["x-mark"]], [200, "42"]);
      assert.match(body.origin, /^http:\/\/localhost:/);
      // With credentials, a browser takes the `*` of the list of readable headers literally.
      if (credentials === "omit") assert.equal(ray, body["x-rivet-ray-id"], "headers of ours are readable");
    }
  }
  t.doing("reading errors of another origin");
  const nobody = await addressOf(t.client.wire.get(t.key("nobody")), "/request/headers");
  for (const [url, code] of [
    [nobody, "not_found"],
    [`${t.engine.endpoint}/gateway/wire?rvt-nonsense=1`, "query_invalid_params"],
  ]) {
    const options = { method: "POST", credentials: "include", headers: { "x-mark": "1" } };
    assert.equal((await inPage(ask, { url, options })).body.code, code);
  }
  t.doing("uploading 3 MiB");
  const upload = await inPage(async (url) => {
    const bytes = new Uint8Array(3 * 1024 * 1024).map((_, i) => Math.imul(i, 2_654_435_761) >>> 24);
    return (await fetch(url, { method: "POST", body: new Blob([bytes]) })).json();
  }, await addressOf(t.client.raw.getOrCreate(t.key("upload")), "/request/digest"));
  const sha256 = createHash("sha256").update(pattern(3 * 1024 * 1024)).digest("hex");
  assert.deepEqual(upload, { length: 3 * 1024 * 1024, sha256 });
}

async function eventSource(t) {
  const inPage = await pageOf(t);
  const wire = t.client.wire.getOrCreate(t.key("source"));
  t.doing("opening an EventSource");
  const url = await addressOf(wire, "/request/events");
  await inPage((url) => {
    const received = [];
    const source = new EventSource(url, { withCredentials: true });
    window.stream = { source, received, arrived: () => {} };
    source.onmessage = (event) => {
      received.push(event.data);
      window.stream.arrived();
    };
  }, url);
  const next = async () => {
    const { received } = window.stream;
    if (received.length === 0) await new Promise((resolve) => (window.stream.arrived = resolve));
    return received.shift();
  };
  assert.equal(await inPage(next), "0");
  for (let n = 1; n <= 3; n++) {
    t.doing(`waiting for event ${n}`);
    await wire.proceed(String(n));
    assert.equal(await inPage(next), String(n));
  }
  await inPage(() => window.stream.source.close());
  await t.until("the actor to hear that its reader is gone", async () => (await wire.seen()).aborted);
}

async function streamedFetch(t) {
  const inPage = await pageOf(t);
  const wire = t.client.wire.getOrCreate(t.key("streamed"));
  t.doing("reading an answer while it is being made");
  await inPage(async (url) => {
    window.leaving = new AbortController();
    const answer = await fetch(url, { signal: window.leaving.signal });
    window.reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  }, await addressOf(wire, "/request/events"));
  const read = async () => (await window.reader.read()).value;
  assert.equal(await inPage(read), "data: 0\n\n");
  for (let n = 1; n <= 3; n++) {
    await wire.proceed(String(n));
    assert.equal(await inPage(read), `data: ${n}\n\n`);
  }
  t.doing("leaving in the middle of it");
  assert.equal((await wire.seen()).aborted, false);
  await inPage(() => window.leaving.abort());
  await t.until("the actor to hear that its reader is gone", async () => (await wire.seen()).aborted);
}

async function client(t) {
  const browser = await t.stack.browser();
  t.doing("bundling the client of the npm package");
  const { outputFiles } = await build({
    stdin: {
      contents: 'export { createClient } from "rivetkit/client";',
      resolveDir: fileURLToPath(new URL("..", import.meta.url)),
    },
    bundle: true,
    format: "esm",
    platform: "browser",
    write: false,
  });
  browser.addScript("/client.mjs", outputFiles[0].text);
  // Over connections only: rivetkit 2.3.19 sends each HTTP action as a stream, and Chromium does that over HTTP/2 alone.
  t.doing("using an actor over a connection");
  const seen = await browser.run(
    async ({ endpoint, key, encoding }) => {
      const { createClient } = await import("/client.mjs");
      const client = createClient({ endpoint, encoding });
      const connection = client.counter.getOrCreate(key).connect();
      const events = [];
      connection.on("changed", (count) => events.push(count));
      const counts = [await connection.increment(5), await connection.increment(2)];
      const error = await connection.noSuchAction().catch(({ group, code }) => `${group}.${code}`);
      const text = await (await client.raw.getOrCreate(key).fetch("/hello?name=you")).text();
      const socket = await client.raw.getOrCreate(key).webSocket("/room");
      if (socket.readyState !== 1) await new Promise((resolve) => socket.addEventListener("open", resolve));
      const echo = new Promise((resolve) => socket.addEventListener("message", (event) => resolve(event.data)));
      socket.send("hi");
      const echoed = await echo;
      await client.dispose();
      return { counts, events, error, text, echoed };
    },
    { endpoint: t.engine.endpoint, key: t.key("browser"), encoding: t.encodings[0] },
  );
  assert.deepEqual(seen, {
    counts: [5, 7],
    events: [5, 7],
    error: "actor.action_not_found",
    text: "hello you",
    echoed: "echo:hi",
  });
}

export const cases = [
  { name: "browser-websocket", about: "new WebSocket(url): text, binary, 1 MB, close", run: plainWebSocket },
  { name: "browser-subprotocols", about: "new WebSocket(url, [...]): the actor is named there", run: subprotocols },
  { name: "browser-refusals", about: "why a WebSocket was refused is readable", run: refusals },
  { name: "browser-too-large", about: "a message over 32 MiB closes with 1009", run: tooLarge },
  { name: "browser-fetch", about: "cross-origin fetch with preflight and credentials", run: crossOriginFetch },
  { name: "browser-event-source", about: "EventSource gets each event when it is sent", run: eventSource },
  { name: "browser-stream", about: "fetch reads a stream and leaves it", run: streamedFetch },
  { name: "browser-client", about: "the npm client in the page", encodings: "each", run: client },
].map((one) => ({ encodings: "none", ...one }));
