//! The client's end of a WebSocket session.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use protocol::error::cut_close_reason;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_websockets::{CloseCode, Error, Message, WebSocketStream};

use super::close::{ClientClose, PROTOCOL_ERROR, TOO_BIG};
use crate::config::CLOSE_HANDSHAKE_TIMEOUT;
use crate::io::ClientStream;

const DISCARD_BUFFER_BYTES: usize = 64 * protocol::limits::KIB;

/// A client's socket.
pub(super) struct Client {
    socket: WebSocketStream<ClientStream>,
    send_timeout: Duration,
    /// The client's own close frame, to be echoed.
    received_close: Option<Bytes>,
    /// It sent something that it must not send, so it is told at the end.
    broke_rules: Option<ClientClose>,
}

/// What a client does.
pub(super) enum FromClient {
    /// It sent a message.
    Message { data: Bytes, binary: bool },
    /// It closed the socket.
    Close { code: Option<u16>, reason: String },
    /// Its connection broke, or it broke the protocol.
    Gone,
}

/// The client does not take what is sent to it.
pub(super) struct ClientGone;

impl Client {
    pub(super) fn new(socket: WebSocketStream<ClientStream>, send_timeout: Duration) -> Self {
        Self { socket, send_timeout, received_close: None, broke_rules: None }
    }

    /// What the client does next. Cancel-safe. Pings are answered on the way.
    pub(super) async fn next(&mut self) -> FromClient {
        loop {
            let message = match self.socket.next().await {
                Some(Ok(message)) => message,
                Some(Err(Error::PayloadTooLong { max_len, .. })) => {
                    let reason = format!("message exceeds the maximum size of {max_len} bytes");
                    self.broke_rules = Some(ClientClose { code: TOO_BIG, reason });
                    return FromClient::Gone;
                }
                Some(Err(Error::Protocol(error))) => {
                    self.broke_rules = Some(ClientClose { code: PROTOCOL_ERROR, reason: error.to_string() });
                    return FromClient::Gone;
                }
                Some(Err(_)) | None => return FromClient::Gone,
            };
            if message.is_ping() {
                // The codec has queued the pong. Without this a client that pings and never reads would fill the queue.
                if self.flush().await.is_err() {
                    return FromClient::Gone;
                }
                continue;
            }
            if message.is_pong() {
                continue;
            }
            if let Some((code, reason)) = message.as_close() {
                let code = Some(u16::from(code)).filter(|_| code != CloseCode::NO_STATUS_RECEIVED);
                let close = FromClient::Close { code, reason: reason.to_owned() };
                self.received_close = Some(Bytes::from(message.into_payload()));
                return close;
            }
            let binary = message.is_binary();
            return FromClient::Message { data: Bytes::from(message.into_payload()), binary };
        }
    }

    /// Queues a message; it is written at the next flush, or when enough has gathered.
    pub(super) async fn feed(&mut self, data: Bytes, binary: bool) -> Result<(), ClientGone> {
        let message = match (binary, std::str::from_utf8(&data)) {
            (true, _) => Message::binary(data),
            (false, Ok(_)) => Message::text(data),
            (false, Err(_)) => Message::text(String::from_utf8_lossy(&data).into_owned()),
        };
        let sent = timeout(self.send_timeout, self.socket.feed(message)).await;
        flatten(sent)
    }

    /// Writes what was queued.
    pub(super) async fn flush(&mut self) -> Result<(), ClientGone> {
        let flushed = timeout(self.send_timeout, self.socket.flush()).await;
        flatten(flushed)
    }

    /// Sends a close frame and waits a moment for the client's own.
    pub(super) async fn close(mut self, close: Option<ClientClose>) {
        if let Some(refusal) = self.broke_rules.take() {
            return self.refuse(refusal).await;
        }
        let Some(close) = close else {
            return self.echo_close().await;
        };
        let code = CloseCode::try_from(close.code).unwrap_or(CloseCode::INTERNAL_SERVER_ERROR);
        let handshake = async {
            self.socket.send(Message::close(Some(code), &close.reason)).await?;
            while self.socket.next().await.transpose()?.is_some() {}
            Ok::<(), Error>(())
        };
        // A client that does not answer is dropped.
        let _ = timeout(CLOSE_HANDSHAKE_TIMEOUT, handshake).await;
    }
}

impl Client {
    /// Tells a client which rule it broke. What it is still sending is read and thrown away for a moment: closing on unread
    /// data would cut the connection before the client has seen the frame.
    async fn refuse(mut self, refusal: ClientClose) {
        let code = CloseCode::try_from(refusal.code).unwrap_or(CloseCode::PROTOCOL_ERROR);
        let refused = async {
            // For most faults the codec has queued a close frame already and takes no second one.
            let _ = self.socket.feed(Message::close(Some(code), &cut_close_reason(refusal.reason))).await;
            self.socket.flush().await?;
            let mut discarded = vec![0; DISCARD_BUFFER_BYTES];
            while self.socket.get_mut().read(&mut discarded).await? > 0 {}
            Ok::<(), Error>(())
        };
        let _ = timeout(CLOSE_HANDSHAKE_TIMEOUT, refused).await;
    }

    /// Answers the client's close frame, once, with the same code *and* reason, as clients of this platform expect. The
    /// codec would echo the code only, so its reply is never flushed and the frame is written here.
    pub(super) async fn echo_close(&mut self) {
        let Some(payload) = self.received_close.take() else { return };
        // RFC 6455, 5.2: final frame, opcode 8, no mask; a control frame's payload is at most 125 bytes.
        let frame = [&[0x88, payload.len() as u8], payload.as_ref()].concat();
        let stream = self.socket.get_mut();
        let echoed = async {
            stream.write_all(&frame).await?;
            stream.shutdown().await
        };
        // A client that does not take it is dropped.
        let _ = timeout(CLOSE_HANDSHAKE_TIMEOUT, echoed).await;
    }
}

fn flatten(sent: Result<Result<(), Error>, tokio::time::error::Elapsed>) -> Result<(), ClientGone> {
    match sent {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(ClientGone),
    }
}
