// Keeps every number it is given, in the order in which they came, with nothing that would hide one that comes twice.
import { actor, event } from "rivetkit";
import { db } from "rivetkit/db";
import { createVars, onWake, whoami } from "./life.mjs";

export const ledger = actor({
  state: { wakes: 0, received: [], events: 0 },
  events: { recorded: event() },
  db: db({
    onMigrate: async (sql) => {
      await sql.execute(
        "CREATE TABLE IF NOT EXISTS record (place INTEGER PRIMARY KEY, source TEXT NOT NULL, n INTEGER NOT NULL)",
      );
    },
    profiling: { enabled: false },
  }),
  createVars,
  onWake,
  onWebSocket: (c, socket) => {
    socket.addEventListener("message", (message) => {
      c.state.received.push(message.data);
      socket.send(`have ${message.data}`);
    });
  },
  actions: {
    whoami,
    /** Durable when this returns. Events have numbers of their own: actions that run at once end in any order. */
    record: async (c, source, n) => {
      await c.db.execute("INSERT INTO record (source, n) VALUES (?, ?)", source, n);
      c.broadcast("recorded", c.state.events++, source, n);
      return n;
    },
    records: (c) => c.db.execute("SELECT source, n FROM record ORDER BY place"),
    received: (c) => c.state.received,
    nap: (c) => {
      c.sleep();
      return true;
    },
  },
  options: { sleepTimeout: 120_000, sleepGracePeriod: 1_000, canHibernateWebSocket: true },
});
