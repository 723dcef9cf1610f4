//! Writing one host's connection.

use futures_util::SinkExt;
use futures_util::stream::SplitSink;
use gateway::{ClientStream, Content, Outbox, Outgoing};
use protocol::error::close_reason;
use protocol::limits;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_websockets::{CloseCode, Message, WebSocketStream};

use super::error::EnvoyClose;

/// Messages that are encoded before they are written together.
const BATCH: usize = 256;

type Socket = WebSocketStream<ClientStream>;

/// Writes queued messages, all that wait in one go, until it is told to close or the connection breaks.
pub(super) async fn run(
    mut sink: SplitSink<Socket, Message>,
    mut outbox: Outbox,
    protocol_version: u16,
    mut closing: mpsc::Receiver<EnvoyClose>,
    ray: String,
) {
    let mut batch: Vec<Outgoing> = Vec::with_capacity(BATCH);
    loop {
        tokio::select! {
            biased;
            why = closing.recv() => {
                if let Some(why) = why {
                    let _ = sink.send(close_message(why, &ray)).await;
                }
                return;
            }
            count = outbox.messages.recv_many(&mut batch, BATCH) => {
                if count == 0 || write(&mut sink, &batch, protocol_version).await.is_err() {
                    return;
                }
                // Only now: what was queued keeps its share of the byte budget until it is written.
                batch.clear();
            }
        }
    }
}

async fn write(
    sink: &mut SplitSink<Socket, Message>,
    batch: &[Outgoing],
    protocol_version: u16,
) -> Result<(), tokio_websockets::Error> {
    for outgoing in batch {
        let frame = match &outgoing.content {
            Content::Message(message) => message.to_frame(protocol_version),
            Content::Frame(frame) => Ok(frame.clone()),
        };
        match frame {
            Ok(frame) => sink.feed(Message::binary(frame)).await?,
            Err(error) => tracing::error!(%error, "a message cannot be expressed in the host's protocol version"),
        }
    }
    sink.flush().await
}

/// Waits for a writer that was told to close.
pub(super) async fn finish(mut writer: JoinHandle<()>) {
    if timeout(limits::ENVOY_FAREWELL_TIMEOUT, &mut writer).await.is_err() {
        writer.abort();
    }
}

/// Refuses a connection that was just opened.
pub(super) async fn refuse(mut socket: Socket, reason: &str) {
    let refusal = Message::close(Some(CloseCode::INTERNAL_SERVER_ERROR), reason);
    let handshake = async {
        socket.send(refusal).await?;
        socket.close().await
    };
    // A host that does not answer is dropped.
    let _ = timeout(limits::ENVOY_FAREWELL_TIMEOUT, handshake).await;
}

fn close_message(why: EnvoyClose, ray: &str) -> Message {
    let code = CloseCode::try_from(why.close_code()).unwrap_or(CloseCode::INTERNAL_SERVER_ERROR);
    Message::close(Some(code), &close_reason(&why, ray))
}
