//! Processing an actor's inputs: load, step, persist, act.

use std::collections::VecDeque;
use std::sync::Arc;

use gateway::EnvoyLink;
use lifecycle::actor::{ActorRecord, Command, CommandToHost, Input, Phase, World, step};
use protocol::id::ActorId;
use store::StoreError;

use super::Scheduler;
use super::cell::{ActorCell, Loaded, Lookup, Work};
use super::persist::{self, Change};
use crate::clock;
use crate::hosts::{Host, PendingCommand};
use crate::records::CorruptRow;
use crate::records::actor::{self, StoredActor};

#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Corrupt(#[from] CorruptRow),
}

/// Runs until nothing waits for the actor.
pub(super) async fn run(scheduler: Scheduler, cell: Arc<ActorCell>) {
    while let Some((work, loaded)) = cell.take_work() {
        let stored = match loaded {
            Loaded::Here(stored) => Ok(Some(stored)),
            Loaded::Unknown | Loaded::Missing => look_up(&scheduler, &cell).await,
        };
        match stored {
            Ok(Some(stored)) => process(&scheduler, &cell, work, stored).await,
            Ok(None) => refuse(work, Lookup::Missing),
            Err(error) => {
                tracing::error!(actor_id = %cell.id, %error, "an actor cannot be loaded; its inputs are dropped");
                refuse(work, Lookup::Failed);
            }
        }
    }
    scheduler.retire(&cell);
}

async fn look_up(scheduler: &Scheduler, cell: &ActorCell) -> Result<Option<Arc<StoredActor>>, LoadError> {
    let value = scheduler.0.store.get(vec![actor::key(cell.id)]).await?.pop().flatten();
    let Some(value) = value else {
        cell.publish(Loaded::Missing, |_nobody| None, false);
        return Ok(None);
    };
    let stored = Arc::new(actor::parse(cell.id, value)?);
    scheduler.publish(cell, stored.clone(), false);
    Ok(Some(stored))
}

/// Answers for an actor that does not exist or cannot be loaded.
fn refuse(work: VecDeque<Work>, lookup: Lookup) {
    for one in work {
        match one {
            // A caller that has gone needs no answer.
            Work::Load(done) => drop(done.send(lookup)),
            Work::Input(input) => tracing::debug!(?input, "input for an unknown actor"),
        }
    }
}

async fn process(scheduler: &Scheduler, cell: &Arc<ActorCell>, work: VecDeque<Work>, stored: Arc<StoredActor>) {
    let mut next = stored.record.clone();
    let mut commands = Vec::new();
    let mut ended = None;
    let mut inputs = Vec::with_capacity(work.len());
    for one in work {
        match one {
            Work::Load(done) => drop(done.send(Lookup::Exists)),
            Work::Input(input) => {
                let before = (next.generation, next.host().cloned());
                next = decide(scheduler, next, &input, &mut commands);
                if before.1.is_some() && (next.generation, next.host().cloned()) != before {
                    ended = Some(before.0);
                }
                inputs.push(input);
            }
        }
    }
    let after = StoredActor { record: next, has_input: stored.has_input };
    if let Err(error) = make_durable(scheduler, &stored, &after).await {
        tracing::error!(actor_id = %cell.id, %error, "an actor's new state cannot be stored; nothing was done");
        cell.forget();
        return;
    }
    let after = Arc::new(after);
    scheduler.perform(cell, &stored.record, after, commands, ended);
    scheduler.acknowledge(cell, &inputs);
}

fn decide(scheduler: &Scheduler, record: ActorRecord, input: &Input, commands: &mut Vec<CommandToHost>) -> ActorRecord {
    let now = clock::now();
    let identity = &record.identity;
    let candidate = if may_allocate(input) { scheduler.0.hosts.choose(identity.namespace_id, &identity.pool) } else { None };
    let world = World { now, rules: &scheduler.0.config.rules, candidate: candidate.as_ref() };
    let stepped = step(&record, input, &world);
    tracing::debug!(actor_id = %identity.actor_id, ?input, outcome = ?stepped.outcome, phase = ?stepped.record.phase, "step");
    commands.extend(stepped.commands);
    stepped.record
}

/// Whether an input can lead to a start, so that a host must be chosen.
fn may_allocate(input: &Input) -> bool {
    match input {
        Input::Wake
        | Input::DeadlineReached
        | Input::CapacityArrived
        | Input::HostLost { .. }
        | Input::Event { kind: lifecycle::actor::EventKind::Stopped { .. }, .. } => true,
        Input::Sleep
        | Input::Reschedule
        | Input::Destroy
        | Input::Evict { .. }
        | Input::CommandsAcked { .. }
        | Input::Event { .. } => false,
    }
}

async fn make_durable(scheduler: &Scheduler, before: &StoredActor, after: &StoredActor) -> Result<(), StoreError> {
    match persist::change(before, after) {
        Change::None => Ok(()),
        // Losing it costs one repeated command, which hosts recognise.
        Change::Lazy(batch) => match scheduler.0.store.write_lazy(batch.clone()) {
            Err(StoreError::Busy) => scheduler.0.store.write(batch).await,
            written => written,
        },
        Change::Durable(batch) => scheduler.0.store.write(batch).await,
    }
}

impl Scheduler {
    /// Does what follows from a durable step. Everything here can be repeated: a crash may come at any point. `ended`: the
    /// last generation that is over with this step.
    pub(super) fn perform(
        &self,
        cell: &ActorCell,
        before: &ActorRecord,
        after: Arc<StoredActor>,
        commands: Vec<CommandToHost>,
        ended: Option<u32>,
    ) {
        let record = &after.record;
        let actor = cell.id;
        let moved = before.host() != record.host() || before.generation != record.generation;
        if moved {
            if let Some(old) = before.host().and_then(|old| self.0.hosts.get(record.identity.namespace_id, old)) {
                old.unassign(actor, before.generation);
            }
            if let Some(new) = self.host_of(record) {
                new.assign(actor, record.generation);
            }
        }
        let mut waiting = self.0.waiting_for_host.lock();
        if matches!(record.phase, Phase::Reallocating { .. }) {
            waiting.insert(actor);
        } else {
            waiting.remove(&actor);
        }
        drop(waiting);
        self.0.timers.arm(actor, record.next_deadline());
        let destroyed = record.is_destroyed() && !before.is_destroyed();
        if destroyed && let Some(key) = &record.identity.key {
            self.0.keys.remove(record.identity.namespace_id, &record.identity.name, key);
        }
        // Whoever waits must ask again, or would wait in vain: nobody looks for a host any more.
        let gave_up = matches!(before.phase, Phase::Reallocating { .. }) && matches!(record.phase, Phase::Sleeping);
        self.publish(cell, after.clone(), ended.is_some() || gave_up);
        if let Some(generation) = ended {
            self.0.tunnels.generation_ended(actor, generation);
        }
        self.tell_of_place(record, moved);
        for command in commands {
            match command.command {
                Command::Stop(_) => self.hold_back_messages(actor, command.generation),
                Command::Start => {}
            }
            let host = self.0.hosts.get_or_insert(record.identity.namespace_id, &command.host, &record.identity.pool);
            host.queue_command(PendingCommand {
                actor,
                generation: command.generation,
                index: command.index,
                command: command.command,
            });
        }
        if destroyed {
            self.0.sockets.actor_destroyed(actor);
            self.reclaim(actor);
        }
        self.catch_up(before, record);
    }

    /// Lets no more messages of hibernating sockets go to a generation which is about to stop or has just stopped.
    pub(crate) fn hold_back_messages(&self, actor: ActorId, generation: u32) {
        self.0.tunnels.generation_stopping(actor, generation);
    }

    /// Lets those who care for sockets know where an actor is; `moved`: since just now.
    fn tell_of_place(&self, record: &ActorRecord, moved: bool) {
        let Some(host) = self.host_of(record) else { return };
        let actor = record.identity.actor_id;
        if moved {
            self.0.tunnels.generation_placed(actor, record.generation, host.id);
        }
        if matches!(record.phase, Phase::Running { .. }) {
            self.0.sockets.actor_runs(actor, host.id, host.link().as_ref());
        }
    }

    /// Makes up for what changed while a step was being stored. A host looks for actors that wait only when it connects, and
    /// at its own only when it begins to stop; both may have been too early to find this one.
    fn catch_up(&self, before: &ActorRecord, record: &ActorRecord) {
        let identity = &record.identity;
        let waits = matches!(record.phase, Phase::Reallocating { .. });
        if waits && self.0.hosts.choose(identity.namespace_id, &identity.pool).is_some() {
            self.post(identity.actor_id, Input::CapacityArrived);
        }
        let is_placed = record.generation != before.generation;
        if is_placed && self.host_of(record).is_some_and(|host| host.is_stopping()) {
            self.post(identity.actor_id, Input::Evict { generation: record.generation });
        }
    }

    /// Shows an actor's state to whoever watches it.
    pub(super) fn publish(&self, cell: &ActorCell, stored: Arc<StoredActor>, ended: bool) {
        cell.publish(Loaded::Here(stored), |stored| self.link_to(stored), ended);
    }

    /// The connection of the host that has an actor.
    pub(super) fn link_to(&self, stored: &StoredActor) -> Option<EnvoyLink> {
        let record = &stored.record;
        self.0.hosts.get(record.identity.namespace_id, record.host()?)?.link()
    }

    fn host_of(&self, record: &ActorRecord) -> Option<Arc<Host>> {
        let identity = &record.identity;
        let host = record.host()?;
        Some(self.0.hosts.get_or_insert(identity.namespace_id, host, &identity.pool))
    }

    /// Lets hosts forget the events that were processed, stale and repeated ones included.
    fn acknowledge(&self, cell: &ActorCell, inputs: &[Input]) {
        let Some(stored) = cell.stored() else { return };
        for input in inputs {
            if let Input::Event { host, generation, index, .. } = input
                && let Some(host) = self.0.hosts.get(stored.record.identity.namespace_id, host)
            {
                host.event_processed(cell.id, *generation, *index);
            }
        }
    }

    pub(super) fn retire(&self, cell: &Arc<ActorCell>) {
        let mut cells = self.0.cells.lock();
        if cells.get(&cell.id).is_some_and(|current| Arc::ptr_eq(current, cell)) && cell.retire_if_idle() {
            cells.remove(&cell.id);
        }
    }

    /// Deletes what a destroyed actor owned, in the background; repeated at the next start if it does not get done.
    pub(super) fn reclaim(&self, actor: ActorId) {
        let scheduler = self.clone();
        tokio::spawn(async move {
            // Never closed, so there always is a turn at some point.
            let _turn = scheduler.0.reclaiming.acquire().await.ok();
            let deleted = scheduler.0.data.delete_all(actor).await;
            let forgotten = match deleted {
                Ok(()) => scheduler.0.store.write(persist::reclaimed(actor)).await,
                Err(error) => Err(error),
            };
            if let Err(error) = forgotten {
                tracing::error!(actor_id = %actor, %error, "a destroyed actor's data is not deleted yet");
            }
        });
    }
}
