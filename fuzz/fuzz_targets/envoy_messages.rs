//! Any bytes, read as any message of the envoy protocol in any version: never a panic, and what is a message reads the
//! same after writing it. Run with `cargo +nightly fuzz run envoy_messages`.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use protocol::envoy::{DecodeError, EncodeError, MIN_PROTOCOL_VERSION, PROTOCOL_VERSION, ServerlessStart, ToEnvoy, ToRivet};

fuzz_target!(|bytes: &[u8]| {
    let frame = Bytes::copy_from_slice(bytes);
    for version in MIN_PROTOCOL_VERSION..=PROTOCOL_VERSION {
        read_write_read(&frame, |frame| ToRivet::decode(frame, version), |message| message.to_frame(version));
        read_write_read(&frame, |frame| ToEnvoy::decode(frame, version), |message| message.to_frame(version));
    }
    if let Ok((version, start)) = ServerlessStart::from_body(frame) {
        assert!(start.to_body(version).is_ok());
    }
});

/// Compares written forms, and not values: a NaN differs from itself.
fn read_write_read<M>(
    frame: &Bytes,
    read: impl Fn(Bytes) -> Result<M, DecodeError>,
    write: impl Fn(&M) -> Result<Bytes, EncodeError>,
) {
    let Ok(message) = read(frame.clone()) else { return };
    let written = write(&message).expect("what this version holds, it can express");
    let again = read(written.clone()).expect("what was written can be read");
    assert_eq!(write(&again), Ok(written));
}
