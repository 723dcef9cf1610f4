//! `pegboard`: actors, their hosts ("envoys") and the tunnel between clients and them (`spec/engine-api.md` 13.3,
//! `spec/scheduling.md` 13). Keys without a unit in their name are in milliseconds.

use protocol::limits;
use serde::{Deserialize, Serialize};

use super::values::{Micros, Millis};

/// Timing and limits of actors, envoys and the gateway.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pegboard {
    /// First delay before a crashed actor is started again; doubles with each crash.
    pub base_retry_timeout: Millis,
    /// How often that delay doubles at most; 0 to 30.
    pub reschedule_backoff_max_exponent: u32,
    /// Quiet time after which the delay starts from its base again.
    pub retry_reset_duration: Millis,
    /// How long handing an actor to a serverless pool may take, in the published engine.
    pub actor_allocation_threshold: Millis,
    /// How long a start may take until the host confirms it.
    pub actor_start_threshold: Millis,
    /// How long a stop may take until the host confirms it, unless the pool's `drain_grace_period` is longer. Hosts are told.
    pub actor_stop_threshold: Millis,
    /// How long to look for a host before the actor goes to sleep.
    pub actor_retry_duration_threshold: Millis,
    /// How long the client of a hibernating connection waits for its actor to wake, once it has said something or left.
    /// While it is silent, its connection is kept for as long as it likes.
    pub hibernating_request_eligible_threshold: Millis,
    /// For legacy runners: first delay before a failed serverless start is repeated; doubles with each failure. For hosts of
    /// today the delays are 100 ms to 5 s.
    pub serverless_base_retry_timeout: Millis,
    /// For legacy runners: quiet time after which that delay starts from its base again.
    pub serverless_retry_reset_duration: Millis,
    /// For legacy runners: how often that delay doubles at most; 0 to 30.
    pub serverless_backoff_max_exponent: u32,
    /// Caps the number of requests that the published engine's autoscaler holds open to a serverless pool. Not capped if unset.
    pub pool_desired_max_override: Option<u64>,
    /// How often the metadata of a serverless pool are read, unless the pool says otherwise; at least 1 ms.
    pub default_metadata_poll_interval: Millis,
    /// They are not read more often than this, whatever the pool says; at least 1 ms.
    pub min_metadata_poll_interval: Millis,
    /// Good outcomes in a row that clear a serverless pool's error: hosts that connect, and actors that get to run.
    pub runner_pool_consecutive_successes_to_clear_error: u32,
    /// How long a host may take to accept a client's WebSocket.
    pub gateway_websocket_open_timeout_ms: Millis,
    /// How long an actor may take to begin its answer.
    pub gateway_response_start_timeout_ms: Millis,
    /// How long a streamed answer may stand still; 0 is for ever. The time starts with the answer's head and again with
    /// each chunk, also an empty one. It is not looked at while the client does not read.
    pub gateway_response_chunk_idle_timeout_ms: Millis,
    /// How often an open request checks that its host's node still lives; at least 1 ms.
    pub gateway_update_ping_interval_ms: Millis,
    /// How long the client of a WebSocket may take to answer a ping; at least 1 ms. Connections that carry HTTP have fixed
    /// times: 30 s.
    pub gateway_tunnel_ping_timeout_ms: Millis,
    /// How long a client's message on a hibernatable connection may stay unacknowledged while its actor runs.
    pub gateway_hws_message_ack_timeout_ms: Millis,
    /// Unacknowledged bytes kept for one hibernatable connection.
    pub gateway_hws_max_pending_size: u64,
    /// Client messages that may wait for actors in this process, over all hibernatable connections, in bytes; each may
    /// always hold 64 KiB. A connection that would exceed it is closed.
    pub gateway_waiting_for_actors_max_size: u64,
    /// Answers and messages of actors that may wait for slow clients in this process, in bytes; each request may always hold
    /// 64 KiB. A request or connection that would exceed it is ended.
    pub gateway_waiting_for_clients_max_size: u64,
    /// Largest request body passed to an actor, in bytes.
    pub gateway_http_max_request_body_size: u64,
    /// Messages one client connection may send in a burst; at least 1. Not limited if unset.
    pub gateway_websocket_rate_limit_requests: Option<u32>,
    /// After a burst, one message more is allowed every so often; at least 1 ms.
    pub gateway_websocket_rate_limit_drip_rate_ms: Millis,
    /// Silence after which a host counts as lost.
    pub envoy_lost_threshold: Millis,
    /// How long a host may take to answer a ping.
    pub envoy_ping_timeout: Millis,
    /// Largest buffered answer of an actor, in bytes. Hosts are told.
    pub envoy_max_response_payload_size: u64,
    /// How often a host is pinged; at least 1 ms.
    pub envoy_update_ping_interval: Millis,
    /// Silence after which a host gets no new actors.
    pub envoy_eligible_threshold: Millis,
    /// How a host is chosen for an actor.
    pub envoy_load_balancer: EnvoyLoadBalancer,
    /// Messages one host connection may send in a burst; at least 1. Not limited if unset.
    pub envoy_websocket_rate_limit_requests: Option<u32>,
    /// After a burst, one message more is allowed every so often; at least 1 µs.
    pub envoy_websocket_rate_limit_drip_rate_us: Micros,
    /// Time kept free at the end of a serverless request for its actor to stop, where the pool does not say; half the request's
    /// lifespan at most. Requests of more than 1,800 s have 1,800 s instead.
    pub serverless_drain_grace_period: Millis,
    /// Bytes of key-value data sent along with a start; 0 sends none.
    pub preload_max_total_bytes: u64,
    /// Actors one namespace may create in a burst; at least 1.
    pub actor_create_rate_limit_requests: u64,
    /// After a burst, one actor more is allowed every so often; at least 1 ms.
    pub actor_create_rate_limit_drip_rate_ms: Millis,

    // Accepted without effect, see `ineffective`.
    actor_allocation_candidate_sample_size: u32,
    envoy_event_demuxer_gc_interval: Millis,
    envoy_event_demuxer_max_last_seen_threshold: Millis,
    envoy_expire_scheduler_max_concurrent_expires: u32,
    envoy_expire_scheduler_max_pending: u32,
    gateway_gc_interval_ms: Millis,
    runner_eligible_threshold: Millis,
    runner_lost_threshold: Millis,
    runner_max_response_payload_body_size: u64,
    runner_update_ping_interval_ms: Millis,
    runner_ping_timeout_ms: Millis,
    runner_event_demuxer_gc_interval_ms: Millis,
    runner_event_demuxer_max_last_seen_ms: Millis,
    gateway_http_response_body_channel_capacity: u64,
    gateway_http_response_queue_max_messages: u64,
    gateway_streaming_http_response_queue_max_bytes: u64,
}

impl Default for Pegboard {
    fn default() -> Self {
        Self {
            base_retry_timeout: Millis::of(limits::ACTOR_RETRY_BASE),
            reschedule_backoff_max_exponent: limits::ACTOR_RETRY_MAX_EXPONENT,
            retry_reset_duration: Millis::of(limits::ACTOR_RETRY_RESET),
            actor_allocation_threshold: Millis::new(2_000),
            actor_start_threshold: Millis::of(limits::ACTOR_START_THRESHOLD),
            actor_stop_threshold: Millis::of(limits::ACTOR_STOP_THRESHOLD),
            actor_retry_duration_threshold: Millis::of(limits::ACTOR_RETRY_GIVE_UP),
            hibernating_request_eligible_threshold: Millis::of(limits::HIBERNATION_WAKE_TIMEOUT),
            serverless_base_retry_timeout: Millis::new(2_000),
            serverless_retry_reset_duration: Millis::new(600_000),
            serverless_backoff_max_exponent: 8,
            pool_desired_max_override: None,
            default_metadata_poll_interval: Millis::of(limits::METADATA_POLL_INTERVAL),
            min_metadata_poll_interval: Millis::of(limits::METADATA_POLL_MIN_INTERVAL),
            runner_pool_consecutive_successes_to_clear_error: 3,
            gateway_websocket_open_timeout_ms: Millis::of(limits::WEBSOCKET_OPEN_TIMEOUT),
            gateway_response_start_timeout_ms: Millis::of(limits::RESPONSE_START_TIMEOUT),
            gateway_response_chunk_idle_timeout_ms: Millis::of(limits::RESPONSE_CHUNK_IDLE_TIMEOUT),
            gateway_update_ping_interval_ms: Millis::new(3_000),
            gateway_tunnel_ping_timeout_ms: Millis::of(limits::WEBSOCKET_PING_TIMEOUT),
            gateway_hws_message_ack_timeout_ms: Millis::of(limits::WEBSOCKET_ACK_TIMEOUT),
            gateway_hws_max_pending_size: limits::HIBERNATION_PENDING_MAX_BYTES,
            gateway_waiting_for_actors_max_size: limits::WAITING_FOR_ACTORS_MAX_BYTES,
            gateway_waiting_for_clients_max_size: limits::WAITING_FOR_CLIENTS_MAX_BYTES,
            gateway_http_max_request_body_size: limits::HTTP_REQUEST_BODY_MAX_BYTES,
            gateway_websocket_rate_limit_requests: None,
            gateway_websocket_rate_limit_drip_rate_ms: Millis::of(limits::WEBSOCKET_MESSAGES_DRIP),
            envoy_lost_threshold: Millis::of(limits::ENVOY_LOST_THRESHOLD),
            envoy_ping_timeout: Millis::of(limits::ENVOY_PING_TIMEOUT),
            envoy_max_response_payload_size: limits::ENVOY_RESPONSE_PAYLOAD_MAX_BYTES,
            envoy_update_ping_interval: Millis::of(limits::ENVOY_PING_INTERVAL),
            envoy_eligible_threshold: Millis::of(limits::ENVOY_ELIGIBLE_THRESHOLD),
            envoy_load_balancer: EnvoyLoadBalancer::Hash(HashBalancer::default()),
            envoy_websocket_rate_limit_requests: None,
            envoy_websocket_rate_limit_drip_rate_us: Micros::of(limits::ENVOY_MESSAGES_DRIP),
            serverless_drain_grace_period: Millis::of(limits::SERVERLESS_DRAIN_GRACE),
            preload_max_total_bytes: limits::PRELOAD_MAX_BYTES,
            actor_create_rate_limit_requests: limits::ACTOR_CREATIONS_BURST,
            actor_create_rate_limit_drip_rate_ms: Millis::of(limits::ACTOR_CREATIONS_DRIP),
            actor_allocation_candidate_sample_size: 100,
            envoy_event_demuxer_gc_interval: Millis::new(30_000),
            envoy_event_demuxer_max_last_seen_threshold: Millis::new(30_000),
            envoy_expire_scheduler_max_concurrent_expires: 32,
            envoy_expire_scheduler_max_pending: 1_024,
            gateway_gc_interval_ms: Millis::new(15_000),
            runner_eligible_threshold: Millis::new(10_000),
            runner_lost_threshold: Millis::new(15_000),
            runner_max_response_payload_body_size: 20 * 1024 * 1024,
            runner_update_ping_interval_ms: Millis::new(3_000),
            runner_ping_timeout_ms: Millis::new(15_000),
            runner_event_demuxer_gc_interval_ms: Millis::new(30_000),
            runner_event_demuxer_max_last_seen_ms: Millis::new(30_000),
            gateway_http_response_body_channel_capacity: 16,
            gateway_http_response_queue_max_messages: 384,
            gateway_streaming_http_response_queue_max_bytes: 20 * 1024 * 1024,
        }
    }
}

/// How a host is chosen for an actor (`spec/scheduling.md` 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    rename_all = "snake_case",
    expecting = "an object with one of hash, random_ping_timestamp, newest_ping_timestamp, random_full_range"
)]
pub enum EnvoyLoadBalancer {
    /// The least loaded of those found at random points of a ring the hosts are spread over.
    Hash(HashBalancer),
    /// The first one from a random ping time on.
    RandomPingTimestamp(PlainBalancer),
    /// The host that was heard of last.
    NewestPingTimestamp(PlainBalancer),
    /// At random among all.
    RandomFullRange(PlainBalancer),
}

/// Parameters of the hash ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HashBalancer {
    /// Points of one host on the ring, 1 to 64.
    pub virtual_nodes: u32,
    /// Hosts compared for one actor, 1 to 8.
    pub samples: u32,
    /// Points looked at for one sample, 1 to 256.
    pub max_scan: u32,
    /// Random difference in load that is overlooked, 0 to 64.
    pub slot_jitter: u32,
    // Accepted without effect, see `ineffective`.
    use_snapshot_read: bool,
}

impl Default for HashBalancer {
    fn default() -> Self {
        Self { virtual_nodes: 8, samples: 2, max_scan: 16, slot_jitter: 4, use_snapshot_read: true }
    }
}

/// The balancers without parameters of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PlainBalancer {
    // Accepted without effect, see `ineffective`.
    use_snapshot_read: bool,
}

impl Default for PlainBalancer {
    fn default() -> Self {
        Self { use_snapshot_read: true }
    }
}
