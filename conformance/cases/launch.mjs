// The package starts the engine by itself.
import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { createClient } from "rivetkit/client";
import { adopt, Child, exists } from "../lib/child.mjs";
import { APPLICATION } from "../lib/host.mjs";
import { freePorts } from "../lib/ports.mjs";
import { DeadlineError } from "../lib/wait.mjs";

async function packageStartsEngine(t) {
  // The package uses the port, the next one, and the one ten above.
  const port = await freePorts(11);
  const logFile = path.join(t.folder, "host.log");
  t.logFiles.push(logFile);
  const stamp = path.join(t.folder, ".rivetkit", "var", "engine", "runtime.json");
  const startHost = () =>
    new Child({
      name: "host",
      command: process.execPath,
      args: [APPLICATION],
      cwd: t.folder,
      logFile,
      env: {
        HOME: t.folder,
        RIVETKIT_STORAGE_PATH: t.folder,
        // The first is asked by the npm package that normally brings the engine, the second by the native part.
        RIVET_ENGINE_BINARY: t.binary,
        RIVET_ENGINE_BINARY_PATH: t.binary,
        RIVET_RUN_ENGINE: "1",
        RIVET_RUN_ENGINE_PORT: String(port),
        RIVET_RUN_SERVICES: "0",
        RIVET_LOG_LEVEL: "warn",
      },
    });
  const endpoint = `http://127.0.0.1:${port}`;
  const runningEngine = () => (fs.existsSync(stamp) ? JSON.parse(fs.readFileSync(stamp, "utf8")) : null);
  let host = startHost();
  t.atEnd(async () => {
    host.signal("SIGKILL");
    await host.exited;
  });

  await t.until("the package to start the engine", () => {
    if (!host.alive) throw new DeadlineError(`the host ended: ${host.exitText}`);
    return runningEngine();
  });
  const engine = runningEngine();
  t.atEnd(adopt(engine.pid));
  assert.equal(engine.endpoint.replace(/\/$/, ""), endpoint);
  assert.ok(exists(engine.pid));
  if (process.platform === "linux") {
    assert.equal(
      fs.readlinkSync(`/proc/${engine.pid}/exe`),
      fs.realpathSync(t.binary),
      "it runs the engine under test",
    );
  }
  await t.until("the started engine to list the host", async () => {
    const answer = await fetch(`${endpoint}/envoys?namespace=default&name=default`);
    return (await answer.json()).envoys.length === 1;
  });
  const client = createClient({ endpoint });
  t.atEnd(() => client.dispose());
  const counter = client.counter.getOrCreate(t.key("launched"));
  t.doing("calling an actor on the started engine");
  assert.equal(await counter.incrementDurably(5), 5);

  t.doing("restarting the host beside the running engine");
  await host.stop("SIGTERM", 20_000);
  assert.ok(exists(engine.pid), "the engine outlives the host that started it");
  host = startHost();
  t.doing("calling the actor on the second host");
  assert.equal(await counter.increment(1), 6);
  assert.equal((await counter.whoami()).pid, host.pid);
  assert.equal(runningEngine().pid, engine.pid, "the running engine was used again");

  await host.stop("SIGTERM", 20_000);
  t.doing("stopping the engine by the pid in its runtime.json");
  process.kill(engine.pid, "SIGTERM");
  await t.until("the engine to end", () => !exists(engine.pid));
}

export const cases = [
  {
    name: "package-starts-engine",
    about: "RIVET_RUN_ENGINE=1 with this binary: start, use, reuse, stop",
    encodings: "none",
    stack: "none",
    run: packageStartsEngine,
  },
];
