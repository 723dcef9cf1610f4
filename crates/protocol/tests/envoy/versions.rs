//! Older protocol versions (`spec/envoy-protocol.md` 6).

use std::collections::BTreeSet;

use bare::NotInVersion;
use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use protocol::envoy::*;
use serde_json::Value;

use crate::shapes::{Shape, sample};
use crate::unhex;
use crate::vectors::vectors;

/// The arms of section 6.1 whose tag differs between versions, or that not all versions have.
#[rustfmt::skip]
const TAGS: [(&str, [Option<u8>; 3]); 24] = [
    // Message or tunnel kind                     version 6   7         8
    ("ToRivetTunnelMessage",                    [Some(6),  Some(6),  Some(6)]),
    ("ToRivetSqliteCommitRequest",              [Some(8),  Some(8),  Some(8)]),
    ("ToRivetSqliteCommitStageBeginRequest",    [None,     Some(9),  Some(9)]),
    ("ToRivetSqliteCommitStageSegmentRequest",  [None,     Some(10), Some(10)]),
    ("ToRivetSqliteCommitFinalizeRequest",      [None,     Some(11), Some(11)]),
    ("ToRivetSqliteExecRequest",                [Some(9),  Some(12), Some(12)]),
    ("ToRivetSqliteExecuteRequest",             [Some(10), Some(13), Some(13)]),
    ("ToRivetSqliteExecuteBatchRequest",        [Some(11), Some(14), Some(14)]),
    ("ToEnvoySqliteCommitResponse",             [Some(7),  Some(7),  Some(7)]),
    ("ToEnvoySqliteCommitStageBeginResponse",   [None,     Some(8),  Some(8)]),
    ("ToEnvoySqliteCommitStageSegmentResponse", [None,     Some(9),  Some(9)]),
    ("ToEnvoySqliteCommitFinalizeResponse",     [None,     Some(10), Some(10)]),
    ("ToEnvoySqliteExecResponse",               [Some(8),  Some(11), Some(11)]),
    ("ToEnvoySqliteExecuteResponse",            [Some(9),  Some(12), Some(12)]),
    ("ToEnvoySqliteExecuteBatchResponse",       [Some(10), Some(13), Some(13)]),
    ("ToEnvoyRequestBodyCancel",                [None,     None,     Some(3)]),
    ("ToEnvoyResponseBodyWindowUpdate",         [None,     None,     Some(4)]),
    ("ToEnvoyWebSocketOpen",                    [Some(3),  Some(3),  Some(5)]),
    ("ToEnvoyWebSocketMessage",                 [Some(4),  Some(4),  Some(6)]),
    ("ToEnvoyWebSocketClose",                   [Some(5),  Some(5),  Some(7)]),
    ("ToRivetRequestBodyWindowUpdate",          [None,     None,     Some(3)]),
    ("ToRivetRequestBodyCancel",                [None,     None,     Some(4)]),
    ("ToRivetWebSocketMessageAck",              [Some(5),  Some(5),  Some(7)]),
    ("ToRivetWebSocketClose",                   [Some(6),  Some(6),  Some(8)]),
];

const VERSIONS: [u16; 3] = [6, 7, 8];
/// Bytes before the tag of a tunnel kind: the tag of the message, and the message id.
const TUNNEL_HEADER: usize = 1 + 10;

/// Wire name of a message, and of its kind if it is a tunnel message.
fn names(notation: &Value) -> [Option<&str>; 2] {
    [&notation["tag"], &notation["val"]["messageKind"]["tag"]].map(Value::as_str)
}

/// Asserts that `version` has the message at all, and that the tags are right. Of names not in the table nothing is
/// known.
fn assert_tags(notation: &Value, version: u16, frame: &Result<Bytes, EncodeError>) {
    let column = usize::from(version - MIN_PROTOCOL_VERSION);
    let known = names(notation).map(|name| TAGS.iter().find(|row| Some(row.0) == name).map(|row| row.1[column]));
    let is_missing = known.contains(&Some(None));
    match frame {
        Ok(frame) => {
            assert!(!is_missing);
            for (position, tag) in [0, TUNNEL_HEADER].into_iter().zip(known) {
                if let Some(tag) = tag.flatten() {
                    assert_eq!(frame[position], tag);
                }
            }
        }
        Err(error) => {
            assert!(is_missing && matches!(error, EncodeError::NotInVersion(_)), "{error}");
        }
    }
}

/// The message without what `version` cannot carry (section 6.4).
fn lower_to_envoy(mut message: ToEnvoy, version: u16) -> ToEnvoy {
    let ToEnvoy::TunnelMessage(ToEnvoyTunnelMessage { message_kind, .. }) = &mut message else { return message };
    if version < 8 {
        if let ToEnvoyTunnelMessageKind::RequestStart(start) = message_kind {
            start.actor_generation = None;
            start.response_stream = false;
        } else if let ToEnvoyTunnelMessageKind::WebSocketOpen(open) = message_kind {
            open.actor_generation = None;
        } else if let ToEnvoyTunnelMessageKind::RequestAbort(abort) = message_kind {
            let reason = HttpStreamAbortReason { kind: HttpStreamAbortReasonKind::Unknown, detail: None };
            *abort = RequestAbort { actor_id: None, actor_generation: None, reason };
        }
    }
    message
}

/// The message without what `version` cannot carry (section 6.4).
fn lower_to_rivet(mut message: ToRivet, version: u16) -> ToRivet {
    if version < 8
        && let ToRivet::TunnelMessage(ToRivetTunnelMessage { message_kind, .. }) = &mut message
        && let ToRivetTunnelMessageKind::ResponseAbort(abort) = message_kind
    {
        abort.reason = HttpStreamAbortReason { kind: HttpStreamAbortReasonKind::Unknown, detail: None };
    }
    message
}

/// Writes the message in every version, and reads it back with what the version lacks at its default.
fn assert_round_trips_to_rivet(message: &ToRivet) {
    for version in VERSIONS {
        let frame = message.to_frame(version);
        assert_tags(&message.notation(), version, &frame);
        if let Ok(frame) = frame {
            assert_eq!(ToRivet::decode(frame, version), Ok(lower_to_rivet(message.clone(), version)));
        }
    }
}

/// Writes the message in every version, and reads it back with what the version lacks at its default.
fn assert_round_trips_to_envoy(message: &ToEnvoy) {
    for version in VERSIONS {
        let frame = message.to_frame(version);
        assert_tags(&message.notation(), version, &frame);
        if let Ok(frame) = frame {
            assert_eq!(ToEnvoy::decode(frame, version), Ok(lower_to_envoy(message.clone(), version)));
        }
    }
}

proptest! {
    #[test]
    fn samples_to_rivet_round_trip(message in sample::<ToRivet>()) {
        assert_round_trips_to_rivet(&message);
    }

    #[test]
    fn samples_to_envoy_round_trip(message in sample::<ToEnvoy>()) {
        assert_round_trips_to_envoy(&message);
    }
}

/// The vectors have every arm of every union, so every row of the table is looked at.
#[test]
fn vectors_round_trip() {
    let mut seen = BTreeSet::new();
    for vector in vectors("to_rivet") {
        let message = ToRivet::decode(vector.bytes(), PROTOCOL_VERSION).unwrap();
        assert_round_trips_to_rivet(&message);
        seen.extend(names(&message.notation()).into_iter().flatten().map(str::to_owned));
    }
    for vector in vectors("to_envoy") {
        let message = ToEnvoy::decode(vector.bytes(), PROTOCOL_VERSION).unwrap();
        assert_round_trips_to_envoy(&message);
        seen.extend(names(&message.notation()).into_iter().flatten().map(str::to_owned));
    }
    assert_eq!(TAGS.map(|row| row.0).into_iter().filter(|name| !seen.contains(*name)).count(), 0);
}

#[test]
fn aborts_lose_their_reason_on_the_way_down_and_are_unknown_on_the_way_up() {
    let message_id = MessageId { gateway_id: GatewayId([1, 2, 3, 4]), request_id: RequestId([5, 6, 7, 8]), message_index: 1 };
    let reason = HttpStreamAbortReason { kind: HttpStreamAbortReasonKind::Cancelled, detail: Some("gone".into()) };

    let abort = RequestAbort { actor_id: Some("a".into()), actor_generation: Some(1), reason: reason.clone() };
    let message_kind = ToEnvoyTunnelMessageKind::RequestAbort(abort);
    let down = ToEnvoy::TunnelMessage(ToEnvoyTunnelMessage { message_id: message_id.clone(), message_kind });
    assert_eq!(down.to_frame(7), Ok(unhex("04 01020304 05060708 0100 02")));

    let unknown = HttpStreamAbortReason { kind: HttpStreamAbortReasonKind::Unknown, detail: None };
    let message_kind = ToRivetTunnelMessageKind::ResponseAbort(ResponseAbort { reason: unknown });
    let up = ToRivet::TunnelMessage(ToRivetTunnelMessage { message_id, message_kind });
    assert_eq!(ToRivet::decode(unhex("06 01020304 05060708 0100 02"), 7), Ok(up));
}

#[test]
fn what_a_version_lacks_is_a_typed_error_and_leaves_the_buffer_alone() {
    let data = Ok(SqliteCommitStageBeginOk { txid: 1 });
    let message = ToEnvoy::SqliteCommitStageBegin { request_id: 1, data };
    let mut buffer = BytesMut::from("before");
    let missing = NotInVersion { union: "ToEnvoy", arm: "SqliteCommitStageBegin", since: 7, version: 6 };
    assert_eq!(message.encode(6, &mut buffer), Err(EncodeError::NotInVersion(missing)));
    assert_eq!(buffer, "before");

    let message_id = MessageId { gateway_id: GatewayId([0; 4]), request_id: RequestId([0; 4]), message_index: 0 };
    let message_kind = ToEnvoyTunnelMessageKind::RequestBodyCancel;
    let message = ToEnvoy::TunnelMessage(ToEnvoyTunnelMessage { message_id, message_kind });
    assert!(message.encode(7, &mut buffer).is_err());
    // The tag of the message and its id were already written.
    assert_eq!(buffer, "before");
}

#[test]
fn versions_that_nobody_speaks_are_refused() {
    for version in [0, 5, 9, u16::MAX] {
        assert_eq!(ToRivet::decode(Bytes::from_static(&[3]), version), Err(DecodeError::UnsupportedVersion { version }));
        assert_eq!(ToRivet::Stopping.to_frame(version), Err(EncodeError::UnsupportedVersion { version }));
    }
}
