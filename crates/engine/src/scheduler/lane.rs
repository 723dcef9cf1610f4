//! Processing an actor's inputs: load, step, persist, act.

use std::collections::VecDeque;
use std::sync::Arc;

use gateway::{EnvoyLink, GenerationEnd};
use lifecycle::actor::{ActorError, ActorRecord, Command, CommandToHost, Input, Phase, Place, Shortage, World, step};
use protocol::id::{ActorId, NamespaceId};
use store::StoreError;

use super::Scheduler;
use super::cell::{ActorCell, Loaded, Lookup, Work};
use super::explain::generation_end;
use super::persist::{self, Change};
use crate::hosts::{Host, PendingCommand};
use crate::pools::{Offer, Stands};
use crate::records::CorruptRow;
use crate::records::actor::{self, StoredActor};

#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Corrupt(#[from] CorruptRow),
}

/// A generation that is over.
pub(super) struct Ended {
    generation: u32,
    how: GenerationEnd,
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
        cell.publish(Loaded::Missing, |_nobody| None, None);
        return Ok(None);
    };
    let stored = Arc::new(actor::parse(cell.id, value)?);
    scheduler.publish(cell, stored.clone(), None);
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
                let after = decide(scheduler, &next, &input, &mut commands);
                if next.is_placed() && !(after.is_placed() && after.generation == next.generation) {
                    ended = Some(Ended { generation: next.generation, how: generation_end(&next, &input) });
                }
                next = after;
                inputs.push(input);
            }
        }
    }
    let after = Arc::new(StoredActor { record: next, has_input: stored.has_input });
    let change = persist::change(&stored, &after);
    let is_start = matches!(change, Change::Running(_));
    if is_start {
        scheduler.perform(cell, &stored.record, after.clone(), Vec::new(), None);
    }
    if let Err(error) = make_durable(scheduler, change).await {
        tracing::error!(actor_id = %cell.id, %error, "an actor's new state cannot be stored; nothing was acknowledged");
        // A place that was offered meanwhile is free again.
        scheduler.settle(&stored.record);
        cell.forget();
        return;
    }
    if !is_start {
        scheduler.perform(cell, &stored.record, after, commands, ended);
    }
    scheduler.acknowledge(cell, &inputs);
    scheduler.dismiss_late_hosts(cell, &inputs);
}

fn decide(scheduler: &Scheduler, record: &ActorRecord, input: &Input, commands: &mut Vec<CommandToHost>) -> ActorRecord {
    let now = scheduler.0.clock.now();
    let identity = &record.identity;
    let offer = if may_allocate(input) { scheduler.0.pools.offer(identity) } else { Offer::None(Shortage::NoHosts) };
    let stop_threshold_ms = scheduler.stop_threshold_ms(record);
    let world = World { now, rules: &scheduler.0.config.rules, stop_threshold_ms, capacity: offer.capacity() };
    let stepped = step(record, input, &world);
    if stepped.record.generation == record.generation {
        scheduler.return_offer(&offer, record);
    }
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
        | Input::OutboundFailed { .. }
        | Input::Event { kind: lifecycle::actor::EventKind::Stopped { .. }, .. } => true,
        Input::Sleep
        | Input::Reschedule
        | Input::Destroy
        | Input::Evict { .. }
        | Input::HostFound { .. }
        | Input::CommandsAcked { .. }
        | Input::Event { .. } => false,
    }
}

/// Where an actor stands, as far as its pool is concerned.
fn stands(record: &ActorRecord) -> Stands {
    match record.phase {
        Phase::Starting { .. } | Phase::Running { .. } | Phase::Stopping { .. } => Stands::Placed,
        Phase::Reallocating { .. } => Stands::Waiting,
        Phase::Sleeping | Phase::Destroyed => Stands::Resting,
    }
}

/// Whether an endpoint was asked for the present generation, and no host has come forward.
pub(super) fn is_asked_for(record: &ActorRecord) -> bool {
    matches!(record.phase, Phase::Starting { place: Place::Outbound, .. })
}

async fn make_durable(scheduler: &Scheduler, change: Change) -> Result<(), StoreError> {
    match change {
        Change::None => Ok(()),
        // Losing it costs one repeated command, which hosts recognise.
        Change::Lazy(batch) => match scheduler.0.store.write_lazy(batch.clone()) {
            Err(StoreError::Busy) => scheduler.0.store.write(batch).await,
            written => written,
        },
        Change::Running(batch) | Change::Durable(batch) => scheduler.0.store.write(batch).await,
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
        ended: Option<Ended>,
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
        if stands(before) != stands(record) {
            self.settle(record);
        }
        let runs = |record: &ActorRecord| matches!(record.phase, Phase::Running { .. });
        if runs(record) && !runs(before) {
            self.0.pools.succeeded(record.identity.namespace_id, &record.identity.pool);
        }
        self.0.timers.arm(actor, record.next_deadline());
        let destroyed = record.is_destroyed() && !before.is_destroyed();
        if destroyed && let Some(key) = &record.identity.key {
            self.0.keys.remove(record.identity.namespace_id, &record.identity.name, key);
        }
        // Whoever waits must ask again, or would wait in vain: nobody looks for a host any more.
        let gave_up = matches!(before.phase, Phase::Reallocating { .. }) && matches!(record.phase, Phase::Sleeping);
        let (generation, how) = ended.map(|Ended { generation, how }| (generation, how)).unzip();
        self.publish(cell, after.clone(), how.or(gave_up.then_some(GenerationEnd::SearchGivenUp)));
        if let Some(generation) = generation {
            self.0.tunnels.generation_ended(actor, generation);
            self.0.outbound.over(actor, generation);
        }
        if is_asked_for(record) && before.generation != record.generation {
            self.0.outbound.order(record.identity.clone(), record.generation);
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

    /// Tells the pool where an actor stands, and whoever waits for a place that there may be one.
    pub(super) fn settle(&self, record: &ActorRecord) {
        if let Some(next) = self.0.pools.settle(&record.identity, stands(record)) {
            self.post(next, Input::CapacityArrived);
        }
    }

    /// An offer has led to nothing, and the actor stands where it stood before.
    pub(super) fn return_offer(&self, offer: &Offer, before: &ActorRecord) {
        match offer {
            Offer::Outbound => self.0.pools.decline(&before.identity, before.is_placed()),
            Offer::Host(_) | Offer::None(_) => {}
        }
    }

    /// How long a host may take to stop an actor.
    pub(super) fn stop_threshold_ms(&self, record: &ActorRecord) -> i64 {
        let identity = &record.identity;
        let host = record.host().and_then(|host| self.0.hosts.get(identity.namespace_id, host));
        let announced = host.and_then(|host| host.stop_threshold_ms());
        announced.unwrap_or_else(|| self.pool_stop_threshold_ms(identity.namespace_id, &identity.pool))
    }

    /// What a host of a pool is told when it connects: how long it may take to stop an actor (`decisions.md` 2).
    pub(crate) fn pool_stop_threshold_ms(&self, namespace: NamespaceId, pool: &str) -> i64 {
        let pool_grace_ms = self.0.catalog.pool(namespace, pool).map_or(0, |pool| pool.config.drain_grace_ms());
        self.0.config.stop_threshold_ms.max(pool_grace_ms)
    }

    /// Makes up for what changed while a step was being stored. A host looks for actors that wait only when it connects, and
    /// at its own only when it begins to stop; both may have been too early to find this one.
    fn catch_up(&self, before: &ActorRecord, record: &ActorRecord) {
        let identity = &record.identity;
        let waits_for_host = matches!(record.phase, Phase::Reallocating { .. }) && record.error == Some(ActorError::NoEnvoys);
        if waits_for_host && self.0.hosts.choose(identity.namespace_id, &identity.pool).is_some() {
            self.post(identity.actor_id, Input::CapacityArrived);
        }
        let is_placed = record.generation != before.generation || record.host() != before.host();
        if is_placed && let Some(host) = self.host_of(record).filter(|host| host.is_draining()) {
            self.placed_on_draining_host(&host, record);
        }
    }

    /// Shows an actor's state to whoever watches it.
    pub(super) fn publish(&self, cell: &ActorCell, stored: Arc<StoredActor>, ended: Option<GenerationEnd>) {
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

    /// Takes a generation back from hosts that came forward for it and do not have it now: it was over before they were heard,
    /// or has ended in the same breath.
    fn dismiss_late_hosts(&self, cell: &ActorCell, inputs: &[Input]) {
        let Some(stored) = cell.stored() else { return };
        let record = &stored.record;
        for input in inputs {
            let Input::HostFound { host: key, generation } = input else { continue };
            if record.host() == Some(key) && record.generation == *generation {
                continue;
            }
            if let Some(host) = self.0.hosts.get(record.identity.namespace_id, key) {
                host.unassign(cell.id, *generation);
                host.dismiss(cell.id, *generation);
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
