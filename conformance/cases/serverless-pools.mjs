// Configuration of serverless pools: checks of the endpoint, what it says of itself, new versions, and pools that the SDK
// makes known.
import assert from "node:assert/strict";
import { Backend, fieldsOf } from "../lib/serverless.mjs";

const LINK_LOCAL = "http://169.254.169.254/api/rivet";
const BLOCKED = "address 169.254.169.254 is not an allowed destination (link-local)";

const answering = (status, body) => ({ kind: "answer", status, headers: {}, body });

/** An endpoint that says of itself what is right, except for `changes`. */
function saying(changes) {
  const right = { runtime: "rivetkit", version: "1", envoyProtocolVersion: 8, actorNames: {} };
  return answering(200, JSON.stringify({ ...right, ...changes }));
}

async function post(t, path, body) {
  return t.api("POST", `/runner-configs/${path}?namespace=default`, body);
}

function assertRefused({ status, json }, group, code) {
  assert.deepEqual([status, json.group, json.code], [400, group, code]);
}

async function healthCheck(t) {
  const backend = await Backend.create(t, { pool: null });
  const check = async (url, headers = {}) => {
    const answer = await post(t, "serverless-health-check", { url, headers });
    assert.equal(answer.status, 200, answer.text);
    return answer.json;
  };
  t.doing("checking a healthy endpoint");
  assert.deepEqual(await check(backend.url, { "x-mine": "yes" }), { success: { version: "2.3.19" } });
  const [asked] = await backend.requests("metadata");
  assert.ok(fieldsOf(asked).some(([name, value]) => name === "x-mine" && value === "yes"));
  t.doing("checking endpoints that are not");
  const wrong = [
    [answering(503, "later"), { kind: "non_success_status", status_code: 503, body: "later" }],
    [answering(200, "{"), { kind: "invalid_response_json", body: "{" }],
    [saying({ runtime: "zzz" }), { kind: "invalid_response_schema", runtime: "zzz", version: "1" }],
    [
      saying({ envoyProtocolVersion: 99 }),
      { kind: "invalid_envoy_protocol_version", envoy_protocol_version: 99, max_supported_envoy_protocol_version: 8 },
    ],
  ];
  for (const [behaviour, expected] of wrong) {
    await backend.behave("metadata", behaviour);
    const { error } = (await check(backend.url)).failure;
    const shown = Object.fromEntries(Object.keys(expected).map((name) => [name, error.metadata[name]]));
    assert.deepEqual(shown, expected);
  }
  assert.equal((await check(LINK_LOCAL)).failure.error.metadata.reason, BLOCKED);
  await backend.close();
  assert.equal((await check(backend.url)).failure.error.metadata.kind, "request_failed");
}

async function refresh(t) {
  const backend = await Backend.create(t);
  assert.equal((await backend.listing()).protocol_version, 8, "known as soon as the pool is saved");
  const name = `actor-${backend.name}`;
  await backend.behave("metadata", saying({ actorNames: { [name]: { metadata: { icon: "x" } } } }));
  t.doing("refreshing what is known of the endpoint");
  const answer = await post(t, `${backend.name}/refresh-metadata`, {});
  assert.deepEqual([answer.status, answer.json], [200, {}]);
  await t.until("the actor's name", async () => {
    const listed = await t.api("GET", "/actors/names?namespace=default&limit=1000");
    return listed.json.names[name]?.metadata.icon === "x";
  });
  await backend.behave("metadata", answering(500, ""));
  const failed = await post(t, `${backend.name}/refresh-metadata`, {});
  assertRefused(failed, "serverless_runner_pool", "failed_to_fetch_metadata");
  assert.equal(failed.json.metadata.reason.metadata.kind, "non_success_status");
  t.doing("refreshing when the application no longer speaks the protocol");
  await backend.behave("metadata", saying({ envoyProtocolVersion: null }));
  assert.equal((await post(t, `${backend.name}/refresh-metadata`, {})).status, 200);
  await t.until("the pool to show it", async () => (await backend.listing()).runner_pool_error === "downgrade");
  if (t.reference) return;
  t.doing("refreshing pools that are not serverless, or not there");
  assertRefused(await post(t, "default/refresh-metadata", {}), "serverless_runner_pool", "not_found");
  assertRefused(await post(t, "no-such-pool/refresh-metadata", {}), "runner_config", "not_found");
}

async function refused(t) {
  const backend = await Backend.create(t, { pool: null });
  const reasonOf = async (options) => {
    const answer = await backend.put(options);
    assertRefused(answer, "runner_config", "invalid");
    return answer.json.metadata.reason;
  };
  t.doing("saving pools that are not allowed");
  assert.equal(await reasonOf({ url: LINK_LOCAL }), `invalid serverless url: ${BLOCKED}`);
  assert.equal(
    await reasonOf({ request_lifespan: 900, drain_grace_period: 1800 }),
    "`drain_grace_period` must be less than `request_lifespan` (1800s >= 900s)",
  );
  assert.equal(await backend.listing(), undefined);
}

/** The endpoint's metadata shows a new version: actors move there, and callers notice nothing. */
async function newVersion(t) {
  const ACTORS = 10;
  const backend = await Backend.create(t, { pool: { metadata_poll_interval: 1_000 } });
  const client = backend.client();
  const counters = Array.from({ length: ACTORS }, () => client.counter.getOrCreate(t.key("versions")));
  const before = await Promise.all(counters.map((counter) => counter.whoami()));
  await backend.deploy({ envoy: { version: 2 } });
  t.doing(`calling ${ACTORS} actors until the new version has them`);
  let moved = false;
  const calls = counters.map(async (counter) => {
    for (let expected = 1; !moved; expected++) assert.equal(await counter.incrementDurably(1), expected);
  });
  const watching = t.until("the new version to have them all", async () => {
    return (await backend.envoys()).some(({ version, slots }) => version === 2 && slots === ACTORS);
  });
  await Promise.all([...calls, watching.finally(() => (moved = true))]);
  for (const [i, counter] of counters.entries()) {
    const after = await counter.whoami();
    assert.deepEqual([after.id, after.wakes], [before[i].id, before[i].wakes + 1], "each was started once more");
  }
  await t.until("the old version to have none", async () => {
    return (await backend.envoys()).every(({ version, slots }) => version === 2 || slots === 0);
  });
}

/** The SDK saves its pool itself. */
async function configuredBySdk(t) {
  const options = { headers: { "x-mine": "yes" }, requestLifespan: 900, drainGracePeriod: 10, metadata: { by: "sdk" } };
  const setup = ({ name, url }) => ({ endpoint: t.engine.endpoint, configurePool: { name, url, ...options } });
  const backend = await Backend.create(t, { pool: null, setup });
  t.doing("asking the application for the first time");
  const answer = await fetch(`${backend.url}/metadata`);
  assert.equal(answer.status, 200);
  await answer.body.cancel();
  const listing = await t.until("the pool", () => backend.listing());
  const { url, headers, request_lifespan, drain_grace_period, max_concurrent_actors } = listing.serverless;
  assert.deepEqual(
    { url, headers, request_lifespan, drain_grace_period, max_concurrent_actors },
    {
      url: backend.url,
      // The SDK's token for local engines.
      headers: { "x-mine": "yes", "x-rivet-token": "dev" },
      request_lifespan: 900,
      drain_grace_period: 10,
      max_concurrent_actors: 100_000,
    },
  );
  assert.deepEqual([listing.metadata, listing.protocol_version], [{ by: "sdk" }, 8]);
  assert.equal(await backend.client().counter.getOrCreate(t.key("sdk")).increment(1), 1);
}

const once = { encodings: "none" };

export const cases = [
  {
    ...once,
    name: "serverless-health-check",
    about: "the route that checks an endpoint, and what it says of each fault",
    run: healthCheck,
  },
  {
    ...once,
    name: "serverless-refresh",
    about: "the route that asks the endpoint for its metadata again",
    run: refresh,
  },
  {
    ...once,
    name: "serverless-refused",
    about: "pools that are not saved: a link-local address, a grace period beyond the lifespan",
    run: refused,
  },
  {
    ...once,
    name: "serverless-new-version",
    about: "a new version of the application takes over the actors while they are called",
    run: newVersion,
  },
  {
    ...once,
    name: "serverless-configure-pool",
    about: "the SDK makes its pool known by itself",
    run: configuredBySdk,
  },
];
