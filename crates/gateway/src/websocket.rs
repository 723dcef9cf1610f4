//! A client's WebSocket on its way to an actor (`spec/gateway.md` 16 and 17, `spec/envoy-protocol.md` 14).
//!
//! * `open`: asks the actor to take the socket.
//! * `session`: carries messages both ways for as long as the actor runs.
//! * `hibernation`: keeps the client's socket while the actor sleeps.
//! * `sockets`: all of them, for the end of the process.

mod client;
mod close;
mod farewell;
pub(crate) mod health;
mod hibernation;
mod keepalive;
mod open;
mod pending;
mod session;
mod sockets;
mod wire;

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio_websockets::WebSocketStream;

use crate::claim::ToActor;
use crate::directory::Directory;
use crate::error::GatewayError;
use crate::handler::{GatewayBody, RequestInfo, Shared, empty_response};
use crate::headers::{self, HopByHop};
use crate::io::ClientStream;
use crate::metrics::OpenSocket;
use crate::resolve::Caller;
pub(crate) use sockets::Sockets;

/// RFC 6455, section 1.3.
const ACCEPT_GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// The subprotocol that clients and hosts of this platform offer.
const RIVET_PROTOCOL: &str = "rivet";

/// Whether a request asks for a WebSocket.
pub(crate) fn is_upgrade<B>(request: &Request<B>) -> bool {
    let has_token =
        |name, token: &str| {
            request.headers().get_all(name).iter().any(|value| {
                value.to_str().is_ok_and(|list| list.split(',').any(|entry| entry.trim().eq_ignore_ascii_case(token)))
            })
        };
    *request.method() == Method::GET && has_token(UPGRADE, "websocket") && has_token(CONNECTION, "upgrade")
}

/// Entries of the subprotocol list.
pub(crate) fn protocol_entries(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|list| list.split(','))
        .map(str::trim)
}

/// The rest of the first subprotocol entry that begins with `prefix`.
pub(crate) fn protocol_entry<'a>(headers: &'a HeaderMap, prefix: &str) -> Option<&'a str> {
    protocol_entries(headers).find_map(|entry| entry.strip_prefix(prefix))
}

/// Whether the client offers exactly this subprotocol.
pub(crate) fn offers_protocol(headers: &HeaderMap, wanted: &str) -> bool {
    protocol_entries(headers).any(|entry| entry == wanted)
}

/// The answer that accepts an upgrade. `Err`: the request is no valid WebSocket handshake.
///
/// The subprotocol `rivet` is confirmed only when it was offered: browsers refuse an unrequested one.
pub fn upgrade_response<B>(request: &Request<B>) -> Result<HeaderMap, GatewayError> {
    let headers = request.headers();
    let key = headers.get(SEC_WEBSOCKET_KEY).ok_or(GatewayError::MissingHeader { header: "sec-websocket-key" })?;
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        let detail = "expected version 13".to_owned();
        return Err(GatewayError::InvalidHeader { header: "sec-websocket-version", detail });
    }
    let mut digest = sha1_smol::Sha1::from(key.as_bytes());
    digest.update(ACCEPT_GUID.as_bytes());
    let accept = STANDARD.encode(digest.digest().bytes());
    let mut response = HeaderMap::new();
    response.insert(UPGRADE, HeaderValue::from_static("websocket"));
    response.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    if let Ok(accept) = HeaderValue::from_str(&accept) {
        response.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    if offers_protocol(headers, RIVET_PROTOCOL) {
        response.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(RIVET_PROTOCOL));
    }
    Ok(response)
}

/// Takes an upgraded connection over as a WebSocket with a limit on the size of messages, in bytes. `None` when the
/// connection is not one of our own sockets.
pub fn websocket_stream(upgraded: Upgraded, message_max_bytes: usize) -> Option<WebSocketStream<ClientStream>> {
    Some(wire::serve(upgraded_stream(upgraded)?, message_max_bytes))
}

fn upgraded_stream(upgraded: Upgraded) -> Option<ClientStream> {
    let parts = hyper_util::server::conn::auto::upgrade::downcast::<TokioIo<ClientStream>>(upgraded).ok()?;
    Some(parts.io.into_inner().upgraded(parts.read_buf))
}

/// Accepts the upgrade at once and does the rest on the open socket: WebSocket clients cannot read an HTTP refusal, so errors
/// reach them as close frames (`spec/gateway.md` 16.1).
pub(crate) fn accept<D: Directory>(
    shared: Arc<Shared<D>>,
    mut request: Request<Incoming>,
    target: Result<ToActor, GatewayError>,
    info: RequestInfo,
) -> Response<GatewayBody> {
    let handshake = match upgrade_response(&request) {
        Ok(handshake) => handshake,
        Err(error) => return crate::handler::error_response(&error),
    };
    let upgrade = hyper::upgrade::on(&mut request);
    let caller = Caller::of(&request, &info, &shared.admission);
    let sent = headers::for_actor(request.headers(), request.uri(), &info.ray, info.peer, HopByHop::Keep);
    let wanted = session::Wanted { target, caller, headers: sent };
    let ray = info.ray;
    let open = OpenSocket::new(&shared.metrics);
    let task = shared.metrics.tasks.hold();
    let tasks = shared.clone();
    tasks.sockets.spawn(async move {
        let _task = task;
        session::run(&shared, upgrade, wanted, open, &ray).await;
    });
    let mut response = empty_response(StatusCode::SWITCHING_PROTOCOLS);
    response.headers_mut().extend(handshake);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handshake_of_the_rfc_and_protocol_only_when_offered() {
        let request = |protocols: &'static str| {
            Request::get("/")
                .header(UPGRADE, "websocket")
                .header(CONNECTION, "keep-alive, Upgrade")
                .header(SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ==")
                .header(SEC_WEBSOCKET_VERSION, "13")
                .header(SEC_WEBSOCKET_PROTOCOL, protocols)
                .body(())
                .unwrap()
        };
        let offered = request("rivet, rivet_token.abc");
        assert!(is_upgrade(&offered));
        let response = upgrade_response(&offered).unwrap();
        assert_eq!(response[SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(response[SEC_WEBSOCKET_PROTOCOL], "rivet");
        assert_eq!(protocol_entry(offered.headers(), "rivet_token."), Some("abc"));
        assert!(!upgrade_response(&request("chat")).unwrap().contains_key(SEC_WEBSOCKET_PROTOCOL));
    }
}
