// Starts its writes without waiting for them, and remembers in memory what became of each: so a case can ask the same
// instance after the host's link was cut.
import { actor } from "rivetkit";
import { db } from "rivetkit/db";
import { createVars, onWake, whoami } from "./life.mjs";

const BODY_BYTES = 4_000;

const insertRows = async (sql, first, last) => {
  for (let n = first; n <= last; n++) await sql.execute("INSERT INTO entry (n, body) VALUES (?, ?)", n, "x".repeat(BODY_BYTES));
};

const operations = {
  insert: (c, n) => insertRows(c.db, n, n),
  insertMany: (c, first, last) => c.db.transaction((tx) => insertRows(tx, first, last), { name: "insert-many" }),
  vacuum: (c) => c.db.execute("VACUUM"),
  note: async (c, text) => {
    c.state.notes.push(text);
    await c.saveState({ immediate: true });
  },
};

export const shaky = actor({
  state: { wakes: 0, notes: [] },
  db: db({
    onMigrate: async (sql) => {
      await sql.execute("CREATE TABLE IF NOT EXISTS entry (n INTEGER PRIMARY KEY, body TEXT NOT NULL)");
    },
    profiling: { enabled: false },
  }),
  createVars: () => ({ ...createVars(), outcomes: [] }),
  onWake,
  actions: {
    whoami,
    /** Begins an operation; its outcome, once there is one, is added to the others. */
    begin: (c, operation, ...args) => {
      operations[operation](c, ...args).then(
        () => c.vars.outcomes.push("made"),
        (error) => c.vars.outcomes.push(`failed: ${error.message}`),
      );
      return true;
    },
    /** Carries an operation out. */
    carryOut: async (c, operation, ...args) => {
      await operations[operation](c, ...args);
      return true;
    },
    outcomes: (c) => c.vars.outcomes,
    notes: (c) => c.state.notes,
    clear: async (c) => {
      await c.db.execute("DELETE FROM entry WHERE n > 1");
      return true;
    },
    rows: async (c) => (await c.db.execute("SELECT n FROM entry ORDER BY n")).map(({ n }) => n),
    /** What SQLite finds wrong; one row that says "ok" if nothing is. */
    integrity: (c) => c.db.execute("PRAGMA integrity_check"),
    nap: (c) => {
      c.sleep();
      return true;
    },
  },
  options: { sleepTimeout: 120_000 },
});
