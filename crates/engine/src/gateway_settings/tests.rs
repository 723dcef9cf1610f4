//! What the documentation promises, and that each key changes what its name says.

use std::time::Duration;

use serde_json::{Value, from_value, json};

use super::*;
use crate::config::Secret;

const MIB: u64 = 1_048_576;

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn with(guard: Value, pegboard: Value) -> Config {
    let mut config = Config::default();
    config.guard = from_value(guard).unwrap();
    config.pegboard = from_value(pegboard).unwrap();
    config
}

#[test]
fn the_defaults_are_those_of_the_limits_page() {
    let GatewayConfig {
        actor_ready_timeout,
        resolve_timeout,
        response_start_timeout,
        response_chunk_idle_timeout,
        request_body_max_bytes,
        response_payload_max_bytes,
        websocket_open_timeout,
        websocket_message_max_bytes,
        websocket_ack_timeout,
        websocket_send_timeout,
        websocket_ping_timeout,
        websocket_message_rate,
        hibernation_wake_timeout,
        hibernation_pending_max_bytes,
        websocket_health_route,
        admin_token,
        admission,
    } = gateway_config(&Config::default());
    assert_eq!((actor_ready_timeout, resolve_timeout), (s(30), s(15)));
    assert_eq!((response_start_timeout, response_chunk_idle_timeout), (s(300), Some(s(30))));
    assert_eq!((request_body_max_bytes, response_payload_max_bytes), (20 * MIB, 20 * MIB));
    assert_eq!((websocket_open_timeout, websocket_ack_timeout), (s(15), s(30)));
    assert_eq!((websocket_send_timeout, websocket_ping_timeout), (s(5), s(30)));
    assert_eq!((websocket_message_max_bytes, websocket_message_rate), (32 * MIB, None));
    assert_eq!((hibernation_wake_timeout, hibernation_pending_max_bytes), (s(90), 128 * MIB));
    assert!(!websocket_health_route && admin_token.is_none());
    let networks = ["127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7"];
    let expected = AdmissionConfig {
        per_client: ClientLimits { rate: None, max_in_flight: None },
        per_actor: ClientLimits { rate: Some(RateLimit { requests: 1_200, period: s(60) }), max_in_flight: Some(32) },
        exempt_loopback: true,
        trusted_proxies: networks.map(|network| network.parse().unwrap()).to_vec(),
        remembered_max: 10_000,
        remembered_for: s(3_600),
    };
    assert_eq!(admission, expected);
    let WaitingLimits { for_actors_max_bytes, for_clients_max_bytes } = waiting_limits(&Config::default());
    assert_eq!((for_actors_max_bytes, for_clients_max_bytes), (1_024 * MIB, 1_024 * MIB));
}

#[test]
fn each_key_changes_its_limit() {
    let guard = json!({
        "actor_ready_timeout_ms": 1,
        "route_pegboard_resolve_query_timeout_ms": 2,
        "http_max_request_body_size": 3,
        "websocket_max_message_size": 4,
        "websocket_send_timeout_ms": 5,
        "enable_websocket_health_route": true,
        "rate_limit": { "requests": 6, "period_ms": 7 },
        "max_in_flight": 8,
        "actor_rate_limit": { "requests": 9, "period_ms": 10 },
        "actor_max_in_flight": 11,
        "exempt_loopback": false,
        "trusted_proxies": ["10.1.0.0/16"],
        "admission_client_state_cache_capacity": 12,
        "admission_client_state_cache_idle_timeout_ms": 13,
    });
    let pegboard = json!({
        "gateway_response_start_timeout_ms": 14,
        "gateway_response_chunk_idle_timeout_ms": 15,
        "envoy_max_response_payload_size": 16,
        "gateway_websocket_open_timeout_ms": 17,
        "gateway_hws_message_ack_timeout_ms": 18,
        "gateway_tunnel_ping_timeout_ms": 19,
        "gateway_websocket_rate_limit_requests": 20,
        "gateway_websocket_rate_limit_drip_rate_ms": 21,
        "hibernating_request_eligible_threshold": 22,
        "gateway_hws_max_pending_size": 23,
        "gateway_waiting_for_actors_max_size": 24,
        "gateway_waiting_for_clients_max_size": 25,
    });
    let mut config = with(guard, pegboard);
    config.auth.admin_token = Some(Secret::new("secret"));
    let settings = gateway_config(&config);
    assert_eq!((settings.actor_ready_timeout, settings.resolve_timeout), (ms(1), ms(2)));
    assert_eq!((settings.request_body_max_bytes, settings.websocket_message_max_bytes), (3, 4));
    assert_eq!(settings.websocket_send_timeout, ms(5));
    assert!(settings.websocket_health_route && settings.admin_token.is_some());
    let rate = |requests, period_ms| Some(RateLimit { requests, period: ms(period_ms) });
    let expected = AdmissionConfig {
        per_client: ClientLimits { rate: rate(6, 7), max_in_flight: Some(8) },
        per_actor: ClientLimits { rate: rate(9, 10), max_in_flight: Some(11) },
        exempt_loopback: false,
        trusted_proxies: vec!["10.1.0.0/16".parse().unwrap()],
        remembered_max: 12,
        remembered_for: ms(13),
    };
    assert_eq!(settings.admission, expected);
    assert_eq!((settings.response_start_timeout, settings.response_chunk_idle_timeout), (ms(14), Some(ms(15))));
    assert_eq!((settings.response_payload_max_bytes, settings.websocket_open_timeout), (16, ms(17)));
    assert_eq!((settings.websocket_ack_timeout, settings.websocket_ping_timeout), (ms(18), ms(19)));
    assert_eq!(settings.websocket_message_rate, Some(MessageRate { burst: 20, interval: ms(21) }));
    assert_eq!((settings.hibernation_wake_timeout, settings.hibernation_pending_max_bytes), (ms(22), 23));
    let waiting = waiting_limits(&config);
    assert_eq!((waiting.for_actors_max_bytes, waiting.for_clients_max_bytes), (24, 25));
}

#[test]
fn limits_that_can_be_off_and_the_lower_one_of_two() {
    let off = with(json!({ "enforce_documented_limits": false }), json!({ "gateway_response_chunk_idle_timeout_ms": 0 }));
    let settings = gateway_config(&off);
    assert_eq!((settings.admission.per_actor, settings.response_chunk_idle_timeout), (ClientLimits::default(), None));
    let lower = with(json!({ "http_max_request_body_size": 5 }), json!({ "gateway_http_max_request_body_size": 4 }));
    assert_eq!(gateway_config(&lower).request_body_max_bytes, 4);
}
