// What a case gets to work with: clients, the management API, conditions with a deadline.
import { randomUUID } from "node:crypto";
import { createClient } from "rivetkit/client";
import { call } from "./api.mjs";
import { until, within } from "./wait.mjs";

export class Scene {
  constructor({ stack, encodings, deadlineMs, binary, folder, reference }) {
    this.stack = stack;
    this.encodings = encodings;
    this.binary = binary;
    /** A folder of this case alone. */
    this.folder = folder;
    /** True when the engine under test is the published one. */
    this.reference = reference;
    this.deadlineMs = deadlineMs;
    this.end = performance.now() + deadlineMs;
    this.activity = "starting";
    this.clients = new Map();
    this.allClients = [];
    this.cleanups = [];
    /** Figures that the case has measured; printed with its result. */
    this.notes = [];
    /** Logs of processes that the case started itself; shown when it fails. */
    this.logFiles = [];
  }

  get engine() {
    return this.stack.engine;
  }

  get host() {
    return this.stack.host;
  }

  /** What sees the messages between host and engine, on a tapped stack. */
  get tap() {
    return this.stack.tap;
  }

  /** The client of a case that runs once per encoding. */
  get client() {
    return this.clientFor(this.encodings[0]);
  }

  clientFor(encoding) {
    if (!this.clients.has(encoding)) this.clients.set(encoding, this.newClient(encoding));
    return this.clients.get(encoding);
  }

  /** A client of its own, at the engine's address or at another one, for actors of the default pool or of another one. */
  newClient(encoding, endpoint = this.engine.endpoint, poolName = "default") {
    const client = createClient({ endpoint, encoding, poolName });
    this.allClients.push(client);
    return client;
  }

  /** Ends all clients; what they had open closes. */
  async disposeClients() {
    const clients = this.allClients.splice(0).map((client) => client.dispose());
    this.clients.clear();
    await within("clients to be disposed", Promise.allSettled(clients), 3_000);
  }

  /** An actor key that no other case uses. */
  key(label) {
    return [label, randomUUID()];
  }

  /** Says what the case does now; named when the deadline passes. */
  doing(activity) {
    this.activity = activity;
  }

  /** Has a figure printed with the result. */
  note(text) {
    this.notes.push(text);
  }

  get remainingMs() {
    return Math.max(0, this.end - performance.now());
  }

  async until(what, condition) {
    this.doing(`waiting for ${what}`);
    return until(what, condition, { deadlineMs: this.remainingMs });
  }

  /** Runs `step` at the end of the case, passed or not. */
  atEnd(step) {
    this.cleanups.unshift(step);
  }

  api(method, path, body) {
    return call(this.engine.endpoint, method, path, body);
  }

  /** The engine's record of an actor. */
  async record(actorId) {
    const answer = await this.api("GET", `/actors?namespace=default&actor_ids=${actorId}`);
    return answer.json.actors[0];
  }

  /** Waits until the engine counts exactly `count` actors on this stack's first host. */
  hosting(count) {
    return this.until(`the host to have ${count} actors`, async () => (await this.host.listing())?.slots === count);
  }

  /** Waits until the actor is asleep, or at least told to sleep: a request from now on reaches its next instance. */
  asleep(actorId) {
    return this.until(`actor ${actorId} to be asleep`, async () => (await this.record(actorId)).sleep_ts !== null);
  }

  /** Waits, without sending a request to the actor, until it runs. */
  running(actorId) {
    return this.until(`actor ${actorId} to run`, async () => (await this.record(actorId)).connectable_ts !== null);
  }

  /** Waits, without sending a request to the actor, until it was started again after the time of `record`. */
  startedAgain(record) {
    return this.until(`actor ${record.actor_id} to be started by the engine alone`, async () => {
      return (await this.record(record.actor_id)).connectable_ts > record.connectable_ts;
    });
  }

  /** Runs the body of a case under the deadline of the case. */
  play(body) {
    return within("the case to end", body(this), this.deadlineMs);
  }

  async close() {
    await this.disposeClients().catch(() => {});
    for (const cleanup of this.cleanups) await cleanup();
  }
}
