//! An actor's place in memory.

use std::collections::VecDeque;
use std::sync::Arc;

use gateway::{ActorView, EnvoyLink, GenerationEnd, Readiness};
use lifecycle::actor::{Input, Phase};
use parking_lot::Mutex;
use protocol::id::ActorId;
use tokio::sync::{Notify, oneshot, watch};

use crate::records::actor::StoredActor;

/// Inputs that may wait for one actor before the connection that brings them is read no further.
const LANE_HIGH_WATER: usize = 1024;

/// What the lane knows of the actor.
#[derive(Clone)]
pub(super) enum Loaded {
    /// Not looked up yet.
    Unknown,
    /// There is no such actor.
    Missing,
    /// The latest durable state.
    Here(Arc<StoredActor>),
}

/// What came of looking an actor up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lookup {
    Exists,
    Missing,
    /// The store did not say.
    Failed,
}

/// One thing to do.
pub(super) enum Work {
    Input(Input),
    /// Look the actor up and say what came of it.
    Load(oneshot::Sender<Lookup>),
}

/// What follows from entering a cell.
pub(super) enum Enter {
    /// The caller must start the lane.
    StartLane,
    /// It runs already.
    LaneRuns,
    /// There is nothing to do.
    Nothing,
}

#[derive(PartialEq)]
enum Activity {
    Idle,
    Running,
    /// Off the table; whoever still has the cell must get a new one.
    Retired,
}

struct Lane {
    queue: VecDeque<Work>,
    activity: Activity,
    loaded: Loaded,
}

pub(super) struct ActorCell {
    pub(super) id: ActorId,
    lane: Mutex<Lane>,
    view: watch::Sender<ActorView>,
    has_room: Notify,
}

impl ActorCell {
    pub(super) fn new(id: ActorId) -> Self {
        let view = ActorView { readiness: Readiness::NotReady, ended_generations: 0, last_end: None };
        let lane = Lane { queue: VecDeque::new(), activity: Activity::Idle, loaded: Loaded::Unknown };
        Self { id, lane: Mutex::new(lane), view: watch::Sender::new(view), has_room: Notify::new() }
    }

    /// Queues an input. `None`: the cell is retired. One that repeats the one before it says nothing new.
    pub(super) fn push(&self, input: Input) -> Option<Enter> {
        let mut lane = self.lane.lock();
        if lane.activity == Activity::Retired {
            return None;
        }
        let is_repeated = lane.queue.back().is_some_and(|last| matches!(last, Work::Input(last) if *last == input));
        if !is_repeated {
            lane.queue.push_back(Work::Input(input));
        }
        Some(lane.start())
    }

    /// Takes the lane of an actor that is being created: inputs of others wait until the creator runs the lane. `None`:
    /// retired.
    pub(super) fn claim(&self) -> Option<Enter> {
        let mut lane = self.lane.lock();
        if lane.activity == Activity::Retired {
            return None;
        }
        lane.activity = Activity::Running;
        Some(Enter::Nothing)
    }

    /// Waits until the lane has caught up, if it is far behind.
    pub(super) async fn room(&self) {
        loop {
            let has_room = self.has_room.notified();
            if self.lane.lock().queue.len() < LANE_HIGH_WATER {
                return;
            }
            has_room.await;
        }
    }

    /// Subscribes to the actor's state; with a look-up to wait for when it is not known yet. `None`: retired.
    pub(super) fn subscribe(&self) -> Option<(watch::Receiver<ActorView>, Option<oneshot::Receiver<Lookup>>, Enter)> {
        let mut lane = self.lane.lock();
        if lane.activity == Activity::Retired {
            return None;
        }
        let receiver = self.view.subscribe();
        match lane.loaded {
            Loaded::Here(_) => Some((receiver, None, Enter::Nothing)),
            Loaded::Unknown | Loaded::Missing => {
                let (done, until_loaded) = oneshot::channel();
                lane.queue.push_back(Work::Load(done));
                let enter = lane.start();
                Some((receiver, Some(until_loaded), enter))
            }
        }
    }

    /// Everything that waits, and what is known so far. `None`: nothing waits, and the lane has ended.
    pub(super) fn take_work(&self) -> Option<(VecDeque<Work>, Loaded)> {
        let mut lane = self.lane.lock();
        if lane.queue.is_empty() {
            lane.activity = Activity::Idle;
            return None;
        }
        let work = std::mem::take(&mut lane.queue);
        let loaded = lane.loaded.clone();
        drop(lane);
        self.has_room.notify_waiters();
        Some((work, loaded))
    }

    /// Queues inputs again that the lane had taken, before all others. As in [`Self::push`], repetitions say nothing new: a
    /// deadline that is past comes again and again.
    pub(super) fn put_back(&self, inputs: Vec<Input>) {
        let mut lane = self.lane.lock();
        for input in inputs.into_iter().rev() {
            let is_repeated = lane.queue.front().is_some_and(|next| matches!(next, Work::Input(next) if *next == input));
            if !is_repeated {
                lane.queue.push_front(Work::Input(input));
            }
        }
    }

    /// The latest durable state, if it is in memory.
    pub(super) fn stored(&self) -> Option<Arc<StoredActor>> {
        match &self.lane.lock().loaded {
            Loaded::Here(stored) => Some(stored.clone()),
            Loaded::Unknown | Loaded::Missing => None,
        }
    }

    /// Replaces what is known, and tells whoever watches. `ended`: how generations ended with this change. `link_of` finds the
    /// connection of the actor's host; it is asked under the lane's lock, so that of two changes at the same time the later
    /// one is shown last.
    pub(super) fn publish(
        &self,
        loaded: Loaded,
        link_of: impl FnOnce(&StoredActor) -> Option<EnvoyLink>,
        ended: Vec<GenerationEnd>,
    ) {
        let mut lane = self.lane.lock();
        lane.loaded = loaded;
        self.show(&lane, link_of, ended);
    }

    /// Tells whoever watches that the connection of the actor's host has changed. What is known of the actor stays.
    pub(super) fn refresh_link(&self, link_of: impl FnOnce(&StoredActor) -> Option<EnvoyLink>) {
        self.show(&self.lane.lock(), link_of, Vec::new());
    }

    fn show(&self, lane: &Lane, link_of: impl FnOnce(&StoredActor) -> Option<EnvoyLink>, ended: Vec<GenerationEnd>) {
        let readiness = match &lane.loaded {
            Loaded::Unknown | Loaded::Missing => Readiness::NotReady,
            Loaded::Here(stored) if stored.record.is_destroyed() => Readiness::Destroyed,
            Loaded::Here(stored) if stored.record.host().is_none() => Readiness::NotReady,
            Loaded::Here(stored) => {
                let (generation, link) = (stored.record.generation, link_of(stored));
                match stored.record.connectable_host() {
                    Some(_) => Readiness::Ready { generation, link },
                    None => Readiness::Hosted { generation, link },
                }
            }
        };
        self.view.send_if_modified(|view| {
            let changed = !ended.is_empty() || !same(&view.readiness, &readiness);
            view.readiness = readiness;
            for end in ended {
                view.ended_generations += 1;
                view.last_end = Some(Arc::new(end));
            }
            changed
        });
    }

    /// Forgets what is known: the store did not say whether a write went through.
    pub(super) fn forget(&self) {
        self.lane.lock().loaded = Loaded::Unknown;
    }

    /// Retires the cell if nothing is going on with the actor and nobody watches it.
    pub(super) fn retire_if_idle(&self) -> bool {
        let mut lane = self.lane.lock();
        let at_rest = match &lane.loaded {
            Loaded::Unknown | Loaded::Missing => true,
            Loaded::Here(stored) => matches!(stored.record.phase, Phase::Sleeping | Phase::Destroyed),
        };
        let idle = lane.activity == Activity::Idle && lane.queue.is_empty() && at_rest && self.view.receiver_count() == 0;
        if idle {
            lane.activity = Activity::Retired;
        }
        idle
    }
}

impl Lane {
    fn start(&mut self) -> Enter {
        if self.activity == Activity::Idle {
            self.activity = Activity::Running;
            Enter::StartLane
        } else {
            Enter::LaneRuns
        }
    }
}

/// Whether a change of readiness is none for those who watch.
fn same(old: &Readiness, new: &Readiness) -> bool {
    let place = |generation: &u32, link: &Option<EnvoyLink>| (*generation, link.as_ref().map(EnvoyLink::session));
    match (old, new) {
        (Readiness::NotReady, Readiness::NotReady) | (Readiness::Destroyed, Readiness::Destroyed) => true,
        (
            Readiness::Hosted { generation: old_generation, link: old_link },
            Readiness::Hosted { generation: new_generation, link: new_link },
        )
        | (
            Readiness::Ready { generation: old_generation, link: old_link },
            Readiness::Ready { generation: new_generation, link: new_link },
        ) => place(old_generation, old_link) == place(new_generation, new_link),
        (
            Readiness::NotReady | Readiness::Hosted { .. } | Readiness::Destroyed | Readiness::Ready { .. },
            Readiness::NotReady | Readiness::Hosted { .. } | Readiness::Destroyed | Readiness::Ready { .. },
        ) => false,
    }
}
