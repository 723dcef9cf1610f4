//! The body of a client's request: inside the start message when it is small, else in chunks as far as credit goes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use http::Method;
use http::header::EXPECT;
use http::request::Parts;
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use protocol::limits;
use tokio::time::timeout;

use super::rest::{self, Answering};
use crate::budget::{Budget, Share};
use crate::error::GatewayError;
use crate::headers;
use crate::metrics::{Metrics, Traffic};

/// What is left of a request's body.
pub(super) struct Upload {
    state: State,
    declared_bytes: Option<u64>,
    max_bytes: u64,
    /// The client waits for permission before it sends, so a body that nobody has begun to read must not be touched.
    asks_first: bool,
    metrics: Arc<Metrics>,
    /// What a large body that is here takes of what may wait for actors.
    _waiting: Option<Share>,
}

enum State {
    /// All of it is here; nothing has been given away.
    Whole(Option<Bytes>),
    /// There is none for the actor, whatever the client sends.
    Unwanted(FromClient),
    /// It comes from the client.
    Streamed(FromClient),
    /// All of it was read, or is being thrown away.
    Ended,
}

/// What an upload has to send next.
pub(super) enum Piece {
    /// At most the asked-for number of bytes.
    Data(Bytes),
    /// The last bytes, possibly none.
    Last(Bytes),
}

/// Why an upload cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UploadError {
    /// More bytes than allowed.
    TooLarge,
    /// The client's connection broke.
    ClientGone,
}

impl Upload {
    /// Looks at the announced length first: a body that is too large is refused before anything else happens.
    pub(super) fn new(parts: &Parts, body: Incoming, max_bytes: u64, metrics: &Arc<Metrics>) -> Result<Self, GatewayError> {
        let declared_bytes = headers::content_length(&parts.headers);
        // What these methods carry has no meaning (RFC 9110, 9.3.1), and hosts refuse it (`spec/envoy-protocol.md` 13.1).
        let is_unwanted = parts.method == Method::GET || parts.method == Method::HEAD;
        let state = if body.is_end_stream() {
            State::Whole(None)
        } else {
            let from_client = FromClient::new(body, max_bytes, metrics);
            if is_unwanted { State::Unwanted(from_client) } else { State::Streamed(from_client) }
        };
        let asks_first = parts.headers.contains_key(EXPECT);
        let metrics = metrics.clone();
        let mut upload = Self { state, declared_bytes, max_bytes, asks_first, metrics, _waiting: None };
        if declared_bytes.is_some_and(|declared| declared > max_bytes) {
            upload.discard_rest();
            return Err(too_large(max_bytes));
        }
        Ok(upload)
    }

    /// Reads a body that fits into one chunk, so that it travels inside the start message: that saves the actor's host a
    /// message and a window update.
    pub(super) async fn read_if_small(&mut self, limit: Duration) -> Result<(), GatewayError> {
        if self.declared_bytes.is_none_or(|declared| declared > limits::HTTP_BODY_CHUNK_MAX_BYTES as u64) {
            return Ok(());
        }
        let State::Streamed(from_client) = &mut self.state else { return Ok(()) };
        let body = in_time(limit, from_client.read_to_end(None)).await?;
        self.state = State::Whole(body);
        Ok(())
    }

    /// Reads the whole body, for hosts that take bodies in one piece only. It counts towards what may wait for actors.
    pub(super) async fn read_all(&mut self, limit: Duration, waiting: &Arc<Budget>) -> Result<(), GatewayError> {
        let State::Streamed(from_client) = &mut self.state else { return Ok(()) };
        let mut share = waiting.share();
        let body = in_time(limit, from_client.read_to_end(Some(&mut share))).await?;
        self.state = State::Whole(body);
        self._waiting = Some(share);
        Ok(())
    }

    /// The whole body, if it is here; `None` when it must be streamed.
    pub(super) fn inline(&self) -> Option<Option<Bytes>> {
        match &self.state {
            State::Whole(body) => Some(body.clone()),
            State::Unwanted(_) => Some(None),
            State::Streamed(_) | State::Ended => None,
        }
    }

    /// Whether the request can be sent once more: nothing of its body was given away.
    pub(super) fn can_be_sent_again(&self) -> bool {
        match &self.state {
            State::Whole(_) | State::Unwanted(_) => true,
            State::Streamed(from_client) => from_client.is_untouched(),
            State::Ended => false,
        }
    }

    /// Whether the actor's host has been told, or needs not be told, where the body ends.
    pub(super) fn is_complete(&self) -> bool {
        !matches!(self.state, State::Streamed(_))
    }

    /// The next piece of at most `max_len` bytes. Cancel-safe.
    pub(super) async fn next(&mut self, max_len: usize) -> Result<Piece, UploadError> {
        let State::Streamed(from_client) = &mut self.state else { return Ok(Piece::Last(Bytes::new())) };
        from_client.fetch(max_len).await?;
        let piece = from_client.take(max_len);
        if from_client.is_finished() {
            self.state = State::Ended;
            return Ok(Piece::Last(piece));
        }
        Ok(Piece::Data(piece))
    }

    /// Throws away what the client still sends, if anything, until some time after the answer was written.
    pub(super) fn discard_rest(&mut self) -> Option<Answering> {
        match std::mem::replace(&mut self.state, State::Ended) {
            // Whoever asks first is answered before it sends.
            State::Streamed(rest) | State::Unwanted(rest) if !(self.asks_first && rest.is_untouched()) => {
                Some(rest::discard(rest, &self.metrics))
            }
            State::Streamed(_) | State::Unwanted(_) | State::Ended => None,
            whole @ State::Whole(_) => {
                self.state = whole;
                None
            }
        }
    }

    /// What the client is told.
    pub(super) fn error(&self, error: UploadError) -> GatewayError {
        match error {
            UploadError::TooLarge => too_large(self.max_bytes),
            UploadError::ClientGone => GatewayError::ClientGone,
        }
    }
}

fn too_large(max_bytes: u64) -> GatewayError {
    GatewayError::InvalidRequestBody { reason: too_large_detail(max_bytes) }
}

/// What host and client are told of a body above the limit.
pub(super) fn too_large_detail(max_bytes: u64) -> String {
    format!("request body exceeded the {max_bytes}-byte limit")
}

/// Bounds how long a client may take to send a body that is wanted as a whole.
async fn in_time<T>(limit: Duration, read: impl Future<Output = Result<T, GatewayError>>) -> Result<T, GatewayError> {
    timeout(limit, read).await.map_err(|_| GatewayError::RequestBodyTimeout { timeout_seconds: limit.as_secs() })?
}

/// A body as it comes in.
pub(super) struct FromClient {
    body: Incoming,
    /// What has been read but not taken.
    ahead: VecDeque<Bytes>,
    ahead_bytes: usize,
    read_bytes: u64,
    /// Reading more than this fails.
    allowed_bytes: u64,
    max_bytes: u64,
    has_ended: bool,
    metrics: Arc<Metrics>,
}

impl FromClient {
    fn new(body: Incoming, max_bytes: u64, metrics: &Arc<Metrics>) -> Self {
        let metrics = metrics.clone();
        let ahead = VecDeque::new();
        Self { body, ahead, ahead_bytes: 0, read_bytes: 0, allowed_bytes: max_bytes, max_bytes, has_ended: false, metrics }
    }

    /// Lets as much be read once more as a body may have.
    pub(super) fn allow_a_whole_body_more(&mut self) {
        self.allowed_bytes = self.read_bytes.saturating_add(self.max_bytes);
    }

    fn is_untouched(&self) -> bool {
        self.read_bytes == 0 && !self.has_ended
    }

    fn is_finished(&self) -> bool {
        self.ahead.is_empty() && (self.has_ended || self.body.is_end_stream())
    }

    /// The next bytes; `None` at the end. Cancel-safe.
    pub(super) async fn read(&mut self) -> Result<Option<Bytes>, UploadError> {
        while !self.has_ended {
            let Some(frame) = self.body.frame().await else { break };
            let frame = frame.map_err(|_| UploadError::ClientGone)?;
            // Trailers are not forwarded (`spec/gateway.md` 12).
            let Ok(data) = frame.into_data() else { continue };
            self.read_bytes += data.len() as u64;
            self.metrics.body_bytes.get(Traffic::Ingress).add(data.len() as u64);
            if self.read_bytes > self.allowed_bytes {
                return Err(UploadError::TooLarge);
            }
            return Ok(Some(data));
        }
        self.has_ended = true;
        Ok(None)
    }

    /// Waits for something to take, and joins it with what else is here already, up to `max_len` bytes: a message to the
    /// host costs more than a copy of a few bytes. Cancel-safe.
    async fn fetch(&mut self, max_len: usize) -> Result<(), UploadError> {
        while self.ahead.is_empty() && !self.is_finished() {
            let read = self.read().await?;
            self.keep(read);
        }
        while self.ahead_bytes < max_len && !self.has_ended && !self.body.is_end_stream() {
            // The connection hands over one piece at a time, and gets to the next one when this task rests.
            tokio::task::yield_now().await;
            let Some(read) = self.read().now_or_never() else { break };
            self.keep(read?);
        }
        Ok(())
    }

    fn keep(&mut self, read: Option<Bytes>) {
        if let Some(data) = read.filter(|data| !data.is_empty()) {
            self.ahead_bytes += data.len();
            self.ahead.push_back(data);
        }
    }

    /// Up to `max_len` bytes of what was read. Copied only when they came in several pieces.
    fn take(&mut self, max_len: usize) -> Bytes {
        let wanted = max_len.min(self.ahead_bytes);
        let first = self.take_from_first(wanted);
        if first.len() == wanted {
            return first;
        }
        let mut joined = BytesMut::with_capacity(wanted);
        joined.extend_from_slice(&first);
        while joined.len() < wanted {
            joined.extend_from_slice(&self.take_from_first(wanted - joined.len()));
        }
        joined.freeze()
    }

    /// Up to `max_len` bytes of the first piece.
    fn take_from_first(&mut self, max_len: usize) -> Bytes {
        let Some(first) = self.ahead.front_mut() else { return Bytes::new() };
        let taken = first.split_to(first.len().min(max_len));
        if first.is_empty() {
            self.ahead.pop_front();
        }
        self.ahead_bytes -= taken.len();
        taken
    }

    /// The whole body, which counts towards a share as it comes; none when it is empty.
    async fn read_to_end(&mut self, mut share: Option<&mut Share>) -> Result<Option<Bytes>, GatewayError> {
        loop {
            match self.read().await {
                Ok(Some(data)) => {
                    let grown = share.as_mut().map_or(Ok(()), |share| share.grow(data.len() as u64));
                    grown.map_err(|_| GatewayError::TooMuchWaiting)?;
                    self.keep(Some(data));
                }
                Ok(None) => break,
                Err(UploadError::TooLarge) => {
                    return Err(GatewayError::InvalidRequestBody { reason: "length limit exceeded".into() });
                }
                Err(UploadError::ClientGone) => return Err(GatewayError::ClientGone),
            }
        }
        let body = self.take(self.ahead_bytes);
        Ok((!body.is_empty()).then_some(body))
    }
}
