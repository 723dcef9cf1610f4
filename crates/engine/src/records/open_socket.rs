//! Sockets that hosts may believe to be open, kept for an engine that is started after this one was killed.
//!
//! * `18` actor id, gateway id (4), request id (4) -> nothing

use bytes::Bytes;
use gateway::SocketId;
use protocol::envoy::{GatewayId, RequestId};
use protocol::id::ActorId;

use super::CorruptRow;

pub(crate) const OPEN_SOCKET: u8 = 0x18;
const ID_BYTES: usize = 18;
const SOCKET_BYTES: usize = 4;

pub(crate) fn key(actor: ActorId, socket: SocketId) -> Bytes {
    let mut key = vec![OPEN_SOCKET];
    key.extend_from_slice(actor.as_bytes());
    key.extend_from_slice(&socket.gateway_id.0);
    key.extend_from_slice(&socket.request_id.0);
    key.into()
}

/// First key, and the key behind the last, of all open sockets.
pub(crate) fn all() -> (Bytes, Bytes) {
    (Bytes::from_static(&[OPEN_SOCKET]), Bytes::from_static(&[OPEN_SOCKET + 1]))
}

/// What a key of [`key`] says.
pub(crate) fn parse(key: &[u8]) -> Result<(ActorId, SocketId), CorruptRow> {
    let corrupt = || CorruptRow { kind: "open socket", reason: "its key has the wrong length".into() };
    let rest = key.get(1..).ok_or_else(corrupt)?;
    let (actor, rest) = rest.split_first_chunk::<ID_BYTES>().ok_or_else(corrupt)?;
    let (gateway, rest) = rest.split_first_chunk::<SOCKET_BYTES>().ok_or_else(corrupt)?;
    let request: [u8; SOCKET_BYTES] = rest.try_into().map_err(|_| corrupt())?;
    let socket = SocketId { gateway_id: GatewayId(*gateway), request_id: RequestId(request) };
    Ok((ActorId::from_bytes(*actor), socket))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_this_layout_and_are_read_back() {
        let actor = ActorId::from_parts([7; 16], 0x0102);
        let socket = SocketId { gateway_id: GatewayId(*b"gate"), request_id: RequestId(*b"sock") };
        let expected = [&[0x18], &actor.as_bytes()[..], b"gate", b"sock"].concat();
        let key = key(actor, socket);
        assert_eq!(key, expected);
        assert_eq!(parse(&key), Ok((actor, socket)));
        let (start, end) = all();
        assert!(start <= key && key < end);
        for wrong in [&expected[..26], &[&expected[..], &[0]].concat(), &[]] {
            assert!(parse(wrong).is_err());
        }
    }
}
