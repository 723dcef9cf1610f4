#!/usr/bin/env node
// Runs real applications and clients on the published rivetkit package against an engine binary. See README.md.
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";

// The in-process clients would write their warnings between our lines; set before rivetkit is loaded.
process.env.RIVET_LOG_LEVEL ??= "silent";
const { allCases } = await import("./cases/index.mjs");
const { Runner } = await import("./lib/runner.mjs");

const ENCODINGS = ["bare", "cbor", "json"];
const USAGE =
  "usage: node run.mjs --engine PATH [--only NAME] [--encoding bare|cbor|json] [--reference] [--keep] [--list]";

function readOptions() {
  const { values } = parseArgs({
    options: {
      engine: { type: "string" },
      only: { type: "string" },
      encoding: { type: "string" },
      reference: { type: "boolean", default: false },
      keep: { type: "boolean", default: false },
      list: { type: "boolean", default: false },
    },
  });
  if (values.encoding !== undefined && !ENCODINGS.includes(values.encoding))
    throw new Error(`unknown encoding ${values.encoding}`);
  if (!values.list && values.engine === undefined) throw new Error("--engine is missing");
  return values;
}

function chosenCases(only) {
  const chosen = allCases.filter((one) => only === undefined || one.name === only || one.topic === only);
  if (chosen.length === 0) throw new Error(`no case or topic is called ${only}; --list shows them`);
  return chosen;
}

async function main() {
  const options = readOptions();
  const cases = chosenCases(options.only);
  if (options.list) {
    for (const one of cases) console.log(`${one.topic.padEnd(12)} ${one.name.padEnd(32)} ${one.about}`);
    return 0;
  }
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "conformance-"));
  process.on("exit", () => {
    if (options.keep) console.error(`logs and data: ${folder}`);
    else fs.rmSync(folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 50 });
  });
  const runner = new Runner({
    binary: path.resolve(options.engine),
    folder,
    encodings: options.encoding === undefined ? ENCODINGS : [options.encoding],
    reference: options.reference,
  });
  const { passed, failed } = await runner.run(cases);
  console.log(`${passed} passed, ${failed} failed`);
  return failed === 0 ? 0 : 1;
}

for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => process.exit(130));
try {
  process.exit(await main());
} catch (error) {
  console.error(error.stack);
  console.error(USAGE);
  process.exit(2);
}
