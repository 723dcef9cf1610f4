//! `/health/ws`: shows that WebSockets get through to the engine (`spec/gateway.md` 3).

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::time::timeout;
use tokio_websockets::{Message, WebSocketStream};

use super::{is_upgrade, upgrade_response, websocket_stream};
use crate::handler::{GatewayBody, empty_response, error_response};
use crate::io::ClientStream;
use crate::metrics::Metrics;

/// Largest message that is read, in bytes; there is one that means something, and it has four.
const MESSAGE_MAX_BYTES: usize = protocol::limits::KIB;

/// Answers a request for the route. `send_timeout`: how long a client may take to accept an answer.
pub(crate) fn answer(mut request: Request<Incoming>, send_timeout: Duration, metrics: &Metrics) -> Response<GatewayBody> {
    if !is_upgrade(&request) {
        let mut response = Response::new(GatewayBody::Whole(Full::from("WebSocket-only endpoint")));
        *response.status_mut() = StatusCode::UPGRADE_REQUIRED;
        return response;
    }
    let handshake = match upgrade_response(&request) {
        Ok(handshake) => handshake,
        Err(error) => return error_response(&error),
    };
    let upgrade = hyper::upgrade::on(&mut request);
    let task = metrics.tasks.hold();
    tokio::spawn(async move {
        let _task = task;
        // A client that goes away during the upgrade needs nothing more.
        let Ok(upgraded) = upgrade.await else { return };
        if let Some(socket) = websocket_stream(upgraded, MESSAGE_MAX_BYTES) {
            echo(socket, send_timeout).await;
        }
    });
    let mut response = empty_response(StatusCode::SWITCHING_PROTOCOLS);
    response.headers_mut().extend(handshake);
    response
}

/// Answers `ping` with `pong` until the client leaves; anything else means nothing.
async fn echo(mut socket: WebSocketStream<ClientStream>, send_timeout: Duration) {
    while let Some(Ok(message)) = socket.next().await {
        if message.as_text() != Some("ping") {
            continue;
        }
        let sent = timeout(send_timeout, socket.send(Message::text("pong"))).await;
        if !matches!(sent, Ok(Ok(()))) {
            return;
        }
    }
}
