//! Processing an actor's inputs: load, step, persist. What follows from that is in [`super::perform`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use lifecycle::actor::{ActorRecord, Input, Shortage, World, may_start, step};
use store::StoreError;

use super::Scheduler;
use super::cell::{ActorCell, Loaded, Lookup, Work};
use super::explain::generation_end;
use super::perform::{Consequences, Ended};
use super::persist::{self, Change};
use crate::pools::Offer;
use crate::records::CorruptRow;
use crate::records::actor::{self, StoredActor};

/// How long inputs wait that could not be stored for a reason that may pass.
pub(super) const STORE_PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Corrupt(#[from] CorruptRow),
}

/// What inputs lead to, as long as nothing of it is durable.
struct Decided {
    record: ActorRecord,
    consequences: Consequences,
    /// The latest offer that was taken.
    taken: Option<Offer>,
}

/// Runs until nothing waits for the actor.
pub(super) async fn run(scheduler: Scheduler, cell: Arc<ActorCell>) {
    while let Some((work, loaded)) = cell.take_work() {
        // However much one actor has to do, the others get their turn.
        tokio::task::coop::consume_budget().await;
        let stored = match loaded {
            Loaded::Here(stored) => Ok(Some(stored)),
            Loaded::Unknown | Loaded::Missing => look_up(&scheduler, &cell).await,
        };
        match stored {
            Ok(Some(stored)) => process(&scheduler, &cell, inputs_of(work), stored).await,
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
        cell.publish(Loaded::Missing, |_nobody| None, Vec::new());
        return Ok(None);
    };
    let stored = Arc::new(actor::parse(cell.id, value)?);
    scheduler.publish(cell, stored.clone(), Vec::new());
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

/// The inputs of an actor that exists, which is what others wanted to know.
fn inputs_of(work: VecDeque<Work>) -> Vec<Input> {
    let mut inputs = Vec::with_capacity(work.len());
    for one in work {
        match one {
            Work::Load(done) => drop(done.send(Lookup::Exists)),
            Work::Input(input) => inputs.push(input),
        }
    }
    inputs
}

async fn process(scheduler: &Scheduler, cell: &ActorCell, inputs: Vec<Input>, stored: Arc<StoredActor>) {
    let Decided { record, consequences, taken } = decide(scheduler, &stored.record, &inputs);
    let after = Arc::new(StoredActor { record, has_input: stored.has_input });
    let is_new_generation = after.record.generation != stored.record.generation;
    let retention_s = if is_new_generation { scheduler.retention_s(&after.record.identity) } else { 0 };
    let change = persist::change(&stored, &after, retention_s);
    let is_start = matches!(change, Change::Running(_));
    if is_start {
        scheduler.perform(cell, &stored.record, after.clone(), Consequences::default());
    }
    if let Err(error) = make_durable(scheduler, change).await {
        if let Some(offer) = taken {
            scheduler.return_offer(&offer, &stored.record.identity, stored.record.is_placed());
        }
        return not_stored(scheduler, cell, inputs, stored, error).await;
    }
    if !is_start {
        scheduler.perform(cell, &stored.record, after, consequences);
    }
    scheduler.acknowledge(cell, &inputs);
    scheduler.dismiss_late_hosts(cell, &inputs);
}

/// Nothing was acknowledged, and nothing that had to be durable was acted upon. If the store has no room at the moment, or is
/// read-only, the inputs wait, because most of them are not repeated by anybody: a host that was lost is lost only once. After
/// any other error the store either writes nothing until the next process opens it, and that begins with what is on disk; or
/// what it has of this actor is damaged, and waiting would not help.
async fn not_stored(scheduler: &Scheduler, cell: &ActorCell, inputs: Vec<Input>, stored: Arc<StoredActor>, error: StoreError) {
    if !error.may_pass() {
        tracing::error!(actor_id = %cell.id, %error, "an actor's new state cannot be stored; its inputs are dropped");
        return cell.forget();
    }
    // The store has told the operator; this comes once a second from each actor that has something to store.
    tracing::debug!(actor_id = %cell.id, %error, "an actor's new state cannot be stored; tried again soon");
    // A start is shown before it is stored.
    scheduler.0.timers.arm(cell.id, stored.record.next_deadline());
    scheduler.publish(cell, stored, Vec::new());
    tokio::time::sleep(STORE_PAUSE).await;
    cell.put_back(inputs);
}

/// What inputs do to an actor, one after another.
fn decide(scheduler: &Scheduler, stored: &ActorRecord, inputs: &[Input]) -> Decided {
    let mut decided = Decided { record: stored.clone(), consequences: Consequences::default(), taken: None };
    for input in inputs {
        decided.take(scheduler, stored, input);
    }
    decided
}

impl Decided {
    fn take(&mut self, scheduler: &Scheduler, stored: &ActorRecord, input: &Input) {
        let before = &self.record;
        let now = scheduler.0.clock.now();
        let is_open = may_start(before, input, now);
        let offer = if is_open { scheduler.0.pools.offer(&before.identity) } else { Offer::None(Shortage::NoHosts) };
        let stop_threshold_ms = scheduler.stop_threshold_ms(before);
        let world = World { now, rules: &scheduler.0.config.rules, stop_threshold_ms, capacity: offer.capacity() };
        let stepped = step(before, input, &world);
        let (actor_id, after) = (before.identity.actor_id, stepped.record);
        tracing::debug!(%actor_id, ?input, outcome = ?stepped.outcome, phase = ?after.phase, "step");
        if after.generation == before.generation {
            scheduler.return_offer(&offer, &before.identity, stored.is_placed() || before.is_placed());
        } else {
            self.taken = Some(offer);
        }
        if before.is_placed() && !(after.is_placed() && after.generation == before.generation) {
            self.consequences.ended.push(Ended { generation: before.generation, how: generation_end(before, input) });
        }
        self.consequences.commands.extend(stepped.commands);
        self.record = after;
    }
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
    pub(super) fn retire(&self, cell: &Arc<ActorCell>) {
        let mut cells = self.0.cells.lock();
        if cells.get(&cell.id).is_some_and(|current| Arc::ptr_eq(current, cell)) && cell.retire_if_idle() {
            cells.remove(&cell.id);
        }
    }
}
