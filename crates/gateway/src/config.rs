//! The limits of the gateway that an operator may change; their defaults are in `protocol::limits`,
//! like the limits that nobody may change (`spec/gateway.md` 18).

use std::time::Duration;

use crate::actor_metrics::AdminToken;
use crate::admission::AdmissionConfig;
use crate::throttle::MessageRate;

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
    /// How long a silent WebSocket client may take to answer a ping.
    pub websocket_ping_timeout: Duration,
    /// How fast one WebSocket client may send. `None`: as fast as its actor's host takes it.
    pub websocket_message_rate: Option<MessageRate>,
    /// How long a hibernating WebSocket waits for its actor to wake.
    pub hibernation_wake_timeout: Duration,
    /// Bytes of client messages kept for a sleeping actor, per socket.
    pub hibernation_pending_max_bytes: u64,
    /// Whether `/health/ws` is served (`spec/gateway.md` 3).
    pub websocket_health_route: bool,
    /// Opens the metrics of actors' processes to clients on other machines. `None`: nobody there gets them.
    pub admin_token: Option<AdminToken>,
    /// What one client may ask for.
    pub admission: AdmissionConfig,
}
