// Errors reach the client with their group, code, message and metadata, and leave the actor usable.
import assert from "node:assert/strict";

const USER_ERROR = {
  group: "user",
  code: "no_credit",
  message: "not enough credit",
  metadata: { missing: 7, items: ["a", "b"] },
};
const UNKNOWN_ACTION = {
  group: "actor",
  code: "action_not_found",
  message: "Action `noSuchAction` was not found.",
};
const TIMED_OUT = { group: "actor", code: "action_timed_out" };
const NOT_FOUND = { group: "actor", code: "not_found" };

/** Rejects with an error that carries no trace of what the actor threw. */
async function assertMasked(promise) {
  await assert.rejects(promise, (error) => {
    assert.deepEqual([error.group, error.code], ["rivetkit", "internal_error"]);
    assert.doesNotMatch(`${error.message} ${JSON.stringify(error.metadata)}`, /secret/);
    return true;
  });
}

async function actionErrors(t) {
  const handle = t.client.failing.getOrCreate(t.key("errors"));
  const connection = handle.connect();
  for (const [where, target] of [
    ["HTTP", handle],
    ["a connection", connection],
  ]) {
    t.doing(`failing actions over ${where}`);
    await assert.rejects(target.failForUser(), USER_ERROR);
    await assert.rejects(target.noSuchAction(), UNKNOWN_ACTION);
    await assertMasked(target.failPlainly());
    await assert.rejects(target.never(), TIMED_OUT);
  }
  t.doing("calling the actor after all those failures");
  assert.equal(await handle.fine(), 1);
  assert.equal(await connection.fine(), 2);
}

async function missingActors(t) {
  t.doing("looking for an actor that was never created");
  const missing = t.key("missing");
  await assert.rejects(t.client.counter.get(missing).get(), NOT_FOUND);
  await assert.rejects(t.client.counter.get(missing).resolve(), NOT_FOUND);
  t.doing("asking for an id that no actor has");
  const existing = await t.client.counter.getOrCreate(t.key("existing")).resolve();
  const unknown = existing.slice(0, 4) + "zzzz" + existing.slice(8);
  await assert.rejects(t.client.counter.getForId(unknown).get(), NOT_FOUND);
  t.doing("asking for something that is no id");
  await assert.rejects(t.client.counter.getForId("not-an-id").get());
}

async function duplicateKey(t) {
  const key = t.key("duplicate");
  t.doing("creating one key twice");
  const first = await t.client.counter.create(key);
  const id = await first.resolve();
  await assert.rejects(t.client.counter.create(key), (error) => {
    // The published engine now and then reports the loser of the race for a key as destroyed.
    if (t.reference && error.code === "destroyed_during_creation") return true;
    assert.deepEqual([error.group, error.code, error.metadata.existing_actor_id], ["actor", "duplicate_key", id]);
    return true;
  });
}

async function plainHttp(t) {
  const handle = t.client.failing.getOrCreate(t.key("plain"));
  const target = new URL(await handle.getGatewayUrl());
  const post = async (path, body, method = "POST") => {
    const headers = { "content-type": "application/json", "x-rivet-encoding": "json" };
    const answer = await fetch(`${target.origin}${target.pathname}${path}${target.search}`, {
      method,
      headers,
      body,
    });
    const text = await answer.text();
    return {
      status: answer.status,
      rayId: answer.headers.get("x-rivet-ray-id"),
      json: text === "" ? null : JSON.parse(text),
    };
  };
  const expectError = async (path, body, status, group, code, method) => {
    t.doing(`${method ?? "POST"} ${path}`);
    const { json, ...answer } = await post(path, body, method);
    assert.deepEqual([answer.status, json.group, json.code], [status, group, code]);
    assert.match(answer.rayId, /^[0-9a-z]{30}$/);
    return json;
  };
  t.doing("a call that works");
  assert.deepEqual((await post("/action/fine", '{"args":[]}')).json, { output: 1 });
  assert.deepEqual(
    (await expectError("/action/failForUser", '{"args":[]}', 500, "user", "no_credit")).metadata,
    USER_ERROR.metadata,
  );
  await expectError("/action/noSuchAction", '{"args":[]}', 404, "actor", "action_not_found");
  await expectError("/action/never", '{"args":[]}', 408, "actor", "action_timed_out");
  await expectError("/no-such-route", "{}", 404, "actor", "not_found");
  await expectError("/action/fine", undefined, 405, "actor", "method_not_allowed", "GET");
  t.doing("an unknown gateway target");
  const nowhere = await fetch(
    `${target.origin}/gateway/counter/action/get?rvt-namespace=default&rvt-method=get&rvt-key=${t.key("nobody").join(",")}`,
    { method: "POST", body: "{}" },
  );
  assert.deepEqual([nowhere.status, (await nowhere.json()).code], [404, "not_found"]);
}

export const cases = [
  {
    name: "error-actions",
    about: "user, unknown, masked and timed out errors, over HTTP and a connection",
    run: actionErrors,
  },
  {
    name: "error-missing-actors",
    about: "get, getForId and resolve of actors that do not exist",
    run: missingActors,
  },
  {
    name: "error-duplicate-key",
    about: "create refuses a taken key and names its holder",
    run: duplicateKey,
  },
  {
    name: "error-plain-http",
    about: "status, body and ray id of errors without any client library",
    encodings: "none",
    run: plainHttp,
  },
];
