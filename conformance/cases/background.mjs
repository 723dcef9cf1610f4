// Queue, schedule, calls between actors, workflow.
import assert from "node:assert/strict";
import { assertWokenOnce } from "./lifecycle.mjs";

async function queueFromClient(t) {
  const worker = t.client.worker.getOrCreate(t.key("queue"));
  t.doing("sending a message and waiting for its completion");
  const answer = await worker.send("jobs", { n: 7 }, { wait: true, timeout: 10_000 });
  assert.deepEqual(answer, { status: "completed", response: { square: 49 } });
  t.doing("sending messages from the client and from an action");
  for (let n = 0; n < 5; n++) await worker.send("plain", { from: "client", n });
  await worker.push("plain", { from: "action" });
  await t.until("all messages to be received", async () => (await worker.seen()).length === 7);
  const expected = [
    ["jobs", { n: 7 }],
    ...Array.from({ length: 5 }, (_, n) => ["plain", { from: "client", n }]),
    ["plain", { from: "action" }],
  ];
  assert.deepEqual(await worker.seen(), expected, "each message once, in the order of sending");
}

async function queueWakes(t) {
  const worker = t.client.worker.getOrCreate(t.key("queue-wake"));
  const before = await worker.whoami();
  await worker.nap();
  await t.asleep(before.id);
  t.doing("sending a message to a sleeping actor");
  const answer = await worker.send("jobs", { n: 3 }, { wait: true, timeout: 10_000 });
  assert.deepEqual(answer, { status: "completed", response: { square: 9 } });
  assertWokenOnce(before, await worker.whoami());
}

async function scheduleAwake(t) {
  const timer = t.client.timer.getOrCreate(t.key("schedule"));
  t.doing("scheduling two actions and cancelling a third");
  const never = await timer.plan(60_000, "never");
  const later = await timer.plan(400, "later");
  const soon = await timer.plan(150, "soon");
  assert.equal(await timer.cancel(never.id), true);
  const fired = await t.until("both actions to have run", async () => {
    const list = await timer.fired();
    return list.length >= 2 && list;
  });
  assert.deepEqual(fired.map((one) => one.label).toSorted(), ["later", "soon"], "each of them once");
  for (const { label, at } of fired) assert.ok(at >= (label === "soon" ? soon.due : later.due), "not before its time");
  assert.deepEqual(await timer.pending(), []);
}

async function scheduleWakes(t) {
  const timer = t.client.timer.getOrCreate(t.key("schedule-wake"));
  t.doing("scheduling an action and going to sleep");
  const before = await timer.whoami();
  const start = await t.record(before.id);
  const { due } = await timer.plan(1_500, "alarm");
  await timer.nap();
  await t.startedAgain(start);
  const noticed = Date.now();
  const fired = await t.until("the action to have run", async () => {
    const list = await timer.fired();
    return list.length > 0 && list;
  });
  const after = await timer.whoami();
  assertWokenOnce(before, after);
  assert.deepEqual(
    fired.map((one) => [one.label, one.instance]),
    [["alarm", after.instance]],
    "once, in the woken instance",
  );
  assert.ok(fired[0].at >= due, "not before its time");
  assert.ok(noticed - due < 5_000, `woken by its alarm, ${noticed - due} ms after the due time`);
}

async function actorToActor(t) {
  const caller = t.client.caller.getOrCreate(t.key("caller"));
  const key = t.key("callee");
  t.doing("calling one actor from another");
  assert.equal(await caller.incrementOther(key, 4), 4);
  assert.equal(await t.client.counter.getOrCreate(key).get(), 4);
  t.doing("calling ten actors from one at once");
  const keys = Array.from({ length: 10 }, (_, i) => [...key, String(i)]);
  assert.deepEqual(await caller.incrementMany(keys, 2), Array(10).fill(2));
  t.doing("passing the error of another actor on");
  await assert.rejects(caller.failOther(key), { group: "user", code: "no_credit" });
}

async function workflow(t) {
  const journey = t.client.journey.getOrCreate(t.key("journey"));
  await t.until("the first step", async () => (await journey.steps()).length > 0);
  const before = await journey.whoami();
  const start = await t.record(before.id);
  t.doing("putting the actor to sleep in the middle of the workflow's own sleep");
  await journey.nap();
  await t.startedAgain(start);
  await t.until("the step after the sleep", async () => (await journey.steps()).length > 1);
  assert.deepEqual(
    await journey.steps(),
    ["start", "rested"],
    "a finished step is not repeated, and the sleep is not cut short",
  );
  assertWokenOnce(before, await journey.whoami());
  t.doing("sending the message that the workflow waits for");
  await journey.send("ticket", "gold");
  await t.until("the last step", async () => (await journey.steps()).length > 2);
  assert.deepEqual(await journey.steps(), ["start", "rested", "arrived with gold"]);
  t.doing("waking the finished workflow");
  await journey.nap();
  await t.asleep(before.id);
  assert.equal((await journey.steps()).length, 3, "a finished workflow replays without side effects");
}

export const cases = [
  {
    name: "queue",
    about: "messages from a client and from an action, with and without waiting",
    run: queueFromClient,
  },
  {
    name: "queue-wakes",
    about: "a message wakes its sleeping actor and is answered",
    run: queueWakes,
  },
  {
    name: "schedule-awake",
    about: "scheduled actions run in time, cancelled ones never",
    run: scheduleAwake,
  },
  {
    name: "schedule-wakes",
    about: "an alarm wakes a sleeping actor without any request",
    run: scheduleWakes,
  },
  { name: "actor-to-actor", about: "actors call actors; errors pass through", run: actorToActor },
  {
    name: "workflow",
    about: "a durable workflow goes on after sleep and replays nothing",
    run: workflow,
  },
];
