//! Input that no honest peer sends.

use bare::DecodeError::{InvalidUtf8, LengthBeyondEnd, TagOutOfRange, TooManyItems, UintTooLong, UnexpectedEnd};
use bytes::{BufMut, Bytes, BytesMut};
use proptest::prelude::*;
use protocol::envoy::{
    DecodeError, MIN_PROTOCOL_VERSION, PROTOCOL_VERSION, ServerlessStart, StartBodyError, TO_RIVET_MAX_ITEMS, ToEnvoy, ToRivet,
};

use crate::unhex;
use crate::vectors::vectors;

fn decode(hex: &str) -> Result<ToRivet, DecodeError> {
    ToRivet::decode(unhex(hex), PROTOCOL_VERSION)
}

fn assert_malformed(hex: &str, error: bare::DecodeError) {
    assert_eq!(decode(hex), Err(DecodeError::Malformed(error)), "{hex}");
}

#[test]
fn no_proper_beginning_of_a_message_is_a_message() {
    for vector in vectors("to_rivet") {
        let frame = vector.bytes();
        for length in 0..frame.len() {
            let result = ToRivet::decode(frame.slice(..length), PROTOCOL_VERSION);
            assert!(matches!(result, Err(DecodeError::Malformed(UnexpectedEnd | LengthBeyondEnd { .. }))), "{}", vector.name);
        }
    }
    for vector in vectors("to_envoy") {
        let frame = vector.bytes();
        for length in 0..frame.len() {
            let result = ToEnvoy::decode(frame.slice(..length), PROTOCOL_VERSION);
            assert!(matches!(result, Err(DecodeError::Malformed(UnexpectedEnd | LengthBeyondEnd { .. }))), "{}", vector.name);
        }
    }
}

#[test]
fn bytes_behind_a_message_are_ignored() {
    assert_eq!(decode("03 ffff"), Ok(ToRivet::Stopping));
}

/// The error shows that the length was refused as such: nothing had been allocated for it.
#[test]
fn lengths_beyond_the_end_are_refused_as_such() {
    // 2^63 events.
    assert_malformed("01 80808080808080808001", LengthBeyondEnd { length: 1 << 63, left: 0 });
    // Two events have 28 bytes at least.
    assert_malformed(&format!("01 02 {}", "00".repeat(27)), LengthBeyondEnd { length: 2, left: 27 });
    // An actor id, one byte too long.
    assert_malformed("05 03 6162", LengthBeyondEnd { length: 3, left: 2 });
    // A map of actor types.
    assert_malformed("00 01 ffffffffffffffffff01", LengthBeyondEnd { length: u64::MAX, left: 0 });
}

#[test]
fn lists_of_small_items_are_bounded() {
    let too_many = TO_RIVET_MAX_ITEMS + 1;
    let mut frame = BytesMut::from(&unhex("05 00 00000000 00")[..]);
    // 2^20 + 1 as a variable-length number; that many empty keys.
    frame.put_slice(&[0x81, 0x80, 0x40]);
    frame.put_bytes(0, too_many);
    let error = ToRivet::decode(frame.freeze(), PROTOCOL_VERSION);
    assert_eq!(error, Err(DecodeError::Malformed(TooManyItems { max: TO_RIVET_MAX_ITEMS })));
}

#[test]
fn tags_out_of_range_are_refused() {
    assert_malformed("0f", TagOutOfRange { union: "ToRivet", tag: 15 });
    assert_malformed("ffffffffffffffffff01", TagOutOfRange { union: "ToRivet", tag: u64::MAX });
    assert_malformed("00 02", TagOutOfRange { union: "optional", tag: 2 });
    assert_malformed("05 00 00000000 06", TagOutOfRange { union: "KvRequestData", tag: 6 });
    let tunnel = "06 00000000 00000000 0000";
    assert_malformed(&format!("{tunnel} 09"), TagOutOfRange { union: "ToRivetTunnelMessageKind", tag: 9 });
    assert_malformed(&format!("{tunnel} 02 04"), TagOutOfRange { union: "HttpStreamAbortReasonKind", tag: 4 });
    // A tag that only later versions have.
    let result = ToRivet::decode(unhex("0c"), MIN_PROTOCOL_VERSION);
    assert_eq!(result, Err(DecodeError::Malformed(TagOutOfRange { union: "ToRivet", tag: 12 })));
}

#[test]
fn other_malformed_values() {
    assert_malformed("ffffffffffffffffff02", UintTooLong);
    assert_malformed("8080808080808080808000", UintTooLong);
    assert_malformed("05 02 ff61", InvalidUtf8);
}

#[test]
fn start_bodies() {
    let body = |hex| ServerlessStart::from_body(unhex(hex)).map(|(version, _)| version);
    assert_eq!(body("08"), Err(StartBodyError::TooShort));
    assert_eq!(body("0900 05 0000000000000000"), Err(StartBodyError::Decode(DecodeError::UnsupportedVersion { version: 9 })));
    assert_eq!(body("0800 05 0000000000000000"), Err(StartBodyError::NotOneStart));
    assert_eq!(body("0800 01 00"), Err(StartBodyError::NotOneStart));
    assert_eq!(body("0800 01 01 00 01000000 0000000000000000 01 00"), Err(StartBodyError::NotOneStart));
}

/// Reads a frame as both unions. What is a message must read the same after writing it.
fn read_write_read(frame: &Bytes, version: u16) {
    // Written forms are compared, and not the values: a NaN differs from itself.
    if let Ok(message) = ToRivet::decode(frame.clone(), version) {
        let written = message.to_frame(version).unwrap();
        assert_eq!(ToRivet::decode(written.clone(), version).unwrap().to_frame(version), Ok(written));
    }
    if let Ok(message) = ToEnvoy::decode(frame.clone(), version) {
        let written = message.to_frame(version).unwrap();
        assert_eq!(ToEnvoy::decode(written.clone(), version).unwrap().to_frame(version), Ok(written));
    }
}

proptest! {
    /// Small bytes are more often tags and lengths that lead somewhere.
    #[test]
    fn random_bytes(bytes in proptest::collection::vec(prop_oneof![any::<u8>(), 0..16u8, Just(0)], 0..200)) {
        let frame = Bytes::from(bytes);
        for version in MIN_PROTOCOL_VERSION..=PROTOCOL_VERSION {
            read_write_read(&frame, version);
        }
    }

    #[test]
    fn damaged_messages(
        vector: prop::sample::Index, position: prop::sample::Index, damage in proptest::collection::vec(any::<u8>(), 1..11),
    ) {
        let vectors = [vectors("to_rivet"), vectors("to_envoy")].concat();
        let mut bytes = BytesMut::from(vector.get(&vectors).bytes());
        let start = position.index(bytes.len());
        let end = bytes.len().min(start + damage.len());
        bytes[start..end].copy_from_slice(&damage[..end - start]);
        let frame = bytes.freeze();
        for version in MIN_PROTOCOL_VERSION..=PROTOCOL_VERSION {
            read_write_read(&frame, version);
        }
    }
}
