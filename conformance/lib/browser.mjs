// A headless Chromium. Cases hand it functions, which run in a page of another origin than the engine's.
import fs from "node:fs";
import http from "node:http";
import path from "node:path";
import { Child } from "./child.mjs";
import { freePorts } from "./ports.mjs";
import { within } from "./wait.mjs";

const BINARIES = ["chromium", "chromium-browser", "google-chrome"];
// Without a sandbox, so that root can run it: it sees only pages of ours.
const ARGUMENTS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"];
const START_DEADLINE_MS = 30_000;

/** Fetches functions, runs them side by side, and sends back what they return. */
const PAGE = `<!doctype html><title>conformance</title><script type="module">
async function outcomeOf({ id, source }) {
  try {
    const run = (0, eval)("(" + source + ")");
    return { id, value: await run() };
  } catch (error) {
    return { id, error: String(error?.stack ?? error) };
  }
}
for (;;) {
  const order = await (await fetch("/next")).json();
  outcomeOf(order).then((outcome) => fetch("/outcome", { method: "POST", body: JSON.stringify(outcome) }));
}
</script>`;

function findBinary() {
  const folders = (process.env.PATH ?? "").split(path.delimiter);
  const candidates = BINARIES.flatMap((name) => folders.map((folder) => path.join(folder, name)));
  const found = candidates.find((file) => fs.existsSync(file));
  if (found === undefined) throw new Error(`no browser: none of ${BINARIES.join(", ")} is installed`);
  return found;
}

export class Browser {
  /** Starts a browser with a fresh profile below `folder` and waits until its page asks for something to do. */
  static async start(folder) {
    const browser = new Browser();
    browser.files = new Map([["/", ["text/html", PAGE]]]);
    browser.orders = 0;
    /** By order, what takes its outcome. A function that never ends keeps nobody waiting but its own case. */
    browser.open = new Map();
    browser.expectPage();
    const port = await freePorts(1);
    browser.origin = `http://localhost:${port}`;
    browser.server = http.createServer((request, response) => browser.answer(request, response));
    await new Promise((resolve) => browser.server.listen(port, "localhost", resolve));
    const profile = path.join(folder, "browser");
    browser.child = new Child({
      name: "browser",
      command: findBinary(),
      args: [...ARGUMENTS, `--user-data-dir=${profile}`, browser.origin],
      cwd: folder,
      env: { HOME: folder },
      logFile: path.join(folder, "browser.log"),
    });
    await within("the browser to open its page", Promise.race([browser.pageAsks, browser.ended()]), START_DEADLINE_MS);
    return browser;
  }

  async ended() {
    throw new Error(`the browser ended: ${await this.child.exited}`);
  }

  /** From here on, `pageAsks` is the page's next request for something to do. */
  expectPage() {
    this.pageAsks = new Promise((resolve) => {
      this.onPageAsks = resolve;
    });
  }

  answer(request, response) {
    if (request.url === "/next") return this.onPageAsks(response);
    if (request.url === "/outcome") return this.takeOutcome(request, response);
    const file = this.files.get(request.url);
    response.writeHead(file === undefined ? 404 : 200, { "content-type": file?.[0] ?? "text/plain" });
    response.end(file?.[1]);
  }

  async takeOutcome(request, response) {
    let text = "";
    for await (const piece of request.setEncoding("utf8")) text += piece;
    response.end();
    const outcome = JSON.parse(text);
    this.open.get(outcome.id)(outcome);
    this.open.delete(outcome.id);
  }

  /** Serves a script to the page. */
  addScript(name, text) {
    this.files.set(name, ["text/javascript", text]);
  }

  /**
   * Calls `action` in the page with `input`, which must survive JSON, and returns what it returns. The function sees
   * only its argument and the browser's globals.
   */
  async run(action, input) {
    this.orders += 1;
    const id = this.orders;
    const outcome = new Promise((resolve) => this.open.set(id, resolve));
    const page = await Promise.race([this.pageAsks, this.ended()]);
    this.expectPage();
    page.end(JSON.stringify({ id, source: `() => (${action})(${JSON.stringify(input)})` }));
    const { value, error } = await Promise.race([outcome, this.ended()]);
    if (error !== undefined) throw new Error(`in the browser: ${error}`);
    return value;
  }

  async stop() {
    this.child.signal("SIGKILL");
    await this.child.exited;
    this.server.closeAllConnections();
    this.server.close();
  }
}
