// Hundreds of actors change hosts while clients call them: a newer version, a killed host, a killed engine.
import assert from "node:assert/strict";
import fs from "node:fs";
import { LEAVING } from "../apps/migrant.mjs";
import { pause } from "../lib/wait.mjs";

const ACTORS = 500;
const CREATORS = 32;

async function createAll(t) {
  const client = t.newClient("bare");
  const actors = Array.from({ length: ACTORS }, (_, i) => ({ handle: client.migrant.getOrCreate(t.key(`m-${i}`)), sum: 0 }));
  let next = 0;
  const began = performance.now();
  const work = async () => {
    while (next < ACTORS) {
      const actor = actors[next++];
      actor.sum = await actor.handle.addDurably(1);
    }
  };
  await Promise.all(Array.from({ length: CREATORS }, work));
  console.log("created in", performance.now() - began);
  return actors;
}
async function rolling(t) {
  const actors = await createAll(t);
  let answer = await t.api("GET", "/runner-configs?namespace=default&runner_name=default");
  console.log(answer.text);
  answer = await t.api("PUT", "/runner-configs/default?namespace=default", { datacenters: { default: { normal: { actor_eviction_rate: 50 } } } });
  console.log(answer.text);
  let stop = false;
  let worst = 0, calls = 0;
  const failures = [];
  const worker = async (w) => {
    for (let i = w * 60; !stop; i = (i + 1) % ACTORS) {
      const began = performance.now();
      try { actors[i].sum += 1; const got = await actors[i].handle.add(1); } catch (error) { failures.push(error); }
      calls += 1;
      worst = Math.max(worst, performance.now() - began);
    }
  };
  const workers = Array.from({ length: 8 }, (_, w) => worker(w));
  const began = performance.now();
  const second = await t.stack.addHost({ version: 2 });
  console.log("second up", performance.now() - began);
  await t.until("empty", async () => (await t.host.listing()).slots === 0);
  console.log("moved", performance.now() - began);
  stop = true;
  await Promise.all(workers);
  answer = await t.api("GET", "/runner-configs?namespace=default&runner_name=default");
  console.log(answer.text);
  console.log({ worst, calls, failures: failures.length }, failures.slice(0, 5));
  const times = fs.readFileSync(t.host.logFile, "utf8").split("\n").filter((l) => l.startsWith(LEAVING)).map((l) => Number(l.split(" ").at(-1)));
  console.log(times.length, "stops, rate", (times.length - 1) * 1000 / (times.at(-1) - times[0]));
  let wrong = 0;
  for (const a of actors) { const g = await a.handle.get(); if (g.count !== a.sum || g.pid !== second.child.pid || g.wakes !== 2) { wrong += 1; if (wrong < 5) console.log(g, a.sum); } }
  console.log({ wrong }, performance.now() - began);
}
export const cases = [{ name: "upgrade-rolling", about: "x", run: rolling, stack: "own", encodings: "none", deadlineMs: 90_000 }];
