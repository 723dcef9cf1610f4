// Plain HTTP and plain WebSockets handled by the actor itself.
import { createHash } from "node:crypto";
import { actor } from "rivetkit";
import { createVars, onWake, whoami } from "./life.mjs";

/** `count` bytes in which every position is recognisable. */
export function pattern(count) {
  const bytes = new Uint8Array(count);
  for (let i = 0; i < count; i++) bytes[i] = Math.imul(i, 2_654_435_761) >>> 24;
  return bytes;
}

const BLOCK_BYTES = 1024 * 1024;

/** Blocks of 1 MiB, of which no two are alike. */
export function* blocks(count) {
  const common = pattern(BLOCK_BYTES);
  for (let i = 0; i < count; i++) {
    const block = common.slice();
    new DataView(block.buffer).setUint32(0, i);
    yield block;
  }
}

async function onRequest(c, request) {
  const url = new URL(request.url);
  switch (url.pathname) {
    case "/hello":
      return new Response(`hello ${url.searchParams.get("name")}`, {
        headers: { "x-greeting": "yes" },
      });
    case "/echo":
      return new Response(await request.arrayBuffer(), {
        status: 201,
        headers: {
          "content-type": request.headers.get("content-type") ?? "none",
          "x-method": request.method,
          "x-seen": request.headers.get("x-mark") ?? "",
        },
      });
    case "/digest": {
      const bytes = new Uint8Array(await request.arrayBuffer());
      return Response.json({
        length: bytes.length,
        sha256: createHash("sha256").update(bytes).digest("hex"),
      });
    }
    case "/bytes":
      return new Response(pattern(Number(url.searchParams.get("count"))));
    case "/blocks":
      return new Response(ReadableStream.from(blocks(Number(url.searchParams.get("count")))));
    case "/nothing":
      return new Response(null, { status: 204, headers: { "x-empty": "yes" } });
    case "/stream":
      return new Response(stepwise(c), { headers: { "content-type": "text/event-stream" } });
    default:
      return new Response("no such page", { status: 404 });
  }
}

/** Sends one event, and each further one only when the action `proceed` asks for it. */
function stepwise(c) {
  const encoder = new TextEncoder();
  return new ReadableStream({
    start: (controller) => {
      controller.enqueue(encoder.encode("data: 0\n\n"));
      c.vars.proceed = (text) => {
        if (text === null) controller.close();
        else controller.enqueue(encoder.encode(`data: ${text}\n\n`));
      };
    },
    cancel: () => {
      c.vars.cancelled = true;
    },
  });
}

function onWebSocket(c, socket) {
  c.state.log.push("open");
  socket.addEventListener("message", (event) => {
    if (typeof event.data !== "string") return socket.send(event.data);
    if (event.data === "where") return socket.send(c.request.url.slice(c.request.url.indexOf("/websocket")));
    if (event.data.startsWith("close:")) return socket.close(Number(event.data.slice(6)), "asked to");
    socket.send(`echo:${event.data}`);
  });
  socket.addEventListener("close", (event) => c.state.log.push(`close ${event.code} ${event.reason}`));
}

const actions = {
  whoami,
  nap: (c) => {
    c.sleep();
    return true;
  },
  log: (c) => c.state.log,
  proceed: (c, text) => {
    c.vars.proceed(text);
    return true;
  },
  cancelled: (c) => c.vars.cancelled === true,
};

export const raw = actor({
  state: { wakes: 0, log: [] },
  createVars,
  onWake,
  onRequest,
  onWebSocket,
  actions,
  options: { sleepTimeout: 120_000 },
});

export const hibernating = actor({
  state: { wakes: 0, log: [] },
  createVars,
  onWake,
  onWebSocket,
  actions,
  options: { sleepTimeout: 120_000, canHibernateWebSocket: true },
});
