//! The rules of the control plane as pure functions: state and input in, state and effects out.
//!
//! Absences that hold this crate up: no I/O, no async, no store, no socket, no clock, no randomness. Time comes in as a
//! number of milliseconds, a random choice comes in as a number. (`spec/scheduling.md` 3, 6, 7, 8.)
//!
//! * [`actor`]: one actor's record and its state machine.
//! * [`envoy`]: when a host is eligible, silent, or lost.
//! * [`placement`]: which host gets an actor.
//! * [`eviction`]: how fast a pool wants hosts to be emptied.
//! * [`drain`]: emptying one host at that pace.
//! * [`pool`]: what a pool knows of the endpoint that its hosts come from.
//! * [`version`]: which version of the application that endpoint runs.

pub mod actor;
pub mod drain;
pub mod envoy;
pub mod eviction;
pub mod placement;
pub mod pool;
pub mod version;

/// Milliseconds since the Unix epoch.
pub type Ts = i64;
