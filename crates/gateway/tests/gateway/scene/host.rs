//! A host's end of the tunnel, frame by frame.

use std::time::Duration;

use bytes::Bytes;
use gateway::{Content, EnvoyLink, HostId, Outbox, SessionId, Tunnels};
use protocol::envoy::{
    BodyChunk, Headers, MessageId, RequestStart, ResponseStart, ToEnvoy, ToEnvoyTunnelMessageKind, ToRivetTunnelMessage,
    ToRivetTunnelMessageKind, WebSocketOpen,
};
use tokio::time::timeout;

/// Longest virtual time that anything is waited for; above every limit of the gateway.
pub(super) const PATIENCE: Duration = Duration::from_secs(3600);

/// One connection of a host.
pub(crate) struct Host {
    pub(crate) link: EnvoyLink,
    outbox: Outbox,
    tunnels: Tunnels,
}

/// A request or socket as the host sees it.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) id: MessageId,
}

impl Host {
    pub(super) fn connect(tunnels: Tunnels, host: u64, session: u64, version: u16) -> Self {
        let (link, outbox) = EnvoyLink::new(HostId(host), SessionId(session), version);
        Self { link, outbox, tunnels }
    }

    /// The next frame from the gateway.
    pub(crate) async fn next(&mut self) -> (MessageId, ToEnvoyTunnelMessageKind) {
        self.next_within(PATIENCE).await.expect("a frame from the gateway")
    }

    /// The next frame, if it comes within this (virtual) time.
    pub(crate) async fn next_within(&mut self, limit: Duration) -> Option<(MessageId, ToEnvoyTunnelMessageKind)> {
        let outgoing = timeout(limit, self.outbox.messages.recv()).await.ok()??;
        let Content::Message(ToEnvoy::TunnelMessage(message)) = outgoing.content else {
            panic!("the gateway sends tunnel messages only, not {:?}", outgoing.content);
        };
        Some((message.message_id, message.message_kind))
    }

    /// The start of an HTTP request.
    pub(crate) async fn expect_request(&mut self) -> (Request, RequestStart) {
        let (id, kind) = self.next().await;
        let ToEnvoyTunnelMessageKind::RequestStart(start) = kind else { panic!("expected a request start, not {kind:?}") };
        (Request { id }, start)
    }

    /// The open of a WebSocket.
    pub(crate) async fn expect_open(&mut self) -> (Request, WebSocketOpen) {
        let (id, kind) = self.next().await;
        let ToEnvoyTunnelMessageKind::WebSocketOpen(open) = kind else { panic!("expected a WebSocket open, not {kind:?}") };
        (Request { id }, open)
    }

    /// Accepts the next WebSocket.
    pub(crate) async fn accept(&mut self, can_hibernate: bool) -> Request {
        let (request, _open) = self.expect_open().await;
        self.send(&request, 0, ToRivetTunnelMessageKind::WebSocketOpen { can_hibernate });
        request
    }

    /// A frame for a request.
    pub(crate) fn send(&self, request: &Request, index: u16, kind: ToRivetTunnelMessageKind) {
        let message_id = MessageId { message_index: index, ..request.id };
        let message = ToRivetTunnelMessage { message_id, message_kind: kind };
        self.tunnels.deliver(&self.link, message);
    }

    /// A whole answer.
    pub(crate) fn answer(&self, request: &Request, status: u16, body: &str) {
        self.answer_with(request, status, &[], body);
    }

    /// A whole answer with headers.
    pub(crate) fn answer_with(&self, request: &Request, status: u16, pairs: &[(&str, &str)], body: &str) {
        let start = ResponseStart { status, headers: headers(pairs), body: Some(Bytes::from(body.to_owned())), stream: false };
        self.send(request, 0, ToRivetTunnelMessageKind::ResponseStart(start));
    }

    /// The answer of a host's connection layer, for a request that no actor has seen.
    pub(crate) fn refuse(&self, request: &Request, error: &str) {
        self.answer_with(request, 503, &[("x-rivet-error", error)], "{}");
    }

    /// The head of a streamed answer.
    pub(crate) fn start_stream(&self, request: &Request, status: u16, pairs: &[(&str, &str)]) {
        let start = ResponseStart { status, headers: headers(pairs), body: None, stream: true };
        self.send(request, 0, ToRivetTunnelMessageKind::ResponseStart(start));
    }

    /// A piece of a streamed answer.
    pub(crate) fn chunk(&self, request: &Request, index: u16, body: impl Into<Bytes>, finish: bool) {
        let chunk = BodyChunk { body: body.into(), finish };
        self.send(request, index, ToRivetTunnelMessageKind::ResponseChunk(chunk));
    }
}

/// Headers in wire form.
pub(crate) fn headers(pairs: &[(&str, &str)]) -> Headers {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}
