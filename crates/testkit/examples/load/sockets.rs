//! WebSockets of clients.

use std::net::SocketAddr;

use futures_util::{FutureExt, SinkExt, StreamExt, stream};
use http::HeaderValue;
use http::header::SEC_WEBSOCKET_PROTOCOL;
use testkit::in_time;
use tokio::net::TcpStream;
use tokio_websockets::{ClientBuilder, Message, WebSocketStream};

pub(crate) type Socket = WebSocketStream<TcpStream>;

/// Sockets that are opened at the same time.
const OPENINGS: usize = 32;
pub(crate) const MESSAGE: &str = "a message of 64 bytes, of which this is the beginning, and this.";

/// Sockets that are open and keep still.
pub(crate) struct Sockets {
    sockets: Vec<Socket>,
}

impl Sockets {
    /// Opens so many sockets, evenly over the actors. Each has exchanged one message when it counts as open.
    pub(crate) async fn open(address: SocketAddr, actors: &[String], count: usize) -> Self {
        let open = async |number: usize| {
            let mut socket = open(address, &actors[number % actors.len()]).await;
            echo(&mut socket).await;
            socket
        };
        Self { sockets: stream::iter(0..count).map(open).buffer_unordered(OPENINGS).collect().await }
    }

    /// Panics when a socket has ended or brought something that nobody asked for.
    pub(crate) fn assert_still(&mut self) {
        for socket in &mut self.sockets {
            if let Some(came) = socket.next().now_or_never() {
                panic!("a socket that should be still brought {came:?}");
            }
        }
    }

    /// Exchanges a message on one of the sockets.
    pub(crate) async fn echo_on_first(&mut self) {
        echo(self.sockets.first_mut().expect("a socket")).await;
    }
}

/// Opens a socket to an actor.
pub(crate) async fn open(address: SocketAddr, actor: &str) -> Socket {
    let url = format!("ws://{address}/gateway/{actor}/websocket/");
    let stream = TcpStream::connect(address).await.unwrap_or_else(|error| panic!("{error}; is `ulimit -n` high enough?"));
    stream.set_nodelay(true).unwrap();
    let builder = ClientBuilder::new().uri(&url).expect("a URL");
    let builder = builder.add_header(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("rivet")).expect("a header");
    let (socket, _) = in_time("a WebSocket", builder.connect_on(stream)).await.expect("an upgrade");
    socket
}

/// Exchanges a message.
pub(crate) async fn echo(socket: &mut Socket) {
    socket.send(Message::text(MESSAGE)).await.expect("an open socket");
    let answer = in_time("an echo", socket.next()).await.expect("an open socket").expect("a message");
    assert_eq!(answer.as_text(), Some(MESSAGE));
}
