// How much an engine may write. The limit on the size of files stands for a full disk: it needs no privileges, and can be
// lifted while the process runs. Linux only.
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";

const limit = (engine, bytes) => {
  execFileSync("prlimit", [`--pid=${engine.child.process.pid}`, `--fsize=${bytes}:`]);
};

/** Lets the engine's data grow by so many bytes, and no more. */
export function leaveRoom(engine, bytes) {
  limit(engine, fs.statSync(path.join(engine.folder, "data", "data.mdb")).size + bytes);
}

/** Lets the engine write nothing at all. */
export const leaveNothing = (engine) => limit(engine, 1);

/** Lets the engine write as much as it likes. */
export const makeRoom = (engine) => limit(engine, "unlimited");
