//! What gateway and host say to each other about one attempt of a request.

use std::sync::Arc;
use std::task::{Context, Poll};

use protocol::envoy::{
    BodyChunk, HttpStreamAbortReason, HttpStreamAbortReasonKind, RequestAbort, ResponseStart, ToEnvoyTunnelMessageKind,
    ToRivetTunnelMessageKind,
};
use protocol::id::ActorId;
use protocol::limits;

use super::flow::Order;
use crate::error::GatewayError;
use crate::handler::Shared;
use crate::link::LinkClosed;
use crate::metrics::{Initiator, Metrics, StreamDirection};
use crate::ready::Route;
use crate::tunnel::{FromActor, Tunnel, http_queue_max_bytes};

/// First protocol version with window updates, body cancels and streamed answers (`spec/envoy-protocol.md` 6.4).
const STREAMING_SINCE_VERSION: u16 = 8;

/// The tunnel of one attempt. Checks the order of what the host says, and makes sure that the host learns of the end: when
/// this is dropped before, the client went away.
pub(super) struct Call {
    tunnel: Tunnel,
    actor: ActorId,
    /// The only generation that may answer; none for a request that does not wait for a generation to be ready.
    generation: Option<u32>,
    order: Order,
    /// The host waits for something of this request, or sends something for it.
    open: bool,
    /// What is under way.
    direction: StreamDirection,
    ray: Arc<str>,
    metrics: Arc<Metrics>,
}

/// What the host says, in order, or what is said of it.
pub(super) enum Told {
    /// The head of the answer, or all of it.
    Start(ResponseStart),
    /// A piece of the answer.
    Chunk(BodyChunk),
    /// So many bytes of the request's body were consumed, in total.
    Consumed(u64),
    /// The actor wants no more of the body.
    BodyCancelled,
    /// The actor or its host gives the request up.
    Aborted,
    /// More came than may wait.
    Overflow,
    /// The connection that carried the request has ended.
    LinkLost,
    /// The generation that the request went to has ended.
    Stopped,
}

/// The host broke the protocol. It was told, and it was logged.
pub(super) struct Violation(pub(super) &'static str);

impl From<Violation> for GatewayError {
    fn from(_: Violation) -> Self {
        Self::Internal
    }
}

/// Answers of the host's connection layer which say that no actor saw the request.
const NOT_DELIVERED: [&str; 2] = ["envoy.actor_not_found", "envoy.actor_generation_mismatch"];

/// Whether an answer was made by the host's connection layer. User code can set any status and header, but every answer of a
/// live actor names the actor.
fn is_from_connection_layer(start: &ResponseStart) -> bool {
    !start.stream && start.headers.get("x-rivet-error").is_some() && start.headers.get("x-rivet-actor").is_none()
}

/// Whether an answer says that no actor saw the request.
pub(super) fn says_not_delivered(start: &ResponseStart) -> bool {
    let error = start.headers.get("x-rivet-error").map(String::as_str).unwrap_or_default();
    start.status == 503 && is_from_connection_layer(start) && NOT_DELIVERED.contains(&error)
}

impl Call {
    pub(super) fn new<D>(shared: &Shared<D>, actor: ActorId, ray: &Arc<str>, route: Route) -> Self {
        let max_waiting = http_queue_max_bytes(shared.config.response_payload_max_bytes);
        let generation = route.is_ready.then_some(route.generation);
        Self {
            tunnel: shared.tunnels.open_request(actor, route, max_waiting),
            actor,
            generation,
            order: Order::default(),
            open: false,
            direction: StreamDirection::Request,
            ray: ray.clone(),
            metrics: shared.metrics.clone(),
        }
    }

    /// Whether the host knows streamed bodies.
    pub(super) fn can_stream(&self) -> bool {
        self.tunnel.link().protocol_version() >= STREAMING_SINCE_VERSION
    }

    /// The only generation that may answer.
    pub(super) fn generation(&self) -> Option<u32> {
        self.generation
    }

    /// Sends a message that carries so many bytes of the client's data, waiting for room in the host's queue.
    pub(super) async fn send(&mut self, kind: ToEnvoyTunnelMessageKind, payload_bytes: usize) -> Result<(), LinkClosed> {
        self.tunnel.send(kind, payload_bytes).await?;
        self.open = true;
        Ok(())
    }

    /// Tells the host that nobody will read or send the rest of the request's body.
    pub(super) fn cancel_body(&mut self) {
        self.send_flow_control(ToEnvoyTunnelMessageKind::RequestBodyCancel);
    }

    /// Gives the actor credit for more of a streamed answer.
    pub(super) fn report_consumed(&mut self, consumed_bytes: u64) {
        self.send_flow_control(ToEnvoyTunnelMessageKind::ResponseBodyWindowUpdate { consumed_bytes });
    }

    /// Sends a message that hosts before the streaming version do not know; to those nothing is sent.
    fn send_flow_control(&mut self, kind: ToEnvoyTunnelMessageKind) {
        if self.can_stream() {
            // A connection that has just ended needs no more messages: the request hears of it through its inbox.
            let _ = self.tunnel.send_now(kind);
        }
    }

    /// The answer has begun. The host may be ahead of the client by a window now, and no longer by an unstreamed answer.
    pub(super) fn is_answering(&mut self) {
        self.direction = StreamDirection::Response;
        let chunk_max_bytes = limits::HTTP_BODY_CHUNK_MAX_BYTES as u64;
        self.tunnel.let_wait_at_most(limits::HTTP_BODY_WINDOW_BYTES + chunk_max_bytes);
    }

    /// The host has said everything.
    pub(super) fn is_over(&mut self) {
        self.open = false;
    }

    /// The next thing that the host says.
    pub(super) async fn receive(&mut self) -> Result<Told, Violation> {
        std::future::poll_fn(|cx| self.poll_receive(cx)).await
    }

    /// As [`Self::receive`], for bodies that are polled.
    pub(super) fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<Told, Violation>> {
        self.tunnel.poll_receive(cx).map(|from_actor| self.understand(from_actor))
    }

    fn understand(&mut self, from_actor: FromActor) -> Result<Told, Violation> {
        let (index, kind) = match from_actor {
            FromActor::Frame { index, kind } => (index, kind),
            FromActor::LinkLost(_) => {
                self.open = false;
                return Ok(Told::LinkLost);
            }
            FromActor::Stopped => return Ok(Told::Stopped),
            FromActor::Overflow => return Ok(Told::Overflow),
        };
        if !is_out_of_order(&kind) {
            self.check_order(index, &kind)?;
        }
        match kind {
            ToRivetTunnelMessageKind::ResponseStart(start) => Ok(Told::Start(start)),
            ToRivetTunnelMessageKind::ResponseChunk(chunk) => {
                self.open &= !chunk.finish;
                Ok(Told::Chunk(chunk))
            }
            ToRivetTunnelMessageKind::RequestBodyWindowUpdate { consumed_bytes } => Ok(Told::Consumed(consumed_bytes)),
            ToRivetTunnelMessageKind::RequestBodyCancel => Ok(Told::BodyCancelled),
            ToRivetTunnelMessageKind::ResponseAbort(abort) => {
                let request_id = self.tunnel.request_id();
                tracing::debug!(actor_id = %self.actor, %request_id, ray = %self.ray, reason = ?abort.reason, "the actor aborted a request");
                self.count_abort(Initiator::Actor, abort.reason.kind);
                self.open = false;
                Ok(Told::Aborted)
            }
            ToRivetTunnelMessageKind::WebSocketOpen { .. }
            | ToRivetTunnelMessageKind::WebSocketMessage { .. }
            | ToRivetTunnelMessageKind::WebSocketMessageAck { .. }
            | ToRivetTunnelMessageKind::WebSocketClose { .. } => {
                Err(self.violation("gateway received a WebSocket message for an HTTP request"))
            }
        }
    }

    fn check_order(&mut self, index: u16, kind: &ToRivetTunnelMessageKind) -> Result<(), Violation> {
        // Whatever the connection layer says carries index 0, also in the middle of a request (`spec/envoy-protocol.md` 13.5).
        let is_its_fault = matches!(kind, ToRivetTunnelMessageKind::ResponseStart(start) if is_from_connection_layer(start));
        if is_its_fault && index == 0 && !self.order.is_at_start() {
            return Ok(());
        }
        self.order.take(index).map_err(|gap| {
            tracing::error!(
                actor_id = %self.actor, request_id = %self.tunnel.request_id(), ray = %self.ray,
                expected = gap.expected, got = gap.got,
                "response message index gap"
            );
            self.violation("gateway detected response stream message index gap")
        })
    }

    /// Tells the actor's host that the request is over, unless it knows already.
    pub(super) fn abort(&mut self, initiator: Initiator, kind: HttpStreamAbortReasonKind, detail: &str) {
        if !self.open {
            return;
        }
        self.open = false;
        self.count_abort(initiator, kind);
        let abort = RequestAbort {
            // Hosts take both or neither (`spec/envoy-protocol.md` 13.6).
            actor_id: self.generation.map(|_| self.actor.to_string()),
            actor_generation: self.generation,
            reason: HttpStreamAbortReason { kind, detail: Some(detail.to_owned()) },
        };
        let _ = self.tunnel.send_now(ToEnvoyTunnelMessageKind::RequestAbort(abort));
    }

    /// Ends a request because of something that the gateway will not go on with.
    pub(super) fn fail(&mut self, detail: &str) {
        self.abort(Initiator::Gateway, HttpStreamAbortReasonKind::InternalError, detail);
    }

    /// Ends a request whose host broke the protocol.
    pub(super) fn violation(&mut self, detail: &'static str) -> Violation {
        tracing::error!(
            actor_id = %self.actor, request_id = %self.tunnel.request_id(), ray = %self.ray, detail,
            "tunnel protocol violation"
        );
        self.fail(detail);
        Violation(detail)
    }

    fn count_abort(&self, initiator: Initiator, kind: HttpStreamAbortReasonKind) {
        self.metrics.stream_aborts.get(self.direction).get(initiator).get(kind.into()).inc();
    }
}

/// An abort ends the request whatever its index: those that the host's connection layer makes always carry 0.
fn is_out_of_order(kind: &ToRivetTunnelMessageKind) -> bool {
    matches!(kind, ToRivetTunnelMessageKind::ResponseAbort(_))
}

impl Drop for Call {
    fn drop(&mut self) {
        let detail = match self.direction {
            StreamDirection::Request => "client disconnected before the HTTP response started",
            StreamDirection::Response => "client dropped streaming response body",
        };
        self.abort(Initiator::Client, HttpStreamAbortReasonKind::Cancelled, detail);
    }
}
