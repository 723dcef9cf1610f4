// Work that is not a request: queue, schedule, workflow, calls to other actors.
import { actor, queue } from "rivetkit";
import { workflow } from "rivetkit/workflow";
import { createVars, onWake, whoami } from "./life.mjs";

// Long enough for a case to put the actor to sleep meanwhile.
const REST_MS = 2_000;

const nap = (c) => {
  c.sleep();
  return true;
};

/** Answers every job with its square, and keeps what it saw. */
export const worker = actor({
  state: { wakes: 0, seen: [] },
  // Nobody waits for what is in the last one.
  queues: { jobs: queue(), plain: queue(), kept: queue() },
  createVars,
  onWake,
  run: async (c) => {
    for await (const message of c.queue.iter({ names: ["jobs", "plain"], completable: true })) {
      c.state.seen.push([message.name, message.body]);
      await message.complete(message.name === "jobs" ? { square: message.body.n * message.body.n } : undefined);
    }
  },
  actions: {
    whoami,
    nap,
    seen: (c) => c.state.seen,
    push: async (c, name, body) => {
      await c.queue.send(name, body);
      return true;
    },
    /** What has been in the queue longest of all. */
    take: async (c) => (await c.queue.tryNext({ names: ["kept"] }))?.body ?? null,
  },
  options: { sleepTimeout: 120_000 },
});

/** Keeps the times at which its scheduled action ran. */
export const timer = actor({
  state: { wakes: 0, fired: [] },
  createVars,
  onWake,
  actions: {
    whoami,
    nap,
    fired: (c) => c.state.fired,
    plan: async (c, ms, label) => {
      const due = Date.now() + ms;
      const id = await c.schedule.after(ms, "ring", label);
      return { due, id };
    },
    pending: (c) => c.schedule.list(),
    cancel: (c, id) => c.schedule.cancel(id),
    ring: (c, label) => {
      c.state.fired.push({ label, at: Date.now(), instance: c.vars.instance });
    },
  },
  options: { sleepTimeout: 120_000 },
});

/** Passes calls on to counters. */
export const caller = actor({
  actions: {
    incrementOther: (c, key, by) => c.client().counter.getOrCreate(key).increment(by),
    incrementMany: async (c, keys, by) =>
      Promise.all(keys.map((key) => c.client().counter.getOrCreate(key).increment(by))),
    failOther: (c, key) => c.client().failing.getOrCreate(key).failForUser(),
  },
});

/** step, durable sleep, step, wait for a message, step. */
export const journey = actor({
  state: { wakes: 0, steps: [] },
  queues: { ticket: queue() },
  createVars,
  onWake,
  run: workflow(async (ctx) => {
    const start = await ctx.step("start", async (step) => {
      step.state.steps.push("start");
      return Date.now();
    });
    await ctx.sleep("rest", REST_MS);
    await ctx.step("rested", async (step) => {
      step.state.steps.push(Date.now() - start >= REST_MS ? "rested" : "woken too early");
    });
    const message = await ctx.queue.next("wait", { names: ["ticket"] });
    await ctx.step("arrive", async (step) => {
      step.state.steps.push(`arrived with ${message.body}`);
    });
  }),
  actions: { whoami, nap, steps: (c) => c.state.steps },
  options: { sleepTimeout: 120_000 },
});
