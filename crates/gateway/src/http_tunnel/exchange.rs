//! One attempt to have a request answered by one generation of an actor.

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use http_body_util::Full;
use protocol::envoy::{
    BodyChunk, Headers, HttpStreamAbortReason, HttpStreamAbortReasonKind, RequestAbort, RequestStart, ResponseStart,
    ToEnvoyTunnelMessageKind, ToRivetTunnelMessageKind,
};
use protocol::id::ActorId;
use protocol::limits;
use tokio::time::{Instant, sleep_until};

use super::response::ActorBody;
use super::upload::{Piece, Upload, UploadError, too_large};
use crate::config::STOPPED_GRACE;
use crate::error::GatewayError;
use crate::handler::{GatewayBody, Shared};
use crate::headers;
use crate::link::LinkClosed;
use crate::ready::Route;
use crate::tunnel::{Accepts, FromActor, Tunnel, http_queue_max_bytes};

/// What every attempt sends.
pub(super) struct Head {
    pub(super) actor: ActorId,
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) headers: Headers,
}

/// How an attempt ended, unless with an error.
pub(super) enum Outcome {
    /// With an answer.
    Answered(Box<Response<GatewayBody>>),
    /// The actor certainly has not seen the request.
    NotDelivered,
}

/// First protocol version with window updates, body cancels and streamed answers (`spec/envoy-protocol.md` 6.4).
const STREAMING_SINCE_VERSION: u16 = 8;

/// Answers of the host's connection layer which say that no actor saw the request.
const NOT_DELIVERED: [&str; 2] = ["envoy.actor_not_found", "envoy.actor_generation_mismatch"];

/// Whether an answer was made by the host's connection layer. User code can set any status and header, but every answer of a
/// live actor names the actor.
fn is_from_connection_layer(start: &ResponseStart) -> bool {
    !start.stream && start.headers.get("x-rivet-error").is_some() && start.headers.get("x-rivet-actor").is_none()
}

/// Whether an answer says that no actor saw the request.
fn is_not_delivered(start: &ResponseStart) -> bool {
    let error = start.headers.get("x-rivet-error").map(String::as_str).unwrap_or_default();
    start.status == 503 && is_from_connection_layer(start) && NOT_DELIVERED.contains(&error)
}

/// An attempt. When it is dropped before its end, the actor's host is told that the client went away.
pub(super) struct Exchange<'a> {
    head: &'a Head,
    generation: u32,
    call: HttpTunnel,
    response_start_timeout: std::time::Duration,
    chunk_idle_timeout: Option<std::time::Duration>,
    response_payload_max_bytes: u64,
    request_body_max_bytes: u64,
    /// The actor has said that it wants no more of the body.
    body_cancelled: bool,
}

/// The tunnel and what has gone through it.
pub(super) struct HttpTunnel {
    tunnel: Tunnel,
    actor: ActorId,
    generation: u32,
    next_response_index: u16,
    /// The host waits for something of this request, or sends something for it.
    open: bool,
}

enum Answer {
    Start(ResponseStart),
    Stopped,
}

impl<'a> Exchange<'a> {
    pub(super) fn new<D>(shared: &Shared<D>, head: &'a Head, route: Route) -> Self {
        let max_queued = http_queue_max_bytes(shared.config.response_payload_max_bytes);
        let accepts = Accepts::Session(route.link.session());
        let tunnel = shared.tunnels.open(head.actor, route.link, accepts, max_queued);
        Self {
            head,
            generation: route.generation,
            call: HttpTunnel { tunnel, actor: head.actor, generation: route.generation, next_response_index: 0, open: false },
            response_start_timeout: shared.config.response_start_timeout,
            chunk_idle_timeout: shared.config.response_chunk_idle_timeout,
            response_payload_max_bytes: shared.config.response_payload_max_bytes,
            request_body_max_bytes: shared.config.request_body_max_bytes,
            body_cancelled: false,
        }
    }

    pub(super) async fn run(mut self, upload: &mut Upload) -> Result<Outcome, GatewayError> {
        if !self.call.can_stream() && upload.inline().is_none() {
            upload.read_all(self.request_body_max_bytes, self.response_start_timeout).await?;
        }
        if self.send_start(upload).await.is_err() {
            return Ok(Outcome::NotDelivered);
        }
        self.call.open = true;
        let answer = self.upload_until_answer(upload).await?;
        let start = match answer {
            Answer::Start(start) => start,
            Answer::Stopped => return Err(self.stopped()),
        };
        if is_not_delivered(&start) && upload.is_untouched() {
            if upload.is_complete() {
                // The host keeps nothing of a request that it has refused.
                self.call.open = false;
            } else {
                self.call.abort(HttpStreamAbortReasonKind::Cancelled, "the request goes to another generation");
            }
            return Ok(Outcome::NotDelivered);
        }
        if !upload.is_complete() && !self.body_cancelled {
            // The answer is here, so nobody will read the rest.
            self.call.send_now(ToEnvoyTunnelMessageKind::RequestBodyCancel);
        }
        self.respond(start).map(|response| Outcome::Answered(Box::new(response)))
    }

    async fn send_start(&mut self, upload: &Upload) -> Result<(), LinkClosed> {
        let inline = upload.inline();
        let stream = inline.is_none();
        let body = inline.flatten();
        let header_bytes: usize = self.head.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        let bytes = body.as_ref().map_or(0, Bytes::len) + self.head.path.len() + header_bytes;
        let start = RequestStart {
            actor_id: self.head.actor.to_string(),
            actor_generation: Some(self.generation),
            method: self.head.method.as_str().to_owned(),
            path: self.head.path.clone(),
            headers: self.head.headers.clone(),
            body,
            stream,
            response_stream: self.call.can_stream(),
        };
        self.call.tunnel.send(ToEnvoyTunnelMessageKind::RequestStart(start), bytes).await
    }

    /// Sends the body as credit allows until the head of the response arrives.
    async fn upload_until_answer(&mut self, upload: &mut Upload) -> Result<Answer, GatewayError> {
        let mut sending = upload.inline().is_none();
        let mut sent: u64 = 0;
        let mut consumed: u64 = 0;
        let mut deadline = Instant::now() + self.response_start_timeout;
        let mut stopped_at: Option<Instant> = None;
        loop {
            let credit = limits::HTTP_BODY_WINDOW_BYTES.saturating_sub(sent - consumed) as usize;
            let max_len = credit.min(limits::HTTP_BODY_CHUNK_MAX_BYTES);
            tokio::select! {
                told = self.call.tunnel.receive() => match self.call.check(told)? {
                    Told::Start(start) => return Ok(Answer::Start(start)),
                    Told::Consumed(total) if total < consumed || total > sent => {
                        return Err(self.call.violation("invalid request body window update"));
                    }
                    Told::Consumed(total) => consumed = total,
                    Told::BodyCancelled => {
                        sending = false;
                        self.body_cancelled = true;
                    }
                    Told::Chunk => {
                        return Err(self.call.violation("gateway received a response body message before response headers"));
                    }
                    Told::Aborted => return Err(GatewayError::TunnelRequestAborted),
                    Told::LinkLost => return Err(GatewayError::TunnelResponseClosed),
                    Told::Stopped => stopped_at = stopped_at.or(Some(Instant::now() + STOPPED_GRACE)),
                },
                piece = upload.next(max_len), if sending && max_len > 0 => {
                    let (body, finish) = match piece {
                        Ok(Piece::Data(body)) => (body, false),
                        Ok(Piece::Last(body)) => (body, true),
                        Err(error) => return Err(self.upload_failed(&error)),
                    };
                    sending = !finish;
                    sent += body.len() as u64;
                    // The limit counts from the moment the actor has the whole request.
                    deadline = Instant::now() + self.response_start_timeout;
                    let bytes = body.len();
                    let chunk = ToEnvoyTunnelMessageKind::RequestChunk(BodyChunk { body, finish });
                    if self.call.tunnel.send(chunk, bytes).await.is_err() {
                        return Err(GatewayError::TunnelResponseClosed);
                    }
                },
                () = sleep_until(deadline) => {
                    self.call.abort(HttpStreamAbortReasonKind::InternalError, "response start timed out");
                    let timeout_ms = self.response_start_timeout.as_millis() as u64;
                    return Err(GatewayError::ResponseStartTimeout { timeout_ms });
                }
                () = sleep_until(stopped_at.unwrap_or(deadline)), if stopped_at.is_some() => return Ok(Answer::Stopped),
            }
        }
    }

    fn upload_failed(&mut self, error: &UploadError) -> GatewayError {
        match error {
            UploadError::TooLarge => {
                let detail = format!("request body exceeded the {}-byte limit", self.request_body_max_bytes);
                self.call.abort(HttpStreamAbortReasonKind::Cancelled, &detail);
                too_large(self.request_body_max_bytes)
            }
            UploadError::ClientGone => {
                self.call.abort(HttpStreamAbortReasonKind::Cancelled, "client disconnected during the request body");
                GatewayError::InvalidRequestBody { reason: "the client disconnected".into() }
            }
        }
    }

    fn stopped(&mut self) -> GatewayError {
        self.call.abort(HttpStreamAbortReasonKind::Cancelled, "actor stopped before the HTTP response started");
        GatewayError::ActorStoppedWhileWaiting { actor_id: self.head.actor.to_string() }
    }

    fn respond(mut self, start: ResponseStart) -> Result<Response<GatewayBody>, GatewayError> {
        let bytes = start.body.as_ref().map_or(0, Bytes::len) as u64;
        if !start.stream {
            self.call.open = false;
            if bytes > self.response_payload_max_bytes {
                tracing::warn!(actor_id = %self.head.actor, bytes, "unstreamed response above the limit");
                return Err(GatewayError::TunnelRequestAborted);
            }
        }
        let status = match StatusCode::from_u16(start.status) {
            Ok(status) if !status.is_informational() => status,
            Ok(_) => return Err(self.call.unusable("the actor answered with an informational status")),
            Err(_) => return Err(self.call.violation("the actor answered with an invalid status")),
        };
        let Ok(headers) = headers::for_client(&start.headers) else {
            return Err(self.call.violation("the actor answered with an invalid header"));
        };
        let without_body = self.head.method == Method::HEAD
            || [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED, StatusCode::RESET_CONTENT].contains(&status);
        let body = if without_body {
            self.call.abort(HttpStreamAbortReasonKind::Cancelled, "the response has no body");
            GatewayBody::Whole(Full::default())
        } else if start.stream {
            GatewayBody::Streamed(Box::new(ActorBody::new(self.call, start.body, self.chunk_idle_timeout)))
        } else {
            GatewayBody::Whole(Full::new(start.body.unwrap_or_default()))
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        if !without_body && !start.stream {
            // The size of what is sent is known; what the actor announced may be wrong and would hang the client.
            response.headers_mut().insert(http::header::CONTENT_LENGTH, bytes.into());
        }
        Ok(response)
    }
}

/// A frame from the actor after its index was checked.
pub(super) enum Told {
    Start(ResponseStart),
    Chunk,
    Consumed(u64),
    BodyCancelled,
    Aborted,
    LinkLost,
    Stopped,
}

/// A piece of a streamed response.
pub(super) enum Streamed {
    Chunk(BodyChunk),
    Ignored,
    Aborted,
    LinkLost,
    Stopped,
    Violation(&'static str),
}

impl HttpTunnel {
    fn can_stream(&self) -> bool {
        self.tunnel.link().protocol_version() >= STREAMING_SINCE_VERSION
    }

    fn check(&mut self, told: FromActor) -> Result<Told, GatewayError> {
        let (index, kind) = match told {
            FromActor::Frame { index, kind } => (index, kind),
            FromActor::LinkLost(_) => {
                self.open = false;
                return Ok(Told::LinkLost);
            }
            FromActor::Stopped => return Ok(Told::Stopped),
            FromActor::Overflow => return Err(self.violation("actor response filled the gateway buffer")),
        };
        // Faults that the host's connection layer reports always carry index 0; they end the request whatever they say.
        if let ToRivetTunnelMessageKind::ResponseAbort(abort) = kind {
            tracing::debug!(actor_id = %self.actor, reason = ?abort.reason, "actor aborted a request before its response");
            self.open = false;
            return Ok(Told::Aborted);
        }
        let is_late_fault = index == 0
            && self.next_response_index > 0
            && matches!(&kind, ToRivetTunnelMessageKind::ResponseStart(start) if is_from_connection_layer(start));
        if !is_late_fault && !self.in_order(index) {
            return Err(self.violation("gateway detected response stream message index gap"));
        }
        match kind {
            ToRivetTunnelMessageKind::ResponseStart(start) => Ok(Told::Start(start)),
            ToRivetTunnelMessageKind::ResponseChunk(_) => Ok(Told::Chunk),
            ToRivetTunnelMessageKind::RequestBodyWindowUpdate { consumed_bytes } => Ok(Told::Consumed(consumed_bytes)),
            ToRivetTunnelMessageKind::RequestBodyCancel => Ok(Told::BodyCancelled),
            ToRivetTunnelMessageKind::ResponseAbort(_) => Ok(Told::Aborted),
            ToRivetTunnelMessageKind::WebSocketOpen { .. }
            | ToRivetTunnelMessageKind::WebSocketMessage { .. }
            | ToRivetTunnelMessageKind::WebSocketMessageAck { .. }
            | ToRivetTunnelMessageKind::WebSocketClose { .. } => {
                Err(self.violation("gateway received a WebSocket message for an HTTP request"))
            }
        }
    }

    /// Takes the index of the next message of the response; logs a gap.
    fn in_order(&mut self, index: u16) -> bool {
        let expected = self.next_response_index;
        self.next_response_index = expected.wrapping_add(1);
        if index != expected {
            tracing::error!(
                actor_id = %self.actor, request_id = ?self.tunnel.request_id(), expected, got = index,
                "response message index gap"
            );
        }
        index == expected
    }

    /// The next piece of a streamed response.
    pub(super) fn poll_streamed(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Streamed> {
        self.tunnel.poll_receive(cx).map(|told| self.streamed(told))
    }

    fn streamed(&mut self, told: FromActor) -> Streamed {
        let (index, kind) = match told {
            FromActor::Frame { index, kind } => (index, kind),
            FromActor::LinkLost(_) => {
                self.open = false;
                return Streamed::LinkLost;
            }
            FromActor::Stopped => return Streamed::Stopped,
            FromActor::Overflow => {
                return Streamed::Violation("actor response producer outpaced downstream delivery and filled the gateway buffer");
            }
        };
        if let ToRivetTunnelMessageKind::ResponseAbort(abort) = kind {
            tracing::debug!(actor_id = %self.actor, reason = ?abort.reason, "actor aborted a streamed response");
            self.open = false;
            return Streamed::Aborted;
        }
        if !self.in_order(index) {
            return Streamed::Violation("gateway detected response stream message index gap");
        }
        match kind {
            ToRivetTunnelMessageKind::ResponseChunk(chunk) => {
                self.open = !chunk.finish;
                Streamed::Chunk(chunk)
            }
            ToRivetTunnelMessageKind::RequestBodyWindowUpdate { .. } | ToRivetTunnelMessageKind::RequestBodyCancel => {
                Streamed::Ignored
            }
            ToRivetTunnelMessageKind::ResponseStart(_)
            | ToRivetTunnelMessageKind::ResponseAbort(_)
            | ToRivetTunnelMessageKind::WebSocketOpen { .. }
            | ToRivetTunnelMessageKind::WebSocketMessage { .. }
            | ToRivetTunnelMessageKind::WebSocketMessageAck { .. }
            | ToRivetTunnelMessageKind::WebSocketClose { .. } => {
                Streamed::Violation("gateway received an unexpected message in a response stream")
            }
        }
    }

    /// Gives the actor credit for more of a streamed response.
    pub(super) fn report_consumed(&mut self, consumed_bytes: u64) {
        self.send_now(ToEnvoyTunnelMessageKind::ResponseBodyWindowUpdate { consumed_bytes });
    }

    /// Sends a frame that hosts before the streaming version do not know; to those nothing is sent.
    fn send_now(&mut self, kind: ToEnvoyTunnelMessageKind) {
        if self.can_stream() {
            // A connection that has just ended needs no more frames: the request hears of it through its inbox.
            let _ = self.tunnel.send_now(kind);
        }
    }

    /// Tells the actor's host that the request is over, unless it knows already.
    pub(super) fn abort(&mut self, kind: HttpStreamAbortReasonKind, detail: &str) {
        if !self.open {
            return;
        }
        self.open = false;
        let abort = RequestAbort {
            actor_id: Some(self.actor.to_string()),
            actor_generation: Some(self.generation),
            reason: HttpStreamAbortReason { kind, detail: Some(detail.to_owned()) },
        };
        let _ = self.tunnel.send_now(ToEnvoyTunnelMessageKind::RequestAbort(abort));
    }

    /// Ends a request whose host broke the protocol.
    pub(super) fn violation(&mut self, detail: &'static str) -> GatewayError {
        tracing::error!(actor_id = %self.actor, request_id = ?self.tunnel.request_id(), detail, "tunnel protocol violation");
        self.abort(HttpStreamAbortReasonKind::InternalError, detail);
        GatewayError::Internal
    }

    fn unusable(&mut self, detail: &'static str) -> GatewayError {
        self.abort(HttpStreamAbortReasonKind::InternalError, detail);
        GatewayError::InvalidResponseBody { reason: detail.to_owned() }
    }
}

impl Drop for HttpTunnel {
    fn drop(&mut self) {
        self.abort(HttpStreamAbortReasonKind::Cancelled, "client disconnected before the HTTP response ended");
    }
}
