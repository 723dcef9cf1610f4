// Serves the actor `counter` on demand: a plain HTTP server at /api/rivet, which the engine of a serverless pool asks for
// each actor. Usage: node serverless.mjs [PORT]
import { createServer } from "node:http";
import { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import { setup } from "rivetkit";
import { counter } from "./counter.mjs";

process.env.RIVET_LOG_LEVEL ??= "error";
const registry = setup({ use: { counter }, noWelcome: true });
const port = Number(process.argv[2] ?? 8080);

async function answerTo(request, response) {
  const gone = new AbortController();
  response.once("close", () => gone.abort());
  const answer = await registry.handler(
    new Request(`http://127.0.0.1:${port}${request.url}`, {
      method: request.method,
      headers: Object.entries(request.headers),
      body: request.method === "POST" ? await buffer(request) : undefined,
      signal: gone.signal,
    }),
  );
  response.writeHead(answer.status, Object.fromEntries(answer.headers));
  if (answer.body === null) response.end();
  else Readable.fromWeb(answer.body).pipe(response);
}

const server = createServer((request, response) => {
  answerTo(request, response).catch((error) => {
    console.error(error);
    response.destroy();
  });
});
server.listen(port, "127.0.0.1", () => console.log(`counter can be had at http://127.0.0.1:${port}/api/rivet`));
