// Serves the actor `counter` as long as this process runs. Where the engine is, and whether to start one, comes from the
// environment.
import { setup } from "rivetkit";
import { counter } from "./counter.mjs";

// The package warns about transactions of its own; only errors are of interest here.
process.env.RIVET_LOG_LEVEL ??= "error";
setup({ use: { counter }, noWelcome: true }).start();
