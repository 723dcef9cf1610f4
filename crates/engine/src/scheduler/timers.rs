//! When time alone changes an actor. The durable truth is a row per deadline; those that are near are held in memory.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use lifecycle::Ts;
use lifecycle::actor::Input;
use parking_lot::{Mutex, MutexGuard};
use protocol::id::ActorId;
use store::StoreError;
use tokio::sync::Notify;

use super::Scheduler;
use crate::clock::Clock;
use crate::pages::Pages;
use crate::records::actor_index;

/// Deadlines that are further away stay on disk.
const HORIZON_MS: Ts = 10 * 60 * 1000;
/// How often rows that have come within the horizon are read.
const REFILL_INTERVAL: Duration = Duration::from_secs(5 * 60);
/// How often cells that nobody needs, and hosts that are gone for good, are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);

pub(super) struct Timers {
    clock: Clock,
    armed: Mutex<Armed>,
    earlier: Notify,
}

#[derive(Default)]
struct Armed {
    by_time: BTreeSet<(Ts, ActorId)>,
    by_actor: HashMap<ActorId, Ts>,
    excused: HashMap<ActorId, Excused>,
}

/// A deadline that nobody could keep, because the engine was down.
struct Excused {
    deadline: Ts,
    /// What it is instead, in terms of [`Clock::uptime`]: a step of the time of day must not prolong it.
    until: Ts,
}

impl Timers {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, armed: Mutex::default(), earlier: Notify::new() }
    }

    /// Sets, moves or clears an actor's deadline.
    pub(super) fn arm(&self, actor: ActorId, deadline: Option<Ts>) {
        self.arm_in(self.armed.lock(), actor, deadline);
    }

    /// As [`Self::arm`]. Whenever this deadline is armed again in the life of this process, it is not before `until`, in terms of
    /// [`Clock::uptime`].
    pub(super) fn arm_excused(&self, actor: ActorId, deadline: Ts, until: Ts) {
        let mut armed = self.armed.lock();
        armed.excused.insert(actor, Excused { deadline, until });
        self.arm_in(armed, actor, Some(deadline));
    }

    /// Arms a deadline that was read from disk, unless the actor has another one by now.
    fn arm_if_absent(&self, actor: ActorId, deadline: Ts) {
        let armed = self.armed.lock();
        if !armed.by_actor.contains_key(&actor) {
            self.arm_in(armed, actor, Some(deadline));
        }
    }

    fn arm_in(&self, mut armed: MutexGuard<'_, Armed>, actor: ActorId, deadline: Option<Ts>) {
        let now = self.clock.now();
        let excused_for_ms = armed.excuse(actor, deadline).map_or(0, |until| until - self.clock.uptime());
        let due = deadline.map(|deadline| if excused_for_ms > 0 { deadline.max(now + excused_for_ms) } else { deadline });
        let is_first = armed.set(actor, due.filter(|due| *due <= now + HORIZON_MS));
        drop(armed);
        if is_first {
            self.earlier.notify_one();
        }
    }

    fn next(&self) -> Option<Ts> {
        self.armed.lock().by_time.first().map(|(deadline, _)| *deadline)
    }

    fn take_due(&self, now: Ts) -> Vec<ActorId> {
        let mut armed = self.armed.lock();
        let mut due = Vec::new();
        while let Some((deadline, actor)) = armed.by_time.first().copied().filter(|(deadline, _)| *deadline <= now) {
            armed.by_time.remove(&(deadline, actor));
            armed.by_actor.remove(&actor);
            due.push(actor);
        }
        due
    }
}

impl Armed {
    /// Until when a deadline is excused. An excuse is for one deadline, and forgotten with the next.
    fn excuse(&mut self, actor: ActorId, deadline: Option<Ts>) -> Option<Ts> {
        let until = self.excused.get(&actor).filter(|excused| deadline == Some(excused.deadline)).map(|excused| excused.until);
        if until.is_none() {
            self.excused.remove(&actor);
        }
        until
    }

    /// Whether it has become the earliest of all.
    fn set(&mut self, actor: ActorId, near: Option<Ts>) -> bool {
        if self.by_actor.get(&actor).copied() == near {
            return false;
        }
        if let Some(old) = self.by_actor.remove(&actor) {
            self.by_time.remove(&(old, actor));
        }
        let Some(deadline) = near else { return false };
        self.by_actor.insert(actor, deadline);
        self.by_time.insert((deadline, actor));
        self.by_time.first() == Some(&(deadline, actor))
    }
}

impl Scheduler {
    /// Fires deadlines for as long as the engine runs, also while further ones are read.
    pub(crate) async fn run_timers(self) {
        tokio::join!(biased; self.fire_deadlines(), self.read_deadlines(), self.sweep_regularly());
    }

    async fn fire_deadlines(&self) {
        loop {
            let now = self.0.clock.now();
            for actor in self.0.timers.take_due(now) {
                self.post(actor, Input::DeadlineReached);
            }
            // Without a deadline there is nothing to do until there is one.
            let wait_ms = self.0.timers.next().map_or(HORIZON_MS, |next| next.saturating_sub(now)).max(0);
            tokio::select! {
                biased;
                () = tokio::time::sleep(Duration::from_millis(wait_ms as u64)) => {}
                () = self.0.timers.earlier.notified() => {}
            }
        }
    }

    async fn sweep_regularly(&self) {
        let mut sweep = tokio::time::interval(SWEEP_INTERVAL);
        loop {
            sweep.tick().await;
            // Deadlines are times of day, and who waits for one sleeps by another clock, which stands still while the machine does.
            self.0.timers.earlier.notify_one();
            self.sweep();
            self.forget_lost_hosts();
        }
    }

    async fn read_deadlines(&self) {
        let mut refill = tokio::time::interval(REFILL_INTERVAL);
        loop {
            refill.tick().await;
            if let Err(error) = self.refill_timers().await {
                tracing::error!(%error, "deadlines cannot be read; tried again later");
            }
        }
    }

    async fn refill_timers(&self) -> Result<(), StoreError> {
        let mut due = Pages::new(&self.0.store, actor_index::due_before(self.0.clock.now() + HORIZON_MS));
        while let Some(rows) = due.next().await? {
            for (key, _) in rows {
                match (actor_index::actor_at_end(&key), actor_index::due_time(&key)) {
                    (Ok(actor), Ok(deadline)) => self.0.timers.arm_if_absent(actor, deadline),
                    (Err(error), _) | (_, Err(error)) => tracing::error!(%error, "a deadline row cannot be read"),
                }
            }
        }
        Ok(())
    }
}
