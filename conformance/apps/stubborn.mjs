// Writes all the time, whatever comes of it, until its database is closed; that it tells the host's log.
import { setTimeout as pause } from "node:timers/promises";
import { actor } from "rivetkit";
import { db } from "rivetkit/db";
import { createVars, onWake, whoami } from "./life.mjs";

const PAUSE_MS = 20;

/** The line of the log. */
export const ended = (instance) => `the database of instance ${instance} is closed`;

export const stubborn = actor({
  state: { wakes: 0 },
  db: db({
    onMigrate: async (sql) => {
      await sql.execute("CREATE TABLE IF NOT EXISTS entry (n INTEGER PRIMARY KEY, instance TEXT NOT NULL)");
    },
    profiling: { enabled: false },
  }),
  createVars,
  onWake,
  run: async (c) => {
    const { instance } = c.vars;
    let isClosed = false;
    while (!c.aborted && !isClosed) {
      await c.db.execute("INSERT INTO entry (instance) VALUES (?)", instance).catch(({ code }) => {
        isClosed = code === "closed";
      });
      await pause(PAUSE_MS);
    }
    if (isClosed) console.log(ended(instance));
  },
  actions: {
    whoami,
    /** Who wrote the rows, in their order. */
    writers: async (c) => (await c.db.execute("SELECT instance FROM entry ORDER BY n")).map(({ instance }) => instance),
  },
  options: { sleepTimeout: 120_000 },
});
