//! A host that is being emptied: what is remembered with it. [`crate::scheduler`] drives it, [`lifecycle::drain`] sets the
//! pace.

use gateway::SessionId;
use lifecycle::Ts;
use lifecycle::drain::{Drain, Hosted};
use lifecycle::eviction::EvictionPace;

use super::host::{Host, State};

/// Why a host is emptied; what weighs more comes later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum DrainCause {
    /// The pool has this newer version of the application. Over when it has it no more.
    NewerVersion(u32),
    /// The host shuts down.
    Stopping,
}

/// What is to be done about a drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DrainTurn {
    /// It is over, and so is the work of whoever drives it.
    Over,
    /// Nothing before this time, in terms of [`crate::clock::Clock::uptime`], or before something changes.
    Wait(Option<Ts>),
    /// Somebody is to go.
    Due,
}

#[derive(Default)]
pub(super) struct Draining {
    /// It announced that it shuts down: it takes no new actors.
    pub(super) stopping: bool,
    /// It took its leave after that.
    finished: bool,
    run: Option<Run>,
    /// Until then the pace of an earlier drain holds.
    free_at: Option<Ts>,
    /// Somebody drives it.
    driven: bool,
}

struct Run {
    cause: DrainCause,
    drain: Drain,
}

impl Draining {
    /// The host has connected again.
    pub(super) fn resume(&mut self, now: Ts) {
        self.finished = false;
        if let Some(run) = &mut self.run {
            run.drain.resume(now);
        }
    }

    /// The host has lost its connection.
    pub(super) fn pause(&mut self) {
        if let Some(run) = &mut self.run {
            run.drain.pause();
        }
    }
}

impl Host {
    /// Whether it takes no new actors because it shuts down.
    pub(crate) fn is_stopping(&self) -> bool {
        self.state.lock().draining.stopping
    }

    /// Whether its actors are being moved elsewhere.
    pub(crate) fn is_draining(&self) -> bool {
        self.state.lock().draining.run.is_some()
    }

    /// It shuts down. False: that was known.
    pub(crate) fn set_stopping(&self) -> bool {
        !std::mem::replace(&mut self.state.lock().draining.stopping, true)
    }

    /// It closed its connection by itself. If it had announced that before, nothing runs there any more.
    pub(crate) fn took_leave(&self, session: SessionId) {
        let mut state = self.state.lock();
        if state.is_current(session) {
            state.draining.finished = state.draining.stopping;
        }
    }

    /// Whether it shut down and took its leave.
    pub(crate) fn is_finished(&self) -> bool {
        self.state.lock().draining.finished
    }

    /// Begins to empty it, at the pace that the pool's configuration asks for now. A drain that is under way goes on, now for
    /// all who are here. True: somebody must drive it from here on.
    #[must_use]
    pub(crate) fn begin_drain(&self, cause: DrainCause, pace: EvictionPace) -> bool {
        let now = self.clock.uptime();
        let mut state = self.state.lock();
        let State { actors, connection, draining, .. } = &mut *state;
        match &mut draining.run {
            Some(run) if run.cause >= cause => return false,
            Some(run) => {
                run.cause = cause;
                for (actor, generation) in actors {
                    run.drain.arrived((*actor, *generation), now);
                }
            }
            None => {
                let mut drain = Drain::begin(pace, now, draining.free_at);
                if connection.is_none() {
                    drain.pause();
                }
                draining.run = Some(Run { cause, drain });
            }
        }
        let was_driven = std::mem::replace(&mut draining.driven, true);
        drop(state);
        self.drain_changed.notify_one();
        !was_driven
    }

    /// Ends a drain for the sake of a newer version, because there is none any more.
    pub(crate) fn end_version_drain(&self) {
        let mut state = self.state.lock();
        let draining = &mut state.draining;
        if let Some(Run { cause: DrainCause::NewerVersion(_), drain }) = &draining.run {
            draining.free_at = drain.free_at().or(draining.free_at);
            draining.run = None;
            drop(state);
            self.drain_changed.notify_one();
        }
    }

    /// All that ran on it has been given up: there is nothing to empty. If a host with its key connects later, that is another
    /// process; until then it stays known that this one took its leave, for actors that are about to be given to it.
    pub(crate) fn forget_drain(&self) {
        let draining = &mut self.state.lock().draining;
        *draining = Draining { driven: draining.driven, finished: draining.finished, ..Draining::default() };
        self.drain_changed.notify_one();
    }

    /// An actor has come although the host is being emptied.
    pub(crate) fn drain_too(&self, actor: Hosted) {
        let now = self.clock.uptime();
        if let Some(run) = &mut self.state.lock().draining.run {
            run.drain.arrived(actor, now);
        }
        self.drain_changed.notify_one();
    }

    /// What is to be done now. Whoever is told that it is over must leave it alone.
    pub(crate) fn drain_turn(&self) -> DrainTurn {
        let now = self.clock.uptime();
        let draining = &mut self.state.lock().draining;
        let Some(run) = &draining.run else {
            draining.driven = false;
            return DrainTurn::Over;
        };
        match run.drain.next_look() {
            Some(look) if look <= now => DrainTurn::Due,
            next => DrainTurn::Wait(next),
        }
    }

    /// Those who are to go now; they are not named again.
    pub(crate) fn take_evictions(&self) -> Vec<Hosted> {
        let now = self.clock.uptime();
        let mut state = self.state.lock();
        let state = &mut *state;
        state.draining.run.as_mut().map(|run| run.drain.advance(now, &state.actors)).unwrap_or_default()
    }
}
