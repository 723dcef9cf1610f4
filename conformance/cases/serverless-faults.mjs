// Serverless pools whose endpoint fails, and what users are told about it.
import assert from "node:assert/strict";
import { Backend } from "../lib/serverless.mjs";
import { actorOf, isOpen } from "./serverless.mjs";

const EVENT_STREAM = { "content-type": "text/event-stream" };

/** A counter that the npm client is told to call while the endpoint fails: it goes on until it is answered. */
function startCalling(t, backend, label) {
  const key = t.key(label);
  const answer = backend.client().counter.getOrCreate(key).increment(1);
  answer.catch(() => {});
  return { key, answer };
}

function assertPoolFails({ group, code, message }, words) {
  assert.deepEqual([group, code], ["guard", "actor_runner_failed"], message);
  assert.match(message, words);
}

/** Waits until the engine's list of pools shows an error for this one, and returns it. */
const poolError = (t, backend) =>
  t.until("the pool's error", async () => (await backend.listing()).runner_pool_error);

/** No more than `limit` start requests came in the first `ms`. */
function assertAskedRarely(starts, ms, limit) {
  const early = starts.filter(({ at }) => at - starts[0].at < ms).length;
  assert.ok(early <= limit, `the endpoint was asked ${early} times within ${ms} ms`);
}

/** Creates an actor without calling it; returns its id. */
async function create(t, backend, label) {
  const body = {
    name: "counter",
    key: t.key(label).join("/"),
    runner_name_selector: backend.name,
    crash_policy: "sleep",
  };
  const answer = await t.api("POST", "/actors?namespace=default", body);
  assert.equal(answer.status, 200, answer.text);
  return answer.json.actor.actor_id;
}

async function answers500(t) {
  const backend = await Backend.create(t);
  const body = "out of order ".repeat(50);
  await backend.behave("start", { kind: "answer", status: 500, headers: {}, body });
  t.doing("calling three actors while the endpoint answers 500");
  const calls = ["a", "b", "c"].map((label) => startCalling(t, backend, label));
  const refusals = await Promise.all(calls.map(({ key }) => backend.refusal(key)));
  const expected = { serverless_http_error: { status_code: 500, body: body.slice(0, 512) } };
  assert.deepEqual(await poolError(t, backend), expected);
  if (!t.reference) {
    for (const refusal of refusals) {
      assertPoolFails(refusal, /endpoint answered 500/);
      // What the endpoint says is for operators only.
      assert.deepEqual(refusal.metadata.runner_pool_error, { serverless_http_error: { status_code: 500 } });
    }
    const [first] = await backend.starts();
    // An attempt that is under way has not failed yet.
    const { error } = await t.until("an actor's error", async () => {
      const record = await t.record(actorOf(first));
      return record.error !== undefined && record;
    });
    assert.deepEqual(error, { runner_pool_error: expected });
    await t.until("two seconds to pass since the first attempt", () => Date.now() - first.at > 2_000);
    // One for each actor before any has failed, and then one at a time after 0.1, 0.2, 0.4 and 0.8 s.
    assertAskedRarely(await backend.starts(), 2_000, calls.length + 4);
  }
  await backend.behave("start", { kind: "serve" });
  t.doing("waiting for the calls to be answered after all");
  if (t.reference) return;
  assert.deepEqual(await Promise.all(calls.map(({ answer }) => answer)), [1, 1, 1]);
  await t.until("the pool's error to be forgotten", async () => {
    return (await backend.listing()).runner_pool_error === undefined;
  });
}

/** What an endpoint may do instead, and what is shown of it. */
const WRONG = [
  {
    behaviour: { kind: "answer", status: 200, headers: { "content-type": "application/json" }, body: "{}" },
    shown: {
      serverless_connection_error: {
        message: 'expected Content-Type header to be text/event-stream, received "application/json"',
      },
    },
    words: /endpoint cannot be used/,
  },
  {
    behaviour: { kind: "answer", status: 200, headers: EVENT_STREAM, body: "\u0000\ufffd no events\n\n" },
    shown: "serverless_stream_ended_early",
    words: /ended the start request before the actor had stopped/,
  },
  {
    behaviour: { kind: "cut" },
    shown: "serverless_connection_error",
    words: /endpoint cannot be used/,
  },
  {
    behaviour: { kind: "answer", status: 404, headers: {}, body: "" },
    shown: { serverless_http_error: { status_code: 404, body: "" } },
    words: /endpoint answered 404/,
  },
  {
    behaviour: { kind: "answer", status: 307, headers: { location: "http://169.254.169.254/start" }, body: "" },
    shown: "serverless_destination_blocked",
    words: /endpoint is not allowed/,
  },
];

async function answersGarbage(t) {
  t.doing("calling actors of endpoints that answer what they should not");
  await Promise.all(
    WRONG.map(async ({ behaviour, shown, words }) => {
      const backend = await Backend.create(t);
      await backend.behave("start", behaviour);
      const { key, answer } = startCalling(t, backend, "garbage");
      assertPoolFails(await backend.refusal(key), words);
      const error = await poolError(t, backend);
      if (typeof shown === "string" && typeof error === "object") assert.deepEqual(Object.keys(error), [shown]);
      else assert.deepEqual(error, shown);
      assertAskedRarely(await backend.starts(), 1_000, 4);
      await backend.behave("start", { kind: "serve" });
      assert.equal(await answer, 1, "it is served as soon as the endpoint is well");
    }),
  );
}

async function redirected(t) {
  const backend = await Backend.create(t);
  const location = `${backend.origin}/moved/api/rivet/start`;
  await backend.behave("start", { kind: "answer", status: 307, headers: { location }, body: "" });
  const counter = backend.client().counter.getOrCreate(t.key("redirected"));
  assert.equal(await counter.increment(1), 1);
  const [asked, served] = await backend.starts();
  assert.deepEqual([asked.path, served.path], ["/api/rivet/start", "/moved/api/rivet/start"]);
  assert.deepEqual([served.method, served.begin], ["POST", asked.begin], "method and body are kept");
}

async function goesAndComesBack(t) {
  const backend = await Backend.create(t);
  const key = t.key("asleep");
  const counter = backend.client().counter.getOrCreate(key);
  await counter.incrementDurably(4);
  const { id } = await counter.whoami();
  await counter.nap();
  await t.asleep(id);
  t.doing("calling the sleeping actor while its endpoint is gone");
  await backend.close();
  const answer = counter.get();
  answer.catch(() => {});
  const refusal = await backend.refusal(key);
  const { serverless_connection_error: forOperators } = await poolError(t, backend);
  assert.match(forOperators.message, /refused/);
  if (!t.reference) assertPoolFails(refusal, /endpoint cannot be used/);
  t.doing("waiting for the answer after the endpoint has come back");
  await backend.open();
  assert.equal(await (t.reference ? counter.get() : answer), 4);
}

/** Start requests are cut, as by something between engine and backend that restarts; the hosts' connections are not. */
async function cut(t) {
  const backend = await Backend.create(t);
  const counters = ["a", "b"].map((label) => backend.client().counter.getOrCreate(t.key(label)));
  // Not yet saved when the requests are cut.
  for (const counter of counters) assert.equal(await counter.increment(5), 5);
  const before = await Promise.all(counters.map((counter) => counter.whoami()));
  t.doing("cutting the start requests");
  await backend.close();
  await backend.open();
  t.doing("calling their actors");
  for (const [i, counter] of counters.entries()) {
    assert.equal(await counter.increment(1), 6, "nothing is lost");
    assert.ok((await counter.whoami()).wakes <= before[i].wakes + 1, "it went on, or was started once more");
  }
  await t.until("each actor to have an open start request", async () => {
    return new Set((await backend.starts()).filter(isOpen).map(actorOf)).size === counters.length;
  });
}

/** The platform ends the process without a word, and starts another one. */
async function killed(t) {
  const backend = await Backend.create(t);
  const counters = ["a", "b", "c"].map((label) => backend.client().counter.getOrCreate(t.key(label)));
  await Promise.all(counters.map((counter) => counter.incrementDurably(2)));
  const before = await Promise.all(counters.map((counter) => counter.whoami()));
  t.doing("killing the backend and starting another one at its address");
  await backend.process.stop("SIGKILL");
  await backend.revive();
  t.doing("calling its actors");
  assert.deepEqual(await Promise.all(counters.map((counter) => counter.get())), [2, 2, 2]);
  for (const [i, counter] of counters.entries()) {
    const after = await counter.whoami();
    assert.deepEqual([after.id, after.pid], [before[i].id, backend.process.child.pid]);
    assert.equal(after.wakes, before[i].wakes + 1, "it was started once more");
  }
}

async function neverAnswers(t) {
  const backend = await Backend.create(t);
  await backend.behave("start", { kind: "silence" });
  t.doing("calling an actor whose endpoint does not answer");
  const key = t.key("silence");
  const refusal = await backend.refusal(key);
  assert.deepEqual([refusal.group, refusal.code], ["guard", "actor_ready_timeout"]);
  assert.match(refusal.message, /the endpoint of pool "[^"]+" was asked to start it .* and no host has reported it running/);
  const [start] = await backend.starts();
  const { error } = await t.until("the engine to give the start up", async () => {
    const record = await t.record(actorOf(start));
    return record.error !== undefined && record;
  });
  assert.deepEqual(error, { envoy_no_response: { envoy_key: null } });
  await t.until("the start request to be closed", async () => (await backend.starts()).every((one) => !isOpen(one)));
  await backend.behave("start", { kind: "serve" });
  t.doing("calling it when the endpoint answers again");
  assert.equal(await backend.client().counter.getOrCreate(key).increment(1), 1);
}

/** An actor that cannot start: nobody is left waiting, and no start request stays open. */
async function failsToStart(t) {
  const backend = await Backend.create(t);
  await backend.deploy({ use: {} });
  t.doing("calling an actor that the application does not know");
  const refusal = await backend.refusal(t.key("unknown"));
  assert.deepEqual([refusal.group, refusal.code], ["guard", "actor_wake_retries_exceeded"]);
  assert.match(refusal.message, /Actor factory 'counter' is not registered/);
  await t.until("the start requests to end", async () => (await backend.starts()).every((start) => !isOpen(start)));
}

async function isFull(t) {
  const backend = await Backend.create(t, { pool: { max_concurrent_actors: 2 } });
  const [first, second] = ["a", "b"].map((label) => backend.client().counter.getOrCreate(t.key(label)));
  assert.deepEqual(await Promise.all([first.increment(1), second.increment(1)]), [1, 1]);
  t.doing("creating a third actor");
  const id = await create(t, backend, "c");
  await t.until("the third to be listed as waiting", async () => {
    return (await t.record(id)).error === "concurrent_actor_limit_reached";
  });
  const waiting = backend.client().counter.getForId(id).increment(1);
  waiting.catch(() => {});
  assert.equal((await backend.starts()).length, 2);
  t.doing("putting the first to sleep");
  await first.nap();
  assert.equal(await waiting, 1, "the third starts when there is room");
  assert.equal((await t.record(id)).error, undefined);
}

async function engineRestarts(t, signal) {
  const backend = await Backend.create(t, { pool: { request_lifespan: 5, drain_grace_period: 2 } });
  const [awake, asleep] = ["awake", "asleep"].map((label) => backend.client().counter.getOrCreate(t.key(label)));
  const timer = backend.client().timer.getOrCreate(t.key("alarm"));
  await awake.incrementDurably(5);
  await asleep.incrementDurably(7);
  const before = { awake: await awake.whoami(), asleep: await asleep.whoami(), timer: await timer.whoami() };
  await timer.plan(1_500, "meanwhile");
  await timer.nap();
  await asleep.nap();
  await t.asleep(before.asleep.id);
  await t.asleep(before.timer.id);
  t.doing(`ending the engine with ${signal}`);
  const ended = await t.engine.stop(signal);
  if (signal === "SIGTERM") assert.equal(ended, "exit code 0");
  await t.engine.start();
  t.doing("calling the actors after the engine's restart");
  assert.equal(await awake.get(), 5);
  assert.equal(await asleep.get(), 7);
  const after = { awake: await awake.whoami(), asleep: await asleep.whoami() };
  assert.equal(after.asleep.wakes, before.asleep.wakes + 1);
  assert.ok(after.awake.wakes <= before.awake.wakes + 1, "it went on, or was started once more");
  await t.until("the alarm that was due meanwhile", async () => (await timer.fired()).length === 1);
  t.doing("waiting for the end of the lifespan");
  await t.until("the actor to be started anew", async () => (await awake.whoami()).wakes > after.awake.wakes);
  assert.equal(await awake.get(), 5);
}

const once = { encodings: "none" };

export const cases = [
  {
    ...once,
    name: "serverless-500",
    about: "an endpoint that answers 500 is asked with pauses; users are told; it recovers",
    run: answers500,
  },
  {
    ...once,
    name: "serverless-garbage",
    about: "endpoints that answer what they should not, and what is said about each",
    run: answersGarbage,
  },
  {
    ...once,
    name: "serverless-redirect",
    about: "a start request follows a redirect with its method and body",
    run: redirected,
  },
  {
    ...once,
    name: "serverless-down",
    about: "an endpoint that goes away and comes back",
    run: goesAndComesBack,
  },
  {
    ...once,
    name: "serverless-cut",
    about: "start requests are cut while the hosts stay connected: nothing is lost",
    run: cut,
  },
  {
    ...once,
    name: "serverless-killed",
    about: "kill -9 of the backend; another one at its address goes on with its actors",
    run: killed,
  },
  {
    ...once,
    name: "serverless-start-fails",
    about: "an actor that the application does not know: users are told, and no start request stays open",
    run: failsToStart,
  },
  {
    ...once,
    name: "serverless-full",
    about: "the third actor of a pool for two waits until there is room",
    run: isFull,
  },
  {
    ...once,
    name: "serverless-silent",
    about: "an endpoint that never answers",
    stack: "own",
    settings: { RIVET__PEGBOARD__ACTOR_START_THRESHOLD: "2500", RIVET__GUARD__ACTOR_READY_TIMEOUT_MS: "1500" },
    run: neverAnswers,
  },
  {
    ...once,
    name: "serverless-engine-stopped",
    about: "the engine ends in order and starts again",
    stack: "own",
    run: (t) => engineRestarts(t, "SIGTERM"),
  },
  {
    ...once,
    name: "serverless-engine-killed",
    about: "kill -9 of the engine, which starts again",
    stack: "own",
    run: (t) => engineRestarts(t, "SIGKILL"),
  },
];
