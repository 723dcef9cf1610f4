//! The client's end of a WebSocket session.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use protocol::error::cut_close_reason;
use protocol::limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tokio_websockets::proto::ProtocolError;
use tokio_websockets::{CloseCode, Error, Message};

use super::close::{ClientClose, End, INVALID_TEXT, PROTOCOL_ERROR, TOO_BIG};
use super::keepalive::{Keepalive, Look};
use super::pending;
use super::wire::Wire;
use crate::admission::Slot;
use crate::budget::Share;
use crate::config::GatewayConfig;
use crate::error::GatewayError;
use crate::io::ClientStream;
use crate::metrics::{OpenSocket, Traffic};
use crate::throttle::Throttle;

/// A codec that was taken out for a message is put away after this long, if nothing has come behind the message. So the codecs
/// of a socket that talks all the time are not worth mentioning, and many sockets that were opened at once have few.
const CODEC_REST_DELAY: Duration = Duration::from_millis(100);
const DISCARD_BUFFER_BYTES: usize = 64 * limits::KIB;

/// Whether a message is more than every socket may hold anyway.
fn is_large(bytes: usize) -> bool {
    bytes as u64 > limits::WAITING_FREE_BYTES
}

/// A client's socket.
pub(super) struct Client {
    wire: Wire,
    /// The codec can be put away as soon as no message is ready.
    drowsy: bool,
    send_timeout: Duration,
    /// What it sent before the session began.
    early: VecDeque<FromClient>,
    keepalive: Keepalive,
    /// When the keepalive takes its next look.
    look_at: Instant,
    /// Rings then, or earlier, when the codec should be put away.
    alarm: Pin<Box<Sleep>>,
    throttle: Option<Throttle>,
    /// The client's own close frame, to be echoed.
    received_close: Option<Bytes>,
    /// It broke a rule, or does not answer, so it is told at the end.
    refusal: Option<ClientClose>,
    /// Its place among the client's open requests.
    slot: Slot,
    /// Its place in the metrics.
    pub(super) open: OpenSocket,
    ray: Arc<str>,
}

/// What a client does.
#[derive(Debug)]
pub(super) enum FromClient {
    /// It sent a message.
    Message { data: Bytes, binary: bool },
    /// It closed the socket.
    Close { code: Option<u16>, reason: String },
    /// Its connection broke, or it broke the protocol, or it has not answered a ping in time.
    Gone,
}

/// The client does not take what is sent to it.
pub(super) struct ClientGone;

impl Client {
    /// What is held of its unfinished messages counts towards `held`.
    pub(super) fn new(stream: ClientStream, config: &GatewayConfig, held: Share, ray: Arc<str>, open: OpenSocket) -> Self {
        let keepalive = Keepalive::new(config.websocket_ping_timeout);
        let look_at = Instant::now() + keepalive.rest();
        let rate = config.websocket_message_rate;
        Self {
            wire: Wire::new(stream, config.websocket_message_max_bytes as usize, held),
            drowsy: false,
            send_timeout: config.websocket_send_timeout,
            early: VecDeque::new(),
            keepalive,
            look_at,
            alarm: Box::pin(sleep_until(look_at)),
            throttle: rate.map(|rate| Throttle::new(rate, Instant::now())),
            received_close: None,
            refusal: None,
            slot: Slot::default(),
            open,
            ray,
        }
    }

    /// Keeps a slot until the client ends the socket, or else as long as the socket lives.
    pub(super) fn holding(self, slot: Slot) -> Self {
        Self { slot, ..self }
    }

    /// What the client does next. Cancel-safe. Pings are answered on the way.
    pub(super) async fn next(&mut self) -> FromClient {
        let next = match self.early.pop_front() {
            Some(early) => early,
            None => {
                // There will be no more of them.
                self.early = VecDeque::new();
                self.read().await
            }
        };
        if !matches!(next, FromClient::Message { .. }) {
            // What is left to be done after a client has gone can take a while, and is not its doing.
            self.slot = Slot::default();
        }
        next
    }

    /// Ends when the client leaves, while nobody can take its messages yet. Cancel-safe. Some of them are read meanwhile and
    /// kept for [`Self::next`], because a close may come behind them; the others stay in the socket, and so may the close.
    /// A client that has said something and then closes in good order has not left: its messages are to be delivered.
    pub(super) async fn left(&mut self) -> End {
        self.wire.stream_mut().read_at_most(Some(limits::WEBSOCKET_EARLY_MAX_BYTES));
        loop {
            match self.read().await {
                FromClient::Close { code, reason } if self.early.is_empty() => return End::by_client(code, &reason),
                FromClient::Gone => return End::client_vanished(),
                FromClient::Message { data, binary } => {
                    self.early.push_back(FromClient::Message { data: pending::compact(data), binary });
                }
                close @ FromClient::Close { .. } => {
                    self.early.push_back(close);
                    return std::future::pending().await;
                }
            }
        }
    }

    /// From now on somebody takes the messages.
    pub(super) fn is_taken(&mut self) {
        self.wire.stream_mut().read_at_most(None);
    }

    /// The message that came last is counted elsewhere from now on.
    pub(super) fn has_handed_over(&mut self, bytes: usize) {
        if is_large(bytes) {
            self.wire.stream_mut().release_complete();
        }
    }

    /// Little is to be expected of this client for a while.
    pub(super) fn doze(&mut self) {
        self.drowsy = true;
    }

    async fn read(&mut self) -> FromClient {
        loop {
            if let Some(throttle) = &self.throttle {
                sleep_until(throttle.free_at()).await;
            }
            let was_resting = self.wire.is_resting();
            let received = tokio::select! {
                // What has come counts before silence is judged.
                biased;
                received = self.wire.next() => received,
                () = std::future::ready(()), if self.drowsy => {
                    self.drowsy = false;
                    self.wire.rest();
                    continue;
                }
                () = self.alarm.as_mut() => {
                    match self.look_if_due().await {
                        Ok(()) => continue,
                        Err(ClientGone) => return FromClient::Gone,
                    }
                }
            };
            if was_resting {
                self.alarm.as_mut().reset(self.look_at.min(Instant::now() + CODEC_REST_DELAY));
            }
            let message = match received {
                Some(Ok(message)) => message,
                Some(Err(error)) => return self.broken(error),
                None => return FromClient::Gone,
            };
            if let Some(throttle) = &mut self.throttle {
                throttle.take(Instant::now());
            }
            if message.is_ping() {
                // The codec has queued the pong. Without this a client that pings and never reads would fill the queue.
                if self.flush().await.is_err() {
                    return FromClient::Gone;
                }
                continue;
            }
            if message.is_pong() {
                // Nothing else is to be expected of a client that had to be asked.
                self.drowsy = self.flush().await.is_ok();
                continue;
            }
            if let Some((code, reason)) = message.as_close() {
                let code = Some(u16::from(code)).filter(|_| code != CloseCode::NO_STATUS_RECEIVED);
                let close = FromClient::Close { code, reason: reason.to_owned() };
                self.received_close = Some(Bytes::from(message.into_payload()));
                return close;
            }
            let binary = message.is_binary();
            let data = Bytes::from(message.into_payload());
            // The codec's buffer has grown with the message. It is to be had back as soon as nothing is ready behind it.
            self.drowsy |= is_large(data.len());
            self.open.message(Traffic::Ingress, data.len());
            return FromClient::Message { data, binary };
        }
    }

    fn broken(&mut self, error: Error) -> FromClient {
        if self.wire.stream().messages_exceed_their_share() {
            self.refusal = End::failed(&GatewayError::WebSocketPendingLimitReached, &self.ray).client;
        } else if let Error::PayloadTooLong { max_len, .. } = error {
            let reason = format!("message exceeds the maximum size of {max_len} bytes");
            self.refusal = Some(ClientClose { code: TOO_BIG, reason });
        } else if let Error::Protocol(error) = error {
            let code = if matches!(error, ProtocolError::InvalidUtf8) { INVALID_TEXT } else { PROTOCOL_ERROR };
            self.refusal = Some(ClientClose { code, reason: error.to_string() });
        }
        FromClient::Gone
    }

    /// The alarm has rung. If this is cancelled on its way, it rings again.
    async fn look_if_due(&mut self) -> Result<(), ClientGone> {
        if Instant::now() >= self.look_at {
            self.look().await?;
        }
        self.alarm.as_mut().reset(self.look_at);
        self.drowsy = true;
        Ok(())
    }

    /// Sees whether the client is still there, and asks it if there is no sign of that.
    async fn look(&mut self) -> Result<(), ClientGone> {
        let stream = self.wire.stream();
        // What it sends cannot be seen while it is not read.
        let look = if stream.is_held_back() { Look::Alive } else { self.keepalive.look(stream.received()) };
        match look {
            Look::Alive => {}
            Look::Gone => {
                self.refusal = End::failed(&GatewayError::WebSocketPingTimeout, &self.ray).client;
                return Err(ClientGone);
            }
            Look::Ask => {
                self.ready().await?;
                self.wire.start_send(Message::ping(Bytes::new())).map_err(|_| ClientGone)?;
                self.keepalive.asked();
            }
        }
        self.look_at = Instant::now() + self.keepalive.rest();
        self.flush().await
    }

    /// Queues a message; it is written at the next flush, or when enough has gathered. One for a client that has closed
    /// meanwhile is dropped: what it said before is still being delivered.
    pub(super) async fn feed(&mut self, data: Bytes, binary: bool) -> Result<(), ClientGone> {
        if self.received_close.is_some() {
            return Ok(());
        }
        self.open.message(Traffic::Egress, data.len());
        let message = match (binary, std::str::from_utf8(&data)) {
            (true, _) => Message::binary(data),
            (false, Ok(_)) => Message::text(data),
            (false, Err(_)) => Message::text(String::from_utf8_lossy(&data).into_owned()),
        };
        // A codec that is needed for writing alone is put away again at once.
        self.drowsy |= self.wire.is_resting();
        self.ready().await?;
        self.wire.start_send(message).map_err(|_| ClientGone)
    }

    /// Writes what was queued.
    pub(super) async fn flush(&mut self) -> Result<(), ClientGone> {
        if self.received_close.is_some() {
            return Ok(());
        }
        self.while_it_takes_bytes(Wire::poll_flush).await
    }

    async fn ready(&mut self) -> Result<(), ClientGone> {
        self.while_it_takes_bytes(Wire::poll_ready).await
    }

    /// Waits for the client to take bytes, for as long as it takes some in each span of the send timeout: a large message on
    /// a slow line needs longer than that, and is no reason to cut the line.
    async fn while_it_takes_bytes(
        &mut self,
        poll: fn(&mut Wire, &mut Context<'_>) -> Poll<Result<(), Error>>,
    ) -> Result<(), ClientGone> {
        loop {
            let sent = self.wire.stream().sent();
            let polled = poll_fn(|cx| poll(&mut self.wire, cx));
            match timeout(self.send_timeout, polled).await {
                Ok(done) => return done.map_err(|_| ClientGone),
                Err(_) if self.wire.stream().sent() - sent >= limits::WEBSOCKET_SEND_PROGRESS_MIN_BYTES => {}
                Err(_) => return Err(ClientGone),
            }
        }
    }
}

impl Client {
    /// Sends a close frame and waits a moment for the client's own.
    pub(super) async fn close(mut self, close: Option<ClientClose>) {
        self.is_taken();
        if let Some(refusal) = self.refusal.take() {
            return self.refuse(refusal).await;
        }
        // A client that has closed already hears its own close.
        if self.received_close.is_some() {
            return self.echo_close().await;
        }
        let Some(close) = close else { return };
        let code = CloseCode::try_from(close.code).unwrap_or(CloseCode::INTERNAL_SERVER_ERROR);
        let handshake = async {
            let socket = self.wire.codec();
            socket.send(Message::close(Some(code), &close.reason)).await?;
            while socket.next().await.transpose()?.is_some() {}
            Ok::<(), Error>(())
        };
        // A client that does not answer is dropped.
        let _ = timeout(limits::WEBSOCKET_CLOSE_TIMEOUT, handshake).await;
    }

    /// Tells a client which rule it broke. What it is still sending is read and thrown away for a moment: closing on unread
    /// data would cut the connection before the client has seen the frame.
    async fn refuse(mut self, refusal: ClientClose) {
        let code = CloseCode::try_from(refusal.code).unwrap_or(CloseCode::PROTOCOL_ERROR);
        let refused = async {
            // For most faults the codec has queued a close frame already and takes no second one.
            let socket = self.wire.codec();
            let _ = socket.feed(Message::close(Some(code), &cut_close_reason(refusal.reason))).await;
            socket.flush().await?;
            socket.get_mut().stop_following();
            let mut discarded = vec![0; DISCARD_BUFFER_BYTES];
            while socket.get_mut().read(&mut discarded).await? > 0 {}
            Ok::<(), Error>(())
        };
        let _ = timeout(limits::WEBSOCKET_CLOSE_TIMEOUT, refused).await;
    }

    /// Answers the client's close frame, once, with the same code *and* reason, as clients of this platform expect. The
    /// codec would echo the code only, so its reply is never flushed and the frame is written here.
    pub(super) async fn echo_close(&mut self) {
        let Some(payload) = self.received_close.take() else { return };
        // RFC 6455, 5.2: final frame, opcode 8, no mask; a control frame's payload is at most 125 bytes.
        let frame = [&[0x88, payload.len() as u8], payload.as_ref()].concat();
        let stream = self.wire.stream_mut();
        let echoed = async {
            stream.write_all(&frame).await?;
            stream.shutdown().await
        };
        // A client that does not take it is dropped.
        let _ = timeout(limits::WEBSOCKET_CLOSE_TIMEOUT, echoed).await;
    }
}
