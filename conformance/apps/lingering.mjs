// An actor that falls asleep only when a request lets it.
import { actor } from "rivetkit";
import { createVars as newInstance, onWake, whoami } from "./life.mjs";

export const lingering = actor({
  state: { wakes: 0 },
  createVars: () => {
    const vars = newInstance();
    vars.released = new Promise((resolve) => {
      vars.release = resolve;
    });
    return vars;
  },
  onWake,
  onSleep: (c) => c.vars.released,
  onRequest: (c, request) => {
    if (new URL(request.url).pathname === "/release") c.vars.release();
    return Response.json(whoami(c));
  },
  onWebSocket: (_, socket) => {
    socket.addEventListener("message", (event) => socket.send(`echo:${event.data}`));
  },
  actions: {
    whoami,
    nap: (c) => {
      c.sleep();
      return true;
    },
  },
  options: { sleepTimeout: 120_000, sleepGracePeriod: 60_000 },
});
