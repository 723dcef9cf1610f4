// Actions over HTTP and over a connection.
import assert from "node:assert/strict";

// Values that look the same after a round trip in every encoding.
const PLAIN_VALUES = [
  null,
  true,
  false,
  0,
  -7,
  1.5,
  2 ** 31,
  "",
  "żółć 🐸",
  [],
  [1, [2, "x"]],
  {},
  { a: { b: [null] } },
];
// cbor carries no byte arrays and big integers through HTTP actions: rivetkit 2.3.19 refuses its own form of them.
const RICH_VALUES = [new Uint8Array([0, 127, 255]), 10n, 2n ** 70n];

async function overHttp(t) {
  const counter = t.client.counter.getOrCreate(t.key("http"));
  t.doing("calling actions over HTTP");
  assert.equal(await counter.increment(1), 1);
  assert.equal(await counter.increment(41), 42);
  assert.equal(await counter.get(), 42);
}

async function overConnection(t) {
  const counter = t.client.counter.getOrCreate(t.key("connection"));
  const connection = counter.connect();
  t.doing("calling actions over a connection");
  assert.equal(await connection.increment(1), 1);
  const results = await Promise.all(Array.from({ length: 40 }, () => connection.increment(1)));
  // The host runs the calls of a connection side by side, so only the set of answers is certain.
  const sorted = results.toSorted((a, b) => a - b);
  assert.deepEqual(
    sorted,
    Array.from({ length: 40 }, (_, i) => i + 2),
    "each call ran once and got its own answer",
  );
  t.doing("calling the same actor over HTTP");
  assert.equal(await counter.get(), 41);
  await connection.dispose();
  await t.until("the closed connection to be forgotten", async () => (await counter.connections()) === 1);
}

async function values(t) {
  const counter = t.client.counter.getOrCreate(t.key("values"));
  const connection = counter.connect();
  const sent = t.encodings[0] === "cbor" ? PLAIN_VALUES : [...PLAIN_VALUES, ...RICH_VALUES];
  t.doing("echoing values over HTTP");
  assert.deepEqual(await counter.echo(...sent), sent);
  t.doing("echoing values over a connection");
  assert.deepEqual(await connection.echo(...sent), sent);
  t.doing("echoing 60 KiB over HTTP and a connection");
  const text = "0123456789abcde\n".repeat(60 * 64);
  assert.deepEqual(await counter.echo(text), [text]);
  assert.deepEqual(await connection.echo(text), [text]);
}

async function addressing(t) {
  const key = ["with/slash", "żółć", "per%20cent", t.key("x")[1]];
  t.doing("creating an actor under an awkward key");
  const created = await t.client.counter.create(key);
  assert.equal(await created.increment(5), 5);
  t.doing("reaching it by key and by id");
  const id = await t.client.counter.getOrCreate(key).resolve();
  assert.equal(await t.client.counter.get(key).get(), 5);
  assert.equal(await t.client.counter.getOrCreate(key).get(), 5);
  assert.equal(await t.client.counter.getForId(id).get(), 5);
  assert.equal((await t.record(id)).name, "counter");
  t.doing("asking for the same key under another actor name");
  assert.notEqual(await t.client.napper.getOrCreate(key).resolve(), id);
}

async function manyAtOnce(t) {
  const COUNT = 200;
  const [label, unique] = t.key("many");
  t.doing(`creating ${COUNT} actors at once`);
  const handles = Array.from({ length: COUNT }, (_, i) => t.client.counter.getOrCreate([label, unique, String(i)]));
  const first = await Promise.all(handles.map((handle, i) => handle.increment(i)));
  assert.deepEqual(
    first,
    Array.from({ length: COUNT }, (_, i) => i),
  );
  t.doing(`calling ${COUNT} running actors at once`);
  const people = await Promise.all(handles.map((handle) => handle.whoami()));
  assert.equal(new Set(people.map((one) => one.id)).size, COUNT, "every key has an actor of its own");
  assert.equal(new Set(people.map((one) => one.instance)).size, COUNT);
}

async function createRace(t) {
  const key = t.key("race");
  t.doing("asking 20 times at once for one new key");
  const ids = await Promise.all(
    Array.from({ length: 20 }, async () => (await t.client.counter.getOrCreate(key).whoami()).id),
  );
  assert.equal(new Set(ids).size, 1, "one key never has two actors");
}

export const cases = [
  { name: "action-http", about: "a counter over stateless HTTP actions", run: overHttp },
  {
    name: "action-connection",
    about: "40 calls in flight on one connection, each with its own answer",
    run: overConnection,
  },
  { name: "action-values", about: "arguments and results keep type and size", run: values },
  {
    name: "actor-addressing",
    about: "create, get, getOrCreate, getForId and resolve name the same actor",
    run: addressing,
  },
  {
    name: "actor-create-race",
    about: "20 concurrent getOrCreate calls make one actor",
    run: createRace,
  },
  {
    name: "two-hundred-actors",
    about: "200 actors created and called at once",
    run: manyAtOnce,
    deadlineMs: 60_000,
  },
];
