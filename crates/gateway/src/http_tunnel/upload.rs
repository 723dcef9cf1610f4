//! The body of a client's request: inline when small, else in chunks as far as credit goes.

use std::time::Duration;

use bytes::Bytes;
use http::header::EXPECT;
use http::request::Parts;
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use protocol::limits;
use tokio::time::timeout;

use crate::config::{EARLY_ANSWER_DRAIN, EARLY_ANSWER_DRAIN_MAX_BYTES};
use crate::error::GatewayError;
use crate::headers;

/// What is left of a request's body.
pub(super) struct Upload {
    state: State,
    max_bytes: u64,
    read_bytes: u64,
    declared_bytes: Option<u64>,
    /// The client waits for permission before it sends, so a body that nobody has begun to read must not be touched.
    asks_first: bool,
}

enum State {
    /// All of it is here; nothing has been given away.
    Inline(Option<Bytes>),
    /// It comes from the client; `piece` has been read but not sent.
    Streamed { body: Incoming, piece: Bytes },
    /// All of it was read.
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
pub(super) enum UploadError {
    /// More bytes than allowed.
    TooLarge,
    /// The client's connection broke.
    ClientGone,
}

impl Upload {
    /// Looks at the announced length first: a body that is too large is refused before anything else happens.
    pub(super) fn new(parts: &Parts, body: Incoming, max_bytes: u64) -> Result<Self, GatewayError> {
        let declared_bytes = headers::content_length(&parts.headers);
        let asks_first = parts.headers.contains_key(EXPECT);
        if declared_bytes.is_some_and(|declared| declared > max_bytes) {
            // A client that asked first is told before it sends; any other one has begun, and reads the answer only after
            // its bytes were taken.
            if !asks_first {
                drain(body);
            }
            return Err(too_large(max_bytes));
        }
        let state = if body.is_end_stream() { State::Inline(None) } else { State::Streamed { body, piece: Bytes::new() } };
        Ok(Self { state, max_bytes, read_bytes: 0, declared_bytes, asks_first })
    }

    /// Reads a body that fits into one chunk, so that it travels inside the start message: that saves the actor's host a
    /// message and a window update.
    pub(super) async fn read_if_small(&mut self, limit: Duration) -> Result<(), GatewayError> {
        let small = self.declared_bytes.is_some_and(|declared| declared <= limits::HTTP_BODY_CHUNK_MAX_BYTES as u64);
        if !small {
            return Ok(());
        }
        let State::Streamed { body, .. } = &mut self.state else { return Ok(()) };
        let broken = |error: hyper::Error| GatewayError::InvalidRequestBody { reason: error.to_string() };
        let bytes = in_time(limit, body.collect()).await?.map_err(broken)?.to_bytes();
        self.state = State::Inline((!bytes.is_empty()).then_some(bytes));
        Ok(())
    }

    /// The whole body, if it is here; `None` when it must be streamed.
    pub(super) fn inline(&self) -> Option<Option<Bytes>> {
        match &self.state {
            State::Inline(body) => Some(body.clone()),
            State::Streamed { .. } | State::Ended => None,
        }
    }

    /// Whether the request can be sent once more: nothing of its body was consumed.
    pub(super) fn is_untouched(&self) -> bool {
        self.read_bytes == 0 && !matches!(self.state, State::Ended)
    }

    /// Whether all of the body was read.
    pub(super) fn is_complete(&self) -> bool {
        !matches!(self.state, State::Streamed { .. })
    }

    /// The next piece of at most `max_len` bytes. Cancel-safe.
    pub(super) async fn next(&mut self, max_len: usize) -> Result<Piece, UploadError> {
        let State::Streamed { body, piece } = &mut self.state else { return Ok(Piece::Last(Bytes::new())) };
        while piece.is_empty() {
            let Some(frame) = body.frame().await else {
                self.state = State::Ended;
                return Ok(Piece::Last(Bytes::new()));
            };
            // Trailers are not forwarded (`spec/gateway.md` 12).
            if let Ok(data) = frame.map_err(|_| UploadError::ClientGone)?.into_data() {
                self.read_bytes += data.len() as u64;
                *piece = data;
            }
            if self.read_bytes > self.max_bytes {
                return Err(UploadError::TooLarge);
            }
        }
        let sent = piece.split_to(piece.len().min(max_len));
        if piece.is_empty() && body.is_end_stream() {
            self.state = State::Ended;
            return Ok(Piece::Last(sent));
        }
        Ok(Piece::Data(sent))
    }

    /// Reads and throws away what the client still sends after an early answer, within bounds, so that it gets to read the
    /// answer before its connection closes.
    pub(super) fn drain(self) {
        let untouched = self.is_untouched();
        if let State::Streamed { body, .. } = self.state
            && !(self.asks_first && untouched)
        {
            drain(body);
        }
    }
}

fn drain(mut body: Incoming) {
    tokio::spawn(async move {
        let drained = async {
            let mut bytes = 0;
            while let Some(Ok(frame)) = body.frame().await {
                bytes += frame.data_ref().map_or(0, Bytes::len);
                if bytes > EARLY_ANSWER_DRAIN_MAX_BYTES {
                    break;
                }
            }
        };
        // Past the deadline the connection simply closes.
        let _ = timeout(EARLY_ANSWER_DRAIN, drained).await;
    });
}

/// Bounds how long a client may take to send a body that is wanted as a whole.
async fn in_time<T>(limit: Duration, read: impl Future<Output = T>) -> Result<T, GatewayError> {
    timeout(limit, read).await.map_err(|_| GatewayError::RequestBodyTimeout { timeout_seconds: limit.as_secs() })
}

/// The answer to a body above the limit.
pub(super) fn too_large(max_bytes: u64) -> GatewayError {
    GatewayError::InvalidRequestBody { reason: format!("request body exceeded the {max_bytes}-byte limit") }
}

impl Upload {
    /// Reads the whole body, up to the limit: for hosts that take bodies in one piece only.
    pub(super) async fn read_all(&mut self, max_bytes: u64, limit: Duration) -> Result<(), GatewayError> {
        let State::Streamed { body, piece } = &mut self.state else { return Ok(()) };
        let limited = http_body_util::Limited::new(body, max_bytes as usize);
        let collected = in_time(limit, limited.collect())
            .await?
            .map_err(|_| GatewayError::InvalidRequestBody { reason: "length limit exceeded".into() })?;
        debug_assert!(piece.is_empty(), "nothing was streamed before the body was read as a whole");
        self.state = State::Inline(Some(collected.to_bytes()));
        Ok(())
    }
}
