//! The body of a streamed response.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use protocol::envoy::{BodyChunk, HttpStreamAbortReasonKind};
use protocol::limits;
use tokio::time::{Instant, Sleep, sleep_until};

use super::call::{Call, Told, Violation};
use super::flow::Receipt;
use super::rest::Answering;
use crate::handler::StreamCut;
use crate::metrics::{Initiator, RequestResult};

/// Hands the actor's chunks to the client as they come and returns credit as they are taken, so that a slow reader holds
/// back the actor and never memory.
pub struct ActorBody {
    call: Call,
    /// The head of the answer may have brought the first piece.
    first: Option<Bytes>,
    /// The piece that completes the announced length. It is handed over when the actor has said that nothing follows: with
    /// it the client takes the answer for complete.
    held: Option<Bytes>,
    receipt: Receipt,
    /// Restarts with each chunk.
    idle: Option<(Duration, Pin<Box<Sleep>>)>,
    stopped: Option<Pin<Box<Sleep>>>,
    ended: bool,
    /// The client's connection has had the time to write what it was handed.
    is_written: bool,
    /// What the body ends with as soon as that is written.
    cut: Option<StreamCut>,
    /// What the client still sends is thrown away meanwhile.
    _answering: Option<Answering>,
}

type Polled = Poll<Option<Result<Frame<Bytes>, StreamCut>>>;

/// What the client gets next, if anything yet.
type Next = Option<Option<Result<Frame<Bytes>, StreamCut>>>;

impl ActorBody {
    /// The body of an answer whose length the actor may have announced.
    pub(super) fn new(
        call: Call,
        first: Option<Bytes>,
        announced: Option<u64>,
        idle_timeout: Option<Duration>,
        answering: Option<Answering>,
    ) -> Self {
        let idle = idle_timeout.map(|limit| (limit, Box::pin(sleep_until(Instant::now() + limit))));
        let receipt = Receipt::new(announced);
        Self {
            call,
            first,
            held: None,
            receipt,
            idle,
            stopped: None,
            ended: false,
            is_written: true,
            cut: None,
            _answering: answering,
        }
    }

    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Polled {
        if let Some(cut) = self.cut.take() {
            return Poll::Ready(Some(Err(cut)));
        }
        let polled = self.poll_next(cx);
        if let (Poll::Ready(Some(Err(cut))), false) = (&polled, self.is_written) {
            // The connection writes what it has whenever this body rests, and forgets it when it learns of the cut.
            self.cut = Some(*cut);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.is_written = polled.is_pending();
        polled
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Polled {
        if self.ended {
            return Poll::Ready(None);
        }
        if let Some(body) = self.first.take()
            && let Some(next) = self.take(BodyChunk { body, finish: false })
        {
            return Poll::Ready(next);
        }
        while let Poll::Ready(told) = self.call.poll_receive(cx) {
            if let Some(next) = self.hear(told) {
                return Poll::Ready(next);
            }
        }
        self.poll_timers(cx)
    }

    /// Whether the client has all of it.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended && self.cut.is_none()
    }

    fn hear(&mut self, told: Result<Told, Violation>) -> Next {
        match told {
            Ok(Told::Chunk(chunk)) => {
                if let Some((limit, timer)) = &mut self.idle {
                    timer.as_mut().reset(Instant::now() + *limit);
                }
                self.take(chunk)
            }
            // The upload is over.
            Ok(Told::Consumed(_) | Told::BodyCancelled) => None,
            Ok(Told::Stopped) => {
                let grace = Instant::now() + limits::ACTOR_STOPPED_GRACE;
                self.stopped.get_or_insert_with(|| Box::pin(sleep_until(grace)));
                None
            }
            Ok(Told::Aborted) => self.cut("the actor aborted it", RequestResult::EnvoyError),
            Ok(Told::LinkLost) => self.cut("the connection to the actor's host was lost", RequestResult::EnvoyError),
            Ok(Told::Overflow) => {
                self.break_off("actor response producer outpaced downstream delivery and filled the gateway buffer")
            }
            Ok(Told::Start(_)) => self.break_off("gateway received a second response start"),
            Err(Violation(detail)) => self.cut(detail, RequestResult::EnvoyError),
        }
    }

    fn take(&mut self, chunk: BodyChunk) -> Next {
        if self.receipt.take(chunk.body.len(), chunk.finish).is_err() {
            return self.break_off("the response body is not as long as its content-length");
        }
        // What follows the piece that completes the announced length is empty.
        let body = self.held.take().unwrap_or(chunk.body);
        if chunk.finish {
            self.ended = true;
        } else if let Some(consumed) = self.receipt.report_due() {
            self.call.report_consumed(consumed);
        }
        if !chunk.finish && self.receipt.is_as_announced() {
            self.held = Some(body);
            return None;
        }
        if body.is_empty() { self.ended.then_some(None) } else { Some(Some(Ok(Frame::data(body)))) }
    }

    fn poll_timers(&mut self, cx: &mut Context<'_>) -> Polled {
        if let Some(timer) = &mut self.stopped
            && timer.as_mut().poll(cx).is_ready()
        {
            self.call.abort(Initiator::Actor, HttpStreamAbortReasonKind::Cancelled, "actor stopped during the response");
            return Poll::Ready(self.cut("the actor stopped", RequestResult::EnvoyError).flatten());
        }
        if let Some((_, timer)) = &mut self.idle
            && timer.as_mut().poll(cx).is_ready()
        {
            self.call.fail("response chunk idle timeout");
            let why = "no chunk came within the idle timeout";
            return Poll::Ready(self.cut(why, RequestResult::RequestTimeout).flatten());
        }
        Poll::Pending
    }

    fn break_off(&mut self, detail: &'static str) -> Next {
        let Violation(detail) = self.call.violation(detail);
        self.cut(detail, RequestResult::EnvoyError)
    }

    fn cut(&mut self, why: &'static str, result: RequestResult) -> Next {
        self.ended = true;
        Some(Some(Err(StreamCut { why, result })))
    }
}
