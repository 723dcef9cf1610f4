//! What follows from an actor's step: who is told, what is sent, who gets a turn now.

use std::sync::Arc;

use gateway::{EnvoyLink, GenerationEnd};
use lifecycle::actor::{ActorError, ActorRecord, Command, CommandToHost, Identity, Input, Phase, Place};
use protocol::id::{ActorId, NamespaceId};
use store::StoreError;

use super::cell::{ActorCell, Loaded};
use super::lane::STORE_PAUSE;
use super::{Scheduler, persist};
use crate::hosts::{Host, PendingCommand};
use crate::pools::{Offer, Stands};
use crate::records::actor::StoredActor;

/// What follows from a step besides the new record.
#[derive(Default)]
pub(super) struct Consequences {
    pub(super) commands: Vec<CommandToHost>,
    /// Generations that are over, in order.
    pub(super) ended: Vec<Ended>,
}

/// A generation that is over.
pub(super) struct Ended {
    pub(super) generation: u32,
    pub(super) how: GenerationEnd,
}

/// Where an actor stands, as far as its pool is concerned.
pub(super) fn stands(record: &ActorRecord) -> Stands {
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

/// Whether a step has given an actor to a host, or taken it from one.
fn has_moved(before: &ActorRecord, record: &ActorRecord) -> bool {
    before.host() != record.host() || before.generation != record.generation
}

impl Scheduler {
    /// Does what follows from a durable step. Everything here can be repeated: a crash may come at any point.
    pub(super) fn perform(
        &self,
        cell: &ActorCell,
        before: &ActorRecord,
        after: Arc<StoredActor>,
        Consequences { commands, ended }: Consequences,
    ) {
        let record = &after.record;
        let is_destroyed = record.is_destroyed() && !before.is_destroyed();
        self.reassign(before, record);
        self.tell_pool(before, record);
        self.0.timers.arm(cell.id, record.next_deadline());
        if is_destroyed && let Some(key) = &record.identity.key {
            self.0.keys.remove(record.identity.namespace_id, &record.identity.name, key);
        }
        self.show(cell, before, &after, ended);
        if is_asked_for(record) && before.generation != record.generation {
            self.0.outbound.order(record.identity.clone(), record.generation);
        }
        self.tell_of_place(record, has_moved(before, record));
        for command in commands {
            self.send(&record.identity, command);
        }
        if is_destroyed {
            self.0.sockets.actor_destroyed(cell.id);
            self.reclaim(cell.id);
        }
        self.catch_up(before, record);
    }

    /// Takes an actor from its old host and gives it to its new one.
    fn reassign(&self, before: &ActorRecord, record: &ActorRecord) {
        if !has_moved(before, record) {
            return;
        }
        let actor = record.identity.actor_id;
        if let Some(old) = before.host().and_then(|old| self.0.hosts.get(record.identity.namespace_id, old)) {
            old.unassign(actor, before.generation);
        }
        if let Some(new) = self.host_of(record) {
            new.assign(actor, record.generation);
        }
    }

    /// Tells the pool where an actor stands, and whoever waits for a place that there may be one.
    fn tell_pool(&self, before: &ActorRecord, record: &ActorRecord) {
        if stands(before) != stands(record)
            && let Some(next) = self.0.pools.settle(&record.identity, stands(record))
        {
            self.post(next, Input::CapacityArrived);
        }
        let runs = |record: &ActorRecord| matches!(record.phase, Phase::Running { .. });
        if runs(record) && !runs(before) {
            self.0.pools.succeeded(record.identity.namespace_id, &record.identity.pool);
        }
    }

    /// Shows an actor's new state, and lets those who deal with generations know which of them are over.
    fn show(&self, cell: &ActorCell, before: &ActorRecord, after: &Arc<StoredActor>, ended: Vec<Ended>) {
        let (generations, mut ends): (Vec<u32>, Vec<_>) = ended.into_iter().map(|end| (end.generation, end.how)).unzip();
        // Whoever waits must ask again, or would wait in vain: nobody looks for a host any more.
        let gave_up = matches!(before.phase, Phase::Reallocating { .. }) && matches!(after.record.phase, Phase::Sleeping);
        if gave_up && ends.is_empty() {
            ends.push(GenerationEnd::SearchGivenUp);
        }
        self.publish(cell, after.clone(), ends);
        for generation in generations {
            self.0.tunnels.generation_ended(cell.id, generation);
            self.0.outbound.over(cell.id, generation);
            self.0.sql.generation_ended(cell.id, generation);
            self.0.data.generation_ended(&cell.id, generation);
        }
    }

    /// Queues a command for its host.
    fn send(&self, identity: &Identity, command: CommandToHost) {
        let CommandToHost { host, generation, index, command } = command;
        match command {
            Command::Stop(_) => self.hold_back_messages(identity.actor_id, generation),
            Command::Start => {}
        }
        let host = self.0.hosts.get_or_insert(identity.namespace_id, &host, &identity.pool);
        host.queue_command(PendingCommand { actor: identity.actor_id, generation, index, command });
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

    /// An offer has led to nothing. `keeps_place`: its actor has a place all the same, from before.
    pub(super) fn return_offer(&self, offer: &Offer, actor: &Identity, keeps_place: bool) {
        match offer {
            Offer::Outbound { is_probe } => {
                if let Some(next) = self.0.pools.decline(actor, *is_probe, keeps_place) {
                    self.post(next, Input::CapacityArrived);
                }
            }
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
    /// at its own only when it begins to stop or goes; all of that may have been too early to find this one.
    fn catch_up(&self, before: &ActorRecord, record: &ActorRecord) {
        let identity = &record.identity;
        // Where an endpoint is asked for each start, nobody waits for a host, whatever the latest attempt has found.
        let waits_for_host = matches!(record.phase, Phase::Reallocating { .. })
            && record.error == Some(ActorError::NoEnvoys)
            && !self.0.pools.is_serverless(identity.namespace_id, &identity.pool);
        if waits_for_host && self.0.hosts.choose(identity.namespace_id, &identity.pool).is_some() {
            self.post(identity.actor_id, Input::CapacityArrived);
        }
        if has_moved(before, record)
            && let Some(host) = self.host_of(record)
        {
            self.catch_up_with_host(&host, record);
        }
    }

    /// An actor was given to a host that may have gone, or have begun to go, since it was chosen.
    fn catch_up_with_host(&self, host: &Arc<Host>, record: &ActorRecord) {
        if host.is_finished() {
            let lost = Input::HostLost { host: host.key.clone(), generation: record.generation };
            self.post(record.identity.actor_id, lost);
        } else if host.link().is_none() {
            self.watch_for_loss(host.clone());
        }
        if host.is_draining() {
            self.placed_on_draining_host(host, record);
        }
    }

    /// Shows an actor's state to whoever watches it. `ended`: how generations have ended since it was shown last.
    pub(super) fn publish(&self, cell: &ActorCell, stored: Arc<StoredActor>, ended: Vec<GenerationEnd>) {
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
    pub(super) fn acknowledge(&self, cell: &ActorCell, inputs: &[Input]) {
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
    pub(super) fn dismiss_late_hosts(&self, cell: &ActorCell, inputs: &[Input]) {
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

    /// Deletes what a destroyed actor owned, in the background; repeated at the next start if it does not get done.
    pub(super) fn reclaim(&self, actor: ActorId) {
        let scheduler = self.clone();
        tokio::spawn(async move {
            // Never closed, so there always is a turn at some point.
            let _turn = scheduler.0.reclaiming.acquire().await.ok();
            let failed = loop {
                match scheduler.delete_data(actor).await {
                    Ok(()) => return,
                    // What is deleted makes room for the others, so this must not end with the lack of it.
                    Err(error) if error.may_pass() => tokio::time::sleep(STORE_PAUSE).await,
                    Err(error) => break error,
                }
            };
            tracing::error!(actor_id = %actor, error = %failed, "a destroyed actor's data is not deleted yet");
        });
    }

    async fn delete_data(&self, actor: ActorId) -> Result<(), StoreError> {
        self.0.data.delete_all(actor).await?;
        self.0.store.write(persist::reclaimed(actor)).await
    }
}
