// Shared by the applications: how a case can tell which process and which instance of an actor answered.
import { randomUUID } from "node:crypto";

/** In memory only: a new value for every instance (wake) of an actor. */
export const createVars = () => ({ instance: randomUUID() });

/** The identity of the answering instance. `wakes` is part of the state, `instance` and `pid` are not. */
export const whoami = (c) => ({
  wakes: c.state.wakes,
  instance: c.vars.instance,
  pid: process.pid,
  id: c.actorId,
});

/** Counts the starts of an actor in its state. */
export const onWake = (c) => {
  c.state.wakes += 1;
};
