//! Tests of the whole path from sources to configuration, and of the command line.

mod cli;
mod errors;
mod ineffective;
mod shell;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Value, json};

use super::*;

fn files(files: &[(&str, &str)]) -> Sources {
    Sources { files: files.iter().map(|(path, text)| (path.into(), (*text).to_owned())).collect(), ..Sources::default() }
}

fn environment(variables: &[(&str, &str)]) -> Sources {
    let environment = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Sources { environment, ..Sources::default() }
}

fn config(sources: &Sources) -> Config {
    load(sources).unwrap().config
}

fn shown(config: &Config) -> Value {
    serde_json::from_str(&config.show().unwrap()).unwrap()
}

/// The value at a dotted path of the shown configuration.
fn at<'a>(shown: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(shown, |value, key| &value[key])
}

#[test]
fn no_source_gives_the_defaults_of_the_specification() {
    let loaded = load(&Sources::default()).unwrap();
    assert_eq!(loaded.config, Config::default());
    assert_eq!(loaded.ineffective, []);
    assert!(loaded.topology_is_derived);

    let shown = shown(&loaded.config);
    let expected = [
        ("auth.admin_token", json!(null)),
        ("guard.host", json!("127.0.0.1")),
        ("guard.port", json!(6420)),
        ("guard.tcp_nodelay", json!(true)),
        ("guard.actor_ready_timeout_ms", json!(30_000)),
        ("guard.rate_limit", json!(null)),
        ("guard.max_in_flight", json!(null)),
        ("guard.enforce_documented_limits", json!(true)),
        ("guard.actor_rate_limit", json!({"requests": 1_200, "period_ms": 60_000})),
        ("guard.actor_max_in_flight", json!(32)),
        ("guard.exempt_loopback", json!(true)),
        ("guard.http_max_request_body_size", json!(20_971_520)),
        ("guard.websocket_max_message_size", json!(33_554_432)),
        ("api_peer", json!({"host": "127.0.0.1", "port": 6421})),
        ("metrics", json!({"host": "127.0.0.1", "port": 6430, "token": null})),
        ("pegboard.base_retry_timeout", json!(2_000)),
        ("pegboard.reschedule_backoff_max_exponent", json!(8)),
        ("pegboard.actor_start_threshold", json!(30_000)),
        ("pegboard.actor_stop_threshold", json!(30_000)),
        ("pegboard.gateway_response_start_timeout_ms", json!(300_000)),
        ("pegboard.gateway_response_chunk_idle_timeout_ms", json!(30_000)),
        ("pegboard.gateway_hws_max_pending_size", json!(134_217_728)),
        ("pegboard.envoy_lost_threshold", json!(15_000)),
        ("pegboard.envoy_load_balancer.hash.virtual_nodes", json!(8)),
        ("pegboard.envoy_websocket_rate_limit_drip_rate_us", json!(200)),
        ("pegboard.preload_max_total_bytes", json!(1_048_576)),
        ("runtime.worker_shutdown_duration", json!(30)),
        ("runtime.force_shutdown_duration", json!(600)),
        ("storage.durability", json!("fsync")),
        ("file_system.path", json!("./data/db")),
        ("sqlite.max_storage_bytes", json!(10_737_418_240_u64)),
        ("sqlite.pitr.retention_ms", json!(0)),
        ("sqlite.remote_max_sessions", json!(1_000)),
        ("sqlite.remote_threads", json!(128)),
        ("sqlite.remote_memory_max_size", json!(1_073_741_824)),
        ("sqlite.remote_statement_timeout_ms", json!(30_000)),
        ("sqlite.remote_disk_max_size", json!(34_359_738_368_u64)),
        ("sqlite.remote_idle_timeout_ms", json!(60_000)),
        ("sqlite.remote_transaction_idle_timeout_ms", json!(120_000)),
        ("outbound.allow_private_networks", json!(true)),
        ("outbound.max_redirects", json!(4)),
        ("telemetry.enabled", json!(false)),
        ("topology.datacenter_label", json!(1)),
        ("topology.datacenters.default.public_url", json!("http://127.0.0.1:6420/")),
        ("topology.datacenters.default.peer_url", json!("http://127.0.0.1:6421/")),
    ];
    for (path, value) in expected {
        assert_eq!(at(&shown, path), &value, "{path}");
    }
    assert_eq!(loaded.config.pegboard.envoy_websocket_rate_limit_drip_rate_us.duration(), Duration::from_micros(200));
    assert_eq!(loaded.config.guard.actor_ready_timeout_ms.duration(), Duration::from_secs(30));
    assert_eq!(loaded.config.runtime.force_shutdown_duration.duration(), Duration::from_secs(600));
}

/// What the published SDK passes to an engine it spawns (`spec/engine-api.md` 15.3).
const LAUNCHER: &[(&str, &str)] = &[
    ("RIVET__GUARD__HOST", "127.0.0.1"),
    ("RIVET__GUARD__PORT", "7000"),
    ("RIVET__API_PEER__HOST", "127.0.0.1"),
    ("RIVET__API_PEER__PORT", "7001"),
    ("RIVET__METRICS__HOST", "127.0.0.1"),
    ("RIVET__METRICS__PORT", "7010"),
    ("RIVET__FILE_SYSTEM__PATH", "/srv/engine/db"),
    ("RIVET__PEGBOARD__RETRY_RESET_DURATION", "100"),
    ("RIVET__PEGBOARD__BASE_RETRY_TIMEOUT", "100"),
    ("RIVET__PEGBOARD__RESCHEDULE_BACKOFF_MAX_EXPONENT", "1"),
    ("RIVET__PEGBOARD__RUNNER_ELIGIBLE_THRESHOLD", "5000"),
    ("RIVET__PEGBOARD__RUNNER_LOST_THRESHOLD", "7000"),
    ("RIVET__PEGBOARD__ENVOY_ELIGIBLE_THRESHOLD", "5000"),
    ("RIVET__PEGBOARD__ENVOY_LOST_THRESHOLD", "7000"),
    ("RIVET__PEGBOARD__MIN_METADATA_POLL_INTERVAL", "1000"),
    ("RIVET__FEATURES__GUARD_GATEWAY_V3__MODE", "on"),
    ("RIVET__FEATURES__GUARD_GATEWAY_V3__PERCENTAGE", "100"),
    ("RIVET__RUNTIME__WORKER_SHUTDOWN_DURATION", "1"),
    ("RIVET__RUNTIME__GUARD_SHUTDOWN_DURATION", "1"),
    ("RIVET__RUNTIME__FORCE_SHUTDOWN_DURATION", "2"),
];

#[test]
fn the_environment_of_an_sdk_launcher_is_applied() {
    let loaded = load(&environment(LAUNCHER)).unwrap();
    let shown = shown(&loaded.config);
    for (name, value) in LAUNCHER {
        let path = name.strip_prefix("RIVET__").unwrap().replace("__", ".").to_lowercase();
        let found = at(&shown, &path);
        let text = found.as_str().map_or_else(|| found.to_string(), str::to_owned);
        assert_eq!(text, *value, "{name}");
    }
    assert_eq!(at(&shown, "topology.datacenters.default.public_url"), "http://127.0.0.1:7000/");
    assert_eq!(at(&shown, "topology.datacenters.default.peer_url"), "http://127.0.0.1:7001/");
}

#[test]
fn every_file_format_says_the_same() {
    let json = r#"{"guard": {"port": 1, "tcp_nodelay": false}, "outbound": {"allow_hosts": ["a", "b"]}}"#;
    let json5 = "// comment\n{guard: {port: 1, tcp_nodelay: false,}, outbound: {allow_hosts: ['a', 'b']}}";
    let yaml = "# comment\nguard:\n  port: 1\n  tcp_nodelay: false\nmetrics:\noutbound:\n  allow_hosts: [a, b]\n";
    let expected = config(&files(&[("c.json", json)]));
    assert_eq!((expected.guard.port, expected.guard.tcp_nodelay), (1, false));
    assert_eq!(expected.outbound.allow_hosts, ["a", "b"]);
    for (path, text) in [("c.json5", json5), ("c.jsonc", json5), ("c.yaml", yaml), ("c.yml", yaml)] {
        assert_eq!(config(&files(&[(path, text)])), expected, "{path}");
    }
    let bare_words = "features: {guard_gateway_v3: {mode: off}}\nauth: {admin_token: no}";
    assert_eq!(config(&files(&[("c.yaml", bare_words)])).auth.admin_token, Some(Secret::new("no")));
    assert_eq!(config(&files(&[("empty.yaml", "# nothing\n")])), Config::default());
}

#[test]
fn later_sources_win_key_by_key() {
    let mut sources = files(&[
        ("a.json", r#"{"guard": {"port": 1, "host": "10.0.0.1"}, "outbound": {"allow_hosts": ["a"]}}"#),
        ("b.yaml", "guard: {port: 2, actor_max_in_flight: 5}\noutbound: {allow_hosts: [b]}\nmetrics:\n"),
    ]);
    sources.environment = vec![("rivet__Guard__PORT".to_owned(), "3".to_owned())];
    let with_environment = config(&sources);
    assert_eq!(with_environment.guard.port, 3);
    assert_eq!(with_environment.guard.actor_max_in_flight, 5);
    assert_eq!(with_environment.guard.host.to_string(), "10.0.0.1");
    assert_eq!(with_environment.outbound.allow_hosts, ["b"]);
    assert_eq!(with_environment.topology.own().unwrap().1.public_url.as_str(), "http://10.0.0.1:3/");

    sources.host = Some("::".parse().unwrap());
    let with_option = config(&sources);
    assert_eq!(with_option.guard.host.to_string(), "::");
    assert_eq!(with_option.topology.own().unwrap().1.public_url.as_str(), "http://127.0.0.1:3/");
}

#[test]
fn text_from_the_environment_takes_the_type_of_its_key() {
    let config = config(&environment(&[
        ("RIVET__AUTH__ADMIN_TOKEN", "123456"),
        ("RIVET__GUARD__TCP_NODELAY", "False"),
        ("RIVET__GUARD__ENABLE_WEBSOCKET_HEALTH_ROUTE", "1"),
        ("RIVET__GUARD__RATE_LIMIT__REQUESTS", "7"),
        ("RIVET__GUARD__RATE_LIMIT__PERIOD_MS", "8"),
        ("RIVET__GUARD__TRUSTED_PROXIES", "10.1.0.0/16, 192.168.1.7"),
        ("RIVET__NATS__ADDRESSES", "a:1,b:2"),
        ("RIVET__OUTBOUND__ALLOW_HOSTS", ""),
        ("RIVET__PEGBOARD__ENVOY_LOAD_BALANCER__HASH__SAMPLES", "3"),
        ("RIVET__STORAGE__DURABILITY", "os"),
        ("RIVET__TOPOLOGY__DATACENTER_LABEL", "2"),
        ("RIVET__TOPOLOGY__DATACENTERS__EU__DATACENTER_LABEL", "2"),
        ("RIVET__TOPOLOGY__DATACENTERS__EU__IS_LEADER", "true"),
        ("RIVET__TOPOLOGY__DATACENTERS__EU__PUBLIC_URL", "https://eu.example.com"),
        ("RIVET__TOPOLOGY__DATACENTERS__EU__PEER_URL", "http://10.0.0.1:6421"),
        ("RIVET_GUARD__PORT", "ignored: one underscore"),
        ("RIVETKIT_STORAGE_PATH", "ignored: not ours"),
    ]));
    assert_eq!(config.auth.admin_token.unwrap().expose(), "123456");
    assert!(!config.guard.tcp_nodelay);
    assert!(config.guard.enable_websocket_health_route);
    assert_eq!(config.guard.rate_limit, Some(RateLimit { requests: 7, period_ms: Millis::new(8) }));
    let trusts = |address: &str| config.guard.trusted_proxies.iter().any(|net| net.contains(address.parse().unwrap()));
    assert!(trusts("10.1.2.3") && trusts("192.168.1.7") && trusts("::ffff:10.1.2.3"));
    assert!(!trusts("192.168.1.8") && !trusts("127.0.0.1"));
    assert_eq!(config.nats.unwrap().addresses, ["a:1", "b:2"]);
    assert_eq!(config.outbound.allow_hosts, [""; 0]);
    let EnvoyLoadBalancer::Hash(hash) = config.pegboard.envoy_load_balancer else { panic!("not hash") };
    assert_eq!((hash.samples, hash.virtual_nodes), (3, 8));
    assert_eq!(config.storage.durability, Durability::Os);
    let (name, datacenter) = config.topology.own().unwrap();
    assert_eq!((name, datacenter.public_url.as_str()), ("eu", "https://eu.example.com/"));
}

#[test]
fn a_listener_opens_to_the_network_only_when_guarded() {
    let guarded = config(&environment(&[("RIVET__AUTH__ADMIN_TOKEN", "t"), ("RIVET__METRICS__TOKEN", "m")]));
    let hosts = [guarded.guard.host, guarded.metrics.host, guarded.api_peer.host].map(|host| host.to_string());
    assert_eq!(hosts, ["::", "::", "127.0.0.1"]);
    let pinned = config(&environment(&[("RIVET__AUTH__ADMIN_TOKEN", "t"), ("RIVET__GUARD__HOST", "127.0.0.1")]));
    assert_eq!(pinned.guard.host.to_string(), "127.0.0.1");
}

#[test]
fn datacenters_may_be_a_list() {
    let text = r#"
        topology:
          datacenter_label: 2
          datacenters:
            - {name: eu, datacenter_label: 2, is_leader: true, public_url: "http://eu", peer_url: "http://eu:1",
               valid_hosts: [eu]}
            - {name: us, datacenter_label: 3, is_leader: false, public_url: "http://us", peer_url: "http://us:1",
               valid_hosts: [us]}
    "#;
    let loaded = load(&files(&[("c.yaml", text)])).unwrap();
    assert_eq!(loaded.config.topology.own().unwrap().0, "eu");
    assert_eq!(loaded.config.api_peer.host.to_string(), "::");
    assert!(!loaded.topology_is_derived);
}

#[test]
fn database_and_bus_follow_from_their_sections() {
    let user_data_dir = Some(PathBuf::from("/home/ann/.local/share"));
    let embedded = config(&Sources { user_data_dir, ..Sources::default() });
    assert_eq!(embedded.database(), Database::Embedded(Path::new("/home/ann/.local/share/rivet-engine/db")));
    assert_eq!(embedded.bus(), Bus::InProcess);

    let shared = r#"{"file_system": {"path": "/unused"}, "postgres": {"url": "postgresql://u:p@h/d", "nats": {"addresses": ["inner:4222"]}}}"#;
    let shared_config = config(&files(&[("a.json", shared)]));
    assert!(matches!(shared_config.database(), Database::Postgres(postgres) if postgres.url.expose().ends_with("@h/d")));
    assert!(matches!(shared_config.bus(), Bus::Nats(nats) if nats.addresses == ["inner:4222"] && nats.port == 4222));
    let outer = config(&files(&[("a.json", shared), ("b.yaml", "nats: {addresses: [outer]}")]));
    assert!(matches!(outer.bus(), Bus::Nats(nats) if nats.addresses == ["outer"]));
}

#[test]
fn the_strict_mode_of_outbound_requests_overrules_its_switches() {
    let strict = config(&environment(&[("RIVET__OUTBOUND__STRICT", "true")])).outbound;
    assert!(strict.allow_loopback && !strict.loopback_allowed());
    assert!(!strict.private_networks_allowed() && !strict.insecure_scheme_allowed());
    let default = Outbound::default();
    assert!(default.loopback_allowed() && default.private_networks_allowed() && default.insecure_scheme_allowed());
}

#[test]
fn what_is_shown_masks_secrets_and_can_be_loaded_again() {
    let secrets = [
        ("RIVET__AUTH__ADMIN_TOKEN", "hidden-1"),
        ("RIVET__METRICS__TOKEN", "hidden-2"),
        ("RIVET__POSTGRES__URL", "postgresql://u:hidden-3@h/d"),
        ("RIVET__NATS__ADDRESSES", "n"),
        ("RIVET__NATS__PASSWORD", "hidden-4"),
        ("RIVET__CLICKHOUSE__HTTP_URL", "http://c"),
        ("RIVET__CLICKHOUSE__NATIVE_URL", "http://c"),
        ("RIVET__CLICKHOUSE__USERNAME", "u"),
        ("RIVET__CLICKHOUSE__PASSWORD", "hidden-5"),
    ];
    let config_with_secrets = config(&environment(&secrets));
    let text = config_with_secrets.show().unwrap();
    assert_eq!(text.matches("***").count(), 5);
    assert!(!text.contains("hidden") && !format!("{config_with_secrets:?}").contains("hidden"));

    let shown = config(&environment(LAUNCHER)).show().unwrap();
    assert_eq!(config(&files(&[("shown.json", &shown)])), config(&environment(LAUNCHER)));
}
