//! Which rows a change of an actor writes. Pure.

use bytes::Bytes;
use lifecycle::actor::{ActorRecord, Phase, Place};
use protocol::id::ActorId;
use store::Batch;

use crate::records::actor::{self, StoredActor};
use crate::records::actor_index;

/// What a step has to write.
pub(crate) enum Change {
    /// Nothing.
    None,
    /// Something that may get lost in a crash.
    Lazy(Batch),
    /// That the actor runs. Its host says so again until it is acknowledged, so only the acknowledgement must wait until this
    /// is durable, and not those who wait for the actor.
    Running(Batch),
    /// Something that must be durable before anybody acts on it.
    Durable(Batch),
}

/// Compares two states of an actor. A new generation keeps the history of its database for so many seconds.
pub(crate) fn change(before: &StoredActor, after: &StoredActor, retention_s: u32) -> Change {
    if before == after {
        return Change::None;
    }
    let mut acked_only = before.record.clone();
    acked_only.acked_command_index = after.record.acked_command_index;
    // An event that changed nothing else need not be remembered: seen again, it changes nothing again.
    acked_only.last_event_index = after.record.last_event_index;
    if acked_only == after.record {
        if before.record.acked_command_index == after.record.acked_command_index {
            return Change::None;
        }
        let mut batch = Batch::new();
        put_record(&mut batch, after);
        return Change::Lazy(batch);
    }
    let mut batch = Batch::new();
    put_record(&mut batch, after);
    put_indexes(&mut batch, &before.record, &after.record, retention_s);
    if is_start(&before.record, &after.record) { Change::Running(batch) } else { Change::Durable(batch) }
}

/// Whether the host that was told to start the actor has said that it runs, and nothing else has happened.
fn is_start(before: &ActorRecord, after: &ActorRecord) -> bool {
    let Phase::Running { host } = &after.phase else { return false };
    let was_told = matches!(&before.phase, Phase::Starting { place: Place::Host(told), .. } if told == host);
    let started = ActorRecord {
        phase: after.phase.clone(),
        start_ts: after.start_ts,
        connectable_ts: after.connectable_ts,
        last_event_index: after.last_event_index,
        acked_command_index: after.acked_command_index,
        ..before.clone()
    };
    was_told && started == *after
}

/// The rows of a new actor, whose first step has been made already. A generation that this has started keeps the history of its
/// database for so many seconds.
pub(crate) fn creation(stored: &StoredActor, input: Option<Bytes>, retention_s: u32) -> Batch {
    let record = &stored.record;
    let identity = &record.identity;
    let (actor, namespace) = (identity.actor_id, identity.namespace_id);
    let mut batch = Batch::new();
    put_record(&mut batch, stored);
    if let Some(input) = input {
        batch.put(actor::input_key(actor), input);
    }
    if let Some(key) = &identity.key {
        let holder = Bytes::copy_from_slice(actor.as_bytes());
        batch.put(actor_index::by_key(namespace, &identity.name, key), holder);
    }
    batch.put(actor_index::live_by_name(namespace, &identity.name, identity.create_ts, actor), Bytes::new());
    batch.put(actor_index::all_by_name(namespace, &identity.name, identity.create_ts, actor), Bytes::new());
    let unborn = ActorRecord { phase: Phase::Sleeping, generation: 0, ..record.clone() };
    put_indexes(&mut batch, &unborn, record, retention_s);
    batch
}

/// The rows of a copy of another actor, whose data is there already. It sleeps, and no generation has been started.
pub(super) fn fork(stored: &StoredActor, input: Option<Bytes>) -> Batch {
    let actor = stored.record.identity.actor_id;
    let mut batch = creation(stored, input, 0);
    actor_data::fence::set_generation(&mut batch, &actor, stored.record.generation);
    batch.delete(actor_index::reclaim(actor));
    batch
}

/// Notes that data of an actor which nobody knows is to be deleted, unless [`fork`] comes first.
pub(super) fn fork_begun(actor: ActorId) -> Batch {
    let mut batch = Batch::new();
    batch.put(actor_index::reclaim(actor), Bytes::new());
    batch
}

/// Forgets that a destroyed actor's data waits to be deleted.
pub(super) fn reclaimed(actor: ActorId) -> Batch {
    let mut batch = Batch::new();
    batch.delete(actor_index::reclaim(actor));
    batch
}

fn put_record(batch: &mut Batch, stored: &StoredActor) {
    batch.put(actor::key(stored.record.identity.actor_id), actor::value(stored));
}

fn put_indexes(batch: &mut Batch, before: &ActorRecord, after: &ActorRecord, retention_s: u32) {
    let identity = &after.identity;
    let actor = identity.actor_id;
    match (is_active(before), is_active(after)) {
        (false, true) => batch.put(actor_index::active(actor), Bytes::new()),
        (true, false) => batch.delete(actor_index::active(actor)),
        (true, true) | (false, false) => {}
    }
    let (old_due, new_due) = (before.next_deadline(), after.next_deadline());
    if old_due != new_due {
        if let Some(due) = old_due {
            batch.delete(actor_index::due(due, actor));
        }
        if let Some(due) = new_due {
            batch.put(actor_index::due(due, actor), Bytes::new());
        }
    }
    if before.generation != after.generation {
        actor_data::fence::set_generation_with_history(batch, &actor, after.generation, retention_s);
    }
    if after.is_destroyed() && !before.is_destroyed() {
        if let Some(key) = &identity.key {
            batch.delete(actor_index::by_key(identity.namespace_id, &identity.name, key));
        }
        let live = actor_index::live_by_name(identity.namespace_id, &identity.name, identity.create_ts, actor);
        batch.delete(live);
        batch.delete(actor::input_key(actor));
        batch.put(actor_index::reclaim(actor), Bytes::new());
        actor_data::fence::mark_destroyed(batch, &actor);
    }
}

/// Whether an actor must be looked at when the engine starts.
pub(crate) fn is_active(record: &ActorRecord) -> bool {
    match record.phase {
        Phase::Starting { .. } | Phase::Running { .. } | Phase::Stopping { .. } | Phase::Reallocating { .. } => true,
        Phase::Sleeping | Phase::Destroyed => false,
    }
}

#[cfg(test)]
mod tests {
    use lifecycle::actor::{AfterStart, EnvoyKey, Identity};
    use protocol::id::NamespaceId;

    use super::*;

    fn stored(phase: Phase) -> StoredActor {
        let identity = Identity {
            actor_id: ActorId::from_parts([1; 16], 1),
            namespace_id: NamespaceId::from_parts([2; 16], 1),
            name: "name".to_owned(),
            key: None,
            pool: "pool".to_owned(),
            create_ts: 1,
        };
        StoredActor { record: ActorRecord { phase, generation: 1, ..ActorRecord::new(identity) }, has_input: false }
    }

    fn starting(place: Place) -> StoredActor {
        stored(Phase::Starting { place, deadline: 9, then: AfterStart::Run })
    }

    fn is_shown_first(before: &StoredActor, after: &StoredActor) -> bool {
        match change(before, after, 0) {
            Change::Running(_) => true,
            Change::Durable(_) => false,
            Change::None | Change::Lazy(_) => panic!("this must be durable at some point"),
        }
    }

    #[test]
    fn nothing_but_a_start_is_shown_before_it_is_durable() {
        let host = EnvoyKey::new("host");
        let before = starting(Place::Host(host.clone()));
        let mut after = stored(Phase::Running { host: host.clone() });
        after.record.start_ts = Some(5);
        after.record.connectable_ts = Some(5);
        after.record.last_event_index = 0;
        after.record.acked_command_index = 1;
        assert!(is_shown_first(&before, &after));
        // After a crash somebody else could be asked for the same generation.
        assert!(!is_shown_first(&starting(Place::Outbound), &after));
        assert!(!is_shown_first(&starting(Place::Host(EnvoyKey::new("another"))), &after));
        assert!(!is_shown_first(&stored(Phase::Sleeping), &after));
        let mut with_alarm = StoredActor { record: after.record.clone(), has_input: false };
        with_alarm.record.alarm_ts = Some(7);
        assert!(!is_shown_first(&before, &with_alarm));
        let mut another_generation = StoredActor { record: after.record.clone(), has_input: false };
        another_generation.record.generation = 2;
        assert!(!is_shown_first(&before, &another_generation));
        assert!(!is_shown_first(&after, &stored(Phase::Sleeping)));
    }
}
