// Much data in one actor, timed inside it: what the caller's way to the actor costs is not part of the figures.
import { actor } from "rivetkit";
import { db } from "rivetkit/db";

async function timed(work) {
  const began = performance.now();
  await work();
  return performance.now() - began;
}

export const heavy = actor({
  state: {},
  db: db({
    onMigrate: async (sql) => {
      await sql.execute("CREATE TABLE IF NOT EXISTS piece (n INTEGER PRIMARY KEY, body TEXT NOT NULL)");
    },
    profiling: { enabled: false },
  }),
  actions: {
    /** Adds so many rows of text that does not compress well, in one statement; returns how long it took, in ms. */
    fill: (c, rows, bytes) =>
      timed(() =>
        c.db.execute(
          "WITH RECURSIVE counted(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < ?) " +
            "INSERT INTO piece (body) SELECT hex(randomblob(?)) FROM counted",
          rows,
          bytes / 2,
        ),
      ),
    /** Reads every byte of every row; returns how many bytes there are, and how long it took, in ms. */
    scan: async (c) => {
      let bytes;
      const ms = await timed(async () => {
        [{ bytes }] = await c.db.execute("SELECT sum(length(body)) AS bytes FROM piece");
      });
      return { bytes, ms };
    },
    nap: (c) => {
      c.sleep();
      return true;
    },
  },
  options: { sleepTimeout: 120_000, actionTimeout: 120_000 },
});
