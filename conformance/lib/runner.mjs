// Runs cases one after the other and reports them as a table.
import fs from "node:fs";
import path from "node:path";
import { logTail } from "./child.mjs";
import { Scene } from "./scene.mjs";
import { Stack } from "./stack.mjs";

const DEFAULT_DEADLINE_MS = 30_000;
// The published engine takes up to half a minute to go on with its actors after a kill -9 of its own.
const REFERENCE_PATIENCE = 3;

/**
 * A case is `{ name, about, run }` and optionally
 * - `encodings`: "each" (default: one run per client encoding), "together" (one run that uses all of them), "none";
 * - `stack`: "shared" (default), "own" (fresh engine and host: for cases that kill them), "faulty" (shared by cases
 *   that disturb only clients; they find the engine behind a proxy, as the host does), "own-faulty" (the same, fresh),
 *   "tapped" (shared by cases that watch what the host and the engine say to each other), "own-tapped" (the same, fresh),
 *   "crowd" (shared by cases that move hundreds of actors from host to host), "none" (starts its own things);
 * - `settings`: what the engine of an "own" or "own-tapped" stack gets beyond the usual;
 * - `deadlineMs`.
 */
function plan(cases, encodings) {
  return cases.flatMap((one) => {
    const kind = one.encodings ?? "each";
    if (kind === "each") return encodings.map((encoding) => ({ one, used: [encoding], label: encoding }));
    return [{ one, used: encodings, label: kind === "none" ? "-" : encodings.join("+") }];
  });
}

export class Runner {
  constructor({ binary, proxy, rustLedger, folder, encodings, reference }) {
    this.binary = binary;
    this.proxy = proxy;
    this.rustLedger = rustLedger;
    this.folder = folder;
    this.encodings = encodings;
    this.reference = reference;
    /** Stacks that cases share, by kind. */
    this.shared = new Map();
    /** Whether any engine could be started so far; without one there is no use in going on. */
    this.usable = false;
    this.folders = 0;
    // A rejection that nobody handles would end a real application: it fails the case during which it happens.
    this.stray = null;
    process.on("unhandledRejection", (reason) => {
      this.stray ??= reason instanceof Error ? reason : new Error(String(reason));
    });
  }

  newFolder(name) {
    this.folders += 1;
    return path.join(this.folder, `${this.folders}-${name}`);
  }

  async startStack(name, options = {}) {
    const { binary, rustLedger } = this;
    const stack = await Stack.start({ binary, rustLedger, folder: this.newFolder(name), ...options });
    this.usable = true;
    return stack;
  }

  /** A stack that cases share; a new one when a case has left the last one dead or stuck. */
  async sharedStack(kind, options = {}) {
    const last = this.shared.get(kind);
    if (last !== undefined && (await last.healthy())) return last;
    this.shared.delete(kind);
    await last?.stop("SIGKILL");
    const stack = await this.startStack(kind, options);
    this.shared.set(kind, stack);
    return stack;
  }

  async stackFor(one) {
    switch (one.stack ?? "shared") {
      case "shared":
        return this.sharedStack("shared");
      case "crowd":
        return this.sharedStack("crowd");
      case "own":
        return this.startStack(one.name, { settings: one.settings });
      case "faulty":
        return this.sharedStack("faulty", { proxy: this.proxy });
      case "own-faulty":
        return this.startStack(one.name, { proxy: this.proxy });
      case "tapped":
        return this.sharedStack("tapped", { tapped: true });
      case "own-tapped":
        return this.startStack(one.name, { tapped: true, settings: one.settings });
      case "none":
        return null;
      default:
        throw new Error(`case ${one.name} asks for an unknown stack`);
    }
  }

  async run(cases) {
    const totals = { passed: 0, failed: 0 };
    console.log(row("case", "encoding", "result", "ms"));
    const runs = plan(cases, this.encodings);
    for (const [i, planned] of runs.entries()) {
      const failure = await this.runOne(planned);
      totals[failure === null ? "passed" : "failed"] += 1;
      if (failure !== null) console.log(failure);
      if (failure !== null && !this.usable && planned.one.stack !== "none") {
        const left = runs.length - i - 1;
        console.log(`the engine cannot be started: ${left} further runs count as failed`);
        totals.failed += left;
        break;
      }
    }
    for (const stack of this.shared.values()) await stack.stop("SIGKILL");
    return totals;
  }

  /** Runs a case once, prints its line, and returns the text of its failure or null. */
  async runOne({ one, used, label }) {
    this.stray = null;
    const outcome = { stack: null, scene: null, mark: undefined, started: performance.now(), error: null };
    try {
      await this.play(one, used, outcome);
    } catch (error) {
      outcome.error = error;
    }
    const ms = Math.round(performance.now() - outcome.started);
    // Taken before the clean-up, whose own noise would push the interesting lines out.
    const report = reportOf(outcome);
    try {
      await outcome.scene?.close();
      if (one.stack?.startsWith("own")) await outcome.stack?.stop("SIGKILL");
    } catch (error) {
      outcome.error ??= error;
    }
    const error = outcome.error ?? this.stray;
    console.log(row(one.name, label, error === null ? "ok" : "FAILED", String(ms)));
    for (const note of outcome.scene?.notes ?? []) console.log(`  ${note}`);
    return error === null ? null : [indent(describe(error)), ...report].join("\n");
  }

  /** The case itself; what it gets to work with is kept in `outcome`, so that it can be reported and ended. */
  async play(one, used, outcome) {
    outcome.stack = await this.stackFor(one);
    outcome.mark = outcome.stack?.logMark();
    const folder = this.newFolder(`${one.name}-files`);
    fs.mkdirSync(folder);
    outcome.started = performance.now();
    outcome.scene = new Scene({
      stack: outcome.stack,
      folder,
      binary: this.binary,
      encodings: used,
      reference: this.reference,
      deadlineMs: (one.deadlineMs ?? DEFAULT_DEADLINE_MS) * (this.reference ? REFERENCE_PATIENCE : 1),
    });
    await outcome.scene.play(one.run);
  }
}

/** What the case was doing, and the ends of the logs of its time. */
function reportOf({ stack, scene, mark }) {
  const during = scene === null ? "starting the engine and the host" : scene.activity;
  const logs = [...(stack?.logTails(mark) ?? []), ...(scene?.logFiles ?? []).flatMap((file) => logTail(file))];
  return [`while ${during}`, ...logs].map((line) => `  ${line}`);
}

function row(name, encoding, result, ms) {
  return `${name.padEnd(34)} ${encoding.padEnd(14)} ${result.padEnd(7)} ${ms.padStart(7)}`;
}

/** The error's text, its code where it has one, and the lines of the case that it passed through. */
function describe(error) {
  const code = error.group === undefined ? "" : ` (${error.group}.${error.code})`;
  const frames = (error.stack ?? "")
    .split("\n")
    .filter((line) => /^ +at .*\/conformance\/(cases|lib)\/(?!wait|scene|runner)/.test(line));
  return [`${error.name}: ${error.message}${code}`, ...frames].join("\n");
}

const indent = (text) =>
  text
    .split("\n")
    .map((line) => `  ${line}`)
    .join("\n");
