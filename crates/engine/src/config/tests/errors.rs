//! Every kind of error: its code, and a message that says where, what, and what instead.

use super::*;

/// Loads `text` as the YAML file `c.yaml` and expects `code` and `message`.
#[track_caller]
fn yaml_fails(text: &str, code: &str, message: &str) {
    fails(&files(&[("c.yaml", text)]), code, message);
}

#[track_caller]
fn variable_fails(name: &str, value: &str, code: &str, message: &str) {
    fails(&environment(&[(name, value)]), code, message);
}

#[track_caller]
fn fails(sources: &Sources, code: &str, message: &str) {
    let error = load(sources).unwrap_err();
    assert_eq!((error.code(), error.to_string().as_str()), (code, message));
}

#[test]
fn unknown_keys() {
    yaml_fails(
        "guard: {prot: 1}",
        "config.unknown_key",
        "config file c.yaml: unknown key `guard.prot`, did you mean `guard.port`?",
    );
    variable_fails(
        "RIVET__Pegboard__Envoy_Lost_Treshold",
        "1",
        "config.unknown_key",
        "environment variable RIVET__Pegboard__Envoy_Lost_Treshold: unknown key `pegboard.envoy_lost_treshold`, \
         did you mean `pegboard.envoy_lost_threshold`?",
    );
    yaml_fails(
        "api_peer: {zzzzzz: 1}",
        "config.unknown_key",
        "config file c.yaml: unknown key `api_peer.zzzzzz`, expected one of host, port",
    );
    let top = load(&environment(&[("RIVET__BOGUS", "1")])).unwrap_err().to_string();
    assert!(top.starts_with("environment variable RIVET__BOGUS: unknown key `bogus`, expected one of auth, "), "{top}");
}

#[test]
fn wrong_types() {
    yaml_fails(
        "guard: {port: high}",
        "config.wrong_type",
        "config file c.yaml: `guard.port` must be a whole number from 0 to 65535, found text",
    );
    yaml_fails(
        "guard: {port: 1.5}",
        "config.wrong_type",
        "config file c.yaml: `guard.port` must be a whole number from 0 to 65535, found a decimal number",
    );
    yaml_fails("guard: 5", "config.wrong_type", "config file c.yaml: `guard` must be an object, found a number");
    yaml_fails(
        "auth: {admin_token: 5}",
        "config.wrong_type",
        "config file c.yaml: `auth.admin_token` must be text, found a number",
    );
    yaml_fails(
        "outbound: {allow_hosts: [a, {}]}",
        "config.wrong_type",
        "config file c.yaml: `outbound.allow_hosts.1` must be text, found an object",
    );
    yaml_fails(
        "features: {guard_gateway_v3: {mode: 1}}",
        "config.wrong_type",
        "config file c.yaml: `features.guard_gateway_v3.mode` must be one of off, opportunistic, on, found a number",
    );
    variable_fails(
        "RIVET__GUARD__TCP_NODELAY",
        "yes",
        "config.wrong_type",
        "environment variable RIVET__GUARD__TCP_NODELAY: `guard.tcp_nodelay` must be true or false, found text",
    );
    fails(
        &environment(&[("RIVET__GUARD__PORT", "1"), ("RIVET__GUARD", "1")]),
        "config.wrong_type",
        "environment variable RIVET__GUARD: `guard` must be an object, found text",
    );
}

#[test]
fn missing_keys() {
    yaml_fails("postgres: {}", "config.missing_key", "config file c.yaml: `postgres.url` is missing");
    variable_fails(
        "RIVET__TOPOLOGY__DATACENTER_LABEL",
        "2",
        "config.missing_key",
        "environment variable RIVET__TOPOLOGY__DATACENTER_LABEL: `topology.datacenters` is missing",
    );
}

#[test]
fn malformed_files() {
    yaml_fails("[1]", "config.parse", "config file c.yaml: must hold an object, found a list");
    let twice = r#"{"guard": {"port": 1, "port": 2}}"#;
    for (path, text) in [("c.json", twice), ("c.json5", twice), ("c.yaml", twice), ("c.json", "{a: 1}")] {
        let error = load(&files(&[(path, text)])).unwrap_err();
        assert_eq!(error.code(), "config.parse", "{path} {text}: {error}");
        assert!(text != twice || error.to_string().contains("`port` is given twice at line 1"), "{error}");
    }
    let secret = load(&files(&[("c.yaml", "auth:\n  admin_token: hidden\n bad")])).unwrap_err();
    assert_eq!(secret.code(), "config.parse");
    assert!(!secret.to_string().contains("hidden"), "{secret}");
    fails(
        &files(&[("c.toml", "")]),
        "config.unsupported_format",
        "config file c.toml: Unsupported file format, expected .json, .json5, .jsonc, .yaml or .yml",
    );
}

/// Key, YAML that sets it wrongly, and the reason given.
const OUT_OF_RANGE: &[(&str, &str, &str)] = &[
    ("auth.admin_token", "auth: {admin_token: ''}", "must not be empty; leave it out if no token is wanted"),
    ("guard.host", "guard: {host: localhost}", "invalid IP address syntax"),
    ("guard.port", "guard: {port: 70000}", "must be a whole number from 0 to 65535"),
    ("guard.max_in_flight", "guard: {max_in_flight: 0}", "must be at least 1"),
    ("guard.rate_limit.period_ms", "guard: {rate_limit: {requests: 1, period_ms: 0}}", "must be at least 1"),
    (
        "guard.trusted_proxies.0",
        "guard: {trusted_proxies: [proxy]}",
        "`proxy` is neither a network like 10.0.0.0/8 nor an IP address",
    ),
    (
        "guard.actor_ready_timeout_ms",
        "guard: {actor_ready_timeout_ms: 18446744073709551615}",
        "must be at most 3153600000000 (100 years)",
    ),
    ("pegboard.envoy_update_ping_interval", "pegboard: {envoy_update_ping_interval: 0}", "must be at least 1"),
    ("pegboard.reschedule_backoff_max_exponent", "pegboard: {reschedule_backoff_max_exponent: 31}", "must be from 0 to 30"),
    ("pegboard.envoy_load_balancer.hash.samples", "pegboard: {envoy_load_balancer: {hash: {samples: 9}}}", "must be from 1 to 8"),
    (
        "pegboard.envoy_load_balancer",
        "pegboard: {envoy_load_balancer: {hash: {}, random_full_range: {}}}",
        "must have exactly one key",
    ),
    ("storage.durability", "storage: {durability: never}", "must be one of fsync, os"),
    (
        "runtime.force_shutdown_duration",
        "runtime: {guard_shutdown_duration: 700}",
        "force_shutdown_duration (600s) must be greater than or equal to both worker_shutdown_duration (30s) and \
         guard_shutdown_duration (700s)",
    ),
    (
        "runtime.worker_load_shedding_curve.0",
        "runtime: {worker_load_shedding_curve: [[1, 2, 3]]}",
        "has 3 items, which is too many",
    ),
    ("sqlite.max_storage_bytes", "sqlite: {max_storage_bytes: 0}", "must be at least 1"),
    ("postgres.ssl", "postgres: {url: x, ssl: {client_key_path: k}}", "client_cert_path and client_key_path are needed together"),
    ("nats.addresses", "nats: {addresses: []}", "needs at least one server, and no empty one"),
];

#[test]
fn invalid_values() {
    for (key, text, reason) in OUT_OF_RANGE {
        yaml_fails(text, "config.invalid_value", &format!("config file c.yaml: `{key}`: {reason}"));
    }
    variable_fails(
        "RIVET__GUARD__PORT",
        "70000",
        "config.invalid_value",
        "environment variable RIVET__GUARD__PORT: `guard.port`: must be a whole number from 0 to 65535",
    );
}

/// A topology of one datacenter `a` with label 1, and what a test adds.
fn topology(own_label: u16, datacenters: &str) -> String {
    let urls = "public_url: 'http://a', peer_url: 'http://a'";
    format!("topology: {{datacenter_label: {own_label}, datacenters: {}}}", datacenters.replace("URLS", urls))
}

#[test]
fn contradictory_topologies() {
    let cases = [
        (
            topology(1, "{a: {name: a, datacenter_label: 1, is_leader: true, URLS}}"),
            "topology.datacenters",
            "datacenter 'a' cannot have the `name` property set because it is automatically derived from key",
        ),
        (
            topology(1, "[{datacenter_label: 1, is_leader: true, URLS}]"),
            "topology.datacenters",
            "datacenter at index 0 must have a name",
        ),
        (
            topology(1, "{a: {datacenter_label: 1, is_leader: false, URLS}}"),
            "topology.datacenters",
            "exactly one must have is_leader, found 0",
        ),
        (
            topology(2, "{a: {datacenter_label: 1, is_leader: true, URLS}}"),
            "topology.datacenter_label",
            "no datacenter has the label 2",
        ),
        (
            topology(1, "{a: {datacenter_label: 1, is_leader: true, URLS}, b: {datacenter_label: 2, is_leader: false, URLS}}"),
            "topology.datacenters.a.valid_hosts",
            "datacenter 'a' must have valid_hosts configured when there is more than one datacenter",
        ),
        (
            topology(1, "{a: {datacenter_label: 1, is_leader: true, public_url: 'ftp://a', peer_url: 'http://a'}}"),
            "topology.datacenters.a.public_url",
            "a URL with http or https is needed, not ftp",
        ),
    ];
    for (text, key, reason) in cases {
        yaml_fails(&text, "config.invalid_value", &format!("config file c.yaml: `{key}`: {reason}"));
    }
}
