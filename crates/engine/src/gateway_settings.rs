//! What the gateway takes from the configuration.

use gateway::{AdminToken, AdmissionConfig, ClientLimits, GatewayConfig, MessageRate, RateLimit, WaitingLimits};

use crate::config::{self, Config, Guard};

/// What may wait for receivers.
pub(crate) fn waiting_limits(config: &Config) -> WaitingLimits {
    WaitingLimits {
        for_actors_max_bytes: config.pegboard.gateway_waiting_for_actors_max_size,
        for_clients_max_bytes: config.pegboard.gateway_waiting_for_clients_max_size,
    }
}

/// How fast a host may send. `None`: as fast as the engine can.
pub(crate) fn host_message_rate(config: &Config) -> Option<MessageRate> {
    let interval = config.pegboard.envoy_websocket_rate_limit_drip_rate_us.duration();
    config.pegboard.envoy_websocket_rate_limit_requests.map(|burst| MessageRate { burst, interval })
}

/// The limits of requests and sockets.
pub(crate) fn gateway_config(config: &Config) -> GatewayConfig {
    let (guard, pegboard) = (&config.guard, &config.pegboard);
    let chunk_idle = pegboard.gateway_response_chunk_idle_timeout_ms.duration();
    GatewayConfig {
        actor_ready_timeout: guard.actor_ready_timeout_ms.duration(),
        resolve_timeout: guard.route_pegboard_resolve_query_timeout_ms.duration(),
        response_start_timeout: pegboard.gateway_response_start_timeout_ms.duration(),
        response_chunk_idle_timeout: (!chunk_idle.is_zero()).then_some(chunk_idle),
        request_body_max_bytes: guard.http_max_request_body_size.min(pegboard.gateway_http_max_request_body_size),
        response_payload_max_bytes: pegboard.envoy_max_response_payload_size,
        websocket_open_timeout: pegboard.gateway_websocket_open_timeout_ms.duration(),
        websocket_message_max_bytes: guard.websocket_max_message_size,
        websocket_ack_timeout: pegboard.gateway_hws_message_ack_timeout_ms.duration(),
        websocket_send_timeout: guard.websocket_send_timeout_ms.duration(),
        websocket_ping_timeout: pegboard.gateway_tunnel_ping_timeout_ms.duration(),
        websocket_message_rate: pegboard
            .gateway_websocket_rate_limit_requests
            .map(|burst| MessageRate { burst, interval: pegboard.gateway_websocket_rate_limit_drip_rate_ms.duration() }),
        hibernation_wake_timeout: pegboard.hibernating_request_eligible_threshold.duration(),
        hibernation_pending_max_bytes: pegboard.gateway_hws_max_pending_size,
        websocket_health_route: guard.enable_websocket_health_route,
        admin_token: config.auth.admin_token.as_ref().map(|token| AdminToken::new(token.expose())),
        admission: admission_config(guard),
    }
}

fn admission_config(guard: &Guard) -> AdmissionConfig {
    let rate = |limit: config::RateLimit| RateLimit { requests: limit.requests, period: limit.period_ms.duration() };
    let documented = ClientLimits { rate: Some(rate(guard.actor_rate_limit)), max_in_flight: Some(guard.actor_max_in_flight) };
    AdmissionConfig {
        per_client: ClientLimits { rate: guard.rate_limit.map(rate), max_in_flight: guard.max_in_flight },
        per_actor: if guard.enforce_documented_limits { documented } else { ClientLimits::default() },
        exempt_loopback: guard.exempt_loopback,
        trusted_proxies: guard.trusted_proxies.iter().map(|network| network.net()).collect(),
        remembered_max: usize::try_from(guard.admission_client_state_cache_capacity).unwrap_or(usize::MAX),
        remembered_for: guard.admission_client_state_cache_idle_timeout_ms.duration(),
    }
}

#[cfg(test)]
mod tests;
