// The ways in which an action can fail.
import { actor, UserError } from "rivetkit";

export const failing = actor({
  state: { calls: 0 },
  actions: {
    fine: (c) => {
      c.state.calls += 1;
      return c.state.calls;
    },
    failPlainly: () => {
      throw new Error("a secret of the server");
    },
    failForUser: () => {
      throw new UserError("not enough credit", {
        code: "no_credit",
        metadata: { missing: 7, items: ["a", "b"] },
      });
    },
    never: () => new Promise(() => {}),
  },
  options: { sleepTimeout: 120_000, actionTimeout: 1_000 },
});
