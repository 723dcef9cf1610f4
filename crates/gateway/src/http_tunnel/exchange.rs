//! One attempt to have a request answered by one generation of an actor.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Response};
use http_body_util::Full;
use protocol::envoy::{BodyChunk, Headers, HttpStreamAbortReasonKind, RequestStart, ResponseStart, ToEnvoyTunnelMessageKind};
use protocol::id::ActorId;
use protocol::limits;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::call::{Call, Told, says_not_delivered};
use super::flow::SendWindow;
use super::head::{AnswerHead, BodyKind, UnusableHead};
use super::response::ActorBody;
use super::upload::{Piece, Upload, UploadError, too_large_detail};
use crate::budget::Budget;
use crate::config::GatewayConfig;
use crate::error::GatewayError;
use crate::handler::{GatewayBody, Shared};
use crate::link::LinkClosed;
use crate::metrics::{Initiator, Metrics, WindowStall};
use crate::ready::Route;

/// What every attempt sends.
pub(super) struct Head {
    pub(super) actor: ActorId,
    pub(super) ray: Arc<str>,
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

/// An attempt. When it is dropped before its end, the actor's host is told that the client went away.
pub(super) struct Exchange<'a> {
    head: &'a Head,
    config: &'a GatewayConfig,
    metrics: &'a Arc<Metrics>,
    waiting_for_actors: &'a Arc<Budget>,
    call: Call,
    /// The actor has said that it wants no more of the body.
    body_cancelled: bool,
}

impl<'a> Exchange<'a> {
    pub(super) fn new<D>(shared: &'a Shared<D>, head: &'a Head, route: Route) -> Self {
        Self {
            head,
            config: &shared.config,
            metrics: &shared.metrics,
            waiting_for_actors: shared.tunnels.for_actors(),
            call: Call::new(shared, head.actor, &head.ray, route),
            body_cancelled: false,
        }
    }

    pub(super) async fn run(mut self, upload: &mut Upload) -> Result<Outcome, GatewayError> {
        if !self.call.can_stream() {
            upload.read_all(self.config.response_start_timeout, self.waiting_for_actors).await?;
        }
        match timeout_at(self.start_deadline(), self.send_start(upload)).await {
            Ok(Ok(())) => {}
            Ok(Err(LinkClosed)) => return Ok(Outcome::NotDelivered),
            Err(_) => return Err(self.timed_out()),
        }
        let start = self.send_body_until_answer(upload).await?;
        if says_not_delivered(&start) && upload.can_be_sent_again() {
            return Ok(self.hand_back(upload));
        }
        self.answer(start, upload).map(|response| Outcome::Answered(Box::new(response)))
    }

    async fn send_start(&mut self, upload: &Upload) -> Result<(), LinkClosed> {
        let inline = upload.inline();
        let stream = inline.is_none();
        let body = inline.flatten();
        let header_bytes: usize = self.head.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        let bytes = body.as_ref().map_or(0, Bytes::len) + self.head.path.len() + header_bytes;
        let start = RequestStart {
            actor_id: self.head.actor.to_string(),
            actor_generation: self.call.generation(),
            method: self.head.method.as_str().to_owned(),
            path: self.head.path.clone(),
            headers: self.head.headers.clone(),
            body,
            stream,
            response_stream: self.call.can_stream(),
        };
        self.call.send(ToEnvoyTunnelMessageKind::RequestStart(start), bytes).await
    }

    /// Sends the body as credit allows until the head of the answer arrives.
    async fn send_body_until_answer(&mut self, upload: &mut Upload) -> Result<ResponseStart, GatewayError> {
        let mut sending = Sending {
            window: SendWindow::default(),
            goes_on: !upload.is_complete(),
            stall: None,
            deadline: self.start_deadline(),
            stopped_at: None,
        };
        loop {
            let max_len = sending.may_send(self.metrics);
            tokio::select! {
                biased;
                told = self.call.receive() => {
                    if let Some(start) = self.hear(told?, &mut sending)? {
                        return Ok(start);
                    }
                }
                piece = upload.next(max_len), if max_len > 0 => match piece {
                    Ok(piece) => self.pass_on(piece, &mut sending).await?,
                    Err(error) => return Err(self.upload_failed(error, upload)),
                },
                () = sleep_until(sending.stopped_at.unwrap_or(sending.deadline)), if sending.stopped_at.is_some() => {
                    return Err(self.stopped());
                }
                () = sleep_until(sending.deadline) => return Err(self.timed_out()),
            }
        }
    }

    /// Returns the head of the answer when it is what the host has sent.
    fn hear(&mut self, told: Told, sending: &mut Sending) -> Result<Option<ResponseStart>, GatewayError> {
        match told {
            Told::Start(start) => return Ok(Some(start)),
            Told::Chunk(_) => {
                return Err(self.call.violation("gateway received a response body message before response headers").into());
            }
            Told::Consumed(total) => {
                if sending.window.report(total).is_err() {
                    return Err(self.call.violation("invalid request body window update").into());
                }
            }
            Told::BodyCancelled => {
                sending.goes_on = false;
                self.body_cancelled = true;
            }
            Told::Aborted => return Err(GatewayError::TunnelRequestAborted),
            Told::Overflow => return Err(self.too_much("the answer is larger than may wait for its client")),
            Told::LinkLost => return Err(GatewayError::TunnelResponseClosed),
            Told::Stopped => {
                sending.stopped_at.get_or_insert(Instant::now() + limits::ACTOR_STOPPED_GRACE);
            }
        }
        Ok(None)
    }

    async fn pass_on(&mut self, piece: Piece, sending: &mut Sending) -> Result<(), GatewayError> {
        let (body, finish) = match piece {
            Piece::Data(body) => (body, false),
            Piece::Last(body) => (body, true),
        };
        let bytes = body.len();
        sending.goes_on = !finish;
        sending.window.send(bytes);
        // The limit counts from the moment the actor has the whole request.
        sending.deadline = self.start_deadline();
        let chunk = ToEnvoyTunnelMessageKind::RequestChunk(BodyChunk { body, finish });
        match timeout_at(sending.deadline, self.call.send(chunk, bytes)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(LinkClosed)) => {
                self.call.is_over();
                Err(GatewayError::TunnelResponseClosed)
            }
            Err(_) => Err(self.timed_out()),
        }
    }

    fn start_deadline(&self) -> Instant {
        Instant::now() + self.config.response_start_timeout
    }

    fn timed_out(&mut self) -> GatewayError {
        self.call.fail("response start timed out");
        GatewayError::ResponseStartTimeout { timeout_ms: self.config.response_start_timeout.as_millis() as u64 }
    }

    fn stopped(&mut self) -> GatewayError {
        let detail = "actor stopped before the HTTP response started";
        self.call.abort(Initiator::Actor, HttpStreamAbortReasonKind::Cancelled, detail);
        GatewayError::ActorStoppedWhileWaiting { actor_id: self.head.actor.to_string() }
    }

    fn upload_failed(&mut self, error: UploadError, upload: &Upload) -> GatewayError {
        let (initiator, detail) = match error {
            UploadError::TooLarge => (Initiator::Gateway, too_large_detail(self.config.request_body_max_bytes)),
            UploadError::ClientGone => (Initiator::Client, "client disconnected during the request body".to_owned()),
        };
        self.call.abort(initiator, HttpStreamAbortReasonKind::Cancelled, &detail);
        upload.error(error)
    }

    /// The host keeps nothing of a request that it has refused, but the rest of its body.
    fn hand_back(mut self, upload: &Upload) -> Outcome {
        if !upload.is_complete() {
            let detail = "the request goes to another generation";
            self.call.abort(Initiator::Gateway, HttpStreamAbortReasonKind::Cancelled, detail);
        }
        self.call.is_over();
        Outcome::NotDelivered
    }

    fn answer(mut self, start: ResponseStart, upload: &mut Upload) -> Result<Response<GatewayBody>, GatewayError> {
        if !upload.is_complete() && !self.body_cancelled {
            // The answer is here, so nobody will read the rest.
            self.call.cancel_body();
        }
        self.call.is_answering();
        if !start.stream {
            self.call.is_over();
            let bytes = start.body.as_ref().map_or(0, Bytes::len) as u64;
            if bytes > self.config.response_payload_max_bytes {
                return Err(self.too_much("the unstreamed answer is above the limit"));
            }
        }
        let AnswerHead { status, headers, body } =
            AnswerHead::new(&start, &self.head.method).map_err(|unusable| self.unusable(unusable))?;
        let body = match body {
            BodyKind::None => {
                self.call.abort(Initiator::Gateway, HttpStreamAbortReasonKind::Cancelled, "the response has no body");
                GatewayBody::Whole(Full::default())
            }
            BodyKind::Whole => GatewayBody::Whole(Full::new(start.body.unwrap_or_default())),
            BodyKind::Streamed { announced } => {
                let idle_timeout = self.config.response_chunk_idle_timeout;
                let body = ActorBody::new(self.call, start.body, announced, idle_timeout, upload.discard_rest());
                GatewayBody::Streamed(Box::new(body))
            }
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok(response)
    }

    fn too_much(&mut self, what: &'static str) -> GatewayError {
        tracing::warn!(actor_id = %self.head.actor, ray = %self.head.ray, what, "an answer was refused");
        self.call.fail(what);
        // The actor has done its work. A code that clients retry would have it done again, with the same end.
        GatewayError::InvalidResponseBody { reason: "length limit exceeded".to_owned() }
    }

    fn unusable(&mut self, head: UnusableHead) -> GatewayError {
        match head {
            UnusableHead::Status => self.call.violation("the actor answered with an invalid status").into(),
            UnusableHead::Header => self.call.violation("the actor answered with an invalid header").into(),
            UnusableHead::Informational => {
                let reason = "the actor answered with an informational status";
                self.call.fail(reason);
                GatewayError::InvalidResponseBody { reason: reason.to_owned() }
            }
        }
    }
}

/// How far a request's body and the wait for its answer have come.
struct Sending {
    window: SendWindow,
    /// There may be more to send, and the actor has not said that it wants no more.
    goes_on: bool,
    stall: Option<WindowStall>,
    deadline: Instant,
    /// When to give up because the actor's generation has ended.
    stopped_at: Option<Instant>,
}

impl Sending {
    /// How many bytes may be sent now. Counts the times when it is nothing although there may be more.
    fn may_send(&mut self, metrics: &Arc<Metrics>) -> usize {
        let credit = if self.goes_on { self.window.credit() as usize } else { 0 };
        let stands_still = self.goes_on && credit == 0;
        self.stall = stands_still.then(|| self.stall.take().unwrap_or_else(|| WindowStall::new(metrics)));
        credit.min(limits::HTTP_BODY_CHUNK_MAX_BYTES)
    }
}
