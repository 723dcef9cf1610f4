// A counter with events and an echo of values.
import { actor, event } from "rivetkit";
import { createVars, onWake, whoami } from "./life.mjs";

const actions = {
  get: (c) => c.state.count,
  increment: (c, by) => {
    c.state.count += by;
    c.broadcast("changed", c.state.count);
    return c.state.count;
  },
  /** Returns only after the state is durable. */
  incrementDurably: async (c, by) => {
    c.state.count += by;
    await c.saveState({ immediate: true });
    return c.state.count;
  },
  echo: (c, ...values) => values,
  /** Broadcasts `count` events in a row, then answers. */
  burst: (c, count) => {
    for (let i = 0; i < count; i++) c.broadcast("tick", i, `event ${i}`);
    return count;
  },
  /** An event for the calling connection alone. */
  whisper: (c, text) => {
    c.conn.send("whisper", text);
    return true;
  },
  connections: (c) => c.conns.size,
  whoami,
  nap: (c) => {
    c.sleep();
    return true;
  },
  destroy: (c) => {
    c.destroy();
    return true;
  },
};

const state = { count: 0, wakes: 0 };
const events = { changed: event(), tick: event(), whisper: event() };

/** Stays awake for the whole run unless told to sleep. */
export const counter = actor({
  state,
  events,
  createVars,
  onWake,
  actions,
  options: { sleepTimeout: 120_000 },
});

/** Sleeps after 300 ms without work. */
export const napper = actor({
  state,
  events,
  createVars,
  onWake,
  actions,
  options: { sleepTimeout: 300 },
});
