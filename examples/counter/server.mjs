// Serves one kind of actor, `counter`. Where the engine is, and whether to start one, comes from the environment.
import { actor, event, setup } from "rivetkit";

const counter = actor({
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

// The package warns about transactions of its own; only errors are of interest here.
process.env.RIVET_LOG_LEVEL ??= "error";
setup({ use: { counter }, noWelcome: true }).start();
