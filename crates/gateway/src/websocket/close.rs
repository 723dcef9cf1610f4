//! How a WebSocket ends: what the client is told and what the actor's host is told (`spec/gateway.md` 16.3). Pure.

use protocol::envoy::ToEnvoyTunnelMessageKind;
use protocol::error::{Coded, close_reason, cut_close_reason};

use crate::error::GatewayError;
use crate::metrics::{CloseReason, RequestResult};

/// Normal end.
pub(super) const NORMAL: u16 = 1000;
/// The engine, the host or the actor failed.
pub(super) const INTERNAL: u16 = 1011;
/// The client broke the WebSocket protocol.
pub(super) const PROTOCOL_ERROR: u16 = 1002;
/// A text message was not UTF-8.
pub(super) const INVALID_TEXT: u16 = 1007;
/// A message was too large.
pub(super) const TOO_BIG: u16 = 1009;

/// A close frame for the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ClientClose {
    pub(super) code: u16,
    pub(super) reason: String,
}

/// A close message for the actor's host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HostClose {
    pub(super) code: Option<u16>,
    pub(super) reason: Option<String>,
}

impl HostClose {
    /// The client is not there any more.
    pub(super) fn downstream_closed() -> Self {
        Self { code: Some(INTERNAL), reason: Some("ws.downstream_closed".into()) }
    }

    /// Something failed before the actor had taken the socket.
    pub(super) fn for_error(error: &GatewayError) -> Self {
        Self { code: Some(INTERNAL), reason: Some(format!("{}.{}", error.group(), error.code())) }
    }

    /// As the host gets it.
    pub(super) fn message(self) -> ToEnvoyTunnelMessageKind {
        ToEnvoyTunnelMessageKind::WebSocketClose { code: self.code, reason: self.reason }
    }
}

/// The end of a session. `None`: that side knows already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct End {
    pub(super) client: Option<ClientClose>,
    pub(super) host: Option<HostClose>,
    /// What it is counted as.
    pub(super) reason: CloseReason,
    pub(super) result: RequestResult,
}

impl End {
    /// The actor closed the socket. A code that must not appear on the wire becomes 1011.
    pub(super) fn by_actor(code: Option<u16>, reason: Option<String>) -> Self {
        let client = match code {
            None => ClientClose { code: NORMAL, reason: "ws.closed".into() },
            Some(code) if may_be_sent(code) => ClientClose { code, reason: cut_close_reason(reason.unwrap_or_default()) },
            Some(_) => ClientClose { code: INTERNAL, reason: cut_close_reason(reason.unwrap_or_default()) },
        };
        let host = HostClose { code: Some(NORMAL), reason: None };
        Self { client: Some(client), host: Some(host), reason: CloseReason::Actor, result: RequestResult::Success }
    }

    /// The client closed the socket.
    pub(super) fn by_client(code: Option<u16>, reason: &str) -> Self {
        let host = match code {
            Some(code) => HostClose { code: Some(code), reason: Some(reason.to_owned()) },
            None => HostClose { code: Some(NORMAL), reason: None },
        };
        Self { client: None, host: Some(host), reason: CloseReason::Client, result: RequestResult::Success }
    }

    /// The client's connection broke, or it broke the protocol.
    pub(super) fn client_vanished() -> Self {
        let (reason, result) = (CloseReason::ClientGone, RequestResult::ClientDisconnect);
        Self { client: None, host: Some(HostClose::downstream_closed()), reason, result }
    }

    /// The actor stopped, and this socket cannot wait for it.
    pub(super) fn actor_stopped() -> Self {
        let client = ClientClose { code: NORMAL, reason: "actor.stopped".into() };
        let host = HostClose { code: Some(NORMAL), reason: None };
        Self { client: Some(client), host: Some(host), reason: CloseReason::ActorStopped, result: RequestResult::Success }
    }

    /// One message of the actor was too large for a client.
    pub(super) fn message_too_big() -> Self {
        let client = ClientClose { code: TOO_BIG, reason: "actor WebSocket message exceeds the maximum size".into() };
        let host = HostClose { code: Some(NORMAL), reason: None };
        Self { client: Some(client), host: Some(host), reason: CloseReason::MessageTooBig, result: RequestResult::EnvoyError }
    }

    /// The engine ends it.
    pub(super) fn failed(error: &GatewayError, ray: &str) -> Self {
        let client = ClientClose { code: INTERNAL, reason: close_reason(error, ray) };
        Self { client: Some(client), host: Some(HostClose::downstream_closed()), reason: error.into(), result: error.into() }
    }
}

/// Whether RFC 6455 lets a code appear in a close frame.
fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_actors_are_made_legal() {
        let sent = |code| End::by_actor(code, Some("why".into())).client.unwrap();
        assert_eq!(sent(Some(4001)), ClientClose { code: 4001, reason: "why".into() });
        assert_eq!(sent(None), ClientClose { code: 1000, reason: "ws.closed".into() });
        for illegal in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, u16::MAX] {
            assert_eq!(sent(Some(illegal)).code, 1011, "{illegal}");
        }
        let long = End::by_actor(Some(1000), Some("x".repeat(200))).client.unwrap();
        assert_eq!(long.reason.len(), 123);
    }
}
