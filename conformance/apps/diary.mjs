// One actor that uses everything an actor can store, the same in each flavour of the SDK: `apps/rust-ledger` has it in Rust,
// with the same name, state, tables and actions, so that an actor can go on in another flavour.
import { actor, queue } from "rivetkit";
import { db } from "rivetkit/db";
import { createVars, onWake, whoami } from "./life.mjs";

const INSERT = "INSERT INTO entry (n, body) VALUES (?, ?)";

export const diary = actor({
  state: { wakes: 0, notes: [], rung: [], jobs: [] },
  queues: { jobs: queue() },
  db: db({
    onMigrate: async (sql) => {
      await sql.execute("CREATE TABLE IF NOT EXISTS entry (n INTEGER PRIMARY KEY, body TEXT NOT NULL)");
    },
    profiling: { enabled: false },
  }),
  createVars,
  onWake,
  run: async (c) => {
    for await (const message of c.queue.iter({ names: ["jobs"], completable: true })) {
      c.state.jobs.push(message.body);
      await message.complete();
    }
  },
  actions: {
    whoami,
    /** State, durable when this returns. */
    note: async (c, text) => {
      c.state.notes.push(text);
      await c.saveState({ immediate: true });
      return c.state.notes.length;
    },
    /** All that is kept in the state beside the number of wakes. */
    memory: (c) => ({ notes: c.state.notes, rung: c.state.rung, jobs: c.state.jobs }),
    insert: async (c, n, body) => {
      await c.db.execute(INSERT, n, body);
      return n;
    },
    /** Inserts rows `first` to `last`, and fails at the end if it is told to: all of them or none. */
    insertMany: async (c, first, last, body, fail) => {
      await c.db.transaction(
        async (tx) => {
          for (let n = first; n <= last; n++) await tx.execute(INSERT, n, body);
          if (fail) throw new Error("rolled back on purpose");
        },
        { name: "insert-many" },
      );
      return last - first + 1;
    },
    select: (c, statement, ...values) => c.db.execute(statement, ...values),
    put: async (c, key, value) => {
      await c.kv.put(key, value);
      return key;
    },
    get: (c, key) => c.kv.get(key),
    push: async (c, job) => {
      await c.queue.send("jobs", job);
      return job;
    },
    plan: async (c, ms, label) => {
      const due = Date.now() + ms;
      await c.schedule.after(ms, "ring", label);
      return due;
    },
    ring: (c, label) => {
      c.state.rung.push(label);
      return label;
    },
    nap: (c) => {
      c.sleep();
      return true;
    },
  },
  options: { sleepTimeout: 120_000 },
});
