//! The limits of the gateway that an operator may change; defaults are in `protocol::limits` and `spec/gateway.md` 18.

use std::time::Duration;

/// Settings of the gateway.
#[derive(Debug, Clone)]
pub struct GatewayConfig {
    /// How long a request waits for its actor to become ready, in total.
    pub actor_ready_timeout: Duration,
    /// How long the resolution of a query path may take.
    pub resolve_timeout: Duration,
    /// From the end of the request's start message to the head of the response.
    pub response_start_timeout: Duration,
    /// Longest silence between two chunks of a streamed response; restarts with each chunk. `None`: no limit.
    pub response_chunk_idle_timeout: Option<Duration>,
    /// Largest request body, in bytes.
    pub request_body_max_bytes: u64,
    /// Largest unstreamed payload from an actor, in bytes.
    pub response_payload_max_bytes: u64,
    /// How long an actor may take to accept a WebSocket.
    pub websocket_open_timeout: Duration,
    /// Largest WebSocket message in either direction, in bytes.
    pub websocket_message_max_bytes: u64,
    /// How long a message on a hibernatable WebSocket may stay unacknowledged while its actor runs.
    pub websocket_ack_timeout: Duration,
    /// Longest time a client may take to accept bytes before its WebSocket is dropped.
    pub websocket_send_timeout: Duration,
    /// How long a hibernating WebSocket waits for its actor to wake.
    pub hibernation_wake_timeout: Duration,
    /// Bytes of client messages kept for a sleeping actor, per socket.
    pub hibernation_pending_max_bytes: u64,
}

/// Answers of a generation that ended may arrive a little after the news of its end, because a host sends both through
/// queues of their own; a request waits this long for them.
pub(crate) const STOPPED_GRACE: Duration = Duration::from_millis(250);

/// A woken actor restores its hibernating sockets before or shortly after it reports running.
pub(crate) const RESTORE_GRACE: Duration = Duration::from_secs(2);

/// After an early answer, the rest of an upload is read and thrown away for at most this long, so that the client gets to
/// read the answer before the connection closes.
pub(crate) const EARLY_ANSWER_DRAIN: Duration = Duration::from_secs(2);
/// And at most this many bytes of it.
pub(crate) const EARLY_ANSWER_DRAIN_MAX_BYTES: usize = 256 * protocol::limits::KIB;

/// After a close frame was sent, the client's own close is awaited for this long.
pub(crate) const CLOSE_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(1);
