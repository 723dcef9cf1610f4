// The published Rust crate: apps/rust-ledger is an application on it.
import { handOver, journey, survivesKill } from "./flavours.mjs";

export const cases = [
  {
    name: "rust-crate-journey",
    about: "state, SQL, KV, queue, schedule, sleep, wake",
    stack: "tapped",
    encodings: "none",
    run: (t) => journey(t, "rust"),
  },
  {
    name: "rust-crate-hand-over",
    about: "an actor of the npm package goes on in the Rust crate, and back",
    stack: "own",
    encodings: "none",
    run: (t) => handOver(t, ["local", "rust", "local"]),
  },
  {
    name: "rust-crate-engine-killed",
    about: "`kill -9` of the engine amid inserts",
    stack: "own",
    encodings: "none",
    run: (t) => survivesKill(t, "rust"),
  },
];
