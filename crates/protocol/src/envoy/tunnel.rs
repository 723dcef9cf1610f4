//! Tunnelled HTTP requests and WebSockets (`spec/envoy-protocol.md` 5.8 and 12 to 14).

use std::fmt;

use bare::{Codec, DecodeError, NotInVersion, Reader, Writer};
use bytes::Bytes;

use super::wire::{wire_structs, wire_unions};

/// Header names (lower case) and values, in wire order, one value per name.
pub type Headers = bare::Map<String>;

/// A gateway instance; opaque. Chosen once and kept as long as hibernating sockets refer to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GatewayId(pub [u8; 4]);

/// A tunnelled request or socket, unique within its gateway while in use; opaque.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub [u8; 4]);

/// Hexadecimal, as in logs.
impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", u32::from_be_bytes(self.0))
    }
}

impl Codec for GatewayId {
    const MIN_SIZE: usize = <[u8; 4]>::MIN_SIZE;

    fn write(&self, writer: &mut Writer<'_>) -> Result<(), NotInVersion> {
        self.0.write(writer)
    }

    fn read(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self(Codec::read(reader)?))
    }
}

impl Codec for RequestId {
    const MIN_SIZE: usize = <[u8; 4]>::MIN_SIZE;

    fn write(&self, writer: &mut Writer<'_>) -> Result<(), NotInVersion> {
        self.0.write(writer)
    }

    fn read(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self(Codec::read(reader)?))
    }
}

impl Default for HttpStreamAbortReason {
    /// What an abort means that carries no reason (`spec/envoy-protocol.md` 6.4).
    fn default() -> Self {
        Self { kind: HttpStreamAbortReasonKind::Unknown, detail: None }
    }
}

wire_structs! {
    /// Names one message of one tunnelled request or socket.
    struct MessageId {
        /// Gateway that holds the client.
        gateway_id: GatewayId,
        /// The request at that gateway.
        request_id: RequestId,
        /// Counts per request and direction, wrapping.
        message_index: u16,
    }

    /// Gateway to actor.
    struct ToEnvoyTunnelMessage {
        /// Which request, and the how-many-eth message of it.
        message_id: MessageId,
        /// The message.
        message_kind: ToEnvoyTunnelMessageKind,
    }

    /// Actor to gateway.
    struct ToRivetTunnelMessage {
        /// Which request, and the how-many-eth message of it.
        message_id: MessageId,
        /// The message.
        message_kind: ToRivetTunnelMessageKind,
    }

    /// Head of an HTTP request.
    struct RequestStart {
        /// Text form of the actor id.
        actor_id: String,
        /// Deliver to this generation only; none: to the newest one alive.
        #[since(8)]
        actor_generation: Option<u32>,
        /// HTTP method.
        method: String,
        /// Path and query as the actor sees them, beginning with `/`.
        path: String,
        /// Request headers.
        headers: Headers,
        /// The whole body; none if there is none or it is streamed.
        body: Option<Bytes>,
        /// Body chunks follow.
        stream: bool,
        /// The gateway takes a streamed response and keeps account of its window.
        #[since(8)]
        response_stream: bool,
    }

    /// Piece of a request or response body, at most 65,536 bytes.
    struct BodyChunk {
        /// The bytes; may be empty.
        body: Bytes,
        /// This is the last one.
        finish: bool,
    }

    /// The gateway gives a request up. Actor id and generation are both set or both none.
    struct RequestAbort {
        /// Text form of the actor id.
        #[since(8)]
        actor_id: Option<String>,
        /// Generation that the request was sent to.
        #[since(8)]
        actor_generation: Option<u32>,
        /// Why.
        #[since(8)]
        reason: HttpStreamAbortReason,
    }

    /// A client opens a WebSocket.
    struct WebSocketOpen {
        /// Text form of the actor id.
        actor_id: String,
        /// Deliver to this generation only; none: to the newest one alive.
        #[since(8)]
        actor_generation: Option<u32>,
        /// Path and query as the actor sees them, beginning with `/`.
        path: String,
        /// Headers of the upgrade request.
        headers: Headers,
    }

    /// Head of an HTTP response.
    struct ResponseStart {
        /// HTTP status.
        status: u16,
        /// Response headers.
        headers: Headers,
        /// The whole body, or, when streamed, its first piece.
        body: Option<Bytes>,
        /// Body chunks follow.
        stream: bool,
    }

    /// The actor gives a request up.
    struct ResponseAbort {
        /// Why.
        #[since(8)]
        reason: HttpStreamAbortReason,
    }

    /// Why a stream ends early. Versions below 8 carry no reason: it reads as unknown, without detail.
    struct HttpStreamAbortReason {
        /// Kind of cause.
        kind: HttpStreamAbortReasonKind,
        /// Text for the log.
        detail: Option<String>,
    }
}

wire_unions! {
    /// Kind of cause of an early end.
    enum HttpStreamAbortReasonKind {
        /// The peer did not say.
        Unknown,
        /// The other end went away.
        Cancelled,
        /// The actor's handler failed.
        HandlerError,
        /// Protocol or transport fault.
        InternalError,
    }

    /// What a gateway tells an actor about one request.
    union ToEnvoyTunnelMessageKind {
        /// HTTP request begins.
        RequestStart(RequestStart),
        /// Piece of the request body.
        RequestChunk(BodyChunk),
        /// HTTP request is given up.
        RequestAbort(RequestAbort),
        /// No more of the request body will come.
        #[since(8)]
        RequestBodyCancel,
        /// Credit for the response body.
        #[since(8)]
        ResponseBodyWindowUpdate {
            /// Bytes handed to the client since the start of the response.
            consumed_bytes: u64,
        },
        /// WebSocket opens.
        WebSocketOpen(WebSocketOpen),
        /// Message from the client.
        WebSocketMessage {
            /// Payload; UTF-8 if it is text.
            data: Bytes,
            /// Binary, not text.
            binary: bool,
        },
        /// WebSocket is closed.
        WebSocketClose {
            /// Close code.
            code: Option<u16>,
            /// Close reason.
            reason: Option<String>,
        },
    }

    /// What an actor tells a gateway about one request.
    union ToRivetTunnelMessageKind {
        /// HTTP response begins.
        ResponseStart(ResponseStart),
        /// Piece of the response body.
        ResponseChunk(BodyChunk),
        /// HTTP response is given up.
        ResponseAbort(ResponseAbort),
        /// Credit for the request body.
        #[since(8)]
        RequestBodyWindowUpdate {
            /// Bytes that the handler has read since the start of the request.
            consumed_bytes: u64,
        },
        /// The handler wants no more of the request body.
        #[since(8)]
        RequestBodyCancel,
        /// WebSocket is accepted.
        WebSocketOpen {
            /// It may stay open while the actor sleeps.
            can_hibernate: bool,
        },
        /// Message to the client.
        WebSocketMessage {
            /// Payload; UTF-8 if it is text.
            data: Bytes,
            /// Binary, not text.
            binary: bool,
        },
        /// Client messages up to this index are safe with the actor.
        WebSocketMessageAck {
            /// Cumulative, wrapping.
            index: u16,
        },
        /// WebSocket is closed, or goes into hibernation.
        WebSocketClose {
            /// Close code.
            code: Option<u16>,
            /// Close reason.
            reason: Option<String>,
            /// The client's socket stays open.
            hibernate: bool,
        },
    }
}
