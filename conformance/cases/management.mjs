// The management API, as dashboards and deployment scripts use it.
import assert from "node:assert/strict";

const ID = /^[0-9a-z]{30}$/;

async function expectOk(t, method, path, body) {
  t.doing(`${method} ${path}`);
  const answer = await t.api(method, path, body);
  assert.equal(answer.status, 200, answer.text);
  assert.match(answer.headers.get("x-rivet-ray-id"), ID);
  return answer.json;
}

async function expectError(t, method, path, body, status, group, code) {
  t.doing(`${method} ${path}`);
  const answer = await t.api(method, path, body);
  assert.deepEqual([answer.status, answer.json?.group, answer.json?.code], [status, group, code], answer.text);
  assert.equal(typeof answer.json.message, "string");
  return answer.json;
}

async function identity(t) {
  const health = await expectOk(t, "GET", "/health");
  assert.deepEqual([health.runtime, health.status, typeof health.version], ["engine", "ok", "string"]);
  const metadata = await expectOk(t, "GET", "/metadata?namespace=default");
  assert.deepEqual([metadata.runtime, metadata.envoy_protocol_version], ["engine", 8]);
  const { datacenters } = await expectOk(t, "GET", "/datacenters?namespace=default");
  assert.deepEqual(
    datacenters.map((one) => [one.label, one.name]),
    [[1, "default"]],
  );
  assert.ok(new URL(datacenters[0].url));
  const missing = await expectError(t, "GET", "/no-such-page", undefined, 404, "api", "not_found");
  assert.equal(missing.message, "The requested resource was not found");
  t.doing("a method that the route does not have");
  const wrongMethod = await t.api("GET", `/actors/${"0".repeat(30)}`);
  assert.deepEqual([wrongMethod.status, wrongMethod.text], [405, ""]);
  assert.match(wrongMethod.headers.get("allow"), /DELETE/);
}

async function cors(t) {
  t.doing("a preflight from a browser");
  const headers = {
    origin: "https://app.example",
    "access-control-request-method": "PUT",
    "access-control-request-headers": "content-type,x-rivet-token",
  };
  const answer = await fetch(`${t.engine.endpoint}/actors`, { method: "OPTIONS", headers });
  assert.equal(answer.status, 200);
  assert.equal(answer.headers.get("access-control-allow-origin"), "https://app.example");
  assert.equal(answer.headers.get("access-control-allow-credentials"), "true");
  assert.match(answer.headers.get("access-control-allow-methods"), /PUT/);
  assert.match(answer.headers.get("access-control-allow-headers"), /x-rivet-token/);
}

async function namespaces(t) {
  const { namespaces: all } = await expectOk(t, "GET", "/namespaces?name=default");
  assert.deepEqual(
    all.map((one) => [one.name, one.display_name]),
    [["default", "Default"]],
  );
  assert.match(all[0].namespace_id, ID);
  const name = `n-${t.key("x")[1].slice(0, 8)}`;
  const { namespace } = await expectOk(t, "POST", "/namespaces", {
    name,
    display_name: "One more",
  });
  assert.deepEqual([namespace.name, namespace.display_name], [name, "One more"]);
  assert.equal((await expectOk(t, "GET", `/namespaces?name=${name}`)).namespaces.length, 1);
  await expectError(t, "POST", "/namespaces", { name, display_name: "Twice" }, 400, "namespace", "name_not_unique");
  const refused = await expectError(
    t,
    "POST",
    "/namespaces",
    { name: "not a name!", display_name: "x" },
    400,
    "namespace",
    "failed_to_create",
  );
  assert.equal(refused.metadata.reason, "invalid name");
  await expectError(
    t,
    "GET",
    "/actors?namespace=no-such-namespace&name=counter",
    undefined,
    400,
    "namespace",
    "not_found",
  );
}

async function runnerConfigs(t) {
  const pool = `pool-${t.key("x")[1].slice(0, 8)}`;
  const at = `/runner-configs/${pool}?namespace=default`;
  const list = async (name) =>
    (await expectOk(t, "GET", `/runner-configs?namespace=default&runner_name=${name}`)).runner_configs;
  assert.ok((await list("default")).default.datacenters.default.normal, "the host has made its pool known");
  assert.deepEqual(await list(pool), {});
  const changed = await expectOk(t, "PUT", at, {
    datacenters: { default: { normal: {}, drain_on_version_upgrade: true } },
  });
  assert.equal(typeof changed.endpoint_config_changed, "boolean");
  await t.until("the new pool to be listed", async () => (await list(pool))[pool]?.datacenters.default.normal);
  await expectError(t, "PUT", at, { datacenters: { nowhere: { normal: {} } } }, 400, "datacenter", "not_found");
  await expectOk(t, "DELETE", at);
  await t.until("the pool to be gone", async () => Object.keys(await list(pool)).length === 0);
}

async function actors(t) {
  const [label, unique] = t.key("api");
  const key = `${label}-${unique}`;
  const body = {
    name: "counter",
    key,
    input: null,
    runner_name_selector: "default",
    crash_policy: "sleep",
  };
  const { actor } = await expectOk(t, "POST", "/actors?namespace=default", body);
  assert.match(actor.actor_id, ID);
  assert.deepEqual(
    [actor.name, actor.key, actor.runner_name_selector, actor.destroy_ts],
    ["counter", key, "default", null],
  );
  // The published engine now and then reports the loser of the race for a key as destroyed.
  if (!t.reference) {
    const taken = await expectError(t, "POST", "/actors?namespace=default", body, 400, "actor", "duplicate_key");
    assert.equal(taken.metadata.existing_actor_id, actor.actor_id);
  }
  const again = await expectOk(t, "PUT", "/actors?namespace=default", body);
  assert.deepEqual([again.created, again.actor.actor_id], [false, actor.actor_id]);
  const fresh = await expectOk(t, "PUT", "/actors?namespace=default", { ...body, key: `${key}-2` });
  assert.equal(fresh.created, true);

  const find = (query) => expectOk(t, "GET", `/actors?namespace=default&${query}`);
  assert.deepEqual(
    (await find(`name=counter&key=${key}`)).actors.map((one) => one.actor_id),
    [actor.actor_id],
  );
  const both = await find(`actor_id=${actor.actor_id}&actor_id=${fresh.actor.actor_id}`);
  assert.deepEqual(
    both.actors.map((one) => one.actor_id),
    [fresh.actor.actor_id, actor.actor_id],
    "newest first",
  );
  const page = await find("name=counter&limit=1");
  assert.deepEqual([page.actors.length, page.actors[0].actor_id], [1, fresh.actor.actor_id]);
  const next = await find(`name=counter&limit=1&cursor=${page.pagination.cursor}`);
  assert.equal(next.actors[0].actor_id, actor.actor_id, "the cursor goes on where the page ended");
  const { names } = await expectOk(t, "GET", "/actors/names?namespace=default");
  for (const name of ["counter", "sql", "journey"]) assert.ok(name in names, `${name} is announced by the host`);

  await t.running(actor.actor_id);
  await expectOk(t, "POST", `/actors/${actor.actor_id}/sleep?namespace=default`, {});
  await t.asleep(actor.actor_id);
  for (const one of [actor, fresh.actor]) await expectOk(t, "DELETE", `/actors/${one.actor_id}?namespace=default`);
  assert.deepEqual((await find(`name=counter&key=${key}`)).actors, []);
  assert.notEqual((await t.record(actor.actor_id)).destroy_ts, null, "a destroyed actor can still be looked up by id");
  assert.deepEqual(await expectOk(t, "DELETE", `/actors/${actor.actor_id}?namespace=default`), {});
}

async function refusedActors(t) {
  const body = {
    name: "counter",
    key: "k",
    input: null,
    runner_name_selector: "default",
    crash_policy: "sleep",
  };
  const refuse = (change, group, code) =>
    expectError(t, "POST", "/actors?namespace=default", { ...body, ...change }, 400, group, code);
  await refuse({ key: "" }, "actor", "empty_key");
  await refuse({ key: "k".repeat(1_025) }, "actor", "key_too_large");
  await refuse({ runner_name_selector: "no-such-pool" }, "actor", "no_runner_config_configured");
  await refuse({ datacenter: "nowhere" }, "datacenter", "not_found");
  await refuse({ crash_policy: "shrug" }, "api", "bad_request");
  await refuse({ surprise: 1 }, "api", "bad_request");
  // The published engine takes names of any length.
  if (!t.reference) await refuse({ name: "n".repeat(65) }, "actor", "name_too_long");
  await expectError(t, "GET", "/actors?namespace=default", undefined, 400, "validation", "invalid_input");
  await expectError(
    t,
    "GET",
    "/actors?namespace=default&name=counter&surprise=1",
    undefined,
    400,
    "api",
    "bad_request",
  );
  await expectError(t, "DELETE", "/actors/not-an-id?namespace=default", undefined, 400, "api", "bad_request");
  t.doing("a body that does not say it is JSON");
  const untyped = await fetch(`${t.engine.endpoint}/actors?namespace=default`, {
    method: "POST",
    headers: { "content-type": "text/plain" },
    body: JSON.stringify(body),
  });
  assert.deepEqual([untyped.status, (await untyped.json()).code], [400, "bad_request"]);
}

async function envoys(t) {
  const { envoys: list } = await expectOk(t, "GET", "/envoys?namespace=default&name=default");
  const mine = list.find((one) => one.envoy_key === t.host.envoyKey);
  assert.deepEqual(
    [mine.pool_name, mine.datacenter, mine.version, mine.metadata.rivetkit.version],
    ["default", "default", 1, "2.3.19"],
  );
  await t.until("a later ping to the host", async () => (await t.host.listing()).last_ping_ts > mine.last_ping_ts);
}

const once = { encodings: "none" };

export const cases = [
  {
    ...once,
    name: "api-identity",
    about: "/health, /metadata, /datacenters, 404, 405",
    run: identity,
  },
  { ...once, name: "api-cors", about: "a browser's preflight", run: cors },
  { ...once, name: "api-namespaces", about: "list, create, refuse", run: namespaces },
  {
    ...once,
    name: "api-runner-configs",
    about: "list, upsert, refuse, delete",
    run: runnerConfigs,
  },
  {
    ...once,
    name: "api-actors",
    about: "create, get or create, find, page, sleep, delete",
    run: actors,
  },
  {
    ...once,
    name: "api-refused-actors",
    about: "each way to ask wrongly has its code",
    run: refusedActors,
  },
  { ...once, name: "api-envoys", about: "connected hosts with version and ping", run: envoys },
];
