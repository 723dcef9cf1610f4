// An actor that keeps count, and whose host notes when it has to leave.
import { actor } from "rivetkit";
import { createVars, onWake, whoami } from "./life.mjs";

/** Begins each line of a host's log that says when an actor was put to sleep, in ms since 1970. */
export const LEAVING = "an actor leaves at";

export const migrant = actor({
  state: { count: 0, wakes: 0 },
  createVars,
  onWake,
  onSleep: () => console.log(LEAVING, Date.now()),
  actions: {
    add: (c, by) => {
      c.state.count += by;
      return c.state.count;
    },
    /** Returns only after the state is durable. */
    addDurably: async (c, by) => {
      c.state.count += by;
      await c.saveState({ immediate: true });
      return c.state.count;
    },
    get: (c) => ({ count: c.state.count, ...whoami(c) }),
  },
  // On a machine that is busy with hundreds of moves, one of them may take longer than the usual 15 s.
  options: { sleepTimeout: 120_000, sleepGracePeriod: 60_000 },
});
