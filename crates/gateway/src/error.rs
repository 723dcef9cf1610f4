//! Failures that the gateway itself answers with (`spec/gateway.md` 21.2).

use std::net::IpAddr;
use std::sync::Arc;

use http::Method;
use protocol::error::{Coded, Surface};
use serde_json::{Map, Value};

use crate::directory::Refusal;
use crate::obstacle::{GenerationEnd, LastEnd, VainWait};

/// A failure of the gateway.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// No rule of the routing table fits.
    #[error("No route found for hostname {host}, path {path}.")]
    NoRoute {
        /// Host header without port.
        host: String,
        /// Request path.
        path: String,
    },
    /// A header that the route needs is missing.
    #[error("Missing {header} header.")]
    MissingHeader {
        /// Its name.
        header: &'static str,
    },
    /// A header has a value that cannot be used.
    #[error("Invalid {header} header: {detail}.")]
    InvalidHeader {
        /// Its name.
        header: &'static str,
        /// What is wrong.
        detail: String,
    },
    /// What the client says of itself to the actor is too long.
    #[error("Connection parameters too large: {size} bytes (max {max_size} bytes).")]
    ConnectionParamsTooLarge {
        /// Bytes of JSON text that it sent.
        size: usize,
        /// Bytes allowed.
        max_size: usize,
    },
    /// The `rvt-` parameters do not form a query.
    #[error("invalid query gateway params: {detail}")]
    QueryInvalidParams {
        /// What is wrong.
        detail: String,
    },
    /// A query path has an `@` in its name.
    #[error("query gateway paths must not use @token syntax")]
    QueryPathTokenSyntax,
    /// A lookup carries parameters of a creation.
    #[error("query gateway method=get does not allow rvt-input, rvt-region, rvt-crash-policy, or rvt-pool params")]
    QueryGetDisallowedParams,
    /// A creation names no pool.
    #[error("query gateway method=getOrCreate requires rvt-pool param")]
    QueryMissingPool,
    /// The actor name is empty.
    #[error("query gateway actor name must not be empty")]
    QueryEmptyActorName,
    /// A parameter is there twice.
    #[error("duplicate query gateway param: {name}")]
    QueryDuplicateParam {
        /// Its name.
        name: String,
    },
    /// The input is not base64url without padding.
    #[error("invalid base64url in query gateway input")]
    QueryInvalidBase64Input,
    /// The input is not one CBOR item.
    #[error("invalid query gateway input cbor: invalid cbor")]
    QueryInvalidCborInput,
    /// A parameter is not UTF-8 after decoding.
    #[error("invalid percent-encoding for query gateway param '{name}'")]
    QueryInvalidPercentEncoding {
        /// Its name.
        name: String,
    },
    /// The actor is unknown or destroyed.
    #[error("The actor does not exist or was destroyed.")]
    ActorNotFound,
    /// The actor was destroyed while a request waited for it.
    #[error("Actor was destroyed while waiting for ready state.")]
    DestroyedWhileWaiting,
    /// The actor did not become ready in time.
    #[error(
        "Timed out waiting for actor to become ready. Ensure that the pool selector is accurate and there are envoys available in the namespace you created this actor. {0}"
    )]
    ActorReadyTimeout(Box<VainWait>),
    /// The actor's pool was failing at one of the moments at which requests that wait look at that.
    #[error("Actor's runner pool is experiencing errors. {0}")]
    RunnerFailed(Box<VainWait>),
    /// The actor kept stopping before it was ready.
    #[error(
        "Actor {actor_id} stopped before becoming ready after {wake_retries} wake retries: actor_stopped_before_ready.{}",
        LastEnd(last_end)
    )]
    WakeRetriesExceeded {
        /// The actor.
        actor_id: String,
        /// How often it was woken.
        wake_retries: u32,
        /// How it ended the last time.
        last_end: Option<Arc<GenerationEnd>>,
    },
    /// The actor stopped while a request waited for its response.
    #[error("Actor {actor_id} stopped during waiting_for_response_start.")]
    ActorStoppedWhileWaiting {
        /// The actor.
        actor_id: String,
    },
    /// The actor's host gave the request up before it answered.
    #[error("Actor tunnel aborted the request during waiting_for_response_start.")]
    TunnelRequestAborted,
    /// The host's connection was lost before it answered.
    #[error("Actor tunnel closed before sending a response during waiting_for_response_start.")]
    TunnelResponseClosed,
    /// The response did not start in time.
    #[error("Timed out during response_start after {timeout_ms} ms.")]
    ResponseStartTimeout {
        /// The limit.
        timeout_ms: u64,
    },
    /// The client did not send its request body in time.
    #[error("Request timed out during request_body after {timeout_seconds} seconds.")]
    RequestBodyTimeout {
        /// The limit.
        timeout_seconds: u64,
    },
    /// The client's connection broke in the middle of its request. Nobody reads this.
    #[error("Unable to parse request body: the client disconnected.")]
    ClientGone,
    /// The request body is too large.
    #[error("Unable to parse request body: {reason}.")]
    InvalidRequestBody {
        /// What is wrong.
        reason: String,
    },
    /// Request bodies that wait for their actors already take all the memory they may.
    #[error("Too many request bodies are waiting for their actors. Try again later.")]
    TooMuchWaiting,
    /// The actor's answer cannot be passed on.
    #[error("Unable to parse response body: {reason}.")]
    InvalidResponseBody {
        /// What is wrong.
        reason: String,
    },
    /// A query could not be resolved in time.
    #[error("Timed out resolving actor query route after {elapsed_ms}ms (timeout {elapsed_ms}ms).")]
    ResolveTimeout {
        /// The limit, which is also the time that passed.
        elapsed_ms: u64,
    },
    /// A WebSocket was routed to something that speaks none.
    #[error("The requested service does not support websockets.")]
    WebSocketNotSupported,
    /// The actor did not accept the WebSocket in time.
    #[error("WebSocket open timed out.")]
    WebSocketOpenTimeout,
    /// The actor kept stopping while a WebSocket was being opened.
    #[error("Actor stopped while waiting for the WebSocket to open.")]
    StoppedWhileWaitingForWebSocketOpen,
    /// The client did not answer a ping in time.
    #[error("The WebSocket client did not answer a ping in time.")]
    WebSocketPingTimeout,
    /// A message was not acknowledged in time.
    #[error("WebSocket was garbage collected: a message was not acknowledged in time.")]
    WebSocketGarbageCollected,
    /// Too many messages or bytes wait for the actor or for the client.
    #[error("WebSocket pending message limit reached.")]
    WebSocketPendingLimitReached,
    /// The host of the actor stayed out of touch while messages waited for it.
    #[error("Actor tunnel message timed out during websocket: host connection lost.")]
    TunnelMessageTimeout,
    /// Metrics of an actor's process are for this machine only.
    #[error("Access denied: metrics of an actor's process are served to loopback clients only")]
    MetricsForbidden,
    /// The client has sent too many requests in a window of time.
    #[error("Too many requests to '{method} {path}' from IP {ip}; limit is {requests} requests per {period_ms} ms.")]
    RateLimit {
        /// Of the request.
        method: Method,
        /// Of the request, with its query.
        path: String,
        /// Of the client.
        ip: IpAddr,
        /// The limit.
        requests: u64,
        /// Length of the window.
        period_ms: u64,
        /// Until the window ends, rounded up.
        retry_after_seconds: u64,
    },
    /// The client has too many requests open at once.
    #[error("Too many concurrent requests to '{method} {path}' from IP {ip}; limit is {max_in_flight}.")]
    MaxInFlight {
        /// Of the request.
        method: Method,
        /// Of the request, with its query.
        path: String,
        /// Of the client.
        ip: IpAddr,
        /// The limit.
        max_in_flight: u64,
    },
    /// The engine shuts down.
    #[error("The engine is shutting down.")]
    GoingAway,
    /// Something in the exchange with the host broke the protocol, or the engine failed. The cause is in the log.
    #[error("An internal error occurred")]
    Internal,
    /// The engine refused: namespace, pool, creation limit and so on.
    #[error("{0}")]
    Refused(#[from] Refusal),
}

/// Who has too many requests open may try again soon, in seconds: nobody knows when one of them ends.
const IN_FLIGHT_RETRY_AFTER_SECONDS: u64 = 1;

impl Coded for GatewayError {
    fn group(&self) -> &'static str {
        match self {
            Self::ActorNotFound | Self::DestroyedWhileWaiting => "actor",
            Self::ResolveTimeout { .. } => "pegboard",
            Self::GoingAway => "ws",
            Self::MetricsForbidden => "api",
            Self::Internal => "core",
            Self::Refused(refusal) => refusal.group(),
            Self::NoRoute { .. }
            | Self::MissingHeader { .. }
            | Self::InvalidHeader { .. }
            | Self::ConnectionParamsTooLarge { .. }
            | Self::QueryInvalidParams { .. }
            | Self::QueryPathTokenSyntax
            | Self::QueryGetDisallowedParams
            | Self::QueryMissingPool
            | Self::QueryEmptyActorName
            | Self::QueryDuplicateParam { .. }
            | Self::QueryInvalidBase64Input
            | Self::QueryInvalidCborInput
            | Self::QueryInvalidPercentEncoding { .. }
            | Self::ActorReadyTimeout(_)
            | Self::RunnerFailed(_)
            | Self::WakeRetriesExceeded { .. }
            | Self::ActorStoppedWhileWaiting { .. }
            | Self::TunnelRequestAborted
            | Self::TunnelResponseClosed
            | Self::ResponseStartTimeout { .. }
            | Self::RequestBodyTimeout { .. }
            | Self::ClientGone
            | Self::InvalidRequestBody { .. }
            | Self::InvalidResponseBody { .. }
            | Self::TooMuchWaiting
            | Self::WebSocketNotSupported
            | Self::WebSocketOpenTimeout
            | Self::StoppedWhileWaitingForWebSocketOpen
            | Self::WebSocketPingTimeout
            | Self::WebSocketGarbageCollected
            | Self::WebSocketPendingLimitReached
            | Self::TunnelMessageTimeout
            | Self::RateLimit { .. }
            | Self::MaxInFlight { .. } => "guard",
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::NoRoute { .. } => "no_route",
            Self::MissingHeader { .. } => "missing_header",
            Self::InvalidHeader { .. } => "invalid_header",
            Self::ConnectionParamsTooLarge { .. } => "connection_params_too_large",
            Self::QueryInvalidParams { .. } => "query_invalid_params",
            Self::QueryPathTokenSyntax => "query_path_token_syntax",
            Self::QueryGetDisallowedParams => "query_get_disallowed_params",
            Self::QueryMissingPool => "query_missing_pool",
            Self::QueryEmptyActorName => "query_empty_actor_name",
            Self::QueryDuplicateParam { .. } => "query_duplicate_param",
            Self::QueryInvalidBase64Input => "query_invalid_base64_input",
            Self::QueryInvalidCborInput => "query_invalid_cbor_input",
            Self::QueryInvalidPercentEncoding { .. } => "query_invalid_percent_encoding",
            Self::ActorNotFound => "not_found",
            Self::DestroyedWhileWaiting => "destroyed_while_waiting_for_ready",
            Self::ActorReadyTimeout(_) => "actor_ready_timeout",
            Self::RunnerFailed(_) => "actor_runner_failed",
            Self::WakeRetriesExceeded { .. } => "actor_wake_retries_exceeded",
            Self::ActorStoppedWhileWaiting { .. } => "actor_stopped_while_waiting",
            Self::TunnelRequestAborted => "tunnel_request_aborted",
            Self::TunnelResponseClosed => "tunnel_response_closed",
            Self::ResponseStartTimeout { .. } => "gateway_response_start_timeout",
            Self::RequestBodyTimeout { .. } => "request_timeout",
            Self::ClientGone | Self::InvalidRequestBody { .. } => "invalid_request_body",
            Self::InvalidResponseBody { .. } => "invalid_response_body",
            Self::TooMuchWaiting => "service_unavailable",
            Self::ResolveTimeout { .. } => "route_resolve_query_timeout",
            Self::WebSocketNotSupported => "websocket_not_supported",
            Self::WebSocketOpenTimeout => "websocket_open_timeout",
            Self::StoppedWhileWaitingForWebSocketOpen => "actor_stopped_while_waiting_for_websocket_open",
            Self::WebSocketPingTimeout => "websocket_ping_timeout",
            Self::WebSocketGarbageCollected => "websocket_garbage_collected",
            Self::WebSocketPendingLimitReached => "websocket_pending_limit_reached",
            Self::TunnelMessageTimeout => "tunnel_message_timeout",
            Self::RateLimit { .. } => "rate_limit",
            Self::MaxInFlight { .. } => "max_in_flight",
            Self::GoingAway => "going_away",
            Self::MetricsForbidden => "forbidden",
            Self::Internal => "internal_error",
            Self::Refused(refusal) => refusal.code(),
        }
    }

    fn status(&self, surface: Surface) -> u16 {
        match self {
            Self::NoRoute { .. } | Self::ActorNotFound => 404,
            Self::MetricsForbidden => 403,
            Self::InvalidRequestBody { .. } => 413,
            Self::RateLimit { .. } | Self::MaxInFlight { .. } => 429,
            Self::InvalidResponseBody { .. } => 502,
            Self::ActorReadyTimeout(_)
            | Self::WakeRetriesExceeded { .. }
            | Self::ActorStoppedWhileWaiting { .. }
            | Self::TunnelRequestAborted
            | Self::TunnelResponseClosed
            | Self::TooMuchWaiting
            | Self::GoingAway => 503,
            Self::ResponseStartTimeout { .. }
            | Self::RequestBodyTimeout { .. }
            | Self::ResolveTimeout { .. }
            | Self::TunnelMessageTimeout => 504,
            Self::Internal => 500,
            Self::Refused(refusal) => refusal.status(surface),
            Self::ClientGone
            | Self::MissingHeader { .. }
            | Self::InvalidHeader { .. }
            | Self::ConnectionParamsTooLarge { .. }
            | Self::QueryInvalidParams { .. }
            | Self::QueryPathTokenSyntax
            | Self::QueryGetDisallowedParams
            | Self::QueryMissingPool
            | Self::QueryEmptyActorName
            | Self::QueryDuplicateParam { .. }
            | Self::QueryInvalidBase64Input
            | Self::QueryInvalidCborInput
            | Self::QueryInvalidPercentEncoding { .. }
            | Self::DestroyedWhileWaiting
            | Self::RunnerFailed(_)
            | Self::WebSocketNotSupported
            | Self::WebSocketOpenTimeout
            | Self::StoppedWhileWaitingForWebSocketOpen
            | Self::WebSocketPingTimeout
            | Self::WebSocketGarbageCollected
            | Self::WebSocketPendingLimitReached => 400,
        }
    }

    fn retry_after_seconds(&self) -> Option<u64> {
        if let Self::RateLimit { retry_after_seconds, .. } = self {
            return Some(*retry_after_seconds);
        }
        if let Self::Refused(refusal) = self {
            return refusal.retry_after_seconds();
        }
        matches!(self, Self::MaxInFlight { .. }).then_some(IN_FLIGHT_RETRY_AFTER_SECONDS)
    }

    fn metadata(&self) -> Map<String, Value> {
        let pairs: Vec<(&str, Value)> = match self {
            Self::NoRoute { host, path } => vec![("host", host.as_str().into()), ("path", path.as_str().into())],
            Self::MissingHeader { header } => vec![("header", (*header).into())],
            Self::InvalidHeader { header, detail } => {
                vec![("header", (*header).into()), ("detail", detail.as_str().into())]
            }
            Self::ConnectionParamsTooLarge { size, max_size } => {
                vec![("size", (*size).into()), ("max_size", (*max_size).into())]
            }
            Self::QueryInvalidParams { detail } => vec![("detail", detail.as_str().into())],
            Self::QueryDuplicateParam { name } | Self::QueryInvalidPercentEncoding { name } => {
                vec![("name", name.as_str().into())]
            }
            Self::ActorReadyTimeout(wait) | Self::RunnerFailed(wait) => return wait.metadata(),
            Self::WakeRetriesExceeded { actor_id, wake_retries, last_end } => {
                let mut pairs = vec![
                    ("actor_id", actor_id.as_str().into()),
                    ("reason", "actor_stopped_before_ready".into()),
                    ("wake_retries", (*wake_retries).into()),
                ];
                pairs.extend(last_end.as_ref().map(|end| ("last_end", end.details())));
                pairs
            }
            Self::ActorStoppedWhileWaiting { actor_id } => {
                vec![("actor_id", actor_id.as_str().into()), ("phase", "waiting_for_response_start".into())]
            }
            Self::TunnelRequestAborted | Self::TunnelResponseClosed => {
                vec![("phase", "waiting_for_response_start".into())]
            }
            Self::ResponseStartTimeout { timeout_ms } => {
                vec![("phase", "response_start".into()), ("timeout_ms", (*timeout_ms).into())]
            }
            Self::RequestBodyTimeout { timeout_seconds } => {
                vec![("phase", "request_body".into()), ("timeout_seconds", (*timeout_seconds).into())]
            }
            Self::InvalidRequestBody { reason } | Self::InvalidResponseBody { reason } => {
                vec![("reason", reason.as_str().into())]
            }
            Self::ResolveTimeout { elapsed_ms } => {
                vec![("elapsed_ms", (*elapsed_ms).into()), ("timeout_ms", (*elapsed_ms).into())]
            }
            Self::RateLimit { method, path, ip, requests, period_ms, retry_after_seconds: _ } => vec![
                ("ip", ip.to_string().into()),
                ("method", method.as_str().into()),
                ("path", path.as_str().into()),
                ("period_ms", (*period_ms).into()),
                ("requests", (*requests).into()),
            ],
            Self::MaxInFlight { method, path, ip, max_in_flight } => vec![
                ("ip", ip.to_string().into()),
                ("max_in_flight", (*max_in_flight).into()),
                ("method", method.as_str().into()),
                ("path", path.as_str().into()),
            ],
            Self::Refused(refusal) => return refusal.metadata(),
            Self::ClientGone
            | Self::QueryPathTokenSyntax
            | Self::QueryGetDisallowedParams
            | Self::QueryMissingPool
            | Self::QueryEmptyActorName
            | Self::QueryInvalidBase64Input
            | Self::QueryInvalidCborInput
            | Self::ActorNotFound
            | Self::DestroyedWhileWaiting
            | Self::TooMuchWaiting
            | Self::WebSocketNotSupported
            | Self::WebSocketOpenTimeout
            | Self::StoppedWhileWaitingForWebSocketOpen
            | Self::WebSocketPingTimeout
            | Self::WebSocketGarbageCollected
            | Self::WebSocketPendingLimitReached
            | Self::TunnelMessageTimeout
            | Self::MetricsForbidden
            | Self::GoingAway
            | Self::Internal => Vec::new(),
        };
        pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }
}

#[cfg(test)]
mod tests;
