//! The client's end of a WebSocket session.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_websockets::{CloseCode, Error, Message, WebSocketStream};

use super::close::ClientClose;
use crate::config::CLOSE_HANDSHAKE_TIMEOUT;
use crate::io::ClientStream;

const DISCARD_BUFFER_BYTES: usize = 64 * protocol::limits::KIB;

/// A client's socket.
pub(super) struct Client {
    socket: WebSocketStream<ClientStream>,
    send_timeout: Duration,
    /// The client's own close frame, to be echoed.
    received_close: Option<Bytes>,
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
        Self { socket, send_timeout, received_close: None }
    }

    /// What the client does next. Cancel-safe. Pings are answered on the way.
    pub(super) async fn next(&mut self) -> FromClient {
        loop {
            let message = match self.socket.next().await {
                Some(Ok(message)) => message,
                Some(Err(Error::Protocol(_) | Error::PayloadTooLong { .. })) => {
                    self.refuse().await;
                    return FromClient::Gone;
                }
                Some(Err(_)) | None => return FromClient::Gone,
            };
            if message.is_ping() || message.is_pong() {
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
    /// Lets out the close frame that the codec has queued and that names the client's fault. What the client is still
    /// sending is read and thrown away for a moment: closing on unread data would cut the connection before the client
    /// has seen the frame.
    async fn refuse(&mut self) {
        let refused = async {
            self.socket.flush().await?;
            let mut discarded = vec![0; DISCARD_BUFFER_BYTES];
            while self.socket.get_mut().read(&mut discarded).await? > 0 {}
            Ok::<(), Error>(())
        };
        let _ = timeout(CLOSE_HANDSHAKE_TIMEOUT, refused).await;
    }

    /// Answers the client's close frame with the same code *and* reason, as clients of this platform expect. The codec
    /// would echo the code only, so its reply is dropped with it and the frame is written here.
    async fn echo_close(self) {
        let Some(payload) = self.received_close else { return };
        let mut stream = self.socket.into_inner();
        // RFC 6455, 5.2: final frame, opcode 8, no mask; a control frame's payload is at most 125 bytes.
        let frame = [&[0x88, payload.len() as u8], payload.as_ref()].concat();
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
