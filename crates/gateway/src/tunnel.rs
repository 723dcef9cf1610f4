//! The table of open tunnels: which request waits for which frames (`spec/envoy-protocol.md` 12).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use protocol::envoy::{
    GatewayId, HibernatingRequest, MessageId, RequestId, ToEnvoy, ToEnvoyTunnelMessage, ToEnvoyTunnelMessageKind,
    ToRivetTunnelMessage, ToRivetTunnelMessageKind,
};
use protocol::id::ActorId;
use protocol::limits;
use tokio::sync::mpsc;

use crate::link::{EnvoyLink, HostId, LinkClosed, SessionId};

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
    /// The actor's generation has ended.
    Stopped,
    /// More data came than the request may hold; what follows is dropped.
    Overflow,
}

/// From which connections a request takes frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accepts {
    /// Only from this connection: an HTTP request ends with the connection that carried its start.
    Session(SessionId),
    /// From any connection of this host: a WebSocket survives a reconnect.
    Host(HostId),
    /// From whichever host the actor wakes on: a hibernating WebSocket.
    AnyHost,
}

struct Entry {
    actor: ActorId,
    accepts: Accepts,
    session: SessionId,
    hibernatable: bool,
    inbox: mpsc::UnboundedSender<FromActor>,
    queued_bytes: Arc<AtomicUsize>,
    max_queued_bytes: usize,
    overflowed: bool,
}

#[derive(Default)]
struct Table {
    by_request: HashMap<RequestId, Entry>,
    by_actor: HashMap<ActorId, HashSet<RequestId>>,
}

/// All open tunnels of this process; clone freely.
#[derive(Clone)]
pub struct Tunnels {
    gateway_id: GatewayId,
    table: Arc<Mutex<Table>>,
}

impl Tunnels {
    /// An empty table. The gateway id names this process towards hosts.
    pub fn new(gateway_id: GatewayId) -> Self {
        Self { gateway_id, table: Arc::default() }
    }

    /// Hands a frame of a host's connection to the request that waits for it. Frames for unknown requests, or from a
    /// connection that the request does not accept, are dropped: late ones are normal (`spec/envoy-protocol.md` 14.5).
    pub fn deliver(&self, host: HostId, session: SessionId, message: ToRivetTunnelMessage) {
        if message.message_id.gateway_id != self.gateway_id {
            return;
        }
        let mut table = self.table.lock();
        let Some(entry) = table.by_request.get_mut(&message.message_id.request_id) else { return };
        let accepted = match entry.accepts {
            Accepts::Session(wanted) => wanted == session,
            Accepts::Host(wanted) => wanted == host,
            Accepts::AnyHost => true,
        };
        if !accepted || entry.overflowed {
            return;
        }
        let bytes = queued_cost(&message.message_kind);
        let queued = entry.queued_bytes.fetch_add(bytes, Ordering::AcqRel) + bytes;
        let told = if queued > entry.max_queued_bytes {
            entry.overflowed = true;
            FromActor::Overflow
        } else {
            FromActor::Frame { index: message.message_id.message_index, kind: message.message_kind }
        };
        // A request that has just ended is no longer listening; it takes itself off the table.
        let _ = entry.inbox.send(told);
    }

    /// Closes a connection and tells all requests that it carries. A request that comes at the same moment either is told
    /// here, or finds the connection closed.
    pub fn link_lost(&self, link: &EnvoyLink) {
        link.close();
        let table = self.table.lock();
        for entry in table.by_request.values().filter(|entry| entry.session == link.session()) {
            let _ = entry.inbox.send(FromActor::LinkLost(link.session()));
        }
    }

    /// Tells all requests of an actor that its generation has ended.
    pub fn generation_ended(&self, actor: ActorId) {
        let mut table = self.table.lock();
        let Table { by_request, by_actor } = &mut *table;
        for request in by_actor.get(&actor).into_iter().flatten() {
            let Some(entry) = by_request.get_mut(request) else { continue };
            if entry.hibernatable {
                // The next generation may restore the socket on another host before its session has heard of this end.
                entry.accepts = Accepts::AnyHost;
            }
            let _ = entry.inbox.send(FromActor::Stopped);
        }
    }

    /// The hibernatable sockets of an actor that are open now, for its next start (`spec/envoy-protocol.md` 14.6).
    pub fn hibernating_requests(&self, actor: ActorId) -> Vec<HibernatingRequest> {
        let table = self.table.lock();
        let Some(requests) = table.by_actor.get(&actor) else { return Vec::new() };
        requests
            .iter()
            .filter(|request| table.by_request.get(request).is_some_and(|entry| entry.hibernatable))
            .map(|request| HibernatingRequest { gateway_id: self.gateway_id, request_id: *request })
            .collect()
    }

    /// Requests and sockets that are open now.
    pub fn open_count(&self) -> usize {
        self.table.lock().by_request.len()
    }

    /// Opens a tunnel for a request to `actor` over `link`.
    pub(crate) fn open(&self, actor: ActorId, link: EnvoyLink, accepts: Accepts, max_queued_bytes: usize) -> Tunnel {
        let (sender, inbox) = mpsc::unbounded_channel();
        let queued_bytes = Arc::new(AtomicUsize::new(0));
        let mut table = self.table.lock();
        let request_id = loop {
            let request_id = RequestId(rand::random());
            if !table.by_request.contains_key(&request_id) {
                break request_id;
            }
        };
        let entry = Entry {
            actor,
            accepts,
            session: link.session(),
            hibernatable: false,
            inbox: sender,
            queued_bytes: queued_bytes.clone(),
            max_queued_bytes,
            overflowed: false,
        };
        table.by_request.insert(request_id, entry);
        table.by_actor.entry(actor).or_default().insert(request_id);
        drop(table);
        Tunnel { tunnels: self.clone(), request_id, link, next_index: 0, inbox, queued_bytes }
    }

    fn close(&self, request_id: RequestId) {
        let mut table = self.table.lock();
        let Some(entry) = table.by_request.remove(&request_id) else { return };
        if let Some(requests) = table.by_actor.get_mut(&entry.actor) {
            requests.remove(&request_id);
            if requests.is_empty() {
                table.by_actor.remove(&entry.actor);
            }
        }
    }
}

/// One open tunnel. Owned by the task of its request, which makes it the single writer: an index is given out at the moment
/// its frame enters the connection's queue, so frames of one request can never overtake each other.
pub(crate) struct Tunnel {
    tunnels: Tunnels,
    request_id: RequestId,
    link: EnvoyLink,
    next_index: u16,
    inbox: mpsc::UnboundedReceiver<FromActor>,
    queued_bytes: Arc<AtomicUsize>,
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
        let message = self.next_message(kind);
        self.link.send_now(message)
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
        let message_id = MessageId { gateway_id: self.tunnels.gateway_id, request_id: self.request_id, message_index };
        ToEnvoy::TunnelMessage(ToEnvoyTunnelMessage { message_id, message_kind })
    }

    /// The next thing this request is told.
    pub(crate) async fn receive(&mut self) -> FromActor {
        let told = self.inbox.recv().await;
        self.account(told)
    }

    /// As [`Self::receive`], for bodies that are polled.
    pub(crate) fn poll_receive(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<FromActor> {
        self.inbox.poll_recv(cx).map(|told| self.account(told))
    }

    /// What has already arrived, if anything.
    pub(crate) fn try_receive(&mut self) -> Option<FromActor> {
        let told = self.inbox.try_recv().ok();
        told.map(|told| self.account(Some(told)))
    }

    fn account(&self, told: Option<FromActor>) -> FromActor {
        // The table holds the sender for as long as this tunnel exists.
        let told = told.unwrap_or(FromActor::Overflow);
        if let FromActor::Frame { kind, .. } = &told {
            self.queued_bytes.fetch_sub(queued_cost(kind), Ordering::AcqRel);
        }
        told
    }

    /// Goes on over another connection, after a reconnect or a wake.
    pub(crate) fn rebind(&mut self, link: EnvoyLink) {
        let mut table = self.tunnels.table.lock();
        if let Some(entry) = table.by_request.get_mut(&self.request_id) {
            entry.session = link.session();
            entry.accepts = Accepts::Host(link.host());
        }
        drop(table);
        self.link = link;
    }

    /// Takes frames from whichever host the actor wakes on.
    pub(crate) fn accept_any_host(&self) {
        if let Some(entry) = self.tunnels.table.lock().by_request.get_mut(&self.request_id) {
            entry.accepts = Accepts::AnyHost;
        }
    }

    /// Lists this socket in the actor's next start command.
    pub(crate) fn set_hibernatable(&self) {
        if let Some(entry) = self.tunnels.table.lock().by_request.get_mut(&self.request_id) {
            entry.hibernatable = true;
        }
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.tunnels.close(self.request_id);
    }
}

/// What a waiting frame costs besides its payload, in bytes, roughly.
const FRAME_OVERHEAD_BYTES: usize = 256;

/// What a waiting frame counts towards the bound of its request, in bytes.
fn queued_cost(kind: &ToRivetTunnelMessageKind) -> usize {
    match kind {
        ToRivetTunnelMessageKind::ResponseStart(start) => start.body.as_ref().map_or(0, bytes::Bytes::len),
        // A chunk with bytes is bounded by its window; an empty one needs no credit.
        ToRivetTunnelMessageKind::ResponseChunk(chunk) if !chunk.body.is_empty() => chunk.body.len(),
        ToRivetTunnelMessageKind::WebSocketMessage { data, .. } => data.len() + FRAME_OVERHEAD_BYTES,
        ToRivetTunnelMessageKind::ResponseChunk(_)
        | ToRivetTunnelMessageKind::ResponseAbort(_)
        | ToRivetTunnelMessageKind::RequestBodyWindowUpdate { .. }
        | ToRivetTunnelMessageKind::RequestBodyCancel
        | ToRivetTunnelMessageKind::WebSocketOpen { .. }
        | ToRivetTunnelMessageKind::WebSocketMessageAck { .. }
        | ToRivetTunnelMessageKind::WebSocketClose { .. } => FRAME_OVERHEAD_BYTES,
    }
}

/// Most bytes that may wait for an HTTP request: one unstreamed answer, or a window and what overshoots it.
pub(crate) fn http_queue_max_bytes(response_payload_max_bytes: u64) -> usize {
    response_payload_max_bytes as usize + 2 * limits::HTTP_BODY_WINDOW_BYTES as usize
}
