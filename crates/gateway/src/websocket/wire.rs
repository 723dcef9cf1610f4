//! The codec around a client's connection. It has a buffer of 8 KiB from its beginning, which is most of what an idle socket
//! costs; so it is put away while nothing is said, and taken out again at the first byte.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::{Sink, StreamExt};
use tokio_websockets::{Config, Error, Limits, Message, ServerBuilder, WebSocketStream};

use crate::budget::Share;
use crate::io::ClientStream;

/// Messages are gathered up to this size before they are written, in bytes.
const FLUSH_THRESHOLD_BYTES: usize = 256 * protocol::limits::KIB;

/// Makes a WebSocket of an upgraded connection.
pub(super) fn serve(stream: ClientStream, message_max_bytes: usize) -> WebSocketStream<ClientStream> {
    let config = Config::default().flush_threshold(FLUSH_THRESHOLD_BYTES);
    let limits = Limits::default().max_payload_len(Some(message_max_bytes));
    ServerBuilder::new().config(config).limits(limits).serve(stream)
}

/// A client's connection, with the codec or without.
pub(super) struct Wire {
    codec: Option<WebSocketStream<ClientStream>>,
    /// The connection while there is no codec.
    resting: ClientStream,
    message_max_bytes: usize,
    /// The codec may hold bytes for the client.
    unflushed: bool,
}

impl Wire {
    /// What the codec holds of unfinished messages counts towards `held`.
    pub(super) fn new(mut stream: ClientStream, message_max_bytes: usize, held: Share) -> Self {
        stream.follow_messages(held);
        Self { codec: None, resting: stream, message_max_bytes, unflushed: false }
    }

    /// The connection itself.
    pub(super) fn stream(&self) -> &ClientStream {
        self.codec.as_ref().map_or(&self.resting, WebSocketStream::get_ref)
    }

    /// As [`Self::stream`], for doing something with it.
    pub(super) fn stream_mut(&mut self) -> &mut ClientStream {
        match &mut self.codec {
            Some(codec) => codec.get_mut(),
            None => &mut self.resting,
        }
    }

    /// The codec, taken out if it was put away.
    pub(super) fn codec(&mut self) -> &mut WebSocketStream<ClientStream> {
        let Self { codec, resting, message_max_bytes, .. } = self;
        codec.get_or_insert_with(|| serve(resting.take(), *message_max_bytes))
    }

    /// Whether the codec is put away.
    pub(super) fn is_resting(&self) -> bool {
        self.codec.is_none()
    }

    /// Puts the codec away, if that loses nothing. The caller has just seen that no message is ready.
    pub(super) fn rest(&mut self) {
        if self.unflushed || !self.stream().is_between_messages() {
            return;
        }
        if let Some(mut codec) = self.codec.take() {
            self.resting = codec.get_mut().take();
            self.resting.release_complete();
        }
    }

    /// The next message. Cancel-safe. An unfinished one that is more than its share allows is an error.
    pub(super) async fn next(&mut self) -> Option<Result<Message, Error>> {
        if self.codec.is_none()
            && let Err(error) = self.resting.readable().await
        {
            return Some(Err(Error::Io(error)));
        }
        let codec = self.codec();
        let next = poll_fn(|cx| match codec.poll_next_unpin(cx) {
            Poll::Pending if codec.get_ref().messages_exceed_their_share() => {
                Poll::Ready(Some(Err(Error::Io(io::ErrorKind::OutOfMemory.into()))))
            }
            polled @ (Poll::Ready(_) | Poll::Pending) => polled,
        })
        .await;
        // To what is no message the codec may have queued an answer.
        let is_message = next.as_ref().is_some_and(|next| next.as_ref().is_ok_and(|next| next.is_text() || next.is_binary()));
        self.unflushed |= !is_message;
        next
    }

    /// Whether a message can be queued.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Pin::new(self.codec()).poll_ready(cx)
    }

    /// Queues a message.
    pub(super) fn start_send(&mut self, message: Message) -> Result<(), Error> {
        self.unflushed = true;
        Pin::new(self.codec()).start_send(message)
    }

    /// Writes what was queued.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if !self.unflushed {
            return Poll::Ready(Ok(()));
        }
        let flushed = Pin::new(self.codec()).poll_flush(cx);
        self.unflushed = flushed.is_pending();
        flushed
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::budget::Budget;

    #[tokio::test]
    async fn the_codec_is_put_away_only_when_it_holds_nothing() {
        let (mut client, ours) = tokio::io::duplex(1024);
        let mut wire = Wire::new(ClientStream::in_memory(ours), 1024, Budget::new(0).share());
        assert!(wire.is_resting());
        // A message, and the beginning of the next one.
        client.write_all(&[0x81, 0x81, 0, 0, 0, 0, b'a', 0x81, 0x82, 0, 0, 0]).await.unwrap();
        assert_eq!(wire.next().await.unwrap().unwrap().as_text(), Some("a"));
        assert!(wire.next().now_or_never().is_none());
        wire.rest();
        assert!(!wire.is_resting(), "half a message would be lost");
        client.write_all(&[0, b'b', b'c']).await.unwrap();
        assert_eq!(wire.next().await.unwrap().unwrap().as_text(), Some("bc"));
        assert!(wire.next().now_or_never().is_none());
        wire.rest();
        assert!(wire.is_resting());

        poll_fn(|cx| wire.poll_ready(cx)).await.unwrap();
        wire.start_send(Message::text("d")).unwrap();
        wire.rest();
        assert!(!wire.is_resting(), "a message that was not sent yet would be lost");
        poll_fn(|cx| wire.poll_flush(cx)).await.unwrap();
        wire.rest();
        assert!(wire.is_resting());
        let mut sent = [0; 3];
        client.read_exact(&mut sent).await.unwrap();
        assert_eq!(sent, [0x81, 1, b'd']);
        drop(client);
        assert!(wire.next().await.is_none());
    }
}
