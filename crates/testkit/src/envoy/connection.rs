//! The socket of a scripted host, and the task that serves it.

use std::net::SocketAddr;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::header::SEC_WEBSOCKET_PROTOCOL;
use http::{HeaderMap, HeaderValue, StatusCode};
use protocol::envoy::{DecodeError, ToEnvoy, ToRivet};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_websockets::{ClientBuilder, Error, Limits, Message, WebSocketStream, upgrade};

use super::EnvoyParams;
use crate::in_time;

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// The close frame's code; `None` when there was no close frame.
    pub code: Option<u16>,
    /// The close frame's reason.
    pub reason: String,
}

impl Closed {
    /// The reason without the id behind `#`, and the code.
    pub fn code_and_cause(&self) -> (u16, &str) {
        (self.code.unwrap_or(0), self.reason.split('#').next().unwrap_or_default())
    }
}

/// The engine's answer to the upgrade.
#[derive(Debug, Clone)]
pub struct UpgradeAnswer {
    /// Its headers.
    pub headers: HeaderMap,
}

impl UpgradeAnswer {
    /// The subprotocol that the engine chose.
    pub fn subprotocol(&self) -> Option<&str> {
        self.headers.get(SEC_WEBSOCKET_PROTOCOL).and_then(|value| value.to_str().ok())
    }
}

/// The engine did not take or did not upgrade the connection.
#[derive(Debug)]
pub struct HandshakeFailed {
    /// The status of the answer, if there was one.
    pub status: Option<StatusCode>,
    /// What the client says.
    pub detail: String,
}

/// What a test orders.
pub(super) enum Order {
    Send(Message),
    LeavePingsAlone,
}

/// What the connection brought.
pub(super) enum Seen {
    Message(ToEnvoy),
    /// A ping, and its answer is on the way.
    PingAnswered,
    Undecodable(DecodeError),
    Closed(Closed),
}

pub(super) struct Opened {
    pub(super) upgrade: UpgradeAnswer,
    pub(super) orders: mpsc::UnboundedSender<Order>,
    pub(super) seen: mpsc::UnboundedReceiver<Seen>,
}

type Socket = WebSocketStream<TcpStream>;

pub(super) async fn open(address: SocketAddr, params: &EnvoyParams) -> Result<Opened, HandshakeFailed> {
    let failed = |error: Error| HandshakeFailed { status: status_of(&error), detail: error.to_string() };
    let url = format!("ws://{address}{}?{}", params.path, params.query());
    let mut builder = ClientBuilder::new().uri(&url).expect("a URL").limits(Limits::unlimited());
    if !params.subprotocols.is_empty() {
        let offered = HeaderValue::from_str(&params.subprotocols.join(", ")).expect("a header value");
        builder = builder.add_header(SEC_WEBSOCKET_PROTOCOL, offered).map_err(failed)?;
    }
    let stream = in_time("a TCP connection", TcpStream::connect(address)).await;
    let stream = stream.map_err(|error| HandshakeFailed { status: None, detail: error.to_string() })?;
    stream.set_nodelay(true).expect("a socket option");
    let (socket, answer) = in_time("the upgrade of a host's connection", builder.connect_on(stream)).await.map_err(failed)?;
    let (orders, taken_orders) = mpsc::unbounded_channel();
    let (seeing, seen) = mpsc::unbounded_channel();
    tokio::spawn(serve(socket, params.codec_version(), taken_orders, seeing));
    Ok(Opened { upgrade: UpgradeAnswer { headers: answer.headers().clone() }, orders, seen })
}

fn status_of(error: &Error) -> Option<StatusCode> {
    let Error::Upgrade(upgrade::Error::DidNotSwitchProtocols(status)) = error else { return None };
    StatusCode::from_u16(*status).ok()
}

/// Serves the connection until it ends, or until the test drops its end.
async fn serve(
    mut socket: Socket,
    version: u16,
    mut orders: mpsc::UnboundedReceiver<Order>,
    seeing: mpsc::UnboundedSender<Seen>,
) {
    let mut answers_pings = true;
    loop {
        tokio::select! {
            // Orders first: what a test sends before it waits must be on its way.
            biased;
            order = orders.recv() => match order {
                Some(Order::Send(message)) => {
                    // An error shows on the reading side too.
                    let _ = socket.send(message).await;
                }
                Some(Order::LeavePingsAlone) => answers_pings = false,
                None => return,
            },
            frame = socket.next() => {
                let seen = match frame {
                    Some(Ok(message)) if message.is_binary() => {
                        match ToEnvoy::decode(Bytes::from(message.into_payload()), version) {
                            Ok(ToEnvoy::Ping { ts }) if answers_pings => {
                                let pong = ToRivet::Pong { ts }.to_frame(version).expect("every version has pongs");
                                let _ = socket.send(Message::binary(pong)).await;
                                Seen::PingAnswered
                            }
                            Ok(message) => Seen::Message(message),
                            Err(error) => Seen::Undecodable(error),
                        }
                    }
                    Some(Ok(message)) => match message.as_close() {
                        Some((code, reason)) => {
                            Seen::Closed(Closed { code: Some(code.into()), reason: reason.to_owned() })
                        }
                        None => continue,
                    },
                    Some(Err(_)) | None => Seen::Closed(Closed { code: None, reason: String::new() }),
                };
                let is_end = matches!(seen, Seen::Closed(_));
                let nobody_listens = seeing.send(seen).is_err();
                if is_end || nobody_listens {
                    // Sends the closing handshake's other half.
                    let _ = socket.close().await;
                    return;
                }
            }
        }
    }
}
