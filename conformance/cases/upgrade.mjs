// Hundreds of actors change hosts while clients call them: a newer version, a killed host, and a killed engine amid both.
import assert from "node:assert/strict";
import fs from "node:fs";
import { LEAVING } from "../apps/migrant.mjs";
import { pause } from "../lib/wait.mjs";

const ACTORS = 500;
/** Calls under way at once while all actors are called once. */
const CALLS_AT_ONCE = 32;
/** Clients that call actors all the time. */
const CALLERS = 4;
/** Actors that leave a host per second: about half of what two Node processes on two cores can move. */
const PACE = 30;

/** Calls `act` for each of `items`, a few at a time. */
async function forAll(items, act) {
  let next = 0;
  const work = async () => {
    while (next < items.length) await act(items[next++]);
  };
  await Promise.all(Array.from({ length: CALLS_AT_ONCE }, work));
}

/** The stack's actors; made by the first case that needs them, and moved about by all. They run on the stack's host. */
async function crowd(t) {
  t.stack.crowd ??= Array.from({ length: ACTORS }, (_, i) => ({ key: t.key(`migrant-${i}`), sum: 0, unknown: 0 }));
  const { crowd } = t.stack;
  t.doing(`calling ${ACTORS} actors`);
  const began = performance.now();
  const isNew = crowd[0].wakes === undefined;
  await forAll(crowd, async (actor) => {
    actor.handle = t.client.migrant.getOrCreate(actor.key);
    // What a case before has left in memory is durable from here on too.
    actor.sum = await actor.handle.addDurably(1);
    actor.durable = actor.sum;
    actor.wakes = (await actor.handle.get()).wakes;
  });
  if (isNew) t.note(`${ACTORS} actors created in ${seconds(began)}`);
  return crowd;
}

const seconds = (since) => `${((performance.now() - since) / 1000).toFixed(1)} s`;

/** Adds 1 to one actor after the other, for as long as it is wanted. */
class Traffic {
  constructor(crowd) {
    this.calls = 0;
    this.slowestMs = 0;
    this.failures = [];
    this.wanted = true;
    // Each has actors of its own, so that an actor's sum is known.
    const shares = Array.from({ length: CALLERS }, (_, i) => crowd.filter((_, n) => n % CALLERS === i));
    this.callers = shares.map((share) => this.#call(share));
  }

  async #call(share) {
    for (let i = 0; this.wanted; i = (i + 1) % share.length) {
      const began = performance.now();
      try {
        await share[i].handle.add(1);
        share[i].sum += 1;
      } catch (error) {
        share[i].unknown += 1;
        this.failures.push(error);
        // While nobody is there, refusals come at once.
        await pause(20);
      }
      this.calls += 1;
      this.slowestMs = Math.max(this.slowestMs, performance.now() - began);
    }
  }

  async stop() {
    this.wanted = false;
    await Promise.all(this.callers);
    return `${this.calls} calls, ${this.failures.length} failed, the slowest took ${Math.round(this.slowestMs)} ms`;
  }
}

/**
 * All answer, from one of `hosts`, and have the state that they had. `moves`: how often each was started since. Of `interrupted`
 * actors one instance more was started, or none, and only what was durable counts. `detours`: so many may have been started once
 * more on their way.
 */
async function assertServed(t, crowd, hosts, moves, { interrupted = new Set(), detours = 0 } = {}) {
  t.doing(`calling all actors on ${hosts.map((host) => host.name).join(" and ")}`);
  const pids = hosts.map((host) => host.child.pid);
  let detoured = 0;
  await forAll(crowd, async (actor) => {
    const now = await actor.handle.get();
    const wasInterrupted = interrupted.has(now.id);
    const least = wasInterrupted ? actor.durable : actor.sum;
    assert.ok(pids.includes(now.pid), "served by a host that should not have it");
    assert.ok(now.count >= least && now.count <= actor.sum + actor.unknown, `${now.count} instead of ${actor.sum}`);
    const started = now.wakes - actor.wakes;
    if (wasInterrupted) assert.ok(Math.abs(started - moves) <= 1, `started ${started} times`);
    else if (started === moves + 1) detoured += 1;
    else assert.equal(started, moves, `started ${started} times`);
    Object.assign(actor, { sum: now.count, unknown: 0, wakes: now.wakes });
  });
  assert.ok(detoured <= detours, `${detoured} actors were started once more, at most ${detours} had a reason`);
}

/**
 * The actors whose database failed them on `hosts`. rivetkit 2.3.19 cannot know whether a commit was made that was under way
 * when its engine died: it says so and gives the instance up, with all that was not durable yet.
 */
function interruptedOn(hosts) {
  const lines = hosts.flatMap((host) => fs.readFileSync(host.logFile, "utf8").split("\n"));
  const failures = lines.filter((line) => line.includes('level=error message="sqlite '));
  // Some lines are about a connection to a database and name no actor; the operation that failed with it has a line that does.
  return new Set(failures.flatMap((line) => /actor_id=(\w+)/.exec(line)?.[1] ?? []));
}

async function configure(t, options) {
  const body = { datacenters: { default: { normal: options } } };
  assert.equal((await t.api("PUT", "/runner-configs/default?namespace=default", body)).status, 200);
}

/** When actors have left a host, in milliseconds since the epoch. */
function departures(host) {
  const lines = fs.readFileSync(host.logFile, "utf8").split("\n");
  return lines.filter((line) => line.startsWith(LEAVING)).map((line) => Number(line.split(" ").at(-1)));
}

/** Waits until the old host has no actor left; it stays connected for that long. */
function emptied(t, host) {
  return t.until(`${host.name} to be empty`, async () => {
    const listing = await host.listing();
    assert.notEqual(listing, undefined, "the host was cut off");
    return listing.slots === 0;
  });
}

/** Lets the next version of the application take the place of the stack's host. */
async function nextVersion(t) {
  const [old, version] = [t.host, t.host.version + 1];
  t.doing(`starting a host of version ${version}`);
  const next = await t.stack.addHost({ version });
  t.stack.host = next;
  return { old, next };
}

async function rollingUpgrade(t) {
  const actors = await crowd(t);
  await configure(t, { actor_eviction_rate: PACE });
  const traffic = new Traffic(actors);
  const { old, next } = await nextVersion(t);
  await emptied(t, old);
  t.note(await traffic.stop());
  assert.deepEqual(traffic.failures, [], "no call failed");
  await assertServed(t, actors, [next], 1);

  const left = departures(old);
  assert.equal(left.length, ACTORS, "each actor left once");
  // Without the first and the last few: one that has to finish something first says nothing about the pace.
  const [first, last] = [ACTORS * 0.05, ACTORS * 0.95];
  const rate = ((last - first) * 1000) / (left[last] - left[first]);
  t.note(`${rate.toFixed(1)} actors/s left; ${PACE} are configured`);
  assert.ok(rate > PACE * 0.9 && rate < PACE * 1.1, `${rate} actors/s`);
  assert.equal(await old.stop("SIGTERM"), "signal SIGTERM");
}

async function engineKilled(t, hosts) {
  t.doing("restarting the engine");
  await t.engine.stop("SIGKILL");
  await t.engine.start();
  await Promise.all(hosts.map((host) => host.reconnected()));
}

async function upgradeWithEngineKilled(t) {
  const actors = await crowd(t);
  await configure(t, { actor_eviction_rate: PACE * 2 });
  const traffic = new Traffic(actors);
  const { old, next } = await nextVersion(t);
  await t.until("half of the actors to have left", async () => (await old.listing()).slots < ACTORS / 2);
  const failedBefore = traffic.failures.length;
  const began = performance.now();
  await engineKilled(t, [old, next]);
  await emptied(t, old);
  t.note(`engine restarted and the rest moved in ${seconds(began)}`);
  t.note(await traffic.stop());
  // Who had called the killed engine, or called while there was none, has no answer; an engine that is there answers all.
  const refused = traffic.failures.filter((error) => !error.message.includes("fetch failed"));
  assert.deepEqual(refused, []);
  assert.equal(failedBefore, 0, "no call failed before the engine was killed");
  const interrupted = interruptedOn([old, next]);
  t.note(`${interrupted.size} actors were amid a commit`);
  assert.ok(interrupted.size < ACTORS / 5, "as few as move at a time");
  // If the old host is back before the new one, those that have just left it return to it, and leave it again.
  const detours = departures(old).length - (ACTORS - interrupted.size);
  assert.ok(detours < ACTORS / 5, `${detours} actors left more than once`);
  await assertServed(t, actors, [next], 1, { interrupted, detours });
  assert.equal(await old.stop("SIGTERM"), "signal SIGTERM");
}

async function hostKilled(t) {
  const actors = await crowd(t);
  const killed = t.host;
  const others = await twoMoreHosts(t);
  t.doing("killing the host");
  const began = performance.now();
  await killed.stop("SIGKILL");
  await assertServed(t, actors, others, 1);
  t.note(`all ${ACTORS} answered ${seconds(began)} after the kill`);
}

/** Both of the version that the stack's host has; the first one becomes the stack's host. */
async function twoMoreHosts(t) {
  const { version } = t.host;
  t.doing("starting two more hosts");
  const hosts = [await t.stack.addHost({ version }), await t.stack.addHost({ version })];
  t.stack.host = hosts[0];
  return hosts;
}

/** Leaves one host with all actors, if a case before has left them on several. */
async function gather(t) {
  const crowded = t.stack.hosts.filter((host) => host.child.alive);
  if (crowded.length === 1) return;
  await configure(t, { actor_eviction_rate: PACE * 2 });
  await nextVersion(t);
  await Promise.all(crowded.map((host) => emptied(t, host)));
  for (const host of crowded) assert.equal(await host.stop("SIGTERM"), "signal SIGTERM");
}

async function hostAndEngineKilled(t) {
  await gather(t);
  const actors = await crowd(t);
  const killed = t.host;
  assert.equal((await killed.listing()).slots, ACTORS, "all actors are on the host that is killed");
  const others = await twoMoreHosts(t);
  const began = performance.now();
  await killed.stop("SIGKILL");
  t.doing("calling all actors while their host is gone");
  const calls = Promise.allSettled(actors.map((actor) => actor.handle.get()));
  await t.until("the engine to have noticed", async () => (await killed.listing()) === undefined);
  await engineKilled(t, others);
  await calls;
  await assertServed(t, actors, others, 1);
  t.note(`all ${ACTORS} answered ${seconds(began)} after the kill`);
}

const shared = { stack: "crowd", encodings: "none", deadlineMs: 60_000 };

export const cases = [
  {
    ...shared,
    name: "upgrade-rolling",
    about: `${ACTORS} actors under traffic move to a newer version at the configured pace, and no call fails`,
    run: rollingUpgrade,
  },
  {
    ...shared,
    name: "upgrade-engine-killed",
    about: "kill -9 of the engine amid a rolling upgrade",
    run: upgradeWithEngineKilled,
  },
  {
    ...shared,
    name: "crowd-host-killed",
    about: `kill -9 of a host with ${ACTORS} actors; two others take them`,
    run: hostKilled,
  },
  {
    ...shared,
    name: "crowd-host-and-engine-killed",
    about: "the same, and kill -9 of the engine before the actors were started elsewhere",
    run: hostAndEngineKilled,
  },
];
