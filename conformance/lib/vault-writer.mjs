// Writes to one actor of apps/vault.mjs, and keeps its own books of what became of each write.
import assert from "node:assert/strict";
import { ACCOUNTS, MONEY } from "../apps/vault.mjs";

/** Transactions that are under way at once in one actor. */
const TRANSACTIONS_AT_ONCE = 2;
const ROWS_MAX = 12;
/** Once in so many times a transaction is taken back, and once in so many it is large. */
const TAKEN_BACK = 6;
const LARGE = 40;

/** A sequence of numbers below 1 that follows from a seed (a linear congruential generator). */
export function sequence(seed) {
  let state = BigInt(seed) & 0xffff_ffff_ffffn;
  return () => {
    state = (state * 0x5_deec_e66dn + 0xbn) & 0xffff_ffff_ffffn;
    return Number(state >> 16n) / 2 ** 32;
  };
}

/** A value that is overwritten with ever larger numbers, one after the other. */
class Latest {
  constructor(what) {
    this.what = what;
    this.next = 1;
    this.acknowledged = 0;
    this.unknown = new Set();
  }

  check(found) {
    const possible = [this.acknowledged, ...this.unknown].filter((n) => n >= this.acknowledged);
    assert.ok(possible.includes(found), `${this.what} is ${found}, possible are only ${possible.join(", ")}`);
    const done = this.unknown.has(found) ? 1 : 0;
    this.unknown.clear();
    this.acknowledged = found;
    return done;
  }
}

export class VaultWriter {
  constructor(handle, seed) {
    this.handle = handle;
    this.random = sequence(seed);
    this.nextTransaction = 1;
    /** Rows of each transaction that is acknowledged, or without an answer. */
    this.acknowledged = new Map();
    this.unknown = new Map();
    this.saved = new Latest("the state");
    this.put = new Latest("the pair");
    this.counts = { acknowledged: 0, refused: 0, indeterminate: 0, done_unanswered: 0, audits: 0 };
    this.failedAt = null;
    this.workers = [];
  }

  #below(end) {
    return Math.floor(this.random() * end);
  }

  /** Begins to write; resolves when each worker has had an answer. From then on each goes on until a write fails. */
  async load() {
    this.failedAt = null;
    const lanes = [() => this.#overwrite(this.saved, "save"), () => this.#overwrite(this.put, "put")];
    for (let i = 0; i < TRANSACTIONS_AT_ONCE; i++) lanes.push(() => this.#transact());
    const first = lanes.map((step) => step());
    this.workers = lanes.map((step, i) => this.#work(first[i], step));
    await Promise.all(first);
  }

  async #work(first, step) {
    try {
      await first;
      for (;;) await step();
    } catch (error) {
      if (error instanceof assert.AssertionError) throw error;
      this.failedAt ??= { at: Date.now(), error };
    }
  }

  /** Waits until all workers have failed; none may have done so before the engine was killed. */
  async ended(killedAt) {
    await Promise.all(this.workers);
    const early = this.failedAt !== null && this.failedAt.at < killedAt;
    assert.ok(!early, `a write failed before the kill: ${this.failedAt?.error.message}`);
  }

  async #overwrite(latest, action) {
    const n = latest.next++;
    latest.unknown.add(n);
    this.counts.indeterminate += 1;
    await this.handle[action](n);
    latest.unknown.delete(n);
    latest.acknowledged = n;
    this.#isAcknowledged();
  }

  #isAcknowledged() {
    this.counts.indeterminate -= 1;
    this.counts.acknowledged += 1;
  }

  async #transact() {
    const tx = this.nextTransaction++;
    const rows = 1 + this.#below(ROWS_MAX);
    const payment = { from: this.#below(ACCOUNTS), to: this.#below(ACCOUNTS), amount: this.#below(MONEY) };
    if (this.#below(TAKEN_BACK) === 0) return this.#takeBack(tx, rows, payment);
    const isLarge = this.#below(LARGE) === 0;
    this.unknown.set(tx, isLarge ? null : rows);
    this.counts.indeterminate += 1;
    await (isLarge ? this.handle.large(tx) : this.handle.transact(tx, rows, payment));
    this.acknowledged.set(tx, this.unknown.get(tx));
    this.unknown.delete(tx);
    this.#isAcknowledged();
  }

  /** Must never be seen, whether or not there is an answer. */
  async #takeBack(tx, rows, payment) {
    const answer = await this.handle.takeBack(tx, rows, payment).then(
      () => assert.fail(`transaction ${tx} was to fail`),
      (error) => error,
    );
    if (answer.group === undefined || answer instanceof assert.AssertionError) throw answer;
    this.counts.refused += 1;
  }

  /**
   * Compares what an instance has found that has only now read it from the engine. From here on what had no answer is
   * either there or never will be.
   */
  check({ integrity, money, transactions, saved, put }) {
    assert.equal(integrity, "ok", "SQLite's integrity check");
    assert.equal(money, ACCOUNTS * MONEY, "the sum of all accounts");
    const found = new Map(transactions.map((row) => [row.tx, row]));
    const missing = [...this.acknowledged.keys()].filter((tx) => !found.has(tx));
    assert.deepEqual(missing, [], `acknowledged and lost: transactions ${missing.join(", ")}`);
    for (const { tx, found: parts, least, most } of transactions) {
      const isKnown = this.acknowledged.has(tx) || this.unknown.has(tx);
      assert.ok(isKnown, `transaction ${tx} is there although it was taken back or never sent`);
      const rows = this.acknowledged.get(tx) ?? this.unknown.get(tx) ?? most;
      const isWhole = parts === rows && least === rows && most === rows;
      assert.ok(isWhole, `transaction ${tx} has ${parts} of ${most} rows, sent were ${rows}`);
    }
    const done = [...this.unknown.keys()].filter((tx) => found.has(tx)).length;
    this.counts.done_unanswered += done + this.saved.check(saved) + this.put.check(put);
    this.counts.audits += 1;
    this.unknown.clear();
    this.acknowledged = new Map(transactions.map(({ tx, most }) => [tx, most]));
  }

  /** Has the actor forget what was checked, so that it does not grow without end. */
  async forget() {
    await this.handle.forget(this.nextTransaction);
    this.acknowledged.clear();
  }
}
