// curl as a client that hides nothing: what it receives arrives piece by piece, interim answers included.
import { spawn } from "node:child_process";
import { within } from "./wait.mjs";

const OPTIONS = ["--silent", "--show-error", "--include", "--no-buffer", "--max-time", "60"];

/** A running curl. It is killed at the end of the case. */
export class Curl {
  /** `input`, when given, is all that curl can read (`--upload-file .`); otherwise `write` and `end` feed it. */
  constructor(t, args, input) {
    const child = spawn("curl", [...OPTIONS, ...args], { env: { PATH: process.env.PATH ?? "" }, stdio: "pipe" });
    this.child = child;
    this.output = "";
    this.complaint = "";
    this.onOutput = () => {};
    child.stdout.setEncoding("latin1").on("data", (piece) => {
      this.output += piece;
      this.onOutput();
    });
    child.stderr.setEncoding("utf8").on("data", (piece) => {
      this.complaint += piece;
    });
    // curl stops reading when the answer is complete before the upload.
    child.stdin.on("error", () => {});
    if (input !== undefined) child.stdin.end(input);
    this.exit = new Promise((resolve, reject) => {
      child.once("error", reject);
      child.once("close", (code) => resolve(code));
    });
    t.atEnd(() => child.kill("SIGKILL"));
  }

  /** Adds to what is being uploaded. */
  write(bytes) {
    this.child.stdin.write(bytes);
  }

  /** Ends what is being uploaded. */
  end() {
    this.child.stdin.end();
  }

  /** Leaves without a word. */
  kill() {
    this.child.kill("SIGKILL");
  }

  /** Waits until the output so far ends with `text`. */
  async shows(text, deadlineMs = 5_000) {
    const shown = new Promise((resolve) => {
      this.onOutput = () => this.output.endsWith(text) && resolve();
      this.onOutput();
    });
    const ended = this.exit.then((code) => {
      if (!this.output.endsWith(text)) throw new Error(`curl ended (${code}) after ${JSON.stringify(this.output)}`);
    });
    await within(`curl to show ${JSON.stringify(text)}`, Promise.race([shown, ended]), deadlineMs);
  }

  /** Waits for its end; returns all answers in order. Fails when curl complains. */
  async answers() {
    const code = await this.exit;
    if (code !== 0) throw new Error(`curl ended with ${code}: ${this.complaint.trim()}`);
    return parse(this.output);
  }
}

/** The JSON in a body; its text is kept byte by byte until here. */
export function jsonOf({ body }) {
  return JSON.parse(Buffer.from(body, "latin1").toString("utf8"));
}

/** Runs curl for one answer. */
export async function curl(t, args, input = "") {
  const answers = await new Curl(t, args, input).answers();
  return answers.at(-1);
}

/** Answers as curl prints them: a head, then a body that ends where the next head begins. */
function parse(output) {
  const heads = [...output.matchAll(/HTTP\/([\d.]+) (\d{3})[^\r\n]*\r\n((?:[^\r\n]+\r\n)*)\r\n/g)];
  return heads.map((head, i) => {
    const headers = new Map();
    for (const line of head[3].split("\r\n").filter((line) => line.length > 0)) {
      const colon = line.indexOf(":");
      const name = line.slice(0, colon).toLowerCase();
      const value = line.slice(colon + 1).trim();
      headers.set(name, headers.has(name) ? `${headers.get(name)}, ${value}` : value);
    }
    const body = output.slice(head.index + head[0].length, heads[i + 1]?.index ?? output.length);
    return { version: head[1], status: Number(head[2]), headers, body };
  });
}
