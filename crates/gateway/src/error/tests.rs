//! The table of `spec/gateway.md` 21.2, with what is our own added.

use std::collections::HashSet;
use std::mem::discriminant;
use std::time::Duration;

use protocol::error::{InternalError, body};
use protocol::id::ActorId;
use serde_json::json;

use super::*;
use crate::obstacle::Obstacle;

/// Every failure once, and what clients see of it: name, status, details.
fn table() -> Vec<(GatewayError, &'static str, u16, Value)> {
    use GatewayError as E;
    let text = |text: &str| text.to_owned();
    let nothing = Value::Null;
    let ip = IpAddr::from([203, 0, 113, 7]);
    let waiting = json!({ "phase": "waiting_for_response_start" });
    vec![
        (
            E::NoRoute { host: text("h"), path: text("/p") },
            "guard.no_route: No route found for hostname h, path /p.",
            404,
            json!({ "host": "h", "path": "/p" }),
        ),
        (E::MissingHeader { header: "x" }, "guard.missing_header: Missing x header.", 400, json!({ "header": "x" })),
        (
            E::InvalidHeader { header: "x", detail: text("why") },
            "guard.invalid_header: Invalid x header: why.",
            400,
            json!({ "header": "x", "detail": "why" }),
        ),
        (
            E::ConnectionParamsTooLarge { size: 4_097, max_size: 4_096 },
            "guard.connection_params_too_large: Connection parameters too large: 4097 bytes (max 4096 bytes).",
            400,
            json!({ "size": 4_097, "max_size": 4_096 }),
        ),
        (
            E::QueryInvalidParams { detail: text("why") },
            "guard.query_invalid_params: invalid query gateway params: why",
            400,
            json!({ "detail": "why" }),
        ),
        (
            E::QueryPathTokenSyntax,
            "guard.query_path_token_syntax: query gateway paths must not use @token syntax",
            400,
            nothing.clone(),
        ),
        (
            E::QueryGetDisallowedParams,
            "guard.query_get_disallowed_params: query gateway method=get does not allow rvt-input, rvt-region, \
             rvt-crash-policy, or rvt-pool params",
            400,
            nothing.clone(),
        ),
        (
            E::QueryMissingPool,
            "guard.query_missing_pool: query gateway method=getOrCreate requires rvt-pool param",
            400,
            nothing.clone(),
        ),
        (
            E::QueryEmptyActorName,
            "guard.query_empty_actor_name: query gateway actor name must not be empty",
            400,
            nothing.clone(),
        ),
        (
            E::QueryDuplicateParam { name: text("n") },
            "guard.query_duplicate_param: duplicate query gateway param: n",
            400,
            json!({ "name": "n" }),
        ),
        (
            E::QueryInvalidBase64Input,
            "guard.query_invalid_base64_input: invalid base64url in query gateway input",
            400,
            nothing.clone(),
        ),
        (
            E::QueryInvalidCborInput,
            "guard.query_invalid_cbor_input: invalid query gateway input cbor: invalid cbor",
            400,
            nothing.clone(),
        ),
        (
            E::QueryInvalidPercentEncoding { name: text("n") },
            "guard.query_invalid_percent_encoding: invalid percent-encoding for query gateway param 'n'",
            400,
            json!({ "name": "n" }),
        ),
        (E::ActorNotFound, "actor.not_found: The actor does not exist or was destroyed.", 404, nothing.clone()),
        (
            E::DestroyedWhileWaiting,
            "actor.destroyed_while_waiting_for_ready: Actor was destroyed while waiting for ready state.",
            400,
            nothing.clone(),
        ),
        (
            E::ActorReadyTimeout(vain_wait()),
            "guard.actor_ready_timeout: Timed out waiting for actor to become ready. Ensure that the pool selector is \
             accurate and there are envoys available in the namespace you created this actor. After 1 s: it is asleep and \
             being woken.",
            503,
            json!({ "actor_id": vain_wait().actor.to_string(), "waited_ms": 1_000, "waiting_for": "asleep" }),
        ),
        (
            E::RunnerFailed(vain_wait()),
            "guard.actor_runner_failed: Actor's runner pool is experiencing errors. After 1 s: it is asleep and being woken.",
            400,
            json!({ "actor_id": vain_wait().actor.to_string(), "waited_ms": 1_000, "waiting_for": "asleep" }),
        ),
        (
            E::WakeRetriesExceeded { actor_id: text("a"), wake_retries: 8, last_end: Some(Arc::new(GenerationEnd::Stopped)) },
            "guard.actor_wake_retries_exceeded: Actor a stopped before becoming ready after 8 wake retries: \
             actor_stopped_before_ready. Last end: stopped.",
            503,
            json!({
                "actor_id": "a", "reason": "actor_stopped_before_ready", "wake_retries": 8,
                "last_end": { "reason": "stopped" },
            }),
        ),
        (
            E::ActorStoppedWhileWaiting { actor_id: text("a") },
            "guard.actor_stopped_while_waiting: Actor a stopped during waiting_for_response_start.",
            503,
            json!({ "actor_id": "a", "phase": "waiting_for_response_start" }),
        ),
        (
            E::TunnelRequestAborted,
            "guard.tunnel_request_aborted: Actor tunnel aborted the request during waiting_for_response_start.",
            503,
            waiting.clone(),
        ),
        (
            E::TunnelResponseClosed,
            "guard.tunnel_response_closed: Actor tunnel closed before sending a response during waiting_for_response_start.",
            503,
            waiting,
        ),
        (
            E::ResponseStartTimeout { timeout_ms: 5 },
            "guard.gateway_response_start_timeout: Timed out during response_start after 5 ms.",
            504,
            json!({ "phase": "response_start", "timeout_ms": 5 }),
        ),
        (
            E::RequestBodyTimeout { timeout_seconds: 5 },
            "guard.request_timeout: Request timed out during request_body after 5 seconds.",
            504,
            json!({ "phase": "request_body", "timeout_seconds": 5 }),
        ),
        (
            E::ClientGone,
            "guard.invalid_request_body: Unable to parse request body: the client disconnected.",
            400,
            nothing.clone(),
        ),
        (
            E::InvalidRequestBody { reason: text("why") },
            "guard.invalid_request_body: Unable to parse request body: why.",
            413,
            json!({ "reason": "why" }),
        ),
        (
            E::TooMuchWaiting,
            "guard.service_unavailable: Too many request bodies are waiting for their actors. Try again later.",
            503,
            nothing.clone(),
        ),
        (
            E::InvalidResponseBody { reason: text("why") },
            "guard.invalid_response_body: Unable to parse response body: why.",
            502,
            json!({ "reason": "why" }),
        ),
        (
            E::ResolveTimeout { elapsed_ms: 5 },
            "pegboard.route_resolve_query_timeout: Timed out resolving actor query route after 5ms (timeout 5ms).",
            504,
            json!({ "elapsed_ms": 5, "timeout_ms": 5 }),
        ),
        (
            E::WebSocketNotSupported,
            "guard.websocket_not_supported: The requested service does not support websockets.",
            400,
            nothing.clone(),
        ),
        (E::WebSocketOpenTimeout, "guard.websocket_open_timeout: WebSocket open timed out.", 400, nothing.clone()),
        (
            E::StoppedWhileWaitingForWebSocketOpen,
            "guard.actor_stopped_while_waiting_for_websocket_open: Actor stopped while waiting for the WebSocket to open.",
            400,
            nothing.clone(),
        ),
        (
            E::WebSocketPingTimeout,
            "guard.websocket_ping_timeout: The WebSocket client did not answer a ping in time.",
            400,
            nothing.clone(),
        ),
        (
            E::WebSocketGarbageCollected,
            "guard.websocket_garbage_collected: WebSocket was garbage collected: a message was not acknowledged in time.",
            400,
            nothing.clone(),
        ),
        (
            E::WebSocketPendingLimitReached,
            "guard.websocket_pending_limit_reached: WebSocket pending message limit reached.",
            400,
            nothing.clone(),
        ),
        (
            E::TunnelMessageTimeout,
            "guard.tunnel_message_timeout: Actor tunnel message timed out during websocket: host connection lost.",
            504,
            nothing.clone(),
        ),
        (
            E::MetricsForbidden,
            "api.forbidden: Access denied: metrics of an actor's process are served to loopback clients only",
            403,
            nothing.clone(),
        ),
        (
            E::RateLimit { method: Method::GET, path: text("/p"), ip, requests: 6, period_ms: 7, retry_after_seconds: 8 },
            "guard.rate_limit: Too many requests to 'GET /p' from IP 203.0.113.7; limit is 6 requests per 7 ms.",
            429,
            json!({ "ip": "203.0.113.7", "method": "GET", "path": "/p", "period_ms": 7, "requests": 6 }),
        ),
        (
            E::MaxInFlight { method: Method::GET, path: text("/p"), ip, max_in_flight: 6 },
            "guard.max_in_flight: Too many concurrent requests to 'GET /p' from IP 203.0.113.7; limit is 6.",
            429,
            json!({ "ip": "203.0.113.7", "max_in_flight": 6, "method": "GET", "path": "/p" }),
        ),
        (E::GoingAway, "ws.going_away: The engine is shutting down.", 503, nothing.clone()),
        (E::Internal, "core.internal_error: An internal error occurred", 500, nothing.clone()),
        // What the engine says is passed on as it is.
        (E::Refused(Refusal::new(InternalError)), "core.internal_error: An internal error occurred", 500, nothing),
    ]
}

fn vain_wait() -> Box<VainWait> {
    let actor = ActorId::from_parts([3; 16], 1);
    let obstacle = Some(Obstacle::Asleep);
    Box::new(VainWait { actor, waited: Duration::from_secs(1), obstacle, last_end: None })
}

#[test]
fn clients_see_the_documented_names_statuses_and_details() {
    for (error, text, status, details) in table() {
        let seen = body(&error);
        let field = |name: &str| seen[name].as_str().unwrap_or_default().to_owned();
        let seen_text = format!("{}.{}: {}", field("group"), field("code"), field("message"));
        assert_eq!((seen_text.as_str(), error.status(Surface::Gateway)), (text, status));
        assert_eq!(seen.get("metadata").unwrap_or(&Value::Null), &details, "{text}");
    }
}

#[test]
fn only_those_who_asked_too_much_are_told_when_to_come_again() {
    for (error, text, status, _) in table() {
        let expected = match text.split(':').next() {
            Some("guard.rate_limit") => Some(8),
            Some("guard.max_in_flight") => Some(1),
            _ => None,
        };
        assert_eq!((error.retry_after_seconds(), status == 429), (expected, expected.is_some()), "{text}");
    }
}

#[test]
fn the_table_has_each_failure_once() {
    let table = table();
    let different: HashSet<_> = table.iter().map(|(error, ..)| discriminant(error)).collect();
    assert_eq!(different.len(), table.len());
}
