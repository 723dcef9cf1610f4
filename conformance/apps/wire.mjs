// An actor for clients without rivetkit: it shows what arrives, and lets a case decide when answers go on.
import { actor } from "rivetkit";
import { pattern } from "./raw.mjs";

const encoder = new TextEncoder();

async function onRequest(c, request) {
  const url = new URL(request.url);
  const number = (name) => Number(url.searchParams.get(name));
  const seen = c.vars;
  seen.calls += 1;
  request.signal.addEventListener("abort", () => {
    seen.aborted = true;
  });
  switch (url.pathname) {
    case "/headers":
      return Response.json(Object.fromEntries(request.headers));
    case "/status":
      return new Response(null, { status: number("code") });
    case "/sized":
      return new Response("0123456789", { headers: { "content-length": "10" } });
    case "/chunks":
      return Response.json(await readChunks(seen, request));
    // Answers without a look at what is uploaded.
    case "/early":
      return new Response(pattern(number("count")), { status: number("code") });
    // Answers, or sends the next part, when the action `proceed` says so.
    case "/poll":
      return new Promise((resolve) => {
        seen.proceed = (text) => resolve(new Response(text));
      });
    case "/events":
      return new Response(events(seen), { headers: { "content-type": "text/event-stream" } });
    case "/vary":
      return new Response("x", { headers: { vary: "Accept", "access-control-allow-origin": "https://other.example" } });
    default:
      return new Response("no such page", { status: 404 });
  }
}

/** Reads a body piece by piece; the action `seen` shows how far it is. */
async function readChunks(seen, request) {
  for await (const chunk of request.body ?? []) {
    seen.chunks += 1;
    seen.bytes += chunk.byteLength;
    seen.largest = Math.max(seen.largest, chunk.byteLength);
  }
  return { chunks: seen.chunks, bytes: seen.bytes, largest: seen.largest };
}

/** One event, and each further one when the action `proceed` asks for it; `null` ends the stream. */
function events(seen) {
  return new ReadableStream({
    start: (controller) => {
      controller.enqueue(encoder.encode("data: 0\n\n"));
      seen.proceed = (text) => {
        if (text === null) controller.close();
        else controller.enqueue(encoder.encode(`data: ${text}\n\n`));
      };
    },
  });
}

function onWebSocket(c, socket) {
  socket.addEventListener("message", (event) => {
    if (event.data === "leave") return socket.close();
    if (typeof event.data === "string" && event.data.startsWith("close:")) {
      const [code, reason] = event.data.slice(6).split(",");
      return socket.close(Number(code), reason);
    }
    socket.send(event.data);
  });
  socket.addEventListener("close", (event) => {
    c.vars.closed = `${event.code} ${event.reason}`;
  });
}

export const wire = actor({
  state: {},
  createVars: () => ({ calls: 0, aborted: false, chunks: 0, bytes: 0, largest: 0, closed: null, proceed: null }),
  onRequest,
  onWebSocket,
  actions: {
    seen: (c) => {
      const { proceed, ...seen } = c.vars;
      return { ...seen, waits: proceed !== null };
    },
    proceed: (c, text) => {
      c.vars.proceed(text);
      return true;
    },
  },
  options: { sleepTimeout: 120_000 },
});
