// SQL rows and key-value pairs of an actor.
import { createHash } from "node:crypto";
import { actor } from "rivetkit";
import { db } from "rivetkit/db";
import { createVars, onWake, whoami } from "./life.mjs";

const ROWS_PER_STATEMENT = 250;

/** The text of row `n`: known to the case, different for every row, and `bytes` long. */
export function rowText(n, bytes) {
  return createHash("sha256")
    .update(`row ${n}`)
    .digest("hex")
    .repeat(Math.ceil(bytes / 64))
    .slice(0, bytes);
}

/** Bytes travel as `{ hex }`: not every client encoding has them. */
const fromWire = (value) => (value?.hex === undefined ? value : Buffer.from(value.hex, "hex"));

/** For JSON, which has neither bytes nor large numbers. */
function asText(_, value) {
  if (typeof value === "bigint") return `${value}n`;
  if (value instanceof Uint8Array || value instanceof ArrayBuffer) return { hex: Buffer.from(value).toString("hex") };
  return value;
}

const database = db({
  onMigrate: async (sql) => {
    await sql.execute("CREATE TABLE IF NOT EXISTS entry (n INTEGER PRIMARY KEY, body TEXT NOT NULL)");
  },
  profiling: { enabled: false },
});

/** The rows of a statement, or SQLite's words about it. */
async function outcomeOf(sql, { statement, values }) {
  try {
    return JSON.stringify(await sql.execute(statement, ...values.map(fromWire)), asText);
  } catch (error) {
    return `failed: ${(error.metadata?.error ?? error.message).split("sqlite execute statement: ").at(-1)}`;
  }
}

async function outcomesOfTransaction(sql, statements, fails) {
  const outcomes = [];
  const all = async (tx) => {
    for (const statement of statements) outcomes.push(await outcomeOf(tx, statement));
    if (fails) throw new Error("taken back on purpose");
  };
  await sql.transaction(all, { name: "several" }).catch((error) => {
    if (!fails) throw error;
  });
  return outcomes;
}

const lifeActions = {
  whoami,
  nap: (c) => {
    c.sleep();
    return true;
  },
};

export const sql = actor({
  state: { wakes: 0 },
  db: database,
  createVars,
  onWake,
  actions: {
    ...lifeActions,
    /** One row, durable when this returns. */
    insert: async (c, n, body) => {
      await c.db.execute("INSERT INTO entry (n, body) VALUES (?, ?)", n, body);
      return n;
    },
    /** Rows `first` to `last` in a single transaction. */
    fill: async (c, first, last, bytes) => {
      await c.db.transaction(
        async (tx) => {
          for (let n = first; n <= last; n += ROWS_PER_STATEMENT) {
            const end = Math.min(last, n + ROWS_PER_STATEMENT - 1);
            const rows = Array.from({ length: end - n + 1 }, (_, i) => [n + i, rowText(n + i, bytes)]);
            await tx.execute(
              `INSERT INTO entry (n, body) VALUES ${rows.map(() => "(?, ?)").join(", ")}`,
              ...rows.flat(),
            );
          }
        },
        { name: "fill", timeout: 60_000 },
      );
      return last - first + 1;
    },
    /** Writes, then throws inside the transaction. */
    fillAndFail: async (c) => {
      await c.db.transaction(
        async (tx) => {
          await tx.execute("DELETE FROM entry");
          throw new Error("rolled back on purpose");
        },
        { name: "fill-and-fail" },
      );
    },
    select: (c, statement, ...values) => c.db.execute(statement, ...values),
    /**
     * Executes steps one after the other, and returns as text what each statement gave. A step is `statements`, each with its
     * `values`; several make a transaction, which is taken back at the end if it `fails`.
     */
    each: async (c, steps) => {
      const outcomes = [];
      for (const { statements, fails } of steps) {
        if (statements.length === 1) outcomes.push(await outcomeOf(c.db, statements[0]));
        else outcomes.push(...(await outcomesOfTransaction(c.db, statements, fails)));
      }
      return outcomes;
    },
    vacuum: async (c) => {
      await c.db.execute("VACUUM");
      return true;
    },
  },
  options: { sleepTimeout: 120_000 },
});

export const kv = actor({
  state: { wakes: 0 },
  createVars,
  onWake,
  actions: {
    ...lifeActions,
    put: (c, key, value) => c.kv.put(key, value),
    get: (c, key) => c.kv.get(key),
    // Bytes travel as a list of numbers: the cbor client cannot send a byte array.
    putBytes: (c, key, numbers) => c.kv.put(key, Uint8Array.from(numbers)),
    getBytes: async (c, key) => [...(await c.kv.get(key, { type: "binary" }))],
    remove: (c, key) => c.kv.delete(key),
    list: (c, prefix) => c.kv.list(prefix),
  },
  options: { sleepTimeout: 120_000 },
});
