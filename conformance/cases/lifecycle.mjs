// Sleep, wake, destroy.
import assert from "node:assert/strict";

/** `after` is a later start of the same actor than `before`. */
export function assertWokenOnce(before, after) {
  assert.equal(after.id, before.id, "the actor keeps its id");
  assert.equal(after.wakes, before.wakes + 1, "the actor was started exactly once more");
  assert.notEqual(after.instance, before.instance, "memory does not survive sleep");
}

async function idleSleep(t) {
  const napper = t.client.napper.getOrCreate(t.key("idle"));
  t.doing("calling the actor");
  await napper.increment(3);
  const before = await napper.whoami();
  await t.asleep(before.id);
  t.doing("waking it with requests");
  // At once, so that the actor does not fall asleep between them on a slow machine.
  const [count, after] = await Promise.all([napper.increment(4), napper.whoami()]);
  assert.equal(count, 7, "state survives sleep");
  assertWokenOnce(before, after);
  await t.asleep(before.id);
  t.doing("waking it a second time");
  const [again, last] = await Promise.all([napper.get(), napper.whoami()]);
  assert.equal(again, 7);
  assertWokenOnce(after, last);
}

async function explicitSleep(t) {
  const counter = t.client.counter.getOrCreate(t.key("explicit"));
  t.doing("calling the actor");
  await counter.increment(3);
  const before = await counter.whoami();
  await counter.nap();
  await t.asleep(before.id);
  t.doing("waking it with ten requests at once");
  const answers = await Promise.all(Array.from({ length: 10 }, () => counter.get()));
  assert.deepEqual(answers, Array(10).fill(3));
  assertWokenOnce(before, await counter.whoami());
}

async function requestsDuringSleep(t) {
  const counter = t.client.counter.getOrCreate(t.key("churn"));
  t.doing("calling an actor that is told to sleep all the time");
  let expected = 0;
  for (let round = 0; round < 5; round++) {
    const napping = counter.nap();
    const added = await Promise.all([counter.incrementDurably(1), counter.incrementDurably(1)]);
    expected += added.length;
    await napping;
  }
  assert.equal(await counter.get(), expected, "no call is lost or repeated around a sleep");
}

async function destroy(t) {
  const key = t.key("destroy");
  const handle = t.client.counter.getOrCreate(key);
  t.doing("destroying the actor");
  await handle.increment(9);
  const before = await handle.whoami();
  await handle.destroy();
  await t.until("the record to be marked destroyed", async () => (await t.record(before.id)).destroy_ts !== null);
  t.doing("using the key again");
  const after = await t.client.counter.getOrCreate(key).whoami();
  assert.notEqual(after.id, before.id, "the key names a new actor");
  assert.equal(after.wakes, 1);
  assert.equal(await t.client.counter.getOrCreate(key).get(), 0, "with fresh state");
  t.doing("calling the destroyed actor by id");
  await assert.rejects(t.client.counter.getForId(before.id).get(), {
    group: "actor",
    code: "not_found",
  });
  t.doing("calling through the handle that knew the old actor");
  assert.equal((await handle.whoami()).id, after.id);
}

export const cases = [
  {
    name: "sleep-idle",
    about: "an idle actor sleeps, a request wakes it, state is kept",
    run: idleSleep,
  },
  {
    name: "sleep-explicit",
    about: "ten requests at once wake a sleeping actor once",
    run: explicitSleep,
  },
  {
    name: "sleep-churn",
    about: "calls that race with falling asleep are neither lost nor repeated",
    run: requestsDuringSleep,
  },
  {
    name: "destroy-recreate",
    about: "a destroyed actor is gone; its key makes a new one",
    run: destroy,
  },
];
