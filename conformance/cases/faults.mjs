// The network fails between client and engine, and between host and engine. Real clients and a real host on both ends.
//
// What must hold: an action or message that was answered is in the actor's record exactly once; one that got no answer
// is there at most once; nothing comes out of order; and when all is over the engine holds nothing any more.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { pattern } from "../apps/raw.mjs";
import { ActionWriter, SocketWriter, numbersOf } from "../lib/ledger.mjs";
import { Inbox } from "../lib/sockets.mjs";
import { pause } from "../lib/wait.mjs";
import { assertWokenOnce } from "./lifecycle.mjs";

/** What must be back at zero when nobody uses the engine. */
const HELD = [
  "rivet_guard_proxy_request_pending",
  "rivet_guard_websocket_active",
  "rivet_gateway_in_flight",
  "rivet_gateway_tasks",
  "rivet_gateway_waiting_bytes",
  "rivet_guard_in_flight_request_count",
  "rivet_envoy_outbox_bytes",
];

/** A host that sends less than so many bytes in so long only answers pings. */
const QUIET_BYTES = 300;
const QUIET_MS = 400;

const isIncreasing = (numbers) => numbers.every((n, i) => i === 0 || n > numbers[i - 1]);

/** Ends all clients and waits until the engine holds nothing of any request or socket. */
async function nothingStaysOpen(t) {
  await t.disposeClients();
  if (t.reference) return;
  for (const name of HELD) {
    await t.until(`${name} to be 0`, async () => (await t.engine.metric(name)) === 0);
  }
}

/** Waits until only hosts are connected: clients keep connections for some seconds in the hope of another request. */
async function onlyHostsAreConnected(t) {
  if (t.reference) return;
  await t.until("all connections but those of hosts to be closed", async () => {
    return (await t.engine.metric("rivet_guard_tcp_connection_pending")) === t.stack.hosts.length;
  });
}

/** Lets a fault happen to the open connections of a link, and ends it: with a reset where bytes are lost for good. */
async function undergo(t, link, [direction, fault, lastsMs]) {
  t.doing(`${fault} ${direction} between the engine and the ${link.name}`);
  const ended = link.ended.length;
  await link.set("open", direction, fault);
  if (lastsMs !== undefined) {
    await pause(lastsMs);
    await link.set("open", "both", fault === "half_open" ? "reset:0" : "pass");
  }
  if (!/stall|delay|limit/.test(fault)) {
    await t.until(`the end of a connection by ${fault} ${direction}`, () => link.ended.length > ended);
  }
}

const CLIENT_FAULTS = [
  ["up", "cut:30"],
  ["down", "cut:30"],
  ["up", "reset:700"],
  ["down", "reset:700"],
  ["both", "stall", 300],
  ["up", "stall", 300],
  ["down", "stall", 300],
  ["up", "half_open", 300],
  ["down", "half_open", 300],
  ["both", "cut:0"],
];

async function clientActions(t) {
  const link = t.stack.clientLink;
  const key = t.key("actions");
  const handle = t.client.ledger.getOrCreate(key);
  t.doing("connecting a witness that nothing happens to");
  const witnessed = [];
  const witness = handle.connect();
  witness.on("recorded", (number) => witnessed.push(number));
  await witness.whoami();
  const client = t.newClient(t.encodings[0], link.endpoint);
  const writer = new ActionWriter("actions", client.ledger.getOrCreate(key).connect());
  for (const fault of CLIENT_FAULTS) {
    const before = writer.acknowledged.size;
    await t.until("answers to come", () => writer.acknowledged.size >= before + 10);
    await undergo(t, link, fault);
  }
  const before = writer.acknowledged.size;
  await t.until("answers to come again", () => writer.acknowledged.size >= before + 10);
  t.doing("comparing");
  await writer.stop();
  const records = await handle.records();
  writer.check(records.map(({ n }) => n));
  assert.ok(writer.unknown.size >= 3, "the faults have met actions under way");
  await t.until("the witness to have heard of all", () => witnessed.length >= records.length);
  assert.deepEqual(witnessed, [...records.keys()], "a healthy connection gets every event once, in order");
  assert.ok(isIncreasing(writer.events.map(([number]) => number)), "the disturbed one gets none twice, and in order");
  await nothingStaysOpen(t);
}

async function clientSockets(t) {
  const link = t.stack.clientLink;
  const key = t.key("sockets");
  const handle = t.client.ledger.getOrCreate(key);
  await handle.whoami();
  const far = t.newClient("bare", link.endpoint).ledger.getOrCreate(key);
  const writer = new SocketWriter("socket", () => far.webSocket("/"));
  for (const fault of CLIENT_FAULTS) {
    const before = writer.acknowledged.size;
    await t.until("messages to be acknowledged", () => writer.acknowledged.size >= before + 10);
    await undergo(t, link, fault);
  }
  const before = writer.acknowledged.size;
  await t.until("messages to be acknowledged again", () => writer.acknowledged.size >= before + 10);
  await writer.stop();
  await t.until("the last message", () => !writer.unknown.has(writer.next - 1));
  writer.last.socket.close();
  t.doing("comparing");
  const recorded = numbersOf("socket", await handle.received());
  writer.check(recorded);
  assert.ok(isIncreasing(recorded), "in order");
  assert.equal(writer.opened, 1 + CLIENT_FAULTS.filter(([, fault]) => fault !== "stall").length);
  await nothingStaysOpen(t);
}

/** Waits until the host has connected once more, and the engine knows it. */
async function hostIsBack(t, opened) {
  await t.until("the host to connect again", async () => {
    const count = t.stack.hostLink.events.filter(({ event }) => event === "opened").length;
    return count > opened && (await t.host.listing()) !== undefined;
  });
}

/** Waits until the host sends nothing but answers to pings: above all, no commit is under way. */
async function quietHost(t) {
  const sent = async () => (await t.stack.hostLink.look()).open.reduce((sum, { up_bytes: bytes }) => sum + bytes, 0);
  let last = await sent();
  await t.until("the host to be quiet", async () => {
    await pause(QUIET_MS);
    const before = last;
    last = await sent();
    return last - before < QUIET_BYTES;
  });
}

const countOpened = (link) => link.events.filter(({ event }) => event === "opened").length;

/**
 * A hibernatable socket and a connection of clients that nothing happens to, while the host's link fails. What the link
 * loses on the way to the host the engine sends again.
 */
async function hostLosesLink(t) {
  const link = t.stack.hostLink;
  const handle = t.client.ledger.getOrCreate(t.key("link"));
  const connection = handle.connect();
  const before = await connection.whoami();
  const inbox = new Inbox(await handle.webSocket("/"));
  await inbox.opened;
  let next = 0;
  const send = (count) => {
    for (const end = next + count; next < end; next++) inbox.socket.send(`socket ${next}`);
  };
  const faults = [
    ["both", "stall", 800],
    ["down", "cut:300"],
    ["up", "reset:100"],
  ];
  for (const fault of faults) {
    await quietHost(t);
    const opened = countOpened(link);
    const failing = undergo(t, link, fault);
    send(20);
    await failing;
    t.doing(`sending while the host is away after ${fault}`);
    send(20);
    const answer = connection.whoami();
    if (fault[1] !== "stall") await hostIsBack(t, opened);
    assert.deepEqual(await answer, before, "an action is answered by the host that comes back");
    await t.until("the last message", async () => (await handle.received()).includes(`socket ${next - 1}`));
  }
  assert.deepEqual(
    numbersOf("socket", await handle.received()),
    Array.from({ length: next }, (_, n) => n),
    "every message once, in order",
  );
  assert.equal(inbox.socket.readyState, 1, "the client's socket has never closed");
  assert.equal(connection.connStatus, "connected");
  assert.deepEqual(await handle.whoami(), before, "and the actor has never stopped");
  inbox.socket.close();
  await nothingStaysOpen(t);
}

/**
 * The link is cut on the way back, amid commits: they are made, and rivetkit, which is not told, fails them. What was
 * acknowledged before and after is there, and nothing is there twice.
 */
async function hostLosesCommits(t) {
  const link = t.stack.hostLink;
  const key = t.key("commits");
  const handle = t.client.ledger.getOrCreate(key);
  await handle.whoami();
  const actions = new ActionWriter("actions", t.newClient("cbor").ledger.getOrCreate(key).connect());
  const sockets = new SocketWriter("socket", () => handle.webSocket("/"));
  const goesOn = async (what) => {
    const before = actions.acknowledged.size;
    await t.until(what, () => actions.acknowledged.size >= before + 20);
  };
  await goesOn("answers to come");
  const opened = countOpened(link);
  await undergo(t, link, ["down", "cut:10"]);
  await hostIsBack(t, opened);
  await goesOn("answers to come again");
  await Promise.all([actions.stop(), sockets.stop()]);
  t.doing("comparing");
  actions.check((await handle.records()).map(({ n }) => n));
  const recorded = numbersOf("socket", await handle.received());
  assert.ok(isIncreasing(recorded), "messages in order, and none twice");
  sockets.last.socket.close();
  await nothingStaysOpen(t);
  await onlyHostsAreConnected(t);
}

async function hostFallsSilent(t) {
  const link = t.stack.hostLink;
  const ledger = t.client.ledger.getOrCreate(t.key("silent"));
  const raw = t.client.raw.getOrCreate(t.key("silent"));
  const inbox = new Inbox(await ledger.webSocket("/"));
  assert.equal(await inbox.opened.then(() => inbox.ask("socket 0")), "have socket 0");
  t.doing("opening a stream");
  const reader = (await raw.fetch("/stream")).body.getReader();
  await reader.read();
  await quietHost(t);
  t.doing("waiting for the end of the stream of a host that says nothing any more");
  const opened = countOpened(link);
  await link.set("open", "up", "half_open");
  const silent = performance.now();
  inbox.socket.send("socket 1");
  await assert.rejects(reader.read(), "the stream breaks off");
  const foundOutMs = performance.now() - silent;
  assert.ok(foundOutMs > 1_000 && foundOutMs < 4_000, `found out after ${foundOutMs} ms; the ping timeout is 1500 ms`);
  inbox.socket.send("socket 2");
  await hostIsBack(t, opened);
  await t.until("the last message", async () => (await ledger.received()).includes("socket 2"));
  assert.deepEqual(numbersOf("socket", await ledger.received()), [0, 1, 2]);
  assert.equal((await raw.fetch("/hello?name=again")).status, 200);
  inbox.socket.close();
  await nothingStaysOpen(t);
}

async function delay(t) {
  const { clientLink, hostLink: toHost } = t.stack;
  const client = t.newClient("bare", clientLink.endpoint);
  const key = t.key("far");
  await t.client.raw.getOrCreate(key).whoami();
  await t.client.hibernating.getOrCreate(key).whoami();
  await t.client.counter.getOrCreate(key).whoami();
  t.atEnd(() => Promise.all([clientLink.heal(), toHost.heal()]));
  await Promise.all([clientLink, toHost].map((link) => link.set("all", "both", "delay:200")));
  t.doing("calling an actor from far away");
  const counter = client.counter.getOrCreate(key);
  const started = performance.now();
  assert.equal(await counter.increment(1), 1);
  assert.ok(performance.now() - started >= 800, "two long ways there, two back");
  t.doing("receiving events from far away");
  const connection = counter.connect();
  const events = [];
  connection.on("tick", (n) => events.push(n));
  await connection.burst(50);
  assert.deepEqual(events, Array.from({ length: 50 }, (_, n) => n));
  const raw = client.raw.getOrCreate(key);
  t.doing("sending and receiving bodies of more than a window from far away");
  const body = pattern(2 * 1024 * 1024);
  const sent = await (await raw.fetch("/digest", { method: "POST", body })).json();
  assert.deepEqual(sent, { length: body.length, sha256: createHash("sha256").update(body).digest("hex") });
  const got = new Uint8Array(await (await raw.fetch(`/bytes?count=${body.length}`)).arrayBuffer());
  assert.ok(Buffer.compare(got, body) === 0, "the body is intact");
  t.doing("waking a sleeping actor from far away over the socket it left behind");
  const hibernating = client.hibernating.getOrCreate(key);
  const inbox = new Inbox(await hibernating.webSocket("/"));
  await inbox.opened;
  assert.equal(await inbox.ask("before"), "echo:before");
  const before = await hibernating.whoami();
  await hibernating.nap();
  await t.asleep(before.id);
  for (let n = 0; n < 20; n++) inbox.socket.send(`${n}`);
  for (let n = 0; n < 20; n++) assert.equal(await inbox.next(), `echo:${n}`);
  assertWokenOnce(before, await hibernating.whoami());
  inbox.socket.close();
  await nothingStaysOpen(t);
}

const CROWD = 8;
const CANDIDATES_MAX = 100;

/** Keys of actors of which each of two hosts has half: where the engine places an actor is left to chance. */
async function keysOnTwoHosts(t) {
  const keysOf = new Map();
  for (let i = 0; i < CANDIDATES_MAX; i++) {
    const key = t.key(`crowd-${i}`);
    const { pid } = await t.client.ledger.getOrCreate(key).whoami();
    keysOf.set(pid, [...(keysOf.get(pid) ?? []), key]);
    const groups = [...keysOf.values()];
    if (groups.length === 2 && groups.every((keys) => keys.length >= CROWD / 2)) {
      return groups.flatMap((keys) => keys.slice(0, CROWD / 2));
    }
  }
  throw new Error(`${CANDIDATES_MAX} actors are not spread over two hosts`);
}

async function overtaking(t) {
  const { clientLink, hostLink: toHost } = t.stack;
  await t.stack.addHost();
  const keys = await keysOnTwoHosts(t);
  await Promise.all([clientLink, toHost].map((link) => link.set("all", "both", "overtaken:15")));
  t.doing(`letting ${CROWD} clients overtake each other on the way to ${CROWD} actors on two hosts`);
  await Promise.all(
    keys.map(async (key, i) => {
      const handle = t.newClient(t.encodings[i % t.encodings.length], clientLink.endpoint).ledger.getOrCreate(key);
      const connection = handle.connect();
      const events = [];
      connection.on("recorded", (number, source, n) => events.push([number, source, n]));
      const inbox = new Inbox(await handle.webSocket("/"));
      await inbox.opened;
      for (let n = 0; n < 20; n++) {
        inbox.socket.send(`client-${i} ${n}`);
        assert.equal(await connection.record(`client-${i}`, n), n);
        assert.equal(await inbox.next(), `have client-${i} ${n}`);
      }
      const expected = Array.from({ length: 20 }, (_, n) => n);
      assert.deepEqual(events, expected.map((n) => [n, `client-${i}`, n]));
      assert.deepEqual(numbersOf(`client-${i}`, await handle.received()), expected);
      inbox.socket.close();
    }),
  );
  for (const link of [clientLink, toHost]) assert.ok((await link.look()).overtaken > 20, `on the way to ${link.name}`);
  await nothingStaysOpen(t);
}

const SEED = Number(process.env.FAULT_SEED ?? 1);
const DISTURBANCE_MS = 5_000;

async function randomFaults(t) {
  const link = t.stack.clientLink;
  const key = t.key("random");
  const handle = t.client.ledger.getOrCreate(key);
  await handle.whoami();
  const far = (encoding) => t.newClient(encoding, link.endpoint).ledger.getOrCreate(key);
  const writers = t.encodings.map((encoding) => new ActionWriter(`actions-${encoding}`, far(encoding).connect()));
  const talkers = [1, 2, 3].map((n) => new SocketWriter(`socket-${n}`, () => far("bare").webSocket("/")));
  const steps = link.events.length;
  t.doing(`disturbing at random with seed ${SEED}`);
  await link.disturb(SEED, DISTURBANCE_MS);
  assert.ok(link.events.slice(steps).filter(({ event }) => event === "disturbed").length > 10);
  for (const each of [...writers, ...talkers]) {
    const before = each.acknowledged.size;
    await t.until(`${each.source} to go on (seed ${SEED})`, () => each.acknowledged.size > before);
  }
  await Promise.all([...writers, ...talkers].map((each) => each.stop()));
  t.doing(`comparing (seed ${SEED})`);
  const records = await handle.records();
  for (const writer of writers) {
    writer.check(records.filter(({ source }) => source === writer.source).map(({ n }) => n));
    assert.ok(isIncreasing(writer.events.map(([number]) => number)), "events in order, none twice");
  }
  for (const talker of talkers) {
    await t.until(`the last message of ${talker.source}`, () => !talker.unknown.has(talker.next - 1));
    talker.last.socket.close();
    const recorded = numbersOf(talker.source, await handle.received());
    talker.check(recorded);
    assert.ok(isIncreasing(recorded), "in order");
  }
  await nothingStaysOpen(t);
  await onlyHostsAreConnected(t);
}

export const cases = [
  {
    name: "client-faults-actions",
    about: "cut, reset, stalled and half-open connections amid numbered actions",
    stack: "faulty",
    run: clientActions,
  },
  {
    name: "client-faults-sockets",
    about: "the same amid numbered messages on plain WebSockets",
    stack: "faulty",
    encodings: "none",
    run: clientSockets,
  },
  {
    name: "faults-random",
    about: `seeded random faults for ${DISTURBANCE_MS / 1000} s on the connections of six clients`,
    stack: "faulty",
    encodings: "together",
    run: randomFaults,
  },
  {
    name: "faults-delay",
    about: "200 ms each way, for clients and host: everything works",
    stack: "faulty",
    encodings: "none",
    run: delay,
  },
  {
    name: "faults-overtaking",
    about: "bytes of other connections overtake, for clients and two hosts",
    stack: "own-faulty",
    encodings: "together",
    run: overtaking,
  },
  {
    name: "host-faults-sockets",
    about: "the host's link stalls, is cut and reset: hibernatable sockets lose and repeat nothing",
    stack: "own-faulty",
    encodings: "none",
    run: hostLosesLink,
  },
  {
    name: "host-faults-commits",
    about: "answers to commits are cut off: no acknowledged action is lost, none is made twice",
    stack: "own-faulty",
    encodings: "none",
    run: hostLosesCommits,
  },
  {
    name: "host-silent",
    about: "a half-open host is found out, and nothing is lost",
    stack: "own-faulty",
    encodings: "none",
    run: hostFallsSilent,
  },
];
