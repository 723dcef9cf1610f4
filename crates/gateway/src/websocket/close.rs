//! How a WebSocket ends: what the client is told and what the actor's host is told (`spec/gateway.md` 16.3). Pure.

use protocol::error::{close_reason, cut_close_reason};

use crate::error::GatewayError;

/// Normal end.
pub(super) const NORMAL: u16 = 1000;
/// The engine, the host or the actor failed.
pub(super) const INTERNAL: u16 = 1011;
/// The client broke the WebSocket protocol.
pub(super) const PROTOCOL_ERROR: u16 = 1002;
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

/// The end of a session. `None`: that side knows already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct End {
    pub(super) client: Option<ClientClose>,
    pub(super) host: Option<HostClose>,
}

impl End {
    /// The actor closed the socket. A code that must not appear on the wire becomes 1011.
    pub(super) fn by_actor(code: Option<u16>, reason: Option<String>) -> Self {
        let client = match code {
            None => ClientClose { code: NORMAL, reason: "ws.closed".into() },
            Some(code) if may_be_sent(code) => ClientClose { code, reason: cut_close_reason(reason.unwrap_or_default()) },
            Some(_) => ClientClose { code: INTERNAL, reason: cut_close_reason(reason.unwrap_or_default()) },
        };
        Self { client: Some(client), host: Some(HostClose { code: Some(NORMAL), reason: None }) }
    }

    /// The client closed the socket.
    pub(super) fn by_client(code: Option<u16>, reason: &str) -> Self {
        let host = match code {
            Some(code) => HostClose { code: Some(code), reason: Some(reason.to_owned()) },
            None => HostClose { code: Some(NORMAL), reason: None },
        };
        Self { client: None, host: Some(host) }
    }

    /// The client's connection broke, or it broke the protocol.
    pub(super) fn client_vanished() -> Self {
        Self { client: None, host: Some(downstream_closed()) }
    }

    /// The actor stopped, and this socket cannot wait for it.
    pub(super) fn actor_stopped() -> Self {
        let client = ClientClose { code: NORMAL, reason: "actor.stopped".into() };
        Self { client: Some(client), host: Some(HostClose { code: Some(NORMAL), reason: None }) }
    }

    /// One message of the actor was too large for a client.
    pub(super) fn message_too_big() -> Self {
        let client = ClientClose { code: TOO_BIG, reason: "actor WebSocket message exceeds the maximum size".into() };
        Self { client: Some(client), host: Some(HostClose { code: Some(NORMAL), reason: None }) }
    }

    /// The engine ends it.
    pub(super) fn failed(error: &GatewayError, ray: &str) -> Self {
        let client = ClientClose { code: INTERNAL, reason: close_reason(error, ray) };
        Self { client: Some(client), host: Some(downstream_closed()) }
    }
}

fn downstream_closed() -> HostClose {
    HostClose { code: Some(INTERNAL), reason: Some("ws.downstream_closed".into()) }
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
