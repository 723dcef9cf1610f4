// Actors that do not get as far as being ready.
import { actor } from "rivetkit";

/** Never gets done with its start. */
export const slowStarter = actor({
  createState: () => new Promise(() => {}),
  actions: { fine: () => true },
});

/** Cannot start. */
export const nonStarter = actor({
  state: {},
  onWake: () => {
    throw new Error("the database is on fire");
  },
  actions: { fine: () => true },
});
