//! The body of a streamed response.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use protocol::envoy::HttpStreamAbortReasonKind;
use protocol::limits;
use tokio::time::{Instant, Sleep, sleep_until};

use super::exchange::{HttpTunnel, Streamed};
use crate::config::STOPPED_GRACE;
use crate::handler::StreamCut;

/// Hands the actor's chunks to the client as they come and returns credit as they are taken, so that a slow reader holds
/// back the actor and never memory.
pub struct ActorBody {
    call: HttpTunnel,
    first: Option<Bytes>,
    taken_bytes: u64,
    reported_bytes: u64,
    /// Restarts with each chunk.
    idle: Option<(Duration, Pin<Box<Sleep>>)>,
    stopped: Option<Pin<Box<Sleep>>>,
    ended: bool,
}

type Polled = Poll<Option<Result<Frame<Bytes>, StreamCut>>>;

impl ActorBody {
    pub(super) fn new(call: HttpTunnel, first: Option<Bytes>, idle_timeout: Option<Duration>) -> Self {
        let idle = idle_timeout.map(|limit| (limit, Box::pin(sleep_until(Instant::now() + limit))));
        Self { call, first, taken_bytes: 0, reported_bytes: 0, idle, stopped: None, ended: false }
    }

    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Polled {
        if self.ended {
            return Poll::Ready(None);
        }
        if let Some(first) = self.first.take().filter(|first| !first.is_empty()) {
            return self.hand_over(first);
        }
        while let Poll::Ready(streamed) = self.call.poll_streamed(cx) {
            match streamed {
                Streamed::Chunk(chunk) => {
                    self.ended = chunk.finish;
                    if let Some((limit, timer)) = &mut self.idle {
                        timer.as_mut().reset(Instant::now() + *limit);
                    }
                    if !chunk.body.is_empty() {
                        return self.hand_over(chunk.body);
                    }
                    if chunk.finish {
                        return Poll::Ready(None);
                    }
                }
                Streamed::Ignored => {}
                Streamed::Stopped => {
                    let grace = Instant::now() + STOPPED_GRACE;
                    self.stopped.get_or_insert_with(|| Box::pin(sleep_until(grace)));
                }
                Streamed::Aborted => return self.cut("the actor aborted it"),
                Streamed::LinkLost => return self.cut("the connection to the actor's host was lost"),
                Streamed::Violation(detail) => {
                    self.call.violation(detail);
                    return self.cut(detail);
                }
            }
        }
        self.poll_timers(cx)
    }

    fn poll_timers(&mut self, cx: &mut Context<'_>) -> Polled {
        if let Some(timer) = &mut self.stopped
            && timer.as_mut().poll(cx).is_ready()
        {
            self.call.abort(HttpStreamAbortReasonKind::Cancelled, "actor stopped during the response");
            return self.cut("the actor stopped");
        }
        if let Some((_, timer)) = &mut self.idle
            && timer.as_mut().poll(cx).is_ready()
        {
            self.call.abort(HttpStreamAbortReasonKind::InternalError, "response chunk idle timeout");
            return self.cut("no chunk came within the idle timeout");
        }
        Poll::Pending
    }

    fn hand_over(&mut self, body: Bytes) -> Polled {
        self.taken_bytes += body.len() as u64;
        if !self.ended && self.taken_bytes - self.reported_bytes >= limits::HTTP_WINDOW_UPDATE_STEP_BYTES {
            self.reported_bytes = self.taken_bytes;
            self.call.report_consumed(self.taken_bytes);
        }
        Poll::Ready(Some(Ok(Frame::data(body))))
    }

    fn cut(&mut self, why: &'static str) -> Polled {
        self.ended = true;
        Poll::Ready(Some(Err(StreamCut(why))))
    }
}

impl Drop for ActorBody {
    fn drop(&mut self) {
        self.call.abort(HttpStreamAbortReasonKind::Cancelled, "client dropped streaming response body");
    }
}
