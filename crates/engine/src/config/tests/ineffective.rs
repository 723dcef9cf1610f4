//! Which keys have an effect.

use super::{
    super::ineffective::{NO_SUCH_MECHANISM, NOT_YET},
    *,
};

/// Keys and sections that other code reads, or that make the engine refuse to start as long as it cannot act on them.
const EFFECTIVE: &[&str] = &[
    "api_peer.host",
    "api_peer.port",
    "auth.admin_token",
    "file_system.path",
    "guard.actor_max_in_flight",
    "guard.actor_rate_limit",
    "guard.actor_ready_timeout_ms",
    "guard.admission_client_state_cache_capacity",
    "guard.admission_client_state_cache_idle_timeout_ms",
    "guard.enable_websocket_health_route",
    "guard.enforce_documented_limits",
    "guard.exempt_loopback",
    "guard.host",
    "guard.http_max_request_body_size",
    "guard.https",
    "guard.max_in_flight",
    "guard.port",
    "guard.rate_limit",
    "guard.route_pegboard_resolve_query_timeout_ms",
    "guard.tcp_nodelay",
    "guard.trusted_proxies",
    "guard.websocket_max_message_size",
    "guard.websocket_send_timeout_ms",
    "metrics.host",
    "metrics.port",
    "metrics.token",
    "nats",
    "outbound",
    "pegboard.actor_create_rate_limit_drip_rate_ms",
    "pegboard.actor_create_rate_limit_requests",
    "pegboard.actor_retry_duration_threshold",
    "pegboard.actor_start_threshold",
    "pegboard.actor_stop_threshold",
    "pegboard.base_retry_timeout",
    "pegboard.default_metadata_poll_interval",
    "pegboard.envoy_eligible_threshold",
    "pegboard.envoy_lost_threshold",
    "pegboard.envoy_max_response_payload_size",
    "pegboard.envoy_ping_timeout",
    "pegboard.envoy_update_ping_interval",
    "pegboard.envoy_websocket_rate_limit_drip_rate_us",
    "pegboard.envoy_websocket_rate_limit_requests",
    "pegboard.gateway_http_max_request_body_size",
    "pegboard.gateway_hws_max_pending_size",
    "pegboard.gateway_hws_message_ack_timeout_ms",
    "pegboard.gateway_response_chunk_idle_timeout_ms",
    "pegboard.gateway_response_start_timeout_ms",
    "pegboard.gateway_tunnel_ping_timeout_ms",
    "pegboard.gateway_waiting_for_actors_max_size",
    "pegboard.gateway_waiting_for_clients_max_size",
    "pegboard.gateway_websocket_open_timeout_ms",
    "pegboard.gateway_websocket_rate_limit_drip_rate_ms",
    "pegboard.gateway_websocket_rate_limit_requests",
    "pegboard.hibernating_request_eligible_threshold",
    "pegboard.preload_max_total_bytes",
    "pegboard.min_metadata_poll_interval",
    "pegboard.reschedule_backoff_max_exponent",
    "pegboard.retry_reset_duration",
    "pegboard.runner_pool_consecutive_successes_to_clear_error",
    "pegboard.serverless_drain_grace_period",
    "postgres",
    "runtime.force_shutdown_duration",
    "runtime.guard_shutdown_duration",
    "sqlite.max_storage_bytes",
    "sqlite.pitr.retention_ms",
    "sqlite.remote_disk_max_size",
    "sqlite.remote_idle_timeout_ms",
    "sqlite.remote_max_sessions",
    "sqlite.remote_memory_max_size",
    "sqlite.remote_statement_timeout_ms",
    "sqlite.remote_threads",
    "sqlite.remote_transaction_idle_timeout_ms",
    "storage.durability",
    "topology.datacenter_label",
    "topology.datacenters.*.datacenter_label",
    "topology.datacenters.*.public_url",
    "topology.datacenters.*.valid_hosts",
];

/// The path of every value in a shown configuration.
fn leaves(value: &Value, path: &str, found: &mut Vec<String>) {
    match value.as_object().filter(|object| !object.is_empty()) {
        Some(object) => {
            for (key, inner) in object {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                leaves(inner, &path, found);
            }
        }
        None => found.push(path.to_owned()),
    }
}

/// Whether `entry` names the key at `path`, or a section around it.
fn covers(entry: &str, path: &str) -> bool {
    let mut keys = path.split('.');
    entry.split('.').all(|expected| keys.next().is_some_and(|key| expected == "*" || expected == key))
}

/// A new key must be entered here or there, and nothing may be listed that does not exist.
#[test]
fn every_key_either_has_an_effect_or_is_listed_with_a_reason() {
    let mut keys = Vec::new();
    leaves(&shown(&Config::default()), "", &mut keys);
    let mut entries = EFFECTIVE.to_vec();
    for table in [NOT_YET, NO_SUCH_MECHANISM] {
        assert!(table.is_sorted_by_key(|(key, _)| key));
        entries.extend(table.iter().map(|(key, _)| key));
    }
    for entry in &entries {
        assert!(keys.iter().any(|key| covers(entry, key)), "{entry} does not exist");
    }
    for key in &keys {
        let covering: Vec<&str> = entries.iter().copied().filter(|entry| covers(entry, key)).collect();
        assert_eq!(covering.len(), 1, "{key} must be listed exactly once: {covering:?}");
    }
}

/// Key, origin and class of the keys without effect that `sources` set.
fn found(sources: &Sources) -> Vec<(&'static str, String, IneffectiveClass)> {
    let found = load(sources).unwrap().ineffective;
    found.into_iter().map(|found| (found.key, found.origin.to_string(), found.class)).collect()
}

#[test]
fn what_an_sdk_launcher_sets_is_not_worth_a_warning() {
    let variable = |name: &str| format!("environment variable RIVET__{name}");
    let unused = |key, name| (key, variable(name), IneffectiveClass::NoSuchMechanism);
    assert_eq!(
        found(&environment(LAUNCHER)),
        [
            unused("features", "FEATURES__GUARD_GATEWAY_V3__MODE"),
            unused("pegboard.runner_eligible_threshold", "PEGBOARD__RUNNER_ELIGIBLE_THRESHOLD"),
            unused("pegboard.runner_lost_threshold", "PEGBOARD__RUNNER_LOST_THRESHOLD"),
            unused("runtime.worker_shutdown_duration", "RUNTIME__WORKER_SHUTDOWN_DURATION"),
        ]
    );
}

#[test]
fn a_key_that_waits_for_its_feature_is_told_from_one_that_is_not_needed() {
    let datacenter = "datacenter_label: 1, is_leader: true, public_url: 'http://a', peer_url: 'http://a', valid_hosts: [a]";
    let in_file = "config file c.yaml";
    let topology_keys = [
        ("topology.datacenters.*.is_leader", in_file.to_owned(), IneffectiveClass::NoSuchMechanism),
        ("topology.datacenters.*.peer_url", in_file.to_owned(), IneffectiveClass::NoSuchMechanism),
    ];
    for datacenters in [format!("{{a: {{{datacenter}}}}}"), format!("[{{name: a, {datacenter}}}]")] {
        let text = format!("topology: {{datacenter_label: 1, datacenters: {datacenters}}}");
        assert_eq!(found(&files(&[("c.yaml", &text)])), topology_keys);
    }

    let mut sources = files(&[(
        "c.yaml",
        "guard: {trace_propagation: true, port: 1}\nruntime: {allow_version_rollback: true}\noutbound: {strict: true}\nlogs:\n",
    )]);
    sources.environment = vec![("RIVET__GUARD__ROUTE_TIMEOUT_MS".to_owned(), "1".to_owned())];
    let variable = "environment variable RIVET__GUARD__ROUTE_TIMEOUT_MS";
    assert_eq!(
        found(&sources),
        [
            ("guard.route_timeout_ms", variable.to_owned(), IneffectiveClass::NoSuchMechanism),
            ("guard.trace_propagation", in_file.to_owned(), IneffectiveClass::NotYet),
            ("runtime.allow_version_rollback", in_file.to_owned(), IneffectiveClass::NotYet),
        ]
    );
}
