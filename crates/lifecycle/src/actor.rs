//! One actor: its record and its state machine (`spec/scheduling.md` 3).

mod allocate;
mod record;
mod step;
mod stop;

pub use record::{ActorError, ActorRecord, AfterStart, EnvoyKey, Identity, Phase, Retry, StopWish};
pub use step::{Command, CommandToHost, EventKind, Ignored, Input, Outcome, Rules, Step, StopReason, World, step};
