// Going back to what an actor was, and actors made of what it was. The published engine has none of it.
import assert from "node:assert/strict";

/** A time after everything that has happened, and before everything that comes. */
async function later(t) {
  const at = Date.now() + 1;
  await t.until("the clock to go on", () => Date.now() > at);
  return at;
}

/** Asks the engine to restore or to fork an actor. */
async function ask(t, actorId, action, body) {
  const answer = await t.api("POST", `/actors/${actorId}/${action}?namespace=default`, body);
  assert.equal(answer.status, 200, answer.text);
  return answer.json.actor;
}

async function restore(t) {
  const counter = t.client.counter.getOrCreate(t.key("counter"));
  t.doing("counting");
  assert.equal(await counter.incrementDurably(1), 1);
  const before = await counter.whoami();
  const at = await later(t);
  assert.equal(await counter.incrementDurably(4), 5);

  t.doing("going back while the actor runs");
  await ask(t, before.id, "restore", { at });
  assert.equal(await counter.get(), 1);
  const after = await counter.whoami();
  assert.equal(after.id, before.id);
  assert.notEqual(after.instance, before.instance, "the actor was started anew");
  t.doing("counting on, and once more after a sleep");
  assert.equal(await counter.incrementDurably(1), 2);
  await counter.nap();
  await t.asleep(before.id);
  assert.equal(await counter.get(), 2);
}

async function fork(t) {
  const counter = t.client.counter.getOrCreate(t.key("counter"));
  t.doing("counting");
  assert.equal(await counter.incrementDurably(1), 1);
  const { id } = await counter.whoami();
  const at = await later(t);
  assert.equal(await counter.incrementDurably(4), 5);

  for (const [what, body, expected] of [
    ["as it is", {}, 5],
    ["as it was", { at }, 1],
  ]) {
    t.doing(`copying the actor ${what}`);
    const copy = await ask(t, id, "fork", body);
    assert.equal(copy.start_ts, null, "it sleeps until somebody addresses it");
    const copied = t.client.counter.getForId(copy.actor_id);
    assert.equal(await copied.get(), expected);
    assert.equal((await copied.whoami()).id, copy.actor_id);
    assert.equal(await copied.incrementDurably(100), expected + 100);
  }
  assert.equal(await counter.get(), 5, "the source goes on as before");
}

async function schedules(t) {
  const timer = t.client.timer.getOrCreate(t.key("timer"));
  t.doing("planning an action");
  const { id: actorId } = await timer.whoami();
  const { due, id } = await timer.plan(3_000, "kept");
  const at = await later(t);
  t.doing("cancelling it, and sleeping");
  await timer.cancel(id);
  assert.deepEqual(await timer.pending(), []);
  await timer.nap();
  await t.asleep(actorId);

  t.doing("going back to when it was planned");
  await ask(t, actorId, "restore", { at });
  await t.running(actorId);
  t.doing("sleeping until it is due");
  await timer.nap();
  await t.asleep(actorId);
  const asleep = await t.record(actorId);
  // On a slow machine the action has run already.
  if (asleep.sleep_ts < due) await t.startedAgain({ ...asleep, connectable_ts: asleep.sleep_ts });
  await t.until("the action to run", async () => (await timer.fired()).length > 0);
  const [fired] = await timer.fired();
  assert.equal(fired.label, "kept");
  assert.ok(fired.at >= due, `due at ${due}, ran at ${fired.at}`);
}

async function history(t) {
  if (t.reference) return;
  await restore(t);
  await fork(t);
  await schedules(t);
}

export const cases = [
  {
    name: "history",
    about: "an actor is put back to an earlier time, with its schedules of then; actors are made of what it is and was",
    stack: "own",
    encodings: "none",
    settings: { RIVET__SQLITE__PITR__RETENTION_MS: "60000" },
    run: history,
  },
];
