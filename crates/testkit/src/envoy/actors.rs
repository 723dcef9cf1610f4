//! Actors on a scripted host: commands that come, events that go.

use std::time::Duration;

use protocol::envoy::{
    ActorCheckpoint, ActorIntent, ActorState, Command, CommandStartActor, CommandWrapper, Event, EventWrapper, StopActorReason,
    StopCode, ToEnvoy, ToRivet, ToRivetAckCommands,
};

use super::FakeEnvoy;

/// One generation of an actor.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Run {
    /// Text form of the actor id.
    pub actor_id: String,
    /// Its generation.
    pub generation: u32,
}

impl Run {
    /// A position in its streams.
    pub fn checkpoint(&self, index: i64) -> ActorCheckpoint {
        ActorCheckpoint { actor_id: self.actor_id.clone(), generation: self.generation, index }
    }
}

impl FakeEnvoy {
    /// The next command for any actor.
    ///
    /// # Panics
    /// As [`FakeEnvoy::next`].
    pub async fn expect_command(&mut self, what: &str) -> CommandWrapper {
        self.expect(what, |message| command_in(message).cloned()).await
    }

    /// The next start command of any actor, and the run it starts.
    ///
    /// # Panics
    /// When another command comes first, or its index is not 1.
    pub async fn expect_start(&mut self) -> (Run, CommandStartActor) {
        let CommandWrapper { checkpoint, inner } = self.expect_command("a start command").await;
        let Command::StartActor(start) = inner else { panic!("{inner:?} at {checkpoint:?} instead of a start command") };
        assert_eq!(checkpoint.index, 1, "index of a start command");
        (Run { actor_id: checkpoint.actor_id, generation: checkpoint.generation }, start)
    }

    /// The next start command of one actor, and the run it starts.
    ///
    /// # Panics
    /// As [`FakeEnvoy::next`].
    pub async fn expect_start_of(&mut self, actor_id: &str) -> Run {
        let wanted = |message: &ToEnvoy| {
            let CommandWrapper { checkpoint, inner } = command_in(message)?;
            let is_start_of_it = matches!(inner, Command::StartActor(_)) && checkpoint.actor_id == actor_id;
            is_start_of_it.then(|| Run { actor_id: actor_id.to_owned(), generation: checkpoint.generation })
        };
        self.expect("a start command of the actor", wanted).await
    }

    /// The next stop command of a run: its index and its reason.
    ///
    /// # Panics
    /// As [`FakeEnvoy::next`].
    pub async fn expect_stop(&mut self, run: &Run) -> (i64, StopActorReason) {
        let wanted = |message: &ToEnvoy| {
            let CommandWrapper { checkpoint, inner } = command_in(message)?;
            let Command::StopActor(stop) = inner else { return None };
            (*checkpoint == run.checkpoint(checkpoint.index)).then_some((checkpoint.index, stop.reason))
        };
        self.expect("a stop command", wanted).await
    }

    /// Watches for a while that no command comes.
    ///
    /// # Panics
    /// When one comes.
    pub async fn expect_no_command(&mut self, within: Duration) {
        self.expect_none(within, "command", |message| command_in(message).is_some()).await;
    }

    /// Takes a start command, acknowledges it, and reports the actor running.
    ///
    /// # Panics
    /// As [`Self::expect_start`].
    pub async fn start_actor(&mut self) -> Run {
        let (run, _) = self.expect_start().await;
        self.acknowledge(&run, 1);
        self.running(&run);
        run
    }

    /// Acknowledges the commands of a run up to an index.
    pub fn acknowledge(&self, run: &Run, index: i64) {
        self.send(&ToRivet::AckCommands(ToRivetAckCommands { last_command_checkpoints: vec![run.checkpoint(index)] }));
    }

    /// Reports an event at the next index of the run; returns that index.
    pub fn event(&mut self, run: &Run, event: Event) -> i64 {
        let next = self.next_event.entry(run.clone()).or_insert(0);
        let index = *next;
        *next += 1;
        self.event_at(run, index, event);
        index
    }

    /// Reports an event at any index.
    pub fn event_at(&self, run: &Run, index: i64, event: Event) {
        self.send(&ToRivet::Events(vec![EventWrapper { checkpoint: run.checkpoint(index), inner: event }]));
    }

    /// Reports that the actor runs.
    pub fn running(&mut self, run: &Run) {
        self.event(run, running());
    }

    /// Reports that the actor has stopped, without error.
    pub fn stopped(&mut self, run: &Run) {
        self.event(run, stopped());
    }

    /// Reports that the actor has stopped with an error.
    pub fn crashed(&mut self, run: &Run, message: &str) {
        self.event(run, crashed(message));
    }

    /// Reports that the actor would like to sleep.
    pub fn wants_sleep(&mut self, run: &Run) {
        self.event(run, Event::ActorIntent { intent: ActorIntent::Sleep });
    }

    /// Reports that the actor would like to be destroyed.
    pub fn wants_destruction(&mut self, run: &Run) {
        self.event(run, Event::ActorIntent { intent: ActorIntent::Stop });
    }

    /// Sets or clears the actor's alarm, in epoch milliseconds.
    pub fn set_alarm(&mut self, run: &Run, alarm_ts: Option<i64>) {
        self.event(run, Event::ActorSetAlarm { alarm_ts });
    }
}

/// The event that an actor runs.
pub fn running() -> Event {
    Event::ActorStateUpdate { state: ActorState::Running }
}

/// The event that an actor has stopped, without error.
pub fn stopped() -> Event {
    Event::ActorStateUpdate { state: ActorState::Stopped { code: StopCode::Ok, message: None } }
}

/// The event that an actor has stopped with an error.
pub fn crashed(message: &str) -> Event {
    let message = Some(message.to_owned());
    Event::ActorStateUpdate { state: ActorState::Stopped { code: StopCode::Error, message } }
}

/// The one command of a message that was taken apart.
fn command_in(message: &ToEnvoy) -> Option<&CommandWrapper> {
    let ToEnvoy::Commands(commands) = message else { return None };
    commands.first()
}
