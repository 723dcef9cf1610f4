// An actor that does nothing on its own, for measurements.
import { actor } from "rivetkit";
import { createVars } from "./life.mjs";

/** Stays awake until it is told to sleep. `instance` is another one after each start. */
export const plain = actor({
  state: { count: 0 },
  createVars,
  actions: {
    get: (c) => c.state.count,
    increment: (c, by) => {
      c.state.count += by;
      return c.state.count;
    },
    look: (c) => ({ count: c.state.count, instance: c.vars.instance }),
    nap: (c) => {
      c.sleep();
      return true;
    },
  },
  options: { sleepTimeout: 3_600_000 },
});
