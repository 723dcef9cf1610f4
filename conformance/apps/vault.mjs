// Everything an actor can own, written so that a half-done write shows: for the crash suite (torture.mjs).
import { actor } from "rivetkit";
import { db } from "rivetkit/db";
import { createVars, onWake, whoami } from "./life.mjs";

/** Accounts between which money goes to and fro: its sum never changes. */
export const ACCOUNTS = 16;
export const MONEY = 1_000;
/** Rows of a transaction that is too large for one message, and their size: more than 320 pages of 4 KiB. */
const LARGE_ROWS = 340;
const LARGE_ROW_BYTES = 4_000;

const INSERT = "INSERT INTO part (tx, n, parts, body) VALUES (?, ?, ?, ?)";

/** Adds the rows of transaction `tx`, each of which says how many there are. */
async function insert(sql, tx, rows, body) {
  for (let n = 1; n <= rows; n++) await sql.execute(INSERT, tx, n, rows, body);
}

async function pay(sql, from, to, amount) {
  await sql.execute("UPDATE account SET money = money - ? WHERE id = ?", amount, from);
  await sql.execute("UPDATE account SET money = money + ? WHERE id = ?", amount, to);
}

export const vault = actor({
  state: { wakes: 0, saved: 0 },
  db: db({
    onMigrate: async (sql) => {
      await sql.execute("CREATE TABLE IF NOT EXISTS account (id INTEGER PRIMARY KEY, money INTEGER NOT NULL)");
      await sql.execute(
        "CREATE TABLE IF NOT EXISTS part (tx INTEGER NOT NULL, n INTEGER NOT NULL, parts INTEGER NOT NULL, body ANY, " +
          "PRIMARY KEY (tx, n)) WITHOUT ROWID, STRICT",
      );
      for (let id = 0; id < ACCOUNTS; id++) {
        await sql.execute("INSERT OR IGNORE INTO account (id, money) VALUES (?, ?)", id, MONEY);
      }
    },
    profiling: { enabled: false },
  }),
  createVars,
  onWake,
  actions: {
    whoami,
    /** A transaction of so many rows that also moves money. */
    transact: async (c, tx, rows, { from, to, amount }) => {
      await c.db.transaction(
        async (sql) => {
          await pay(sql, from, to, amount);
          await insert(sql, tx, rows, "x".repeat(tx % 300));
        },
        { name: "transact" },
      );
      return tx;
    },
    /** The same, but takes everything back at the end. */
    takeBack: async (c, tx, rows, { from, to, amount }) => {
      await c.db.transaction(
        async (sql) => {
          await insert(sql, tx, rows, "taken back");
          await pay(sql, from, to, amount);
          throw new Error("taken back on purpose");
        },
        { name: "take-back" },
      );
    },
    /** A transaction that does not fit into one message; the one before it makes room. */
    large: async (c, tx) => {
      await c.db.transaction(
        async (sql) => {
          await sql.execute("UPDATE part SET body = NULL WHERE body IS NOT NULL");
          await sql.execute(
            "WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < ?1) " +
              "INSERT INTO part (tx, n, parts, body) SELECT ?2, n, ?1, randomblob(?3) FROM number",
            LARGE_ROWS,
            tx,
            LARGE_ROW_BYTES,
          );
        },
        { name: "large" },
      );
      return tx;
    },
    /** The number is durable when this returns. */
    save: async (c, n) => {
      c.state.saved = n;
      await c.saveState({ immediate: true });
      return n;
    },
    put: async (c, n) => {
      await c.kv.put("number", String(n));
      return n;
    },
    /** All there is, and whether SQLite finds it sound. */
    audit: async (c) => {
      const [{ integrity_check: integrity }] = await c.db.execute("PRAGMA integrity_check");
      const [{ money }] = await c.db.execute("SELECT sum(money) AS money FROM account");
      const transactions = await c.db.execute(
        "SELECT tx, count(*) AS found, min(parts) AS least, max(parts) AS most FROM part GROUP BY tx ORDER BY tx",
      );
      const put = Number((await c.kv.get("number")) ?? 0);
      return { integrity, money, transactions, saved: c.state.saved, put, ...whoami(c) };
    },
    /** Forgets transactions before this one, which the caller has seen. */
    forget: async (c, before) => {
      await c.db.execute("DELETE FROM part WHERE tx < ?", before);
      return true;
    },
    nap: (c) => {
      c.sleep();
      return true;
    },
  },
  options: { sleepTimeout: 600_000, sleepGracePeriod: 1_000 },
});
