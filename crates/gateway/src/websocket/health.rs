//! `/health/ws`: shows that WebSockets get through to the engine (`spec/gateway.md` 3).

use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use protocol::limits;
use tokio::time::timeout;
use tokio_websockets::{CloseCode, Message, WebSocketStream};

use super::{is_upgrade, upgrade_response, websocket_stream};
use crate::directory::Directory;
use crate::handler::{GatewayBody, Shared, empty_response, error_response};
use crate::io::ClientStream;

/// A client that says nothing for this long is closed: it is not pinged, and perhaps not there any more.
const SILENCE_MAX: Duration = limits::WEBSOCKET_PING_INTERVAL.saturating_mul(3);

/// Answers a request for the route.
pub(crate) fn answer<D: Directory>(shared: &Arc<Shared<D>>, mut request: Request<Incoming>) -> Response<GatewayBody> {
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
    let task = shared.metrics.tasks.hold();
    let socket = shared.clone();
    shared.sockets.spawn(async move {
        let (_task, shared) = (task, socket);
        // A client that goes away during the upgrade needs nothing more.
        let Ok(upgraded) = upgrade.await else { return };
        let Some(mut socket) = websocket_stream(upgraded, limits::HEALTH_MESSAGE_MAX_BYTES) else { return };
        let code = tokio::select! {
            code = echo(&mut socket, shared.config.websocket_send_timeout) => code,
            () = shared.sockets.closing() => Some(CloseCode::GOING_AWAY),
        };
        if let Some(code) = code {
            // A client that does not take it is dropped.
            let _ = timeout(limits::WEBSOCKET_CLOSE_TIMEOUT, socket.send(Message::close(Some(code), ""))).await;
        }
    });
    let mut response = empty_response(StatusCode::SWITCHING_PROTOCOLS);
    response.headers_mut().extend(handshake);
    response
}

/// Answers `ping` with `pong` until the client leaves, or says nothing any more, of which it is told; anything else that it
/// says means nothing.
async fn echo(socket: &mut WebSocketStream<ClientStream>, send_timeout: Duration) -> Option<CloseCode> {
    loop {
        let Ok(next) = timeout(SILENCE_MAX, socket.next()).await else { return Some(CloseCode::NORMAL_CLOSURE) };
        let message = next?.ok()?;
        if message.as_text() == Some("ping") {
            timeout(send_timeout, socket.send(Message::text("pong"))).await.ok()?.ok()?;
        }
    }
}
