// An instance that was not told that the actor goes on elsewhere.
import assert from "node:assert/strict";
import fs from "node:fs";
import { ended } from "../apps/stubborn.mjs";

async function oldInstance(t) {
  // It is not known when it gives up a host that does not stop an actor: not within 90 s of this.
  if (t.reference) return;
  const stubborn = t.client.stubborn.getOrCreate(t.key("stubborn"));
  const old = await stubborn.whoami();
  await t.until("the first rows", async () => (await stubborn.writers()).length >= 3);
  t.tap.withholdCommands();
  t.doing("starting a host with a newer version, to which the actor moves");
  const second = await t.stack.addHost({ version: 2 });
  await t.until("the old instance to have ended", () => fs.readFileSync(t.host.logFile, "utf8").includes(ended(old.instance)));
  const now = await stubborn.whoami();
  assert.equal(now.pid, second.child.pid);
  assert.equal(now.wakes, old.wakes + 1);
  await t.until("rows of the new instance", async () => (await stubborn.writers()).filter((one) => one === now.instance).length >= 3);
  const writers = await stubborn.writers();
  const first = writers.indexOf(now.instance);
  assert.deepEqual([...new Set(writers.slice(0, first))], [old.instance]);
  assert.deepEqual([...new Set(writers.slice(first))], [now.instance], "the old instance has written nothing since");
  const exchanges = t.tap.of(old.id);
  const refused = exchanges.findIndex(({ reply }) => reply?.error?.includes("generation"));
  assert.notEqual(refused, -1, "the old instance was refused because of its generation");
}

export const cases = [
  {
    name: "old-instance",
    about: "an instance that was not told to stop is refused once the next one has started, and ends",
    stack: "own-tapped",
    encodings: "none",
    // What is not stopped by then counts as stopped.
    settings: { RIVET__PEGBOARD__ACTOR_STOP_THRESHOLD: "1000" },
    run: oldInstance,
  },
];
