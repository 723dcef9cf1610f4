//! The configuration of the simulated engine: the real rules with short times, so that a minute is long.

use engine::config::{Config, Sources, load};
use serde_json::{Value, json};

pub(super) const LOST_THRESHOLD_MS: u64 = 2_500;
pub(super) const STOP_THRESHOLD_MS: u64 = 4_000;
pub(super) const START_THRESHOLD_MS: u64 = 3_000;

/// Pool whose hosts connect by themselves and are emptied at once.
pub(super) const NORMAL: &str = "normal";
/// The same, emptied at a pace.
pub(super) const PACED: &str = "paced";
/// Pool whose hosts are asked for.
pub(super) const SERVERLESS: &str = "serverless";
/// All of them.
pub(super) const POOLS: [&str; 3] = [NORMAL, PACED, SERVERLESS];

/// Time between two moves that the pool with a pace asks for, in milliseconds.
pub(super) const PACE_GAP_MS: u64 = 500;

/// Actors that the serverless pool may run at once.
pub(super) const MAX_CONCURRENT_ACTORS: usize = 3;
/// How long a start request may last.
pub(super) const REQUEST_LIFESPAN_MS: u64 = 15_000;

/// The engine's configuration.
pub(super) fn engine_config() -> Config {
    let settings = json!({
        "file_system": { "path": "unused" },
        "pegboard": {
            "actor_start_threshold": START_THRESHOLD_MS,
            "actor_stop_threshold": STOP_THRESHOLD_MS,
            "envoy_lost_threshold": LOST_THRESHOLD_MS,
            "envoy_ping_timeout": 2_500,
            "envoy_eligible_threshold": 1_500,
            "envoy_update_ping_interval": 1_000,
            "base_retry_timeout": 200,
            "reschedule_backoff_max_exponent": 4,
            "retry_reset_duration": 10_000,
            "actor_retry_duration_threshold": 8_000,
        },
    });
    let files = vec![("simulation.json".into(), settings.to_string())];
    let loaded = load(&Sources { files, ..Sources::default() });
    loaded.expect("the simulator's own configuration is valid").config
}

/// The configuration of a pool, in the form of the management API.
pub(super) fn pool_config(pool: &str) -> Value {
    match pool {
        SERVERLESS => json!({ "serverless": {
            "url": "http://127.0.0.1:1/",
            "request_lifespan": REQUEST_LIFESPAN_MS / 1000,
            "drain_grace_period": 2,
            "max_concurrent_actors": MAX_CONCURRENT_ACTORS,
        }}),
        PACED => {
            json!({ "normal": { "actor_eviction_delay": 1, "actor_eviction_period": 60, "actor_eviction_rate": 1000.0 / PACE_GAP_MS as f64 } })
        }
        _ => json!({ "normal": {} }),
    }
}
