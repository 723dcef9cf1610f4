//! `guard`: the public listener (`spec/engine-api.md` 13.3, `spec/gateway.md` 18).

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use protocol::limits;
use serde::{Deserialize, Serialize};

use super::values::{Millis, Network};

/// The public listener and what it allows one client to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Guard {
    /// Address to bind. If not set: all interfaces (`::`) when `auth.admin_token` is set, else loopback.
    pub host: IpAddr,
    /// TCP port; 0 lets the system choose.
    pub port: u16,
    /// Sends small messages at once instead of collecting them.
    pub tcp_nodelay: bool,
    /// Serves the WebSocket `/health/ws`.
    pub enable_websocket_health_route: bool,
    /// Limit of finding or making an actor by key.
    pub route_pegboard_resolve_query_timeout_ms: Millis,
    /// How long a request waits for its actor to become ready.
    pub actor_ready_timeout_ms: Millis,
    /// Requests per client address to all actors together. Not limited if unset.
    pub rate_limit: Option<RateLimit>,
    /// Concurrent requests per client address to all actors together, at least 1. Not limited if unset.
    pub max_in_flight: Option<u64>,
    /// Whether `actor_rate_limit` and `actor_max_in_flight` hold.
    pub enforce_documented_limits: bool,
    /// Requests per actor and client address.
    pub actor_rate_limit: RateLimit,
    /// Concurrent requests per actor and client address, at least 1.
    pub actor_max_in_flight: u64,
    /// Exempts clients on loopback from the two limits per actor.
    pub exempt_loopback: bool,
    /// Peers whose `x-forwarded-for` says who the client is. From anyone else the header means nothing.
    pub trusted_proxies: Vec<Network>,
    /// Attempts to reach another datacenter.
    pub proxy_retry_max_attempts: u32,
    /// Pause after the first such attempt; doubles with each one.
    pub proxy_retry_initial_interval_ms: Millis,
    /// How long another datacenter may take to answer with headers.
    pub upstream_request_timeout_ms: Millis,
    /// Limit of setting up a WebSocket to another datacenter.
    pub websocket_setup_timeout_ms: Millis,
    /// Limit of one attempt to connect a WebSocket to another datacenter.
    pub websocket_connect_attempt_timeout_ms: Millis,
    /// Limit of flushing such a WebSocket when it closes.
    pub websocket_flush_timeout_ms: Millis,
    /// How long an idle connection to another datacenter is kept.
    pub http_client_pool_idle_timeout_ms: Millis,
    /// Pairs of client address and actor without open requests that are remembered at most, at least 1.
    pub admission_client_state_cache_capacity: u64,
    /// How long such a pair is remembered. Less than the window of a rate limit makes that limit forgetful.
    pub admission_client_state_cache_idle_timeout_ms: Millis,
    /// A second listener with TLS. None if unset.
    pub https: Option<Https>,
    /// Largest request body, in bytes.
    pub http_max_request_body_size: u64,
    /// Largest WebSocket message, in bytes.
    pub websocket_max_message_size: u64,
    /// How long a client may take to accept what is sent on its WebSocket.
    pub websocket_send_timeout_ms: Millis,
    /// Takes over and passes on W3C trace context headers.
    pub trace_propagation: bool,

    // Accepted without effect, see `ineffective`.
    route_cache_ttl_ms: Millis,
    route_timeout_ms: Millis,
    route_dispatch_timeout_ms: Millis,
    route_api_public_timeout_ms: Millis,
    route_pegboard_subscribe_timeout_ms: Millis,
    route_pegboard_fetch_actor_timeout_ms: Millis,
    route_pegboard_wake_signal_timeout_ms: Millis,
    route_compute_timeout_ms: Millis,
    route_auth_check_timeout_ms: Millis,
    route_pegboard_auth_check_timeout_ms: Millis,
    actor_force_wake_pending_timeout_ms: i64,
    websocket_max_frame_size: u64,
}

impl Default for Guard {
    fn default() -> Self {
        Self {
            host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 6420,
            tcp_nodelay: true,
            enable_websocket_health_route: false,
            route_pegboard_resolve_query_timeout_ms: Millis::of(limits::RESOLVE_TIMEOUT),
            actor_ready_timeout_ms: Millis::of(limits::ACTOR_READY_TIMEOUT),
            rate_limit: None,
            max_in_flight: None,
            enforce_documented_limits: true,
            actor_rate_limit: RateLimit {
                requests: limits::ACTOR_RATE_LIMIT_REQUESTS,
                period_ms: Millis::of(limits::ACTOR_RATE_LIMIT_PERIOD),
            },
            actor_max_in_flight: limits::ACTOR_IN_FLIGHT_MAX,
            exempt_loopback: true,
            trusted_proxies: loopback_and_private_networks(),
            proxy_retry_max_attempts: 7,
            proxy_retry_initial_interval_ms: Millis::new(150),
            upstream_request_timeout_ms: Millis::new(30_000),
            websocket_setup_timeout_ms: Millis::new(30_000),
            websocket_connect_attempt_timeout_ms: Millis::new(5_000),
            websocket_flush_timeout_ms: Millis::new(2_000),
            http_client_pool_idle_timeout_ms: Millis::new(30_000),
            admission_client_state_cache_capacity: limits::ADMISSION_REMEMBERED_MAX,
            admission_client_state_cache_idle_timeout_ms: Millis::of(limits::ADMISSION_REMEMBERED_FOR),
            https: None,
            http_max_request_body_size: limits::HTTP_REQUEST_BODY_MAX_BYTES,
            websocket_max_message_size: limits::WEBSOCKET_MESSAGE_MAX_BYTES,
            websocket_send_timeout_ms: Millis::of(limits::WEBSOCKET_SEND_TIMEOUT),
            trace_propagation: false,
            route_cache_ttl_ms: Millis::new(600_000),
            route_timeout_ms: Millis::new(60_000),
            route_dispatch_timeout_ms: Millis::new(55_000),
            route_api_public_timeout_ms: Millis::new(5_000),
            route_pegboard_subscribe_timeout_ms: Millis::new(2_000),
            route_pegboard_fetch_actor_timeout_ms: Millis::new(5_000),
            route_pegboard_wake_signal_timeout_ms: Millis::new(5_000),
            route_compute_timeout_ms: Millis::new(10_000),
            route_auth_check_timeout_ms: Millis::new(5_000),
            route_pegboard_auth_check_timeout_ms: Millis::new(5_000),
            actor_force_wake_pending_timeout_ms: 60_000,
            websocket_max_frame_size: 32 * 1024 * 1024,
        }
    }
}

/// Where a proxy in front of the engine usually stands.
fn loopback_and_private_networks() -> Vec<Network> {
    let v4 = |a, b, prefix| IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, 0, 0), prefix)).into();
    let v6 = |address, prefix| IpNet::V6(Ipv6Net::new_assert(address, prefix)).into();
    vec![
        v4(127, 0, 8),
        v4(10, 0, 8),
        v4(172, 16, 12),
        v4(192, 168, 16),
        v6(Ipv6Addr::LOCALHOST, 128),
        v6(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7),
    ]
}

/// A number of requests in a fixed window of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// Requests allowed in one window, at least 1.
    pub requests: u64,
    /// Length of the window, at least 1 ms.
    pub period_ms: Millis,
}

/// The TLS listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Https {
    /// TCP port.
    pub port: u16,
    /// Certificates and keys.
    pub tls: Tls,
}

/// PEM files of the TLS listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// Certificate chain for actor traffic.
    pub actor_cert_path: PathBuf,
    /// Private key for actor traffic.
    pub actor_key_path: PathBuf,
    /// Certificate chain for the management API.
    pub api_cert_path: PathBuf,
    /// Private key for the management API.
    pub api_key_path: PathBuf,
}
