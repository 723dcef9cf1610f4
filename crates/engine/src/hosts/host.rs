//! One host.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gateway::{EnvoyLink, HostId, SessionId};
use lifecycle::Ts;
use lifecycle::actor::{Command, EnvoyKey, StopReason};
use lifecycle::envoy::Link;
use lifecycle::placement::Candidate;
use parking_lot::Mutex;
use protocol::id::{ActorId, NamespaceId};
use protocol::limits;
use serde_json::Value;
use tokio::sync::Notify;

use super::draining::Draining;
use super::turns::Turns;
use crate::clock::Clock;

/// Higher than any index that the host can have seen of a generation.
const DISMISSAL_INDEX: i64 = i64::MAX;

/// A host and all that is known of it.
pub(crate) struct Host {
    pub(crate) id: HostId,
    pub(crate) namespace_id: NamespaceId,
    pub(crate) key: EnvoyKey,
    /// Told when commands wait to be sent.
    pub(crate) commands_waiting: Arc<Notify>,
    /// Told when event acknowledgements wait to be sent.
    pub(crate) acks_waiting: Arc<Notify>,
    /// Told when it has connected.
    pub(crate) connected: Arc<Notify>,
    /// Told when there may be something new to do about its drain.
    pub(crate) drain_changed: Notify,
    /// Who has its turn with the data of an actor.
    pub(crate) turns: Arc<Turns>,
    pub(super) clock: Clock,
    pub(super) state: Mutex<State>,
}

pub(super) struct State {
    pool: String,
    version: u32,
    create_ts: Ts,
    /// In terms of [`Clock::uptime`].
    link_state: Link,
    pub(super) connection: Option<EnvoyLink>,
    /// How long it was told that it may take to stop an actor.
    stop_threshold_ms: Option<i64>,
    pub(super) draining: Draining,
    last_ping_ts: Ts,
    last_rtt_ms: u32,
    metadata: Option<Value>,
    /// Generation of each actor assigned to it.
    pub(super) actors: BTreeMap<ActorId, u32>,
    /// Issued and not acknowledged, in the order in which they must be sent.
    unacknowledged: BTreeMap<CommandKey, Command>,
    /// Those of them that have not been sent over the present connection.
    unsent: BTreeSet<CommandKey>,
    /// Generations that it is about to be told it has no right to.
    dismissals: BTreeSet<(ActorId, u32)>,
    /// Highest event index to acknowledge per actor and generation.
    event_acks: BTreeMap<(ActorId, u32), i64>,
    /// How many of these are of generations that it had no right to.
    stray_acks: usize,
}

/// Actor, generation, index.
type CommandKey = (ActorId, u32, i64);

/// A command on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PendingCommand {
    pub(crate) actor: ActorId,
    pub(crate) generation: u32,
    pub(crate) index: i64,
    pub(crate) command: Command,
}

/// A new connection's facts.
pub(crate) struct Connected {
    pub(crate) pool: String,
    pub(crate) version: u32,
    /// How long it is told that it may take to stop an actor.
    pub(crate) stop_threshold_ms: i64,
    pub(crate) link: EnvoyLink,
}

/// A host as lists show it.
pub(crate) struct HostInfo {
    pub(crate) pool: String,
    pub(crate) version: u32,
    pub(crate) create_ts: Ts,
    pub(crate) last_ping_ts: Ts,
    pub(crate) last_rtt_ms: u32,
    pub(crate) metadata: Option<Value>,
    pub(crate) connected: bool,
}

impl State {
    pub(super) fn is_current(&self, session: SessionId) -> bool {
        self.connection.as_ref().is_some_and(|link| link.session() == session)
    }
}

impl Host {
    pub(super) fn new(id: HostId, namespace_id: NamespaceId, key: EnvoyKey, pool: &str, create_ts: Ts, clock: Clock) -> Self {
        let state = State {
            pool: pool.to_owned(),
            version: 0,
            create_ts,
            link_state: Link::Down { since_ts: clock.uptime() },
            connection: None,
            stop_threshold_ms: None,
            draining: Draining::default(),
            last_ping_ts: create_ts,
            last_rtt_ms: 0,
            metadata: None,
            actors: BTreeMap::new(),
            unacknowledged: BTreeMap::new(),
            unsent: BTreeSet::new(),
            dismissals: BTreeSet::new(),
            event_acks: BTreeMap::new(),
            stray_acks: 0,
        };
        Self {
            id,
            namespace_id,
            key,
            commands_waiting: Arc::default(),
            acks_waiting: Arc::default(),
            connected: Arc::default(),
            drain_changed: Notify::new(),
            turns: Arc::default(),
            clock,
            state: Mutex::new(state),
        }
    }

    /// Registers a connection; returns the one it replaces.
    pub(super) fn connect(&self, connected: Connected) -> Option<EnvoyLink> {
        let mut state = self.state.lock();
        if state.version != 0 && state.version != connected.version {
            tracing::warn!(envoy_key = %self.key, old = state.version, new = connected.version, "host changed its version");
        }
        state.pool = connected.pool;
        state.version = connected.version;
        state.link_state = Link::Up { last_pong_ts: self.clock.uptime() };
        state.last_ping_ts = self.clock.now();
        state.stop_threshold_ms = Some(connected.stop_threshold_ms);
        state.draining.resume(self.clock.uptime());
        // What was not acknowledged over the old connection is sent again over this one.
        state.unsent = state.unacknowledged.keys().copied().collect();
        let replaced = state.connection.replace(connected.link);
        drop(state);
        self.commands_waiting.notify_one();
        self.drain_changed.notify_one();
        self.connected.notify_waiters();
        replaced
    }

    /// Whether this is its connection now.
    pub(crate) fn is_connected_over(&self, session: SessionId) -> bool {
        self.state.lock().is_current(session)
    }

    /// Notes the end of a connection. False: it had been replaced before.
    pub(super) fn disconnect(&self, session: SessionId) -> bool {
        let mut state = self.state.lock();
        let is_current = state.is_current(session);
        if is_current {
            state.connection = None;
            state.link_state = Link::Down { since_ts: self.clock.uptime() };
            state.draining.pause();
        }
        is_current
    }

    /// Counts a host without connection as out of touch from now on.
    pub(crate) fn restart_absence(&self) {
        if let Link::Down { since_ts } = &mut self.state.lock().link_state {
            *since_ts = self.clock.uptime();
        }
    }

    /// Its connection, if there is one.
    pub(crate) fn link(&self) -> Option<EnvoyLink> {
        self.state.lock().connection.clone()
    }

    pub(crate) fn link_state(&self) -> Link {
        self.state.lock().link_state
    }

    pub(crate) fn pinged(&self, now: Ts) {
        self.state.lock().last_ping_ts = now;
    }

    /// Something came over its connection. Returns what was known of it before; `None`: it is not the present one.
    pub(crate) fn alive(&self, session: SessionId) -> Option<Link> {
        let mut state = self.state.lock();
        let now = Link::Up { last_pong_ts: self.clock.uptime() };
        state.is_current(session).then(|| std::mem::replace(&mut state.link_state, now))
    }

    /// A pong came back. A time in the future says nothing about the round trip.
    pub(crate) fn ponged(&self, sent_ts: Ts) {
        if let Ok(rtt) = u32::try_from(self.clock.now().saturating_sub(sent_ts)) {
            self.state.lock().last_rtt_ms = rtt;
        }
    }

    pub(crate) fn set_metadata(&self, metadata: Value) {
        self.state.lock().metadata = Some(metadata);
    }

    /// Build number of the application on it; 0 before it has connected.
    pub(crate) fn version(&self) -> u32 {
        self.state.lock().version
    }

    /// How long it was told that it may take to stop an actor, in milliseconds; `None` before this engine has told it.
    pub(crate) fn stop_threshold_ms(&self) -> Option<i64> {
        self.state.lock().stop_threshold_ms
    }

    pub(crate) fn assign(&self, actor: ActorId, generation: u32) {
        self.state.lock().actors.insert(actor, generation);
    }

    pub(crate) fn unassign(&self, actor: ActorId, generation: u32) {
        let mut state = self.state.lock();
        if state.actors.get(&actor) == Some(&generation) {
            state.actors.remove(&actor);
        }
    }

    /// The generation of an actor that is assigned to it.
    pub(crate) fn generation_of(&self, actor: ActorId) -> Option<u32> {
        self.state.lock().actors.get(&actor).copied()
    }

    /// Everything assigned to it.
    pub(crate) fn assigned(&self) -> Vec<(ActorId, u32)> {
        self.state.lock().actors.iter().map(|(actor, generation)| (*actor, *generation)).collect()
    }

    /// Lets the host know that it has no right to a generation. Said once: a host that goes on with it speaks up again when it
    /// has reconnected, and so does one that was not told because too much waited for it.
    pub(crate) fn dismiss(&self, actor: ActorId, generation: u32) {
        let mut state = self.state.lock();
        if state.dismissals.len() < limits::HOST_DISMISSALS_MAX {
            state.dismissals.insert((actor, generation));
        }
        drop(state);
        self.commands_waiting.notify_one();
    }

    /// The host knows that it has no right to a generation.
    pub(crate) fn dismissed(&self, actor: ActorId, generation: u32) {
        self.state.lock().dismissals.remove(&(actor, generation));
    }

    /// Queues a command until it is acknowledged.
    pub(crate) fn queue_command(&self, pending: PendingCommand) {
        let key = (pending.actor, pending.generation, pending.index);
        let mut state = self.state.lock();
        // What waits for its acknowledgement already is repeated over the next connection, not over this one.
        if state.unacknowledged.insert(key, pending.command).is_none() {
            state.unsent.insert(key);
        }
        drop(state);
        self.commands_waiting.notify_one();
    }

    /// The commands that have not been sent over this connection yet, in order; they count as sent from here on. `None`:
    /// the connection is not the present one, so whatever waits is for another.
    pub(crate) fn take_commands_for(&self, session: SessionId) -> Option<Vec<PendingCommand>> {
        let mut state = self.state.lock();
        if !state.is_current(session) {
            return None;
        }
        let unsent = std::mem::take(&mut state.unsent);
        let command = |key: CommandKey| {
            let (actor, generation, index) = key;
            let command = *state.unacknowledged.get(&key)?;
            Some(PendingCommand { actor, generation, index, command })
        };
        let commands: Vec<_> = unsent.into_iter().filter_map(command).collect();
        let dismissed = std::mem::take(&mut state.dismissals).into_iter().map(|(actor, generation)| {
            let command = Command::Stop(StopReason::Lost);
            PendingCommand { actor, generation, index: DISMISSAL_INDEX, command }
        });
        Some(commands.into_iter().chain(dismissed).collect())
    }

    /// Forgets the commands of a generation up to an index.
    pub(crate) fn commands_acknowledged(&self, actor: ActorId, generation: u32, index: i64) {
        let mut state = self.state.lock();
        let covered: Vec<_> =
            state.unacknowledged.range((actor, generation, i64::MIN)..=(actor, generation, index)).map(|(key, _)| *key).collect();
        for key in covered {
            state.unacknowledged.remove(&key);
            state.unsent.remove(&key);
        }
    }

    /// Notes that events were processed; acknowledgements go out together a little later.
    pub(crate) fn event_processed(&self, actor: ActorId, generation: u32, index: i64) {
        let mut state = self.state.lock();
        let highest = state.event_acks.entry((actor, generation)).or_insert(index);
        *highest = (*highest).max(index);
        drop(state);
        self.acks_waiting.notify_one();
    }

    /// Notes an event of a generation that it has no right to: it may forget it. A host can make up any number of those, so
    /// not all of them are acknowledged.
    pub(crate) fn event_disregarded(&self, actor: ActorId, generation: u32, index: i64) {
        let mut state = self.state.lock();
        if !state.event_acks.contains_key(&(actor, generation)) {
            if state.stray_acks >= limits::HOST_STRAY_ACKS_MAX {
                return;
            }
            state.stray_acks += 1;
        }
        drop(state);
        self.event_processed(actor, generation, index);
    }

    /// The acknowledgements that wait to be sent. `None`: the connection is not the present one.
    pub(crate) fn take_event_acks_for(&self, session: SessionId) -> Option<BTreeMap<(ActorId, u32), i64>> {
        let mut state = self.state.lock();
        if !state.is_current(session) {
            return None;
        }
        state.stray_acks = 0;
        Some(std::mem::take(&mut state.event_acks))
    }

    /// How it ranks for a new actor of its pool; `None` if it takes none.
    pub(super) fn candidate(&self, accepts: impl FnOnce(Link) -> bool) -> Option<Candidate> {
        let state = self.state.lock();
        let takes_actors = state.connection.is_some() && !state.draining.stopping && accepts(state.link_state);
        takes_actors.then(|| Candidate { version: state.version, load: state.actors.len() })
    }

    /// The pool that it named when it connected last.
    pub(crate) fn pool(&self) -> String {
        self.state.lock().pool.clone()
    }

    pub(super) fn is_unused(&self) -> bool {
        let state = self.state.lock();
        state.connection.is_none() && state.actors.is_empty()
    }

    pub(crate) fn info(&self) -> HostInfo {
        let state = self.state.lock();
        HostInfo {
            pool: state.pool.clone(),
            version: state.version,
            create_ts: state.create_ts,
            last_ping_ts: state.last_ping_ts,
            last_rtt_ms: state.last_rtt_ms,
            metadata: state.metadata.clone(),
            connected: state.connection.is_some(),
        }
    }
}
