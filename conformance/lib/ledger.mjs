// Numbers that go to an actor, what became of each, and whether the actor's own record agrees.
import assert from "node:assert/strict";
import { Inbox } from "./sockets.mjs";
import { pause } from "./wait.mjs";

/** Actions under way at once on one connection. */
const ACTIONS_AT_ONCE = 4;
/** Pause after a failure, before the next number. */
const RETRY_MS = 5;
/** An action without an answer for so long counts as failed: nobody knows what became of it. */
const ANSWER_DEADLINE_MS = 4_000;

/** Numbers of one source: each is sent once, and never again. */
class Numbers {
  constructor(source) {
    this.source = source;
    this.next = 0;
    this.acknowledged = new Set();
    this.unknown = new Set();
  }

  /**
   * What was acknowledged is in the record exactly once; what was sent and not acknowledged is there at most once;
   * nothing else is there.
   */
  check(recorded) {
    const counts = new Map();
    for (const n of recorded) counts.set(n, (counts.get(n) ?? 0) + 1);
    const named = (numbers) => `${this.source}: ${numbers.join(", ")}`;
    const twice = [...counts].filter(([, count]) => count > 1).map(([n]) => n);
    assert.deepEqual(twice, [], `recorded twice: ${named(twice)}`);
    const lost = [...this.acknowledged].filter((n) => !counts.has(n));
    assert.deepEqual(lost, [], `acknowledged and lost: ${named(lost)}`);
    const strange = [...counts.keys()].filter((n) => !this.acknowledged.has(n) && !this.unknown.has(n));
    assert.deepEqual(strange, [], `recorded and never sent: ${named(strange)}`);
  }
}

/** Sends numbers as actions over one `.connect()`, a few at once, until it is stopped. */
export class ActionWriter extends Numbers {
  constructor(source, connection) {
    super(source);
    this.connection = connection;
    this.stopping = false;
    this.events = [];
    connection.on("recorded", (number, from, n) => this.events.push([number, from, n]));
    this.workers = Array.from({ length: ACTIONS_AT_ONCE }, () => this.#work());
  }

  async #work() {
    while (!this.stopping) {
      const n = this.next++;
      let timer;
      const tooLate = new Promise((resolve) => {
        timer = setTimeout(() => resolve(null), ANSWER_DEADLINE_MS);
      });
      try {
        const answer = await Promise.race([this.connection.record(this.source, n), tooLate]);
        if (answer === null) this.unknown.add(n);
        else {
          assert.equal(answer, n, "an answer of another action");
          this.acknowledged.add(n);
        }
      } catch (error) {
        if (error instanceof assert.AssertionError) throw error;
        this.unknown.add(n);
        // A connection that is beyond help refuses at once, and would keep this process from everything else.
        await pause(RETRY_MS);
      } finally {
        clearTimeout(timer);
      }
    }
  }

  async stop() {
    this.stopping = true;
    await Promise.all(this.workers);
  }
}

/**
 * Sends numbers as messages on a raw WebSocket, and goes on with another one when it closes. The actor's `have` is the
 * acknowledgement. `dial` opens a socket.
 */
export class SocketWriter extends Numbers {
  constructor(source, dial, { everyMs = 3 } = {}) {
    super(source);
    this.dial = dial;
    this.everyMs = everyMs;
    this.stopping = false;
    /** Sockets that were opened. */
    this.opened = 0;
    this.work = this.#work();
    this.work.catch(() => {});
  }

  async #work() {
    while (!this.stopping) await this.#useOne();
  }

  async #useOne() {
    const inbox = new Inbox(await this.dial());
    let isOpen = true;
    inbox.closed.then(() => {
      isOpen = false;
    });
    try {
      await inbox.opened;
    } catch {
      await pause(RETRY_MS);
      return;
    }
    this.opened += 1;
    inbox.socket.addEventListener("message", ({ data }) => {
      const n = Number(data.split(" ").at(-1));
      this.unknown.delete(n);
      this.acknowledged.add(n);
    });
    while (isOpen && !this.stopping) {
      const n = this.next++;
      this.unknown.add(n);
      inbox.socket.send(`${this.source} ${n}`);
      await pause(this.everyMs);
    }
    this.last = inbox;
  }

  /** Sends no more, and leaves the last socket open. */
  async stop() {
    this.stopping = true;
    await this.work;
  }
}

/** The numbers of one source in an actor's log of messages. */
export function numbersOf(source, received) {
  return received.filter((line) => line.startsWith(`${source} `)).map((line) => Number(line.split(" ")[1]));
}
