//! Picking up where the previous process left off.

use std::sync::Arc;

use gateway::HostId;
use lifecycle::actor::{Command, Phase, StopReason, StopWish};
use protocol::id::ActorId;

use super::{Parts, Scheduler, SchedulerConfig, perform};
use crate::error::StartError;
use crate::hosts::PendingCommand;
use crate::pages::Pages;
use crate::records::actor::{self, StoredActor};
use crate::records::actor_index;

/// Actors that are read in one go.
const CHUNK: usize = 256;

/// Makes the scheduler and loads every actor that is not asleep. Their hosts count as out of touch since now: they have the
/// usual time to reconnect.
pub(crate) async fn load(config: SchedulerConfig, parts: Parts) -> Result<Scheduler, StartError> {
    let scheduler = Scheduler::new(config, parts);
    let mut active = Pages::new(&scheduler.0.store, actor_index::all_active());
    while let Some(rows) = active.next().await? {
        for chunk in rows.chunks(CHUNK) {
            let ids = chunk.iter().map(|(key, _)| actor_index::actor_at_end(key)).collect::<Result<Vec<_>, _>>()?;
            let values = scheduler.0.store.get(ids.iter().map(|id| actor::key(*id)).collect()).await?;
            for (id, value) in ids.into_iter().zip(values) {
                if let Some(value) = value {
                    scheduler.adopt(Arc::new(actor::parse(id, value)?));
                }
            }
        }
    }
    scheduler.0.sockets.load(|actor| scheduler.hosted_by(actor)).await?;
    forget_sockets_of_nobody(&scheduler).await?;
    for host in scheduler.0.hosts.all() {
        host.restart_absence();
        scheduler.watch_for_loss(host);
    }
    scheduler.arm_adopted();
    let mut destroyed = Pages::new(&scheduler.0.store, actor_index::all_reclaim());
    while let Some(rows) = destroyed.next().await? {
        for (key, _) in rows {
            scheduler.reclaim(actor_index::actor_at_end(&key)?);
        }
    }
    Ok(scheduler)
}

/// Sockets of actors that were destroyed right before the previous process ended are of no use to anybody.
async fn forget_sockets_of_nobody(scheduler: &Scheduler) -> Result<(), StartError> {
    for ids in scheduler.0.sockets.sleepers().chunks(CHUNK) {
        let values = scheduler.0.store.get(ids.iter().map(|id| actor::key(*id)).collect()).await?;
        for (id, value) in ids.iter().zip(values) {
            let stored = value.map(|value| actor::parse(*id, value)).transpose()?;
            if stored.is_none_or(|stored| stored.record.is_destroyed()) {
                scheduler.0.sockets.actor_destroyed(*id);
            }
        }
    }
    Ok(())
}

impl Scheduler {
    /// The host that an actor has been given to.
    fn hosted_by(&self, actor: ActorId) -> Option<HostId> {
        let cell = self.0.cells.lock().get(&actor).cloned()?;
        let stored = cell.stored()?;
        self.0.hosts.get(stored.record.identity.namespace_id, stored.record.host()?).map(|host| host.id)
    }

    fn adopt(&self, stored: Arc<StoredActor>) {
        let record = &stored.record;
        let actor = record.identity.actor_id;
        let cell = self.enter(actor, |_cell| Some(super::Enter::Nothing));
        if let Some(host) = record.host() {
            let identity = &record.identity;
            let host = self.0.hosts.get_or_insert(identity.namespace_id, host, &identity.pool);
            host.assign(actor, record.generation);
            for (index, command) in unacknowledged_commands(&stored) {
                host.queue_command(PendingCommand { actor, generation: record.generation, index, command });
            }
        }
        // Nobody is told of a place before it is known who has one.
        let _ = self.0.pools.settle(&record.identity, perform::stands(record));
        if perform::is_asked_for(record) {
            // Nobody knows whether the order arrived, and an endpoint that has carried it out takes it for a repetition.
            self.0.outbound.order(record.identity.clone(), record.generation);
        }
        self.publish(&cell, stored, Vec::new());
    }

    /// Arms the deadlines of all actors that were not asleep. Nobody could keep one while the engine was down: hosts get the time
    /// to reconnect first, and whoever is to start a generation gets the whole time for it once more.
    fn arm_adopted(&self) {
        let uptime = self.0.clock.uptime();
        let hosts_may_be_back = uptime + self.0.hosts.rules().lost_threshold_ms;
        let may_have_started = uptime + self.0.config.rules.start_threshold_ms.max(self.0.hosts.rules().lost_threshold_ms);
        let cells: Vec<_> = self.0.cells.lock().values().cloned().collect();
        for cell in cells {
            let Some(stored) = cell.stored() else { continue };
            match &stored.record.phase {
                Phase::Starting { deadline, .. } => self.0.timers.arm_excused(cell.id, *deadline, may_have_started),
                Phase::Stopping { deadline, .. } => self.0.timers.arm_excused(cell.id, *deadline, hosts_may_be_back),
                Phase::Running { .. } | Phase::Sleeping | Phase::Reallocating { .. } | Phase::Destroyed => {
                    self.0.timers.arm(cell.id, stored.record.next_deadline());
                }
            }
        }
    }
}

/// The commands of the present generation that the host may not have got, made from the record: they follow from the phase.
fn unacknowledged_commands(stored: &StoredActor) -> Vec<(i64, Command)> {
    let record = &stored.record;
    let mut commands = Vec::new();
    // The order for a generation that an endpoint was asked for has the index 0 and went with the request. Sent once more over
    // the host's connection, it would take the index of the first stop.
    let start_is_open = record.last_command_index > 0 && record.acked_command_index < 1;
    match &record.phase {
        Phase::Starting { .. } if start_is_open => commands.push((1, Command::Start)),
        Phase::Stopping { wish, .. } => {
            if record.acked_command_index < record.last_command_index {
                let reason = match wish {
                    StopWish::Sleep { .. } => StopReason::SleepIntent,
                    StopWish::Destruction => StopReason::StopIntent,
                    StopWish::Move => StopReason::GoingAway,
                    StopWish::Destroy => StopReason::Destroy,
                };
                commands.push((record.last_command_index, Command::Stop(reason)));
            }
        }
        // A host that reported the actor running has got its start.
        Phase::Starting { .. } | Phase::Running { .. } | Phase::Sleeping | Phase::Reallocating { .. } | Phase::Destroyed => {}
    }
    commands
}

#[cfg(test)]
mod tests {
    use lifecycle::actor::{ActorRecord, AfterStart, EnvoyKey, Identity, Place};
    use protocol::id::NamespaceId;

    use super::*;

    fn stored(phase: Phase, last_command_index: i64, acked_command_index: i64) -> StoredActor {
        let identity = Identity {
            actor_id: ActorId::from_parts([1; 16], 1),
            namespace_id: NamespaceId::from_parts([2; 16], 1),
            name: "counter".into(),
            key: None,
            pool: "default".into(),
            create_ts: 1,
        };
        let record = ActorRecord { phase, generation: 1, last_command_index, acked_command_index, ..ActorRecord::new(identity) };
        StoredActor { record, has_input: false }
    }

    #[test]
    fn what_a_host_may_not_have_got_is_sent_again() {
        let host = EnvoyKey::new("a");
        let starting = || Phase::Starting { place: Place::Host(host.clone()), deadline: 9, then: AfterStart::Run };
        let stopping = || Phase::Stopping { host: host.clone(), wish: StopWish::Move, deadline: 9 };
        let going_away = Command::Stop(StopReason::GoingAway);
        let cases = [
            (stored(starting(), 1, 0), vec![(1, Command::Start)]),
            (stored(starting(), 1, 1), vec![]),
            (stored(Phase::Running { host: host.clone() }, 1, 0), vec![]),
            (stored(stopping(), 2, 1), vec![(2, going_away)]),
            (stored(stopping(), 2, 2), vec![]),
            // An endpoint was asked for the generation, so the start was not a command to the host that came forward.
            (stored(starting(), 0, -1), vec![]),
            (stored(starting(), 0, 0), vec![]),
            (stored(stopping(), 1, 0), vec![(1, going_away)]),
        ];
        for (actor, expected) in cases {
            assert_eq!(unacknowledged_commands(&actor), expected, "{:?}", actor.record);
        }
    }
}
