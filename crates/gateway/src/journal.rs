//! What outlives this process: a host keeps its sockets when the engine is killed, and must hear that their clients are gone.

use protocol::envoy::{GatewayId, MessageId, RequestId, ToEnvoy, ToEnvoyTunnelMessage, ToEnvoyTunnelMessageKind};
use protocol::id::ActorId;

use crate::link::HostId;

/// Names a socket towards hosts, over all engine processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId {
    /// The process that holds its client's end.
    pub gateway_id: GatewayId,
    /// The socket within that process.
    pub request_id: RequestId,
}

/// Notes which sockets hosts may believe to be open. Called on the way of a request, so it must not block; what it notes may
/// get lost in a crash of the same moment.
pub trait SocketJournal: Send + Sync + 'static {
    /// A host is about to hear of a socket.
    fn opened(&self, actor: ActorId, socket: SocketId);
    /// A socket is over. `told`: the host that has been told over its connection, which may be breaking right now. `None`: the
    /// actor sleeps, and hears of it when it starts.
    fn closed(&self, actor: ActorId, socket: SocketId, told: Option<HostId>);
}

/// Tells a host that the client of a socket has gone, without knowledge of the socket's indices.
pub fn downstream_closed(socket: SocketId) -> ToEnvoy {
    let SocketId { gateway_id, request_id } = socket;
    let message_kind = ToEnvoyTunnelMessageKind::WebSocketClose {
        code: Some(DOWNSTREAM_CLOSED_CODE),
        reason: Some(DOWNSTREAM_CLOSED_REASON.to_owned()),
    };
    ToEnvoy::TunnelMessage(ToEnvoyTunnelMessage {
        message_id: MessageId { gateway_id, request_id, message_index: 0 },
        message_kind,
    })
}

/// Close code with which an actor hears that its client has gone without a word (`spec/gateway.md` 16.3).
pub(crate) const DOWNSTREAM_CLOSED_CODE: u16 = 1011;
/// And the reason.
pub(crate) const DOWNSTREAM_CLOSED_REASON: &str = "ws.downstream_closed";
