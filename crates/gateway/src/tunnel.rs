//! The table of open tunnels: which request waits for which frames (`spec/envoy-protocol.md` 12).

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::Mutex;
use protocol::envoy::{
    GatewayId, HibernatingRequest, MessageId, RequestId, ToEnvoy, ToEnvoyTunnelMessage, ToEnvoyTunnelMessageKind,
    ToRivetTunnelMessage, ToRivetTunnelMessageKind,
};
use protocol::id::ActorId;
use protocol::limits;

use crate::budget::Budget;
use crate::inbox::{Cost, Inbox};
use crate::journal::{SocketId, SocketJournal, downstream_closed};
use crate::link::{EnvoyLink, HostId, LinkClosed, SessionId};
use crate::ready::Route;

/// What a request can be told.
#[derive(Debug)]
pub(crate) enum FromActor {
    /// A frame from the actor's host.
    Frame {
        /// Its index.
        index: u16,
        /// What it says.
        kind: ToRivetTunnelMessageKind,
    },
    /// This connection, which carried the request, has ended.
    LinkLost(SessionId),
    /// The actor's generation that the request went to has ended, or a newer one.
    Stopped,
    /// More data came than the request may hold; what follows is dropped.
    Overflow,
}

/// From which connections a request takes frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Accepts {
    /// Only from this connection: an HTTP request ends with the connection that carried its start.
    Session(SessionId),
    /// From any connection of this host: a WebSocket survives a reconnect.
    Host(HostId),
}

struct Entry {
    actor: ActorId,
    /// The connection that carries it.
    session: SessionId,
    /// The generation it went to.
    generation: u32,
    accepts: Accepts,
    /// The generation of the host in `accepts`: ahead of `generation` while a woken actor restores its sockets.
    accepts_generation: u32,
    hibernatable: bool,
    inbox: Arc<Inbox<FromActor>>,
    /// Of a WebSocket.
    stop: Option<Arc<StopMark>>,
}

impl Entry {
    fn hold_back(&self, stopping: u32) {
        if let Some(stop) = &self.stop {
            let mut newest = stop.lock();
            *newest = stopping.max(*newest);
        }
    }
}

/// The newest generation of an actor that has been told to stop, or has stopped; 0: none has. Locked while a message is
/// queued, so that each message is queued before the stop command or not at all.
type StopMark = Mutex<u32>;

/// What became of a client's message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    /// It is on its way.
    Queued,
    /// The generation has been told to stop. The next one may have it.
    HeldBack,
}

/// Requests by something that they have in common.
struct Index<K>(HashMap<K, HashSet<RequestId>>);

impl<K: Eq + Hash> Index<K> {
    fn add(&mut self, key: K, request: RequestId) {
        self.0.entry(key).or_default().insert(request);
    }

    fn remove(&mut self, key: &K, request: RequestId) {
        if let Some(requests) = self.0.get_mut(key) {
            requests.remove(&request);
            if requests.is_empty() {
                self.0.remove(key);
            }
        }
    }

    fn of(&self, key: &K) -> impl Iterator<Item = &RequestId> {
        self.0.get(key).into_iter().flatten()
    }
}

struct Table {
    by_request: HashMap<RequestId, Entry>,
    by_actor: Index<ActorId>,
    by_session: Index<SessionId>,
}

/// How much may wait for receivers, over all tunnels, in bytes; see `protocol::limits`.
#[derive(Debug, Clone, Copy)]
pub struct WaitingLimits {
    /// Client messages for actors.
    pub for_actors_max_bytes: u64,
    /// Answers and messages of actors for clients.
    pub for_clients_max_bytes: u64,
}

/// All open tunnels of this process; clone freely.
#[derive(Clone)]
pub struct Tunnels(Arc<Shared>);

struct Shared {
    gateway_id: GatewayId,
    // One lock for all: it is held for a look-up and never while anything is queued or anybody is woken.
    table: Mutex<Table>,
    journal: Arc<dyn SocketJournal>,
    for_actors: Arc<Budget>,
    for_clients: Arc<Budget>,
}

impl Tunnels {
    /// An empty table. The gateway id names this process towards hosts; `journal` hears of every socket.
    pub fn new(gateway_id: GatewayId, journal: Arc<dyn SocketJournal>, limits: WaitingLimits) -> Self {
        let table = Table { by_request: HashMap::new(), by_actor: Index(HashMap::new()), by_session: Index(HashMap::new()) };
        Self(Arc::new(Shared {
            gateway_id,
            table: Mutex::new(table),
            journal,
            for_actors: Budget::new(limits.for_actors_max_bytes),
            for_clients: Budget::new(limits.for_clients_max_bytes),
        }))
    }

    /// Hands a frame of a host's connection to the request that waits for it. Frames for unknown requests, or from a
    /// connection that the request does not accept, are dropped: late ones are normal (`spec/envoy-protocol.md` 14.5).
    ///
    /// A host that believes in a socket which does not exist is told that it is closed: it restored one that has given up
    /// meanwhile, or it kept one of an engine process that was killed.
    pub fn deliver(&self, link: &EnvoyLink, message: ToRivetTunnelMessage) {
        let ToRivetTunnelMessage { message_id, message_kind } = message;
        let is_ours = message_id.gateway_id == self.0.gateway_id;
        let table = self.0.table.lock();
        let entry = table.by_request.get(&message_id.request_id).filter(|_| is_ours);
        let Some(entry) = entry else {
            drop(table);
            if speaks_of_an_open_socket(&message_kind, is_ours) {
                let socket = SocketId { gateway_id: message_id.gateway_id, request_id: message_id.request_id };
                link.send_if_there_is_room(downstream_closed(socket));
            }
            return;
        };
        let accepted = match entry.accepts {
            Accepts::Session(wanted) => wanted == link.session(),
            Accepts::Host(wanted) => wanted == link.host(),
        };
        if !accepted {
            return;
        }
        let inbox = entry.inbox.clone();
        drop(table);
        let cost = Cost::of_frame(&message_kind);
        let frame = FromActor::Frame { index: message_id.message_index, kind: message_kind };
        inbox.push(frame, cost, FromActor::Overflow);
    }

    /// Closes a connection and tells all requests that it carries. A request that comes at the same moment either is told
    /// here, or finds the connection closed.
    pub fn link_lost(&self, link: &EnvoyLink) {
        link.close();
        let session = link.session();
        let table = self.0.table.lock();
        let entries = table.by_session.of(&session).filter_map(|request| table.by_request.get(request));
        let inboxes: Vec<_> = entries.map(|entry| entry.inbox.clone()).collect();
        drop(table);
        for inbox in inboxes {
            inbox.push_news(FromActor::LinkLost(session));
        }
    }

    /// A generation of an actor has been given to a host, which will be told after this returns: frames of hibernating sockets
    /// are taken from this host from now on, and from no other.
    pub fn generation_placed(&self, actor: ActorId, generation: u32, host: HostId) {
        let mut table = self.0.table.lock();
        let Table { by_request, by_actor, .. } = &mut *table;
        for request in by_actor.of(&actor) {
            let Some(entry) = by_request.get_mut(request) else { continue };
            if entry.hibernatable && entry.accepts_generation < generation {
                entry.accepts = Accepts::Host(host);
                entry.accepts_generation = generation;
            }
        }
    }

    /// A generation of an actor is told to stop after this returns, or has just reported that it stopped. It gets no more
    /// messages of hibernatable sockets: hosts drop some of what arrives from then on and keep the rest for the next
    /// generation, to which it looks as if something were missing (`docs/decisions/0012`).
    pub fn generation_stopping(&self, actor: ActorId, generation: u32) {
        let table = self.0.table.lock();
        for entry in table.by_actor.of(&actor).filter_map(|request| table.by_request.get(request)) {
            entry.hold_back(generation);
        }
    }

    /// Tells all requests that went to a generation of an actor, or to an older one, that it has ended.
    pub fn generation_ended(&self, actor: ActorId, generation: u32) {
        let mut inboxes = Vec::new();
        let table = self.0.table.lock();
        for entry in table.by_actor.of(&actor).filter_map(|request| table.by_request.get(request)) {
            entry.hold_back(generation);
            if entry.generation <= generation {
                inboxes.push(entry.inbox.clone());
            }
        }
        drop(table);
        // No request can have gone on to the next generation meanwhile: that one is placed after this returns.
        for inbox in inboxes {
            inbox.push_news(FromActor::Stopped);
        }
    }

    /// The hibernatable sockets of an actor that are open now, for its next start (`spec/envoy-protocol.md` 14.6).
    pub fn hibernating_requests(&self, actor: ActorId) -> Vec<HibernatingRequest> {
        let table = self.0.table.lock();
        let is_hibernatable = |request: &&RequestId| table.by_request.get(request).is_some_and(|entry| entry.hibernatable);
        let requests = table.by_actor.of(&actor).filter(is_hibernatable);
        requests.map(|request| HibernatingRequest { gateway_id: self.0.gateway_id, request_id: *request }).collect()
    }

    /// Requests and sockets that are open now.
    pub fn open_count(&self) -> usize {
        self.0.table.lock().by_request.len()
    }

    /// Bytes of client messages that wait for actors now, over all sockets: unacknowledged ones included.
    pub fn waiting_for_actors_bytes(&self) -> u64 {
        self.0.for_actors.waiting_bytes()
    }

    /// Bytes of actors' answers and messages that wait for clients now, over all requests and sockets.
    pub fn waiting_for_clients_bytes(&self) -> u64 {
        self.0.for_clients.waiting_bytes()
    }

    /// What counts the client messages that wait for actors.
    pub(crate) fn for_actors(&self) -> &Arc<Budget> {
        &self.0.for_actors
    }

    /// Opens a tunnel for an HTTP request, which may let so many bytes wait for its client.
    pub(crate) fn open_request(&self, actor: ActorId, route: Route, max_waiting_bytes: u64) -> Tunnel {
        let accepts = Accepts::Session(route.link.session());
        self.open(actor, route, accepts, max_waiting_bytes, None)
    }

    /// Opens a tunnel for a WebSocket. The journal knows of it before any host does.
    pub(crate) fn open_socket(&self, actor: ActorId, route: Route) -> Tunnel {
        let accepts = Accepts::Host(route.link.host());
        let stop = Some(Arc::new(StopMark::default()));
        let tunnel = self.open(actor, route, accepts, limits::WEBSOCKET_CLIENT_OUTBOX_MAX_BYTES as u64, stop);
        self.0.journal.opened(actor, self.socket_id(tunnel.request_id));
        tunnel
    }

    fn open(
        &self,
        actor: ActorId,
        route: Route,
        accepts: Accepts,
        max_waiting_bytes: u64,
        stop: Option<Arc<StopMark>>,
    ) -> Tunnel {
        let Route { link, generation, .. } = route;
        let session = link.session();
        let inbox = Arc::new(Inbox::new(self.0.for_clients.share(), max_waiting_bytes));
        let entry = Entry {
            actor,
            session,
            generation,
            accepts,
            accepts_generation: generation,
            hibernatable: false,
            inbox: inbox.clone(),
            stop: stop.clone(),
        };
        let mut table = self.0.table.lock();
        let request_id = loop {
            let request_id = RequestId(rand::random());
            if !table.by_request.contains_key(&request_id) {
                break request_id;
            }
        };
        table.by_request.insert(request_id, entry);
        table.by_actor.add(actor, request_id);
        table.by_session.add(session, request_id);
        drop(table);
        Tunnel { tunnels: self.clone(), request_id, link, generation, stop, next_index: 0, inbox, told: false }
    }

    fn close(&self, request_id: RequestId, told: bool) {
        let table = self.0.table.lock();
        let Some(entry) = table.by_request.get(&request_id) else { return };
        let (actor, accepts, hibernatable) = (entry.actor, entry.accepts, entry.hibernatable);
        drop(table);
        // First this: a start command lists what is in the table and then what the journal remembers, and must not miss a
        // socket that goes from one to the other.
        match accepts {
            Accepts::Session(_) => {}
            Accepts::Host(host) => {
                let told = (told || !hibernatable).then_some(host);
                self.0.journal.closed(actor, self.socket_id(request_id), told);
            }
        }
        let mut table = self.0.table.lock();
        let Some(entry) = table.by_request.remove(&request_id) else { return };
        table.by_actor.remove(&entry.actor, request_id);
        table.by_session.remove(&entry.session, request_id);
    }

    fn socket_id(&self, request_id: RequestId) -> SocketId {
        SocketId { gateway_id: self.0.gateway_id, request_id }
    }
}

/// Whether a frame for which there is no request shows that its host takes a socket for open. Only what cannot be a late
/// frame of a socket whose end the host is being told anyway.
fn speaks_of_an_open_socket(kind: &ToRivetTunnelMessageKind, is_ours: bool) -> bool {
    match kind {
        ToRivetTunnelMessageKind::WebSocketOpen { .. } => true,
        ToRivetTunnelMessageKind::WebSocketMessage { .. } => !is_ours,
        ToRivetTunnelMessageKind::ResponseStart(_)
        | ToRivetTunnelMessageKind::ResponseChunk(_)
        | ToRivetTunnelMessageKind::ResponseAbort(_)
        | ToRivetTunnelMessageKind::RequestBodyWindowUpdate { .. }
        | ToRivetTunnelMessageKind::RequestBodyCancel
        | ToRivetTunnelMessageKind::WebSocketMessageAck { .. }
        | ToRivetTunnelMessageKind::WebSocketClose { .. } => false,
    }
}

/// One open tunnel. Owned by the task of its request, which makes it the single writer: an index is given out at the moment
/// its frame enters the connection's queue, so frames of one request can never overtake each other.
pub(crate) struct Tunnel {
    tunnels: Tunnels,
    request_id: RequestId,
    link: EnvoyLink,
    generation: u32,
    stop: Option<Arc<StopMark>>,
    next_index: u16,
    inbox: Arc<Inbox<FromActor>>,
    /// The host knows that the socket is over.
    told: bool,
}

impl Tunnel {
    pub(crate) fn link(&self) -> &EnvoyLink {
        &self.link
    }

    pub(crate) fn request_id(&self) -> RequestId {
        self.request_id
    }

    /// Sends a frame with the next index, waiting for room in the connection's queue.
    pub(crate) async fn send(&mut self, kind: ToEnvoyTunnelMessageKind, payload_bytes: usize) -> Result<(), LinkClosed> {
        // The index is taken before the wait for room. If this is cancelled the index is lost, which is harmless: only a
        // request that is being dropped is cancelled here, and its abort is accepted at any index.
        let message = self.next_message(kind);
        self.link.send(message, payload_bytes).await
    }

    /// Sends a small frame with the next index at once.
    pub(crate) fn send_now(&mut self, kind: ToEnvoyTunnelMessageKind) -> Result<(), LinkClosed> {
        let is_end = matches!(kind, ToEnvoyTunnelMessageKind::WebSocketClose { .. });
        let message = self.next_message(kind);
        self.link.send_now(message)?;
        self.told |= is_end;
        Ok(())
    }

    /// Sends a frame under an index that was taken before, also once more (`spec/envoy-protocol.md` 14.6).
    pub(crate) async fn send_at(
        &self,
        index: u16,
        kind: ToEnvoyTunnelMessageKind,
        payload_bytes: usize,
    ) -> Result<(), LinkClosed> {
        self.link.send(self.message(index, kind), payload_bytes).await
    }

    /// As [`Self::send_at`], for a message that must not reach a generation which has been told to stop.
    pub(crate) async fn send_unless_stopping(
        &self,
        index: u16,
        kind: ToEnvoyTunnelMessageKind,
        payload_bytes: usize,
    ) -> Result<Sent, LinkClosed> {
        let room = self.link.room(payload_bytes).await?;
        let told = self.stop.as_ref().map(|stop| stop.lock());
        if told.as_ref().is_some_and(|told| **told >= self.generation) {
            return Ok(Sent::HeldBack);
        }
        self.link.send_into(room, self.message(index, kind))?;
        Ok(Sent::Queued)
    }

    /// Whether the generation that the socket is with has been told to stop.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stop.as_ref().is_some_and(|stop| *stop.lock() >= self.generation)
    }

    /// Takes the next index without sending: for messages that wait for a sleeping actor.
    pub(crate) fn take_index(&mut self) -> u16 {
        let index = self.next_index;
        self.next_index = index.wrapping_add(1);
        index
    }

    fn next_message(&mut self, kind: ToEnvoyTunnelMessageKind) -> ToEnvoy {
        let index = self.take_index();
        self.message(index, kind)
    }

    fn message(&self, message_index: u16, message_kind: ToEnvoyTunnelMessageKind) -> ToEnvoy {
        let message_id = MessageId { gateway_id: self.tunnels.0.gateway_id, request_id: self.request_id, message_index };
        ToEnvoy::TunnelMessage(ToEnvoyTunnelMessage { message_id, message_kind })
    }

    /// The next thing this request is told.
    pub(crate) async fn receive(&mut self) -> FromActor {
        std::future::poll_fn(|cx| self.poll_receive(cx)).await
    }

    /// As [`Self::receive`], for bodies that are polled.
    pub(crate) fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<FromActor> {
        self.inbox.poll_take(cx).map(|told| self.note(told))
    }

    /// Lets no more than so many bytes wait from now on.
    pub(crate) fn let_wait_at_most(&self, max_bytes: u64) {
        self.inbox.let_wait_at_most(max_bytes);
    }

    /// What has already arrived, if anything.
    pub(crate) fn try_receive(&mut self) -> Option<FromActor> {
        self.inbox.try_take().map(|told| self.note(told))
    }

    fn note(&mut self, told: FromActor) -> FromActor {
        if let FromActor::Frame { kind: ToRivetTunnelMessageKind::WebSocketClose { hibernate: false, .. }, .. } = &told {
            self.told = true;
        }
        told
    }

    /// Goes on over another connection, after a reconnect or a wake, to a generation which may be a new one. Fails when the
    /// connection has ended meanwhile, of which this request may not be told.
    pub(crate) fn rebind(&mut self, link: EnvoyLink, generation: u32) -> Result<(), LinkClosed> {
        let session = link.session();
        let mut table = self.tunnels.0.table.lock();
        let Table { by_request, by_session, .. } = &mut *table;
        if let Some(entry) = by_request.get_mut(&self.request_id) {
            by_session.remove(&entry.session, self.request_id);
            by_session.add(session, self.request_id);
            entry.session = session;
            entry.generation = generation;
            if entry.accepts_generation <= generation {
                entry.accepts = Accepts::Host(link.host());
                entry.accepts_generation = generation;
            }
        }
        drop(table);
        self.link = link;
        self.generation = generation;
        // Whoever ends a connection closes it first and then looks at the table.
        if self.link.is_closed() { Err(LinkClosed) } else { Ok(()) }
    }

    /// Lists this socket in the actor's next start command.
    pub(crate) fn set_hibernatable(&self) {
        if let Some(entry) = self.tunnels.0.table.lock().by_request.get_mut(&self.request_id) {
            entry.hibernatable = true;
        }
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.tunnels.close(self.request_id, self.told);
    }
}

/// Most bytes that may wait for an HTTP request: one unstreamed answer, or a window and what overshoots it.
pub(crate) fn http_queue_max_bytes(response_payload_max_bytes: u64) -> u64 {
    // An operator may have said that there is no limit.
    response_payload_max_bytes.saturating_add(2 * limits::HTTP_BODY_WINDOW_BYTES)
}

#[cfg(test)]
mod tests;
