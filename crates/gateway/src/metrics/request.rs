//! A request from its arrival to its end, in whichever way it ends.

use std::sync::Arc;

use tokio::time::Instant;

use super::{CloseReason, Held, Metrics, ReadyOutcome, RequestKind, RequestResult, SocketState, Traffic};
use crate::error::GatewayError;

/// A request to an actor that has not ended. Counts itself when it is dropped.
#[derive(Debug)]
pub(crate) struct OpenRequest {
    metrics: Arc<Metrics>,
    kind: RequestKind,
    since: Instant,
    result: Option<RequestResult>,
    open: Held,
}

impl OpenRequest {
    /// An HTTP request has arrived.
    pub(crate) fn http(metrics: &Arc<Metrics>) -> Self {
        let open = metrics.http_requests_open.hold();
        Self { metrics: metrics.clone(), kind: RequestKind::Http, since: Instant::now(), result: None, open }
    }

    /// The head of the actor's answer is here.
    pub(crate) fn answered(&self) {
        self.metrics.response_start.observe(self.since.elapsed());
    }

    /// How the request ends. What is said first counts: later steps see consequences only.
    pub(crate) fn ends(&mut self, result: RequestResult) {
        self.result.get_or_insert(result);
    }

    /// The client's connection has taken bytes of the answer.
    pub(super) fn handed_over(&self, bytes: usize) {
        // Nobody reads what is said to a client that has left.
        if self.result != Some(RequestResult::ClientDisconnect) {
            self.metrics.body_bytes.get(Traffic::Egress).add(bytes as u64);
        }
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        // Nobody drops a request without a word but a client that has left.
        let result = self.result.unwrap_or(RequestResult::ClientDisconnect);
        self.metrics.requests.get(self.kind).get(result).observe(self.since.elapsed());
    }
}

/// A client's WebSocket.
#[derive(Debug)]
pub(crate) struct OpenSocket {
    request: OpenRequest,
    state: SocketState,
}

impl OpenSocket {
    /// A client has asked for a WebSocket.
    pub(crate) fn new(metrics: &Arc<Metrics>) -> Self {
        let request = OpenRequest {
            metrics: metrics.clone(),
            kind: RequestKind::WebSocket,
            since: Instant::now(),
            result: None,
            open: metrics.websockets_open.get(SocketState::Opening).hold(),
        };
        Self { request, state: SocketState::Opening }
    }

    /// The actor has accepted it.
    pub(crate) fn opened(&mut self) {
        self.request.metrics.websocket_open.observe(self.request.since.elapsed());
        self.is_now(SocketState::Awake);
    }

    /// It waits for a sleeping actor.
    pub(crate) fn sleeps(&mut self) {
        self.request.metrics.hibernation_sleeps.inc();
        self.is_now(SocketState::Hibernating);
    }

    /// The actor has taken it back.
    pub(crate) fn wakes(&mut self) {
        self.request.metrics.hibernation_wakes.inc();
        self.is_now(SocketState::Awake);
    }

    /// A message came from the client, or goes to it.
    pub(crate) fn message(&self, direction: Traffic, bytes: usize) {
        self.request.metrics.websocket_messages.get(direction).inc();
        self.request.metrics.websocket_bytes.get(direction).add(bytes as u64);
    }

    /// It ends. Said once.
    pub(crate) fn ends(&mut self, reason: CloseReason, result: RequestResult) {
        self.request.metrics.websocket_closes.get(self.state).get(reason).inc();
        // Whatever a socket dies of that a host has accepted, it was dispatched.
        let dispatched = self.state != SocketState::Opening && result == RequestResult::PreDispatchFailure;
        self.request.ends(if dispatched { RequestResult::EnvoyError } else { result });
    }

    fn is_now(&mut self, state: SocketState) {
        self.state = state;
        self.request.open.move_to(self.request.metrics.websockets_open.get(state));
    }
}

/// An upload that stands still until the actor takes more. Counts itself when it is dropped.
#[derive(Debug)]
pub(crate) struct WindowStall {
    metrics: Arc<Metrics>,
    since: Instant,
}

impl WindowStall {
    pub(crate) fn new(metrics: &Arc<Metrics>) -> Self {
        metrics.window_exhausted.inc();
        Self { metrics: metrics.clone(), since: Instant::now() }
    }
}

impl Drop for WindowStall {
    fn drop(&mut self) {
        self.metrics.window_stall.observe(self.since.elapsed());
    }
}

/// A request that waits for its actor. Counts itself when it is dropped.
#[derive(Debug)]
pub(crate) struct ReadyWait<'m> {
    metrics: &'m Metrics,
    since: Instant,
    outcome: ReadyOutcome,
}

impl<'m> ReadyWait<'m> {
    pub(crate) fn new(metrics: &'m Metrics) -> Self {
        Self { metrics, since: Instant::now(), outcome: ReadyOutcome::Cancelled }
    }

    /// What came of it.
    pub(crate) fn ends<T>(mut self, waited: &Result<T, GatewayError>) {
        self.outcome = match waited {
            Ok(_) => ReadyOutcome::Ready,
            Err(GatewayError::ActorReadyTimeout(_)) => ReadyOutcome::Timeout,
            Err(GatewayError::WakeRetriesExceeded { .. }) => ReadyOutcome::WakeRetriesExceeded,
            Err(GatewayError::DestroyedWhileWaiting) => ReadyOutcome::Destroyed,
            Err(_) => ReadyOutcome::Failed,
        };
    }
}

impl Drop for ReadyWait<'_> {
    fn drop(&mut self) {
        self.metrics.ready_wait.get(self.outcome).observe(self.since.elapsed());
    }
}

impl From<&GatewayError> for RequestResult {
    fn from(error: &GatewayError) -> Self {
        classify(error).0
    }
}

impl From<&GatewayError> for CloseReason {
    fn from(error: &GatewayError) -> Self {
        classify(error).1
    }
}

/// What a failure is to a request, and to a WebSocket.
fn classify(error: &GatewayError) -> (RequestResult, CloseReason) {
    match error {
        GatewayError::ActorReadyTimeout(_) => (RequestResult::ActorReadyTimeout, CloseReason::Timeout),
        GatewayError::ResponseStartTimeout { .. }
        | GatewayError::RequestBodyTimeout { .. }
        | GatewayError::WebSocketOpenTimeout => (RequestResult::RequestTimeout, CloseReason::Timeout),
        GatewayError::ClientGone | GatewayError::WebSocketPingTimeout => {
            (RequestResult::ClientDisconnect, CloseReason::ClientGone)
        }
        GatewayError::WebSocketGarbageCollected => (RequestResult::EnvoyError, CloseReason::GarbageCollected),
        GatewayError::WebSocketPendingLimitReached => (RequestResult::EnvoyError, CloseReason::PendingLimit),
        GatewayError::ActorStoppedWhileWaiting { .. }
        | GatewayError::TunnelRequestAborted
        | GatewayError::TunnelResponseClosed
        | GatewayError::TunnelMessageTimeout
        | GatewayError::InvalidResponseBody { .. }
        | GatewayError::StoppedWhileWaitingForWebSocketOpen
        | GatewayError::Internal => (RequestResult::EnvoyError, CloseReason::Failed),
        GatewayError::ActorNotFound | GatewayError::DestroyedWhileWaiting => {
            (RequestResult::PreDispatchFailure, CloseReason::ActorNotFound)
        }
        GatewayError::GoingAway => (RequestResult::PreDispatchFailure, CloseReason::GoingAway),
        GatewayError::NoRoute { .. }
        | GatewayError::MissingHeader { .. }
        | GatewayError::InvalidHeader { .. }
        | GatewayError::QueryInvalidParams { .. }
        | GatewayError::QueryPathTokenSyntax
        | GatewayError::QueryGetDisallowedParams
        | GatewayError::QueryMissingPool
        | GatewayError::QueryEmptyActorName
        | GatewayError::QueryDuplicateParam { .. }
        | GatewayError::QueryInvalidBase64Input
        | GatewayError::QueryInvalidCborInput
        | GatewayError::QueryInvalidPercentEncoding { .. }
        | GatewayError::ConnectionParamsTooLarge { .. }
        | GatewayError::RateLimit { .. }
        | GatewayError::MaxInFlight { .. }
        | GatewayError::WakeRetriesExceeded { .. }
        | GatewayError::RunnerFailed(_)
        | GatewayError::InvalidRequestBody { .. }
        | GatewayError::TooMuchWaiting
        | GatewayError::ResolveTimeout { .. }
        | GatewayError::WebSocketNotSupported
        | GatewayError::MetricsForbidden
        | GatewayError::Refused(_) => (RequestResult::PreDispatchFailure, CloseReason::Failed),
    }
}
