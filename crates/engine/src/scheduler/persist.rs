//! Which rows a change of an actor writes. Pure.

use bytes::Bytes;
use lifecycle::actor::{ActorRecord, Phase};
use protocol::id::ActorId;
use store::Batch;

use crate::records::actor::{self, StoredActor};
use crate::records::actor_index;

/// What a step has to write.
pub(super) enum Change {
    /// Nothing.
    None,
    /// Something that may get lost in a crash.
    Lazy(Batch),
    /// Something that must be durable before anybody acts on it.
    Durable(Batch),
}

/// Compares two states of an actor.
pub(super) fn change(before: &StoredActor, after: &StoredActor) -> Change {
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
    put_indexes(&mut batch, &before.record, &after.record);
    Change::Durable(batch)
}

/// The rows of a new actor, whose first step has been made already.
pub(super) fn creation(stored: &StoredActor, input: Option<Bytes>) -> Batch {
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
    put_indexes(&mut batch, &unborn, record);
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

fn put_indexes(batch: &mut Batch, before: &ActorRecord, after: &ActorRecord) {
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
        actor_data::fence::set_generation(batch, &actor, after.generation);
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
fn is_active(record: &ActorRecord) -> bool {
    match record.phase {
        Phase::Starting { .. } | Phase::Running { .. } | Phase::Stopping { .. } | Phase::Reallocating { .. } => true,
        Phase::Sleeping | Phase::Destroyed => false,
    }
}
