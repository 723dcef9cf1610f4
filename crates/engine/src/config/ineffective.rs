//! Keys that this engine accepts without effect.
//!
//! They are here so that a configuration written for the reference engine, or handed over by an SDK that launches the
//! engine, works unchanged. They are read with their types, so a mistake in them is still an error. Those that are
//! private fields of their section are never looked at again, and their ranges are not checked; whole sections of them
//! have their types in this file.
//!
//! [`NOT_YET`] and [`NO_SUCH_MECHANISM`] list all keys without effect and why. There a section stands for all its keys,
//! and `*` for any datacenter. Loading reports which of them were set.

use serde::{Deserialize, Serialize};

use super::{
    error::Origin,
    tree::{Node, Value},
    values::Secret,
};

/// A key that was set and has no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ineffective {
    /// Its path, or that of the section it is in. A `*` stands for the name of a datacenter.
    pub key: &'static str,
    /// Where it was written.
    pub origin: Origin,
    /// What that means to whoever set it.
    pub class: IneffectiveClass,
    /// Why it has no effect.
    pub reason: &'static str,
}

/// What it means to whoever set a key that it has no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IneffectiveClass {
    /// It asks for something that this version does not do. Worth a warning.
    NotYet,
    /// There is nothing it could act on, and nothing is lost. SDKs that launch the engine set some of these
    /// (`spec/engine-api.md` 15.3), so it is not worth a warning.
    NoSuchMechanism,
}

const NO_THROTTLE: &str = "not in this version: what actors read and write is not throttled";

/// Keys without effect that ask for something this version does not do.
pub(super) const NOT_YET: &[(&str, &str)] = &[
    ("guard.trace_propagation", "not in this version: trace headers are passed on unchanged"),
    ("logs.redirect_logs_dir", "not in this version: logs go to standard error"),
    ("pegboard.envoy_load_balancer", "not in this version: the less loaded of two random hosts is chosen"),
    ("runtime.allow_version_rollback", "not in this version: data of a newer version is always refused"),
    ("sqlite.actor_read_bytes_per_second", NO_THROTTLE),
    ("sqlite.actor_write_bytes_per_second", NO_THROTTLE),
];

const ALWAYS_STREAMS: &str = "this engine always streams, with its own bounded buffers";
const IN_PROCESS: &str = "inside one process messages and caches need no configuration";
const NO_EVENT_QUEUES: &str = "the events of a host go straight to its actors";
const NO_EXPIRY_QUEUE: &str = "what a lost host leaves behind is dealt with at once";
const NO_COMPACTION: &str = "what this engine keeps needs no compaction";
const NO_HOSTED_SERVICE: &str = "this engine reports to nobody";
const NO_LEGACY_RUNNERS: &str = "this engine serves envoys only, not the older runner protocol";
const NO_UPSTREAM_WORKER: &str = "this engine has no polling workflow worker";
const ONE_DATACENTER: &str = "there is one datacenter, and nothing is sent to another";
const ONE_NODE: &str = "there is one node, where a request learns at once that its host is gone";
const ROUTED_IN_PROCESS: &str = "routing a request asks nobody outside this process";

/// Keys without effect that have nothing to act on.
pub(super) const NO_SUCH_MECHANISM: &[(&str, &str)] = &[
    ("cache", IN_PROCESS),
    ("clickhouse", NO_HOSTED_SERVICE),
    ("features", ALWAYS_STREAMS),
    ("guard.actor_force_wake_pending_timeout_ms", "this engine wakes an actor once and waits"),
    ("guard.http_client_pool_idle_timeout_ms", ONE_DATACENTER),
    ("guard.proxy_retry_initial_interval_ms", ONE_DATACENTER),
    ("guard.proxy_retry_max_attempts", ONE_DATACENTER),
    ("guard.route_api_public_timeout_ms", ROUTED_IN_PROCESS),
    ("guard.route_auth_check_timeout_ms", "tokens are checked in memory"),
    ("guard.route_cache_ttl_ms", "no routes are kept: every request looks its actor up"),
    ("guard.route_compute_timeout_ms", "there is no managed compute to route to"),
    ("guard.route_dispatch_timeout_ms", ROUTED_IN_PROCESS),
    ("guard.route_pegboard_auth_check_timeout_ms", "tokens are checked in memory"),
    ("guard.route_pegboard_fetch_actor_timeout_ms", ROUTED_IN_PROCESS),
    ("guard.route_pegboard_subscribe_timeout_ms", ROUTED_IN_PROCESS),
    ("guard.route_pegboard_wake_signal_timeout_ms", ROUTED_IN_PROCESS),
    ("guard.route_timeout_ms", ROUTED_IN_PROCESS),
    ("guard.upstream_request_timeout_ms", ONE_DATACENTER),
    ("guard.websocket_connect_attempt_timeout_ms", ONE_DATACENTER),
    ("guard.websocket_flush_timeout_ms", ONE_DATACENTER),
    ("guard.websocket_max_frame_size", "a frame may be as large as a message, see guard.websocket_max_message_size"),
    ("guard.websocket_setup_timeout_ms", ONE_DATACENTER),
    ("memory", IN_PROCESS),
    ("pegboard.actor_allocation_candidate_sample_size", "this engine looks at every host of a pool"),
    ("pegboard.actor_allocation_threshold", "a start is handed over within this process, at once"),
    ("pegboard.envoy_event_demuxer_gc_interval", NO_EVENT_QUEUES),
    ("pegboard.envoy_event_demuxer_max_last_seen_threshold", NO_EVENT_QUEUES),
    ("pegboard.envoy_expire_scheduler_max_concurrent_expires", NO_EXPIRY_QUEUE),
    ("pegboard.envoy_expire_scheduler_max_pending", NO_EXPIRY_QUEUE),
    ("pegboard.gateway_gc_interval_ms", "every connection has its own timer for unacknowledged messages"),
    ("pegboard.gateway_http_response_body_channel_capacity", ALWAYS_STREAMS),
    ("pegboard.gateway_http_response_queue_max_messages", ALWAYS_STREAMS),
    ("pegboard.gateway_streaming_http_response_queue_max_bytes", ALWAYS_STREAMS),
    ("pegboard.gateway_update_ping_interval_ms", ONE_NODE),
    ("pegboard.pool_desired_max_override", "a pool gets one request for each actor, see max_concurrent_actors of the pool"),
    ("pegboard.runner_eligible_threshold", NO_LEGACY_RUNNERS),
    ("pegboard.runner_event_demuxer_gc_interval_ms", NO_LEGACY_RUNNERS),
    ("pegboard.runner_event_demuxer_max_last_seen_ms", NO_LEGACY_RUNNERS),
    ("pegboard.runner_lost_threshold", NO_LEGACY_RUNNERS),
    ("pegboard.runner_max_response_payload_body_size", NO_LEGACY_RUNNERS),
    ("pegboard.runner_ping_timeout_ms", NO_LEGACY_RUNNERS),
    ("pegboard.runner_update_ping_interval_ms", NO_LEGACY_RUNNERS),
    ("pegboard.serverless_backoff_max_exponent", NO_LEGACY_RUNNERS),
    ("pegboard.serverless_base_retry_timeout", NO_LEGACY_RUNNERS),
    ("pegboard.serverless_retry_reset_duration", NO_LEGACY_RUNNERS),
    ("pyroscope", NO_HOSTED_SERVICE),
    ("runtime.gasoline_loop_history_iteration_retention_count", NO_UPSTREAM_WORKER),
    ("runtime.gasoline_prune_eligibility_duration", NO_UPSTREAM_WORKER),
    ("runtime.gasoline_prune_interval_duration", NO_UPSTREAM_WORKER),
    ("runtime.udb_throttle_bytes_per_second", NO_UPSTREAM_WORKER),
    ("runtime.worker_cpu_max", NO_UPSTREAM_WORKER),
    ("runtime.worker_load_shedding_beta", "this engine sheds no load; its queues are bounded"),
    ("runtime.worker_load_shedding_curve", "this engine sheds no load; its queues are bounded"),
    ("runtime.worker_max_concurrent_workflows", NO_UPSTREAM_WORKER),
    ("runtime.worker_max_deduped_workflows_per_pull", NO_UPSTREAM_WORKER),
    ("runtime.worker_max_wake_condition_clears_per_pull", NO_UPSTREAM_WORKER),
    ("runtime.worker_max_wake_keys_per_workflow_name_per_pull", NO_UPSTREAM_WORKER),
    ("runtime.worker_max_workflows_per_pull", NO_UPSTREAM_WORKER),
    ("runtime.worker_poll_interval_ms", NO_UPSTREAM_WORKER),
    ("runtime.worker_shutdown_duration", "background work has nothing left to finish when requests have ended"),
    ("sqlite.compaction_admission_percent", NO_COMPACTION),
    ("sqlite.compaction_hot_fold_direct_to_shard", NO_COMPACTION),
    ("sqlite.compaction_install_admit_soft_util", NO_COMPACTION),
    ("sqlite.compaction_install_throttle_budget_multiplier", NO_COMPACTION),
    ("sqlite.compaction_max_hot_drain_span_txids", NO_COMPACTION),
    ("sqlite.compaction_read_bytes_per_second", NO_COMPACTION),
    ("sqlite.compaction_reclaim_admit_soft_util", NO_COMPACTION),
    ("sqlite.compaction_reclaim_throttle_budget_multiplier", NO_COMPACTION),
    ("sqlite.compaction_stage_admit_soft_util", NO_COMPACTION),
    ("sqlite.compaction_stage_throttle_backoff_ms", NO_COMPACTION),
    ("sqlite.compaction_stage_throttle_budget_multiplier", NO_COMPACTION),
    ("sqlite.compaction_write_bytes_per_second", NO_COMPACTION),
    ("sqlite.manager_idle_poll_interval_ms", NO_COMPACTION),
    ("sqlite.manager_reclaim_interval_ms", NO_COMPACTION),
    ("sqlite.pitr.interval_ms", "every commit is kept, so that any time can be gone back to"),
    ("sqlite.unstable_disable_commit_size_cap", "the limit on a commit protects every actor of a node"),
    ("sqlite.unstable_disable_compaction", NO_COMPACTION),
    ("telemetry", NO_HOSTED_SERVICE),
    ("topology.datacenters.*.is_leader", ONE_DATACENTER),
    ("topology.datacenters.*.peer_url", ONE_DATACENTER),
    ("topology.datacenters.*.proxy_url", ONE_DATACENTER),
];

/// Which keys without effect were set in `tree`.
pub(super) fn found_in(tree: &Node) -> Vec<Ineffective> {
    let mut found = Vec::new();
    for (class, keys) in [(IneffectiveClass::NotYet, NOT_YET), (IneffectiveClass::NoSuchMechanism, NO_SUCH_MECHANISM)] {
        for &(key, reason) in keys {
            if let Some(node) = find(tree, key) {
                found.push(Ineffective { key, origin: node.origin.clone(), class, reason });
            }
        }
    }
    found.sort_by_key(|found| found.key);
    found
}

/// The first node at a dotted path in which `*` stands for any key of an object or any item of a list: datacenters come
/// as either.
fn find<'a>(tree: &'a Node, path: &str) -> Option<&'a Node> {
    let Some((around, inside)) = path.split_once(".*.") else { return tree.find(path) };
    match &tree.find(around)?.value {
        Value::Table(table) => table.values().find_map(|node| find(node, inside)),
        Value::List(nodes) => nodes.iter().find_map(|node| find(node, inside)),
        Value::Null
        | Value::Bool(_)
        | Value::Unsigned(_)
        | Value::Negative(_)
        | Value::Float(_)
        | Value::Text(_)
        | Value::Loose(_) => None,
    }
}

/// `cache`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Cache {
    enabled: bool,
    driver: CacheDriver,
}

impl Default for Cache {
    fn default() -> Self {
        Self { enabled: true, driver: CacheDriver::InMemory }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", expecting = "in_memory")]
enum CacheDriver {
    InMemory,
}

/// `clickhouse`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClickHouse {
    http_url: String,
    native_url: String,
    username: String,
    password: Option<Secret>,
    #[serde(default)]
    secure: bool,
}

/// `features`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Features {
    guard_gateway_v3: GuardGatewayV3,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct GuardGatewayV3 {
    mode: GatewayMode,
    percentage: u8,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", expecting = "one of off, opportunistic, on")]
enum GatewayMode {
    #[default]
    Off,
    Opportunistic,
    On,
}

/// `memory`: the bus inside one process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Memory {
    channel: String,
    disable_memory_optimization: bool,
}

impl Default for Memory {
    fn default() -> Self {
        Self { channel: "default".to_owned(), disable_memory_optimization: false }
    }
}

/// `pyroscope`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pyroscope {
    server_url: String,
    #[serde(default = "pyroscope_sample_rate")]
    sample_rate: u32,
}

fn pyroscope_sample_rate() -> u32 {
    100
}

/// `telemetry`. Off, because there is nobody to report to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Telemetry {
    enabled: bool,
}
