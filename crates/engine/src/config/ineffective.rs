//! Keys of the reference engine that this engine accepts without effect.
//!
//! They are here so that a configuration written for the reference, or handed over by an SDK that launches the engine,
//! works unchanged. They are read with their types, so a mistake in them is still an error; their ranges are not
//! checked. Whole sections have their types in this file; single keys are the private fields of the section they
//! belong to. [`KEYS`] lists all of them with the reason, and loading reports which of them were set.

use serde::{Deserialize, Serialize};

use super::{error::Origin, tree::Node, values::Secret};

/// A key that was set and has no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ineffective {
    /// Its path.
    pub key: &'static str,
    /// Where it was written.
    pub origin: Origin,
    /// Why it has no effect.
    pub reason: &'static str,
}

const NO_HOSTED_SERVICE: &str = "this engine reports to nobody";
const NO_UPSTREAM_WORKER: &str = "this engine has no polling workflow worker";
const NO_LEGACY_RUNNERS: &str = "this engine serves envoys only, not the older runner protocol";
const NO_HISTORY: &str = "this engine keeps no page history that would need compaction";
const ALWAYS_STREAMS: &str = "this engine always streams, with its own bounded buffers";
const CONSISTENT_READS: &str = "this engine never chooses a host from an old snapshot";
const IN_PROCESS: &str = "inside one process messages and caches need no configuration";

/// Every key without effect, and why.
pub(super) const KEYS: &[(&str, &str)] = &[
    ("cache", IN_PROCESS),
    ("clickhouse", NO_HOSTED_SERVICE),
    ("features", ALWAYS_STREAMS),
    ("guard.actor_force_wake_pending_timeout_ms", "this engine wakes an actor once and waits"),
    ("guard.route_auth_check_timeout_ms", "tokens are checked in memory"),
    ("guard.route_compute_timeout_ms", "there is no managed compute to route to"),
    ("guard.route_pegboard_auth_check_timeout_ms", "tokens are checked in memory"),
    ("memory", IN_PROCESS),
    ("nats.disable_memory_optimization", "messages inside one node never pass through NATS"),
    ("pegboard.envoy_load_balancer.hash.use_snapshot_read", CONSISTENT_READS),
    ("pegboard.envoy_load_balancer.newest_ping_timestamp.use_snapshot_read", CONSISTENT_READS),
    ("pegboard.envoy_load_balancer.random_full_range.use_snapshot_read", CONSISTENT_READS),
    ("pegboard.envoy_load_balancer.random_ping_timestamp.use_snapshot_read", CONSISTENT_READS),
    ("pegboard.gateway_http_response_body_channel_capacity", ALWAYS_STREAMS),
    ("pegboard.gateway_http_response_queue_max_messages", ALWAYS_STREAMS),
    ("pegboard.gateway_streaming_http_response_queue_max_bytes", ALWAYS_STREAMS),
    ("pegboard.runner_eligible_threshold", NO_LEGACY_RUNNERS),
    ("pegboard.runner_event_demuxer_gc_interval_ms", NO_LEGACY_RUNNERS),
    ("pegboard.runner_event_demuxer_max_last_seen_ms", NO_LEGACY_RUNNERS),
    ("pegboard.runner_lost_threshold", NO_LEGACY_RUNNERS),
    ("pegboard.runner_max_response_payload_body_size", NO_LEGACY_RUNNERS),
    ("pegboard.runner_ping_timeout_ms", NO_LEGACY_RUNNERS),
    ("pegboard.runner_update_ping_interval_ms", NO_LEGACY_RUNNERS),
    ("postgres.nats.disable_memory_optimization", "messages inside one node never pass through NATS"),
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
    ("sqlite.actor_read_bytes_per_second", "actors are not throttled"),
    ("sqlite.actor_write_bytes_per_second", "actors are not throttled"),
    ("sqlite.compaction_admission_percent", NO_HISTORY),
    ("sqlite.compaction_hot_fold_direct_to_shard", NO_HISTORY),
    ("sqlite.compaction_install_admit_soft_util", NO_HISTORY),
    ("sqlite.compaction_install_throttle_budget_multiplier", NO_HISTORY),
    ("sqlite.compaction_max_hot_drain_span_txids", NO_HISTORY),
    ("sqlite.compaction_read_bytes_per_second", NO_HISTORY),
    ("sqlite.compaction_reclaim_admit_soft_util", NO_HISTORY),
    ("sqlite.compaction_reclaim_throttle_budget_multiplier", NO_HISTORY),
    ("sqlite.compaction_stage_admit_soft_util", NO_HISTORY),
    ("sqlite.compaction_stage_throttle_backoff_ms", NO_HISTORY),
    ("sqlite.compaction_stage_throttle_budget_multiplier", NO_HISTORY),
    ("sqlite.compaction_write_bytes_per_second", NO_HISTORY),
    ("sqlite.manager_idle_poll_interval_ms", NO_HISTORY),
    ("sqlite.manager_reclaim_interval_ms", NO_HISTORY),
    ("sqlite.pitr", NO_HISTORY),
    ("sqlite.unstable_disable_commit_size_cap", "the limit on a commit protects every actor of a node"),
    ("sqlite.unstable_disable_compaction", NO_HISTORY),
    ("telemetry", NO_HOSTED_SERVICE),
];

/// Which of [`KEYS`] were set in `tree`.
pub(super) fn found_in(tree: &Node) -> Vec<Ineffective> {
    let mut found = Vec::new();
    for &(key, reason) in KEYS {
        if let Some(node) = tree.find(key) {
            found.push(Ineffective { key, origin: node.origin.clone(), reason });
        }
    }
    found
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
