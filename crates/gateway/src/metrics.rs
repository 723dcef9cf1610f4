//! What the gateway counts (`spec/gateway.md` 22). The engine exports it; `docs/metrics.md` explains it.
//!
//! Every metric and every value of every label exists from the start, so counting is one atomic addition, and the number of
//! series never depends on traffic. Nothing is counted per actor, namespace or client.

mod body;
mod instrument;
mod request;

pub use body::MeasuredBody;
pub use instrument::{By, Counter, Distribution, Gauge, Held, Histogram, Label, Labels, Metric, Series};
pub(crate) use request::{OpenRequest, OpenSocket, ReadyWait, WindowStall};

use instrument::label;
use protocol::envoy::HttpStreamAbortReasonKind;

/// Everything that the gateway counts.
#[derive(Debug, Default)]
pub struct Metrics {
    /// HTTP requests to actors whose answer has not been handed over in full.
    pub http_requests_open: Gauge,
    /// WebSockets of clients, from the upgrade to the end of the close handshake.
    pub websockets_open: By<SocketState, Gauge>,
    /// Tasks that the gateway has spawned and that still run.
    pub tasks: Gauge,

    /// From the arrival of a request to its end: the last byte of the answer, the close of the socket. The count of each is
    /// the number of requests that ended so.
    pub requests: By<RequestKind, By<RequestResult, Histogram>>,
    /// From the arrival of an HTTP request to the head of the actor's answer.
    pub response_start: Histogram,
    /// From the upgrade of a WebSocket to the actor's acceptance.
    pub websocket_open: Histogram,
    /// How long requests waited for their actor, by what came of it.
    pub ready_wait: By<ReadyOutcome, Histogram>,
    /// Requests that were handed to another generation because the first one had certainly not seen them.
    pub retries: By<RequestKind, Counter>,

    /// Bytes of HTTP bodies: read from clients, also to be thrown away, and handed to clients.
    pub body_bytes: By<Traffic, Counter>,
    /// Times an upload stood still because the actor had not taken what was sent.
    pub window_exhausted: Counter,
    /// How long each of these lasted.
    pub window_stall: Histogram,
    /// HTTP exchanges with an actor that were ended before their end.
    pub stream_aborts: By<StreamDirection, By<Initiator, By<AbortKind, Counter>>>,

    /// Messages on WebSockets: from clients, and to clients.
    pub websocket_messages: By<Traffic, Counter>,
    /// Bytes of their payloads.
    pub websocket_bytes: By<Traffic, Counter>,
    /// WebSockets that ended, by what they were doing and by what ended them.
    pub websocket_closes: By<SocketState, By<CloseReason, Counter>>,
    /// Times a WebSocket began to wait for a sleeping actor.
    pub hibernation_sleeps: Counter,
    /// Times an actor took a waiting WebSocket back whose client was still there.
    pub hibernation_wakes: Counter,
}

label! {
    /// What kind of request.
    RequestKind, "request_kind", {
        /// One request and one answer.
        Http = "http",
        /// A WebSocket for its whole life.
        WebSocket = "websocket",
    }
}

label! {
    /// How a request ended.
    RequestResult, "result", {
        /// The actor's answer reached the client, whatever its status; a socket was closed by one of its ends.
        Success = "success",
        /// The client left first.
        ClientDisconnect = "client_disconnect",
        /// The actor did not become ready in time.
        ActorReadyTimeout = "actor_ready_timeout",
        /// The actor was there and did not answer, or go on, in time.
        RequestTimeout = "request_timeout",
        /// The actor or its host failed after the request was handed over.
        EnvoyError = "envoy_error",
        /// The request was refused, or failed, before any host saw it.
        PreDispatchFailure = "pre_dispatch_failure",
    }
}

label! {
    /// What came of waiting for an actor.
    ReadyOutcome, "outcome", {
        /// It takes requests.
        Ready = "ready",
        /// Time was up.
        Timeout = "timeout",
        /// It kept stopping.
        WakeRetriesExceeded = "wake_retries_exceeded",
        /// It was destroyed meanwhile.
        Destroyed = "destroyed",
        /// Anything else, such as the end of the engine.
        Failed = "failed",
        /// The client left first.
        Cancelled = "cancelled",
    }
}

label! {
    /// Which way data goes, as clients see it.
    Traffic, "direction", {
        /// From clients.
        Ingress = "ingress",
        /// To clients.
        Egress = "egress",
    }
}

label! {
    /// What was under way when an HTTP exchange was aborted.
    StreamDirection, "direction", {
        /// The request: no answer had begun.
        Request = "request",
        /// The answer.
        Response = "response",
    }
}

label! {
    /// Who aborted an HTTP exchange.
    Initiator, "initiator", {
        /// The client left.
        Client = "client",
        /// The gateway: a limit, a broken rule, or an answer that has no body.
        Gateway = "gateway",
        /// The actor or its host.
        Actor = "actor",
    }
}

label! {
    /// The reason as it travels between gateway and host (`spec/envoy-protocol.md` 13).
    AbortKind, "kind", {
        /// None was given, or the host is too old to give one.
        Unknown = "unknown",
        /// Nobody wants the answer any more.
        Cancelled = "cancelled",
        /// The actor's handler failed.
        HandlerError = "handler_error",
        /// The gateway or the host failed.
        InternalError = "internal_error",
    }
}

impl From<HttpStreamAbortReasonKind> for AbortKind {
    fn from(kind: HttpStreamAbortReasonKind) -> Self {
        match kind {
            HttpStreamAbortReasonKind::Unknown => Self::Unknown,
            HttpStreamAbortReasonKind::Cancelled => Self::Cancelled,
            HttpStreamAbortReasonKind::HandlerError => Self::HandlerError,
            HttpStreamAbortReasonKind::InternalError => Self::InternalError,
        }
    }
}

label! {
    /// What a client's WebSocket is doing.
    SocketState, "state", {
        /// It waits for the actor to accept it.
        Opening = "opening",
        /// Messages flow.
        Awake = "awake",
        /// It waits for a sleeping actor.
        Hibernating = "hibernating",
    }
}

label! {
    /// What ended a WebSocket.
    CloseReason, "reason", {
        /// The client closed it.
        Client = "client",
        /// The client's connection broke, or the client broke the protocol.
        ClientGone = "client_gone",
        /// The actor closed or refused it.
        Actor = "actor",
        /// The actor stopped and the socket could not wait for it.
        ActorStopped = "actor_stopped",
        /// The actor does not exist, or was destroyed.
        ActorNotFound = "actor_not_found",
        /// The actor did not become ready, or did not accept the socket, in time.
        Timeout = "timeout",
        /// A message of the actor was too large.
        MessageTooBig = "message_too_big",
        /// A message was not acknowledged in time, or the woken actor did not know the socket.
        GarbageCollected = "garbage_collected",
        /// Too much waited for the actor or for the client.
        PendingLimit = "pending_limit",
        /// The engine shuts down.
        GoingAway = "going_away",
        /// Any other failure.
        Failed = "failed",
    }
}
