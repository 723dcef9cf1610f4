//! The engine's side of a host's connection: a bounded queue of messages for its writer.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use protocol::envoy::ToEnvoy;
use protocol::limits;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;

/// Names a host within this process; stays the same when the host reconnects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HostId(pub u64);

/// Names one connection of a host within this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId(pub u64);

/// The connection has ended; what was sent may or may not have arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the host's connection has ended")]
pub struct LinkClosed;

/// A message in the queue, with its share of the byte budget, which is given back when the message was written.
#[derive(Debug)]
pub struct Outgoing {
    /// The message.
    pub content: Content,
    _budget: Option<OwnedSemaphorePermit>,
}

/// What is to be written.
#[derive(Debug)]
pub enum Content {
    /// A message, which the writer encodes.
    Message(ToEnvoy),
    /// One that was encoded in the host's protocol version by somebody who had more time than the writer.
    Frame(Bytes),
}

/// Room in the queue for one message.
pub(crate) struct Room(OwnedSemaphorePermit);

/// The reading end of the queue, owned by the connection's writer.
#[derive(Debug)]
pub struct Outbox {
    /// Messages in order.
    pub messages: mpsc::UnboundedReceiver<Outgoing>,
    shared: Arc<Shared>,
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl Shared {
    fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.budget.close();
    }
}

#[derive(Debug)]
struct Shared {
    host: HostId,
    session: SessionId,
    protocol_version: u16,
    messages: mpsc::UnboundedSender<Outgoing>,
    budget: Arc<Semaphore>,
    closed: AtomicBool,
    replaced: Notify,
    /// How many messages were queued; counted after each was.
    queued: AtomicU64,
    /// How many of them have arrived for certain.
    arrived: AtomicU64,
    /// Unanswered pings, oldest first.
    pings: Mutex<VecDeque<Ping>>,
}

/// A ping that was queued and not answered yet.
#[derive(Debug, Clone, Copy)]
struct Ping {
    /// Its time stamp.
    ts: i64,
    since: Instant,
    /// Messages that were queued before it, since the connection began.
    before: u64,
    /// Bytes that waited in the queue before it.
    behind_bytes: usize,
}

/// A ping that a host has not answered yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnansweredPing {
    /// When it was queued.
    pub since: Instant,
    /// What had to be written before it, in bytes.
    pub behind_bytes: usize,
}

/// A handle to a host's connection; clone freely.
#[derive(Debug, Clone)]
pub struct EnvoyLink(Arc<Shared>);

/// The budget counts in units of this many bytes, because a semaphore hands out at most 2^32 permits at once.
const BUDGET_UNIT_BYTES: usize = limits::KIB;
/// Unanswered pings that are remembered, the oldest ones; a host that owes more answers is about to be given up.
const PINGS_MAX: usize = 64;
/// What a queued message costs besides its payload, in bytes, roughly.
const MESSAGE_OVERHEAD_BYTES: usize = 256;

impl EnvoyLink {
    /// Makes the queue of a new connection.
    pub fn new(host: HostId, session: SessionId, protocol_version: u16) -> (Self, Outbox) {
        let (sender, messages) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            host,
            session,
            protocol_version,
            messages: sender,
            budget: Arc::new(Semaphore::new(limits::ENVOY_OUTBOX_MAX_BYTES / BUDGET_UNIT_BYTES)),
            closed: AtomicBool::new(false),
            replaced: Notify::new(),
            queued: AtomicU64::new(0),
            arrived: AtomicU64::new(0),
            pings: Mutex::default(),
        });
        (Self(shared.clone()), Outbox { messages, shared })
    }

    /// The host.
    pub fn host(&self) -> HostId {
        self.0.host
    }

    /// The connection.
    pub fn session(&self) -> SessionId {
        self.0.session
    }

    /// The protocol version that the host chose.
    pub fn protocol_version(&self) -> u16 {
        self.0.protocol_version
    }

    /// Lets nothing more into the queue. What is in it may or may not be written.
    pub fn close(&self) {
        self.0.close();
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.0.closed.load(Ordering::Acquire)
    }

    /// Tells the connection that another one of the same host has taken its place.
    pub fn replace(&self) {
        self.0.replaced.notify_one();
    }

    /// Waits until another connection has taken this one's place.
    pub async fn replaced(&self) {
        self.0.replaced.notified().await;
    }

    /// Queues a message that carries `payload_bytes` of somebody's data, waiting while more than
    /// [`limits::ENVOY_OUTBOX_MAX_BYTES`] wait to be written. The wait ends when the connection does.
    pub async fn send(&self, message: ToEnvoy, payload_bytes: usize) -> Result<(), LinkClosed> {
        let room = self.room(payload_bytes).await?;
        self.send_into(room, message)
    }

    /// As [`Self::send`], for a message that was encoded in [`Self::protocol_version`]: large ones that take long.
    pub async fn send_frame(&self, frame: Bytes) -> Result<(), LinkClosed> {
        let room = self.room(frame.len()).await?;
        self.push(Outgoing { content: Content::Frame(frame), _budget: Some(room.0) })
    }

    /// Waits for room in the queue, as [`Self::send`] does.
    pub(crate) async fn room(&self, payload_bytes: usize) -> Result<Room, LinkClosed> {
        // One message may be larger than the whole budget only in theory; it then takes all of it.
        let whole = limits::ENVOY_OUTBOX_MAX_BYTES / BUDGET_UNIT_BYTES;
        let units = (payload_bytes + MESSAGE_OVERHEAD_BYTES).div_ceil(BUDGET_UNIT_BYTES).min(whole) as u32;
        self.0.budget.clone().acquire_many_owned(units).await.map(Room).map_err(|_| LinkClosed)
    }

    /// Queues a message for which there is room. Never waits.
    pub(crate) fn send_into(&self, room: Room, message: ToEnvoy) -> Result<(), LinkClosed> {
        self.push(Outgoing { content: Content::Message(message), _budget: Some(room.0) })
    }

    /// How much of the queue's byte budget is in use. Control messages have no part in it.
    pub fn queued_bytes(&self) -> usize {
        limits::ENVOY_OUTBOX_MAX_BYTES - self.0.budget.available_permits() * BUDGET_UNIT_BYTES
    }

    /// Queues a control message at once, without budget: one that a request or a connection sends a bounded number of times.
    pub fn send_now(&self, message: ToEnvoy) -> Result<(), LinkClosed> {
        self.push(Outgoing { content: Content::Message(message), _budget: None })
    }

    /// Queues a small message that nobody misses when the queue is full: an answer to something that a host should not have
    /// sent, of which there may be any number.
    pub(crate) fn send_if_there_is_room(&self, message: ToEnvoy) {
        let budget = self.0.budget.clone().try_acquire_owned();
        if let Ok(budget) = budget {
            // A connection that has just ended needs no answers.
            let _ = self.push(Outgoing { content: Content::Message(message), _budget: Some(budget) });
        }
    }

    fn push(&self, outgoing: Outgoing) -> Result<(), LinkClosed> {
        if self.is_closed() {
            return Err(LinkClosed);
        }
        self.0.messages.send(outgoing).map_err(|_| LinkClosed)?;
        // Counted when it is in the queue, not before: a ping that has counted it then comes behind it.
        self.0.queued.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }
}

/// What has arrived. Only messages of HTTP and of hibernatable sockets are acknowledged; of all others it is known when the
/// host has answered a ping that was sent after them, because hosts read in order (`spec/envoy-protocol.md` 7.3 and 7.7).
impl EnvoyLink {
    /// Sends a ping. `ts` is in milliseconds since 1970.
    pub fn ping(&self, ts: i64) -> Result<(), LinkClosed> {
        let ping = Ping { ts, since: Instant::now(), before: self.queued(), behind_bytes: self.queued_bytes() };
        {
            let mut pings = self.0.pings.lock();
            if pings.len() < PINGS_MAX {
                pings.push_back(ping);
            }
        }
        self.send_now(ToEnvoy::Ping { ts })
    }

    /// The host has answered the ping with this time stamp, and thus has all that was sent before.
    pub fn answered(&self, ts: i64) {
        let mut pings = self.0.pings.lock();
        let Some(place) = pings.iter().position(|ping| ping.ts == ts) else { return };
        if let Some(Ping { before, .. }) = pings.drain(..=place).next_back() {
            self.0.arrived.fetch_max(before, Ordering::AcqRel);
        }
    }

    /// The ping whose answer the host owes for longest.
    pub fn oldest_ping(&self) -> Option<UnansweredPing> {
        let pings = self.0.pings.lock();
        pings.front().map(|Ping { since, behind_bytes, .. }| UnansweredPing { since: *since, behind_bytes: *behind_bytes })
    }

    /// How many messages were queued so far. Whoever asks right after sending gets a mark for [`Self::has_arrived`].
    pub(crate) fn queued(&self) -> u64 {
        self.0.queued.load(Ordering::Acquire)
    }

    /// Whether all that was queued up to a mark is known to have arrived.
    pub(crate) fn has_arrived(&self, mark: u64) -> bool {
        mark <= self.0.arrived.load(Ordering::Acquire)
    }
}
