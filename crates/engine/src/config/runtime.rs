//! `runtime`: shutting down and the data's version (`spec/engine-api.md` 13.3, 17).

use std::collections::BTreeMap;

use protocol::limits;
use serde::{Deserialize, Serialize};

use super::values::{Millis, Secs};

/// How the process ends, and what data it may start on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Runtime {
    /// How long requests may go on after a signal to stop.
    pub guard_shutdown_duration: Secs,
    /// When the process ends whatever still runs; below neither `guard_shutdown_duration` nor `worker_shutdown_duration`.
    pub force_shutdown_duration: Secs,
    /// Starts even on data that a newer version has written.
    pub allow_version_rollback: bool,

    // Accepted without effect, see `ineffective`.
    // The first is compared with `force_shutdown_duration`, as the reference does.
    pub(super) worker_shutdown_duration: Secs,
    worker_cpu_max: Option<u64>,
    worker_load_shedding_curve: Vec<(u64, u64)>,
    worker_load_shedding_beta: f64,
    worker_poll_interval_ms: Option<Millis>,
    worker_max_wake_keys_per_workflow_name_per_pull: BTreeMap<String, u64>,
    worker_max_deduped_workflows_per_pull: Option<u64>,
    worker_max_workflows_per_pull: Option<u64>,
    worker_max_wake_condition_clears_per_pull: Option<u64>,
    worker_max_concurrent_workflows: BTreeMap<String, u64>,
    gasoline_prune_eligibility_duration: Secs,
    gasoline_prune_interval_duration: Secs,
    gasoline_loop_history_iteration_retention_count: Option<u64>,
    udb_throttle_bytes_per_second: BTreeMap<String, u64>,
}

impl Default for Runtime {
    fn default() -> Self {
        Self {
            guard_shutdown_duration: Secs::of(limits::SHUTDOWN_GRACE),
            force_shutdown_duration: Secs::of(limits::SHUTDOWN_FORCED_AFTER),
            allow_version_rollback: false,
            worker_shutdown_duration: Secs::new(30),
            worker_cpu_max: None,
            worker_load_shedding_curve: vec![(700, 1_000), (900, 50)],
            worker_load_shedding_beta: 0.95,
            worker_poll_interval_ms: None,
            worker_max_wake_keys_per_workflow_name_per_pull: BTreeMap::new(),
            worker_max_deduped_workflows_per_pull: None,
            worker_max_workflows_per_pull: None,
            worker_max_wake_condition_clears_per_pull: None,
            worker_max_concurrent_workflows: BTreeMap::new(),
            gasoline_prune_eligibility_duration: Secs::new(604_800),
            gasoline_prune_interval_duration: Secs::new(43_200),
            gasoline_loop_history_iteration_retention_count: None,
            udb_throttle_bytes_per_second: BTreeMap::new(),
        }
    }
}
