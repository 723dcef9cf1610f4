// Child processes with a log file. Only processes started here are ever signalled, by their pid.
import fs from "node:fs";
import path from "node:path";
import { spawn } from "node:child_process";

const running = new Set();

// Whatever ends this process (an exception, Ctrl-C), its children end with it.
process.on("exit", () => {
  for (const child of running) child.signal("SIGKILL");
});

/** Ends process `pid`, which a child of ours has left behind on purpose, together with the others; returns its end. */
export function adopt(pid) {
  const adopted = {
    signal: (name) => {
      if (exists(pid)) process.kill(pid, name);
    },
  };
  running.add(adopted);
  return () => {
    adopted.signal("SIGKILL");
    running.delete(adopted);
  };
}

/** Whether a process with this pid exists. */
export function exists(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

/** What every child sees of our environment: nothing that could configure the engine or the package behind our back. */
function cleanEnvironment(extra) {
  const env = { PATH: process.env.PATH ?? "", LANG: "C.UTF-8" };
  return { ...env, ...extra };
}

export class Child {
  /**
   * Starts `command`; standard output and error are appended to `logFile`. One that `talks` has pipes for standard input
   * and output instead.
   */
  constructor({ name, command, args, env, cwd, logFile, talks = false }) {
    this.name = name;
    this.logFile = logFile;
    const log = fs.openSync(logFile, "a");
    const started = spawn(command, args, {
      cwd,
      env: cleanEnvironment(env),
      stdio: talks ? ["pipe", "pipe", log] : ["ignore", log, log],
    });
    fs.closeSync(log);
    this.process = started;
    this.exitText = null;
    running.add(this);
    this.exited = new Promise((resolve) => {
      const done = (text) => {
        this.exitText = text;
        running.delete(this);
        resolve(text);
      };
      started.once("exit", (code, signal) => done(signal === null ? `exit code ${code}` : `signal ${signal}`));
      started.once("error", (error) => done(`could not start: ${error.message}`));
    });
  }

  get pid() {
    return this.process.pid;
  }

  get alive() {
    return this.exitText === null;
  }

  signal(name) {
    if (this.alive && this.pid !== undefined) this.process.kill(name);
  }

  /**
   * Sends `signal` and waits for the end of the process. A process that is still there after `deadlineMs` is killed and
   * reported as an error: a stop that hangs is a defect, not something to wait out.
   */
  async stop(signal, deadlineMs) {
    this.signal(signal);
    let timer;
    const expired = new Promise((resolve) => {
      timer = setTimeout(() => resolve(null), deadlineMs);
    });
    const text = await Promise.race([this.exited, expired]);
    clearTimeout(timer);
    if (text !== null) return text;
    this.signal("SIGKILL");
    await this.exited;
    throw new Error(`${this.name} (pid ${this.pid}) was still running ${deadlineMs} ms after ${signal}`);
  }
}

const TAIL_LINES = 30;
const LINE_CHARS = 400;

/** A heading and the last lines that were written to `file` after byte `offset`, long ones cut. */
export function logTail(file, offset = 0) {
  if (!fs.existsSync(file)) return [];
  const text = fs.readFileSync(file).subarray(offset).toString("utf8");
  const lines = text
    .split("\n")
    .filter((line) => line.length > 0)
    .slice(-TAIL_LINES);
  const cut = lines.map((line) => (line.length > LINE_CHARS ? `${line.slice(0, LINE_CHARS)}...` : line));
  return [`--- ${path.basename(file)}, last ${cut.length} lines`, ...cut];
}
