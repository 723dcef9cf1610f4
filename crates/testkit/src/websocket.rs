//! A plain WebSocket client.

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_websockets::{ClientBuilder, Message, WebSocketStream};

use crate::in_time;

/// An open WebSocket. Dropping it is a client whose connection breaks.
pub struct ClientSocket(WebSocketStream<TcpStream>);

impl ClientSocket {
    /// Opens one.
    ///
    /// # Panics
    /// When the server does not upgrade the connection.
    pub async fn open(address: SocketAddr, path: &str) -> Self {
        let stream = in_time("a TCP connection", TcpStream::connect(address)).await.expect("a listener");
        stream.set_nodelay(true).expect("a socket option");
        let uri = format!("ws://{address}{path}");
        let builder = ClientBuilder::new().uri(&uri).expect("a URI");
        let (socket, _answer) = in_time("an upgrade", builder.connect_on(stream)).await.expect("an upgrade");
        Self(socket)
    }

    /// Sends a text message.
    ///
    /// # Panics
    /// When the connection has ended.
    pub async fn send_text(&mut self, text: &str) {
        in_time("room for a message", self.0.send(Message::text(text.to_owned()))).await.expect("an open socket");
    }

    /// As [`Self::send_text`], on a connection that may have ended.
    pub async fn try_send_text(&mut self, text: &str) {
        let _ = in_time("room for a message", self.0.send(Message::text(text.to_owned()))).await;
    }

    /// The next message.
    ///
    /// # Panics
    /// When it is no text.
    pub async fn expect_text(&mut self) -> String {
        let message = self.next().await;
        message.as_text().unwrap_or_else(|| panic!("expected text, not {message:?}")).to_owned()
    }

    /// Code and reason of the close frame, which comes next; and then the end of the connection.
    ///
    /// # Panics
    /// When anything else comes.
    pub async fn expect_close(&mut self) -> (u16, String) {
        let message = self.next().await;
        let (code, reason) = message.as_close().unwrap_or_else(|| panic!("expected a close, not {message:?}"));
        let closed = (code.into(), reason.to_owned());
        let after = in_time("the end of the connection", self.0.next()).await;
        assert!(after.is_none(), "{after:?} follows a close");
        closed
    }

    async fn next(&mut self) -> Message {
        let next = in_time("a message on a WebSocket", self.0.next()).await;
        next.expect("an open socket").expect("a good frame")
    }
}
