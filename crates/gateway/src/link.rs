//! The engine's side of a host's connection: a bounded queue of messages for its writer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use protocol::envoy::ToEnvoy;
use protocol::limits;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};

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
    pub message: ToEnvoy,
    _budget: Option<OwnedSemaphorePermit>,
}

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
}

/// A handle to a host's connection; clone freely.
#[derive(Debug, Clone)]
pub struct EnvoyLink(Arc<Shared>);

/// The budget counts in units of this many bytes, because a semaphore hands out at most 2^32 permits at once.
const BUDGET_UNIT_BYTES: usize = limits::KIB;
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
        // One message may be larger than the whole budget only in theory; it then takes all of it.
        let whole = limits::ENVOY_OUTBOX_MAX_BYTES / BUDGET_UNIT_BYTES;
        let units = (payload_bytes + MESSAGE_OVERHEAD_BYTES).div_ceil(BUDGET_UNIT_BYTES).min(whole) as u32;
        let budget = self.0.budget.clone().acquire_many_owned(units).await.map_err(|_| LinkClosed)?;
        self.push(Outgoing { message, _budget: Some(budget) })
    }

    /// Queues a control message at once, without budget: one that a request or a connection sends a bounded number of times.
    pub fn send_now(&self, message: ToEnvoy) -> Result<(), LinkClosed> {
        self.push(Outgoing { message, _budget: None })
    }

    fn push(&self, outgoing: Outgoing) -> Result<(), LinkClosed> {
        if self.is_closed() {
            return Err(LinkClosed);
        }
        self.0.messages.send(outgoing).map_err(|_| LinkClosed)
    }
}
