// The actor: a number that many can add to.
import { actor, event } from "rivetkit";

export const counter = actor({
  state: { count: 0 },
  events: { changed: event() },
  // Each start is a line here, so that sleep and wake can be watched.
  onWake: (c) => console.log(`counter ${c.key.join("/")} wakes with ${c.state.count}`),
  onSleep: (c) => console.log(`counter ${c.key.join("/")} goes to sleep with ${c.state.count}`),
  actions: {
    get: (c) => c.state.count,
    increment: async (c, by) => {
      c.state.count += by;
      // Without this the new state is written within a second, and a crash before that loses it.
      await c.saveState({ immediate: true });
      c.broadcast("changed", c.state.count);
      return c.state.count;
    },
  },
  // Asleep after this long without connections and work, in milliseconds.
  options: { sleepTimeout: 5_000 },
});
