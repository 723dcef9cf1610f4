//! One actor: its record and its state machine (`spec/scheduling.md` 3).

mod allocate;
mod record;
mod step;
mod stop;

pub use allocate::may_start;
pub use record::{ActorError, ActorRecord, AfterStart, EnvoyKey, Identity, Phase, Place, Retry, StopWish};
pub use step::{
    Capacity, Command, CommandToHost, EventKind, Ignored, Input, Outcome, Rules, Shortage, Step, StopReason, World, step,
};
