//! Tunnelled requests on a scripted host.

use std::time::Duration;

use bytes::Bytes;
use protocol::envoy::{
    BodyChunk, GatewayId, Headers, HibernatingRequest, HttpStreamAbortReason, HttpStreamAbortReasonKind, MessageId, RequestId,
    RequestStart, ResponseAbort, ResponseStart, ToEnvoy, ToEnvoyTunnelMessage, ToEnvoyTunnelMessageKind, ToRivet,
    ToRivetTunnelMessage, ToRivetTunnelMessageKind,
};

use super::FakeEnvoy;

/// A request that arrived.
#[derive(Debug, Clone)]
pub struct TunnelRequest {
    /// The gateway's part of its name.
    pub gateway_id: GatewayId,
    /// The other part.
    pub request_id: RequestId,
    /// Its head.
    pub start: RequestStart,
}

/// A client's WebSocket that arrived.
#[derive(Debug, Clone)]
pub struct TunnelSocket(MessageId);

impl TunnelSocket {
    /// How start commands list it.
    pub fn listed(&self) -> HibernatingRequest {
        HibernatingRequest { gateway_id: self.0.gateway_id, request_id: self.0.request_id }
    }
}

impl TunnelRequest {
    fn name(&self) -> (GatewayId, RequestId) {
        (self.gateway_id, self.request_id)
    }

    fn message_id(&self, message_index: u16) -> MessageId {
        MessageId { gateway_id: self.gateway_id, request_id: self.request_id, message_index }
    }
}

impl FakeEnvoy {
    /// The next request that a client has made.
    ///
    /// # Panics
    /// As [`FakeEnvoy::next`]; and when its index is not 0.
    pub async fn expect_request(&mut self) -> TunnelRequest {
        let wanted = |message: &ToEnvoy| {
            let ToEnvoy::TunnelMessage(ToEnvoyTunnelMessage { message_id, message_kind }) = message else { return None };
            let ToEnvoyTunnelMessageKind::RequestStart(start) = message_kind else { return None };
            Some((message_id.clone(), start.clone()))
        };
        let (MessageId { gateway_id, request_id, message_index }, start) = self.expect("a request", wanted).await;
        assert_eq!(message_index, 0, "index of a request's start");
        TunnelRequest { gateway_id, request_id, start }
    }

    /// The next WebSocket that a client has opened, which the actor accepts.
    ///
    /// # Panics
    /// As [`FakeEnvoy::next`].
    pub async fn accept_socket(&mut self, can_hibernate: bool) -> TunnelSocket {
        let wanted = |message: &ToEnvoy| {
            let ToEnvoy::TunnelMessage(ToEnvoyTunnelMessage { message_id, message_kind }) = message else { return None };
            let ToEnvoyTunnelMessageKind::WebSocketOpen(_) = message_kind else { return None };
            Some(TunnelSocket(message_id.clone()))
        };
        let socket = self.expect("a WebSocket", wanted).await;
        self.say(&socket, ToRivetTunnelMessageKind::WebSocketOpen { can_hibernate });
        socket
    }

    /// Sends a message of a socket. Its index means nothing (`spec/envoy-protocol.md` 14.3).
    pub fn say(&self, socket: &TunnelSocket, kind: ToRivetTunnelMessageKind) {
        let message = ToRivetTunnelMessage { message_id: socket.0.clone(), message_kind: kind };
        self.send(&ToRivet::TunnelMessage(message));
    }

    /// Sends a text message to the client of a socket.
    pub fn say_text(&self, socket: &TunnelSocket, text: &str) {
        let data = text.to_owned().into();
        self.say(socket, ToRivetTunnelMessageKind::WebSocketMessage { data, binary: false });
    }

    /// The next message of a socket, with its index.
    ///
    /// # Panics
    /// As [`FakeEnvoy::next`].
    pub async fn expect_on(&mut self, socket: &TunnelSocket, what: &str) -> (u16, ToEnvoyTunnelMessageKind) {
        let wanted = |message: &ToEnvoy| {
            let ToEnvoy::TunnelMessage(ToEnvoyTunnelMessage { message_id, message_kind }) = message else { return None };
            let is_its = (message_id.gateway_id, message_id.request_id) == (socket.0.gateway_id, socket.0.request_id);
            is_its.then(|| (message_id.message_index, message_kind.clone()))
        };
        self.expect(what, wanted).await
    }

    /// The next message of a request, with its index.
    ///
    /// # Panics
    /// As [`FakeEnvoy::next`].
    pub async fn expect_message(&mut self, request: &TunnelRequest, what: &str) -> (u16, ToEnvoyTunnelMessageKind) {
        let wanted = |message: &ToEnvoy| {
            let tunnelled = tunnelled(request, message)?;
            Some((tunnelled.message_id.message_index, tunnelled.message_kind.clone()))
        };
        self.expect(what, wanted).await
    }

    /// Watches for a while that no message of a request comes.
    ///
    /// # Panics
    /// When one comes.
    pub async fn expect_no_message(&mut self, request: &TunnelRequest, within: Duration) {
        let unwanted = |message: &ToEnvoy| tunnelled(request, message).is_some();
        self.expect_none(within, "message of a request", unwanted).await;
    }

    /// Sends a message of a request at the next index.
    pub fn reply(&mut self, request: &TunnelRequest, kind: ToRivetTunnelMessageKind) {
        let next = self.next_message.entry(request.name()).or_insert(0);
        let index = *next;
        *next = next.wrapping_add(1);
        self.reply_at(request, index, kind);
    }

    /// Sends a message of a request at any index.
    pub fn reply_at(&self, request: &TunnelRequest, index: u16, kind: ToRivetTunnelMessageKind) {
        let message_id = request.message_id(index);
        self.send(&ToRivet::TunnelMessage(ToRivetTunnelMessage { message_id, message_kind: kind }));
    }

    /// Answers with one message.
    pub fn respond(&mut self, request: &TunnelRequest, status: u16, headers: &[(&str, &str)], body: impl Into<Bytes>) {
        let body = Some(body.into());
        let start = ResponseStart { status, headers: headers_of(headers), body, stream: false };
        self.reply(request, ToRivetTunnelMessageKind::ResponseStart(start));
    }

    /// Begins a streamed answer.
    pub fn begin_response(&mut self, request: &TunnelRequest, status: u16, headers: &[(&str, &str)]) {
        let start = ResponseStart { status, headers: headers_of(headers), body: None, stream: true };
        self.reply(request, ToRivetTunnelMessageKind::ResponseStart(start));
    }

    /// Sends a piece of a streamed answer.
    pub fn response_chunk(&mut self, request: &TunnelRequest, body: impl Into<Bytes>, finish: bool) {
        let chunk = BodyChunk { body: body.into(), finish };
        self.reply(request, ToRivetTunnelMessageKind::ResponseChunk(chunk));
    }

    /// Gives a request up.
    pub fn abort(&mut self, request: &TunnelRequest, kind: HttpStreamAbortReasonKind) {
        let reason = HttpStreamAbortReason { kind, detail: None };
        self.reply(request, ToRivetTunnelMessageKind::ResponseAbort(ResponseAbort { reason }));
    }
}

fn tunnelled<'a>(request: &TunnelRequest, message: &'a ToEnvoy) -> Option<&'a ToEnvoyTunnelMessage> {
    let ToEnvoy::TunnelMessage(tunnelled) = message else { return None };
    let id = &tunnelled.message_id;
    ((id.gateway_id, id.request_id) == request.name()).then_some(tunnelled)
}

/// Headers from pairs of names and values.
pub fn headers_of(pairs: &[(&str, &str)]) -> Headers {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}
