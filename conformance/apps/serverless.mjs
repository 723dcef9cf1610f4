// Serverless backends: plain Node HTTP servers with the handler of an unmodified registry mounted at /api/rivet, and a
// control port on which a case says how they behave and reads what they were asked. One process serves many pools, each
// with a registry and a port of its own. The other side is lib/serverless.mjs.
import http from "node:http";
import { setup } from "rivetkit";
import { timer } from "./background.mjs";
import { counter, napper } from "./counter.mjs";
import { failing } from "./failing.mjs";
import { hibernating } from "./raw.mjs";

const SERVE = { kind: "serve" };
/** A second mount of the same routes, which are always served: what a redirect may lead to. */
const MOVED = "/moved";

async function bodyOf(request) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  return Buffer.concat(chunks);
}

class Backend {
  /** `engine`, if given, replaces the address that start requests name; `options` are for rivetkit's `setup`. */
  constructor({ port, engine, options }) {
    this.port = port;
    this.engine = engine;
    /** By the last part of the path; whatever is not here is served. */
    this.behaviours = new Map();
    this.requests = [];
    this.deploy(options);
  }

  /** Installs a new registry, as a deployment does. Requests that are open stay with the one before. */
  deploy(options) {
    this.registry = setup({ use: { counter, napper, timer, failing, hibernating }, noWelcome: true, ...options });
  }

  open() {
    this.server = http.createServer((request, response) => {
      this.answer(request, response).catch((error) => {
        console.error(error);
        response.destroy();
      });
    });
    return new Promise((resolve, reject) => {
      this.server.once("error", reject);
      this.server.listen(this.port, "127.0.0.1", resolve);
    });
  }

  /** Refuses connections from now on, and cuts those that are open. */
  close() {
    const closed = new Promise((resolve) => this.server.close(resolve));
    this.server.closeAllConnections();
    return closed;
  }

  async answer(request, response) {
    const { pathname } = new URL(request.url, "http://backend");
    const route = pathname.split("/").at(-1);
    const entry = { route, path: pathname, method: request.method, headers: request.rawHeaders, at: Date.now() };
    this.requests.push(entry);
    response.once("close", () => {
      entry.endedAt = Date.now();
    });
    const body = await bodyOf(request);
    entry.bytes = body.length;
    entry.begin = body.subarray(0, 64).toString("hex");
    const behaviour = pathname.startsWith(MOVED) ? SERVE : (this.behaviours.get(route) ?? SERVE);
    switch (behaviour.kind) {
      case "serve":
        return this.serve(request, body, response, { holds: false });
      // As "serve", but the stream neither ends nor says so when the actor has stopped.
      case "hold":
        return this.serve(request, body, response, { holds: true });
      case "answer":
        response.writeHead(behaviour.status, behaviour.headers);
        response.end(behaviour.body);
        return;
      // An event stream whose connection is cut after its first event.
      case "cut":
        response.writeHead(200, { "content-type": "text/event-stream" });
        response.write("event: ping\ndata:\n\n", () => response.destroy());
        return;
      case "silence":
        return;
      default:
        throw new Error(`unknown behaviour ${behaviour.kind}`);
    }
  }

  /** Hands the request to the registry and its answer back, as any adapter for Node does. */
  async serve(request, body, response, { holds }) {
    const gone = new AbortController();
    response.once("close", () => gone.abort());
    const headers = new Headers();
    for (const [name, values] of Object.entries(request.headersDistinct)) {
      for (const value of values) headers.append(name, value);
    }
    if (this.engine !== null && headers.has("x-rivet-endpoint")) headers.set("x-rivet-endpoint", this.engine);
    const answer = await this.registry.handler(
      new Request(`http://backend${request.url.replace(MOVED, "")}`, {
        method: request.method,
        headers,
        body: request.method === "POST" ? body : undefined,
        signal: gone.signal,
      }),
    );
    response.writeHead(answer.status, Object.fromEntries(answer.headers));
    for await (const chunk of answer.body ?? []) {
      if (!(holds && Buffer.from(chunk).includes("stopping"))) response.write(chunk);
    }
    if (!holds) response.end();
  }
}

const backends = new Map();

const commands = {
  ready: () => true,
  add: async ({ pool, ...settings }) => {
    const backend = new Backend(settings);
    backends.set(pool, backend);
    await backend.open();
  },
  behave: ({ pool, route, behaviour }) => {
    backends.get(pool).behaviours.set(route, behaviour);
  },
  deploy: ({ pool, options }) => backends.get(pool).deploy(options),
  open: ({ pool }) => backends.get(pool).open(),
  close: ({ pool }) => backends.get(pool).close(),
  requests: ({ pool }) => backends.get(pool).requests,
};

const control = http.createServer(async (request, response) => {
  try {
    const { command, ...details } = JSON.parse(await bodyOf(request));
    response.end(JSON.stringify((await commands[command](details)) ?? null));
  } catch (error) {
    response.statusCode = 500;
    response.end(String(error.stack));
  }
});
control.listen(Number(process.env.CONTROL_PORT), "127.0.0.1");
