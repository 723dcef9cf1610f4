//! One host.

use std::collections::BTreeMap;
use std::sync::Arc;

use gateway::{EnvoyLink, HostId, SessionId};
use lifecycle::Ts;
use lifecycle::actor::{Command, EnvoyKey};
use lifecycle::envoy::Link;
use lifecycle::placement::Candidate;
use parking_lot::Mutex;
use protocol::id::{ActorId, NamespaceId};
use serde_json::Value;
use tokio::sync::Notify;

use crate::clock::Clock;

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
    clock: Clock,
    state: Mutex<State>,
}

struct State {
    pool: String,
    version: u32,
    create_ts: Ts,
    /// In terms of [`Clock::uptime`].
    link_state: Link,
    connection: Option<EnvoyLink>,
    /// It announced that it shuts down: no new actors.
    stopping: bool,
    last_ping_ts: Ts,
    last_rtt_ms: u32,
    metadata: Option<Value>,
    /// Generation of each actor assigned to it.
    actors: BTreeMap<ActorId, u32>,
    /// Issued and not acknowledged, in the order in which they must be sent.
    unacknowledged: BTreeMap<(ActorId, u32, i64), Unacknowledged>,
    /// Highest event index to acknowledge per actor and generation.
    event_acks: BTreeMap<(ActorId, u32), i64>,
}

struct Unacknowledged {
    command: Command,
    sent_over: Option<SessionId>,
}

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
    pub(crate) link: EnvoyLink,
}

/// A host as lists show it.
pub(crate) struct HostInfo {
    pub(crate) pool: String,
    pub(crate) version: u32,
    pub(crate) actors: usize,
    pub(crate) create_ts: Ts,
    pub(crate) last_ping_ts: Ts,
    pub(crate) last_rtt_ms: u32,
    pub(crate) metadata: Option<Value>,
    pub(crate) connected: bool,
}

impl State {
    fn is_current(&self, session: SessionId) -> bool {
        self.connection.as_ref().is_some_and(|link| link.session() == session)
    }
}

impl Host {
    pub(super) fn new(id: HostId, namespace_id: NamespaceId, key: EnvoyKey, pool: &str, clock: Clock) -> Self {
        let now = clock.now();
        let state = State {
            pool: pool.to_owned(),
            version: 0,
            create_ts: now,
            link_state: Link::Down { since_ts: clock.uptime() },
            connection: None,
            stopping: false,
            last_ping_ts: now,
            last_rtt_ms: 0,
            metadata: None,
            actors: BTreeMap::new(),
            unacknowledged: BTreeMap::new(),
            event_acks: BTreeMap::new(),
        };
        Self {
            id,
            namespace_id,
            key,
            commands_waiting: Arc::default(),
            acks_waiting: Arc::default(),
            connected: Arc::default(),
            clock,
            state: Mutex::new(state),
        }
    }

    /// Registers a connection; returns the one it replaces.
    pub(crate) fn connect(&self, connected: Connected) -> Option<EnvoyLink> {
        let mut state = self.state.lock();
        if state.version != 0 && state.version != connected.version {
            tracing::warn!(envoy_key = %self.key, old = state.version, new = connected.version, "host changed its version");
        }
        state.pool = connected.pool;
        state.version = connected.version;
        state.link_state = Link::Up { last_pong_ts: self.clock.uptime() };
        state.last_ping_ts = self.clock.now();
        state.stopping = false;
        let replaced = state.connection.replace(connected.link);
        drop(state);
        // What was not acknowledged over the old connection is sent again over this one.
        self.commands_waiting.notify_one();
        self.connected.notify_waiters();
        replaced
    }

    /// Notes the end of a connection. False: it had been replaced before.
    pub(crate) fn disconnect(&self, session: SessionId) -> bool {
        let mut state = self.state.lock();
        let is_current = state.is_current(session);
        if is_current {
            state.connection = None;
            state.link_state = Link::Down { since_ts: self.clock.uptime() };
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

    /// Something came over its connection.
    pub(crate) fn alive(&self, session: SessionId) {
        let mut state = self.state.lock();
        if state.is_current(session)
            && let Link::Up { last_pong_ts } = &mut state.link_state
        {
            *last_pong_ts = self.clock.uptime();
        }
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

    /// It shuts down. False: that was known.
    pub(crate) fn set_stopping(&self) -> bool {
        !std::mem::replace(&mut self.state.lock().stopping, true)
    }

    /// Whether it takes no new actors because it shuts down or is being replaced.
    pub(crate) fn is_stopping(&self) -> bool {
        self.state.lock().stopping
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

    /// Queues a command until it is acknowledged.
    pub(crate) fn queue_command(&self, pending: PendingCommand) {
        let key = (pending.actor, pending.generation, pending.index);
        let unacknowledged = Unacknowledged { command: pending.command, sent_over: None };
        self.state.lock().unacknowledged.insert(key, unacknowledged);
        self.commands_waiting.notify_one();
    }

    /// The commands that have not been sent over this connection yet, in order; they count as sent from here on. `None`:
    /// the connection is not the present one, so whatever waits is for another.
    pub(crate) fn take_commands_for(&self, session: SessionId) -> Option<Vec<PendingCommand>> {
        let mut state = self.state.lock();
        if !state.is_current(session) {
            return None;
        }
        let mut commands = Vec::new();
        for ((actor, generation, index), waiting) in &mut state.unacknowledged {
            if waiting.sent_over != Some(session) {
                waiting.sent_over = Some(session);
                let (actor, generation, index) = (*actor, *generation, *index);
                commands.push(PendingCommand { actor, generation, index, command: waiting.command });
            }
        }
        Some(commands)
    }

    /// Forgets the commands of a generation up to an index.
    pub(crate) fn commands_acknowledged(&self, actor: ActorId, generation: u32, index: i64) {
        let mut state = self.state.lock();
        let covered: Vec<_> =
            state.unacknowledged.range((actor, generation, i64::MIN)..=(actor, generation, index)).map(|(key, _)| *key).collect();
        for key in covered {
            state.unacknowledged.remove(&key);
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

    /// The acknowledgements that wait to be sent. `None`: the connection is not the present one.
    pub(crate) fn take_event_acks_for(&self, session: SessionId) -> Option<BTreeMap<(ActorId, u32), i64>> {
        let mut state = self.state.lock();
        state.is_current(session).then(|| std::mem::take(&mut state.event_acks))
    }

    /// How it ranks for a new actor of `pool`; `None` if it takes none.
    pub(super) fn candidate(&self, pool: &str, accepts: impl FnOnce(Link) -> bool) -> Option<Candidate> {
        let state = self.state.lock();
        let takes_actors = state.connection.is_some() && state.pool == pool && !state.stopping && accepts(state.link_state);
        takes_actors.then(|| Candidate { version: state.version, load: state.actors.len() })
    }

    /// Whether it connected as a host of this pool.
    pub(crate) fn is_of_pool(&self, pool: &str) -> bool {
        self.state.lock().pool == pool
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
            actors: state.actors.len(),
            create_ts: state.create_ts,
            last_ping_ts: state.last_ping_ts,
            last_rtt_ms: state.last_rtt_ms,
            metadata: state.metadata.clone(),
            connected: state.connection.is_some(),
        }
    }
}
