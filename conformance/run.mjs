#!/usr/bin/env node
// Runs real applications and clients on the published rivetkit package against an engine binary. See README.md.
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";

// The in-process clients would write their warnings between our lines; set before rivetkit is loaded.
process.env.RIVET_LOG_LEVEL ??= "silent";
const { allCases } = await import("./cases/index.mjs");
const { keepToPorts } = await import("./lib/ports.mjs");
const { Runner } = await import("./lib/runner.mjs");

const ENCODINGS = ["bare", "cbor", "json"];
const USAGE = `usage: node run.mjs --engine PATH [--proxy PATH] [--rust-ledger PATH] [--only NAME,..] [--except NAME,..]
       [--encoding bare|cbor|json] [--ports LOWEST-HIGHEST] [--reference] [--keep] [--list]`;

/** Whether a case is among what `--only` or `--except` names: cases, or all of a topic. */
const isCalled = (names) => ({ name, topic }) => names.split(",").some((wanted) => name === wanted || topic === wanted);

function readOptions() {
  const { values } = parseArgs({
    options: {
      engine: { type: "string" },
      proxy: { type: "string" },
      "rust-ledger": { type: "string" },
      only: { type: "string" },
      except: { type: "string" },
      encoding: { type: "string" },
      ports: { type: "string" },
      reference: { type: "boolean", default: false },
      keep: { type: "boolean", default: false },
      list: { type: "boolean", default: false },
    },
  });
  if (values.encoding !== undefined && !ENCODINGS.includes(values.encoding)) {
    throw new Error(`unknown encoding ${values.encoding}`);
  }
  if (!values.list && values.engine === undefined) throw new Error("--engine is missing");
  const named = [values.only, values.except].flatMap((names) => names?.split(",") ?? []);
  const unknown = named.find((one) => !allCases.some(isCalled(one)));
  if (unknown !== undefined) throw new Error(`no case or topic is called ${unknown}; --list shows them`);
  const cases = allCases
    .filter((one) => values.only === undefined || isCalled(values.only)(one))
    .filter((one) => values.except === undefined || !isCalled(values.except)(one));
  if (cases.length === 0) throw new Error("no case is left");
  if (values.ports !== undefined) {
    const [lowest, highest] = values.ports.split("-").map(Number);
    if (!(lowest > 0 && highest > lowest)) throw new Error(`${values.ports} is no range of ports`);
    keepToPorts(lowest, highest);
  }
  const need = (option, what, isNeeded) => {
    if (values.list || values[option] !== undefined || !cases.some(isNeeded)) return;
    throw new Error(`--${option} is missing: ${what} need it`);
  };
  need("proxy", "the cases of the topic faults", ({ stack }) => stack?.endsWith("faulty"));
  need("rust-ledger", "the cases of the topic rust-crate", isCalled("rust-crate"));
  return { ...values, cases };
}

async function main({ cases, ...options }) {
  if (options.list) {
    for (const one of cases) console.log(`${one.topic.padEnd(16)} ${one.name.padEnd(26)} ${one.about}`);
    return 0;
  }
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "conformance-"));
  process.on("exit", () => {
    if (options.keep) console.error(`logs and data: ${folder}`);
    else fs.rmSync(folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 50 });
  });
  const runner = new Runner({
    binary: path.resolve(options.engine),
    proxy: options.proxy === undefined ? null : path.resolve(options.proxy),
    rustLedger: options["rust-ledger"] === undefined ? null : path.resolve(options["rust-ledger"]),
    folder,
    encodings: options.encoding === undefined ? ENCODINGS : [options.encoding],
    reference: options.reference,
  });
  const { passed, failed } = await runner.run(cases);
  console.log(`${passed} passed, ${failed} failed`);
  return failed === 0 ? 0 : 1;
}

for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => process.exit(130));
let options;
try {
  options = readOptions();
} catch (error) {
  console.error(`${error.message}\n${USAGE}`);
  process.exit(2);
}
process.exit(await main(options));
