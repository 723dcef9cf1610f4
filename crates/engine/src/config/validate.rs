//! Ranges, and keys that must agree with each other (`spec/engine-api.md` 13.3).

use std::ops::RangeInclusive;

use super::{
    Config, EnvoyLoadBalancer, Guard, Nats, Pegboard, Sqlite, Topology,
    error::{ConfigError, Origin},
    tree::Node,
};

/// More open databases than this would not fit into the memory of any machine.
const REMOTE_SESSIONS_MAX: u64 = 1_000_000;
/// The threads that execute SQL are part of 512 for everything that takes long; the rest stays free for other work.
const REMOTE_THREADS_MAX: u64 = 400;
/// With less than this SQLite could hardly do anything.
const REMOTE_MEMORY_MIN_BYTES: u64 = 16 * 1024 * 1024;

/// A key and what is wrong with its value.
pub(super) struct Violation {
    key: String,
    reason: String,
}

impl Violation {
    /// As an error that says where the value was written: at the key itself, or else where the section was.
    pub(super) fn written_in(self, tree: &Node) -> ConfigError {
        let mut path = self.key.as_str();
        let mut node = tree.find(path);
        while node.is_none()
            && let Some((parent, _)) = path.rsplit_once('.')
        {
            path = parent;
            node = tree.find(path);
        }
        let origin = node.map_or(Origin::BuiltIn, |node| node.origin.clone());
        ConfigError::InvalidValue { origin, key: self.key, reason: self.reason }
    }
}

fn require(holds: bool, key: impl Into<String>, reason: impl Into<String>) -> Result<(), Violation> {
    if holds { Ok(()) } else { Err(Violation { key: key.into(), reason: reason.into() }) }
}

fn require_range(value: u64, range: RangeInclusive<u64>, key: &str) -> Result<(), Violation> {
    if range.contains(&value) {
        return Ok(());
    }
    let (least, most) = range.into_inner();
    let reason = if most == u64::MAX { format!("must be at least {least}") } else { format!("must be from {least} to {most}") };
    Err(Violation { key: key.to_owned(), reason })
}

/// The first value that is out of range or contradicts another.
pub(super) fn check(config: &Config) -> Result<(), Violation> {
    for (key, token) in [("auth.admin_token", &config.auth.admin_token), ("metrics.token", &config.metrics.token)] {
        let empty = token.as_ref().is_some_and(|token| token.expose().is_empty());
        require(!empty, key, "must not be empty; leave it out if no token is wanted")?;
    }
    check_guard(&config.guard)?;
    check_pegboard(&config.pegboard)?;
    check_shutdown(config)?;
    check_topology(&config.topology)?;
    check_drivers(config)?;
    check_sqlite(&config.sqlite)
}

fn check_sqlite(sqlite: &Sqlite) -> Result<(), Violation> {
    let ranges = [
        ("max_storage_bytes", sqlite.max_storage_bytes, 1..=u64::MAX),
        ("remote_max_sessions", sqlite.remote_max_sessions, 1..=REMOTE_SESSIONS_MAX),
        ("remote_threads", sqlite.remote_threads, 1..=REMOTE_THREADS_MAX),
        ("remote_memory_max_size", sqlite.remote_memory_max_size, REMOTE_MEMORY_MIN_BYTES..=u64::MAX),
        ("remote_disk_max_size", sqlite.remote_disk_max_size, REMOTE_MEMORY_MIN_BYTES..=u64::MAX),
        ("remote_statement_timeout_ms", sqlite.remote_statement_timeout_ms.count(), 1..=u64::MAX),
        ("remote_idle_timeout_ms", sqlite.remote_idle_timeout_ms.count(), 1..=u64::MAX),
        ("remote_transaction_idle_timeout_ms", sqlite.remote_transaction_idle_timeout_ms.count(), 1..=u64::MAX),
    ];
    for (key, value, range) in ranges {
        require_range(value, range, &format!("sqlite.{key}"))?;
    }
    Ok(())
}

fn check_guard(guard: &Guard) -> Result<(), Violation> {
    let mut at_least_one = vec![
        ("guard.actor_rate_limit.requests", guard.actor_rate_limit.requests),
        ("guard.actor_rate_limit.period_ms", guard.actor_rate_limit.period_ms.count()),
        ("guard.actor_max_in_flight", guard.actor_max_in_flight),
        ("guard.admission_client_state_cache_capacity", guard.admission_client_state_cache_capacity),
    ];
    if let Some(limit) = guard.rate_limit {
        at_least_one.push(("guard.rate_limit.requests", limit.requests));
        at_least_one.push(("guard.rate_limit.period_ms", limit.period_ms.count()));
    }
    if let Some(limit) = guard.max_in_flight {
        at_least_one.push(("guard.max_in_flight", limit));
    }
    for (key, value) in at_least_one {
        require_range(value, 1..=u64::MAX, key)?;
    }
    Ok(())
}

fn check_pegboard(pegboard: &Pegboard) -> Result<(), Violation> {
    // What is done "every so often" would never end with a pause of zero; a bucket of size zero lets nothing through.
    let at_least_one = [
        ("default_metadata_poll_interval", pegboard.default_metadata_poll_interval.count()),
        ("min_metadata_poll_interval", pegboard.min_metadata_poll_interval.count()),
        ("gateway_update_ping_interval_ms", pegboard.gateway_update_ping_interval_ms.count()),
        ("gateway_tunnel_ping_timeout_ms", pegboard.gateway_tunnel_ping_timeout_ms.count()),
        ("gateway_websocket_rate_limit_drip_rate_ms", pegboard.gateway_websocket_rate_limit_drip_rate_ms.count()),
        ("envoy_update_ping_interval", pegboard.envoy_update_ping_interval.count()),
        ("envoy_websocket_rate_limit_drip_rate_us", pegboard.envoy_websocket_rate_limit_drip_rate_us.count()),
        ("actor_create_rate_limit_drip_rate_ms", pegboard.actor_create_rate_limit_drip_rate_ms.count()),
        ("gateway_websocket_rate_limit_requests", pegboard.gateway_websocket_rate_limit_requests.map_or(1, u64::from)),
        ("envoy_websocket_rate_limit_requests", pegboard.envoy_websocket_rate_limit_requests.map_or(1, u64::from)),
        ("actor_create_rate_limit_requests", pegboard.actor_create_rate_limit_requests),
    ];
    for (key, value) in at_least_one {
        require_range(value, 1..=u64::MAX, &format!("pegboard.{key}"))?;
    }
    let exponents = [
        ("reschedule_backoff_max_exponent", pegboard.reschedule_backoff_max_exponent),
        ("serverless_backoff_max_exponent", pegboard.serverless_backoff_max_exponent),
    ];
    for (key, value) in exponents {
        require_range(value.into(), 0..=30, &format!("pegboard.{key}"))?;
    }
    if let EnvoyLoadBalancer::Hash(hash) = pegboard.envoy_load_balancer {
        let ranges = [
            ("virtual_nodes", hash.virtual_nodes, 1..=64),
            ("samples", hash.samples, 1..=8),
            ("max_scan", hash.max_scan, 1..=256),
            ("slot_jitter", hash.slot_jitter, 0..=64),
        ];
        for (key, value, range) in ranges {
            require_range(value.into(), range, &format!("pegboard.envoy_load_balancer.hash.{key}"))?;
        }
    }
    Ok(())
}

fn check_shutdown(config: &Config) -> Result<(), Violation> {
    let force = config.runtime.force_shutdown_duration;
    let worker = config.runtime.worker_shutdown_duration;
    let guard = config.runtime.guard_shutdown_duration;
    let reason = format!(
        "force_shutdown_duration ({}s) must be greater than or equal to both worker_shutdown_duration ({}s) and \
         guard_shutdown_duration ({}s)",
        force.count(),
        worker.count(),
        guard.count()
    );
    require(force >= worker && force >= guard, "runtime.force_shutdown_duration", reason)
}

fn check_topology(topology: &Topology) -> Result<(), Violation> {
    let datacenters = &topology.datacenters;
    let mut labels = Vec::new();
    for (name, datacenter) in datacenters {
        let key = format!("topology.datacenters.{name}");
        require(!name.is_empty(), "topology.datacenters", "a datacenter must have a name")?;
        let several_without_hosts = datacenters.len() > 1 && datacenter.valid_hosts.as_ref().is_none_or(Vec::is_empty);
        require(
            !several_without_hosts,
            format!("{key}.valid_hosts"),
            format!("datacenter '{name}' must have valid_hosts configured when there is more than one datacenter"),
        )?;
        let label = datacenter.datacenter_label;
        require(!labels.contains(&label), format!("{key}.datacenter_label"), format!("label {label} is used twice"))?;
        labels.push(label);
    }
    let leaders = datacenters.values().filter(|datacenter| datacenter.is_leader).count();
    require(leaders == 1, "topology.datacenters", format!("exactly one must have is_leader, found {leaders}"))?;
    let own = topology.datacenter_label;
    require(topology.own().is_some(), "topology.datacenter_label", format!("no datacenter has the label {own}"))
}

fn check_drivers(config: &Config) -> Result<(), Violation> {
    if let Some(nats) = &config.nats {
        check_nats(nats, "nats.addresses")?;
    }
    let Some(postgres) = &config.postgres else { return Ok(()) };
    require(!postgres.url.expose().is_empty(), "postgres.url", "must not be empty")?;
    if let Some(ssl) = &postgres.ssl {
        let both_or_none = ssl.client_cert_path.is_some() == ssl.client_key_path.is_some();
        require(both_or_none, "postgres.ssl", "client_cert_path and client_key_path are needed together")?;
    }
    match &postgres.nats {
        Some(nats) => check_nats(nats, "postgres.nats.addresses"),
        None => Ok(()),
    }
}

fn check_nats(nats: &Nats, key: &str) -> Result<(), Violation> {
    let empty = nats.addresses.is_empty() || nats.addresses.iter().any(String::is_empty);
    require(!empty, key, "needs at least one server, and no empty one")
}
