//! The envoy protocol: one WebSocket between the engine and an actor host (`spec/envoy-protocol.md` 3 to 6).
//!
//! Every message has one Rust type, that of version 8. [`ToRivet`] goes from the host to the engine, [`ToEnvoy`] the
//! other way; both are coded for any version from [`MIN_PROTOCOL_VERSION`] to [`PROTOCOL_VERSION`]:
//!
//! * writing an older version drops the fields that it lacks; a message that it cannot express is
//!   [`EncodeError::NotInVersion`];
//! * reading an older version fills in the default of the fields that it lacks.
//!
//! `data` fields are slices of the frame they came in: keeping a small one keeps the whole frame alive.

mod actor;
mod kv;
mod remote_sql;
mod serverless;
mod sqlite;
mod to_envoy;
mod to_rivet;
mod tunnel;
mod wire;

use bare::{Codec, NotInVersion, Reader, Writer};
use bytes::{Bytes, BytesMut};

pub use self::actor::*;
pub use self::kv::*;
pub use self::remote_sql::*;
pub use self::serverless::*;
pub use self::sqlite::*;
pub use self::to_envoy::*;
pub use self::to_rivet::*;
pub use self::tunnel::*;

/// Newest protocol version, the one that SDK 2.3.19 speaks.
pub const PROTOCOL_VERSION: u16 = 8;
/// Oldest protocol version served (`decisions.md` 15); older hosts are refused at connect.
pub const MIN_PROTOCOL_VERSION: u16 = 6;

/// Most items in all lists and maps of one message from an envoy. Bounds what a hostile frame can make of itself:
/// a list item may take one byte on the wire, and some forty in memory.
pub const TO_RIVET_MAX_ITEMS: usize = 1 << 20;
/// The same for messages from the engine, which may carry SQL results of 64 MiB.
pub const TO_ENVOY_MAX_ITEMS: usize = 1 << 24;

/// Why a frame could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The peer speaks a version that we do not.
    #[error("unsupported protocol version {version}")]
    UnsupportedVersion {
        /// The peer's version.
        version: u16,
    },
    /// The bytes are no message of that version.
    #[error(transparent)]
    Malformed(#[from] bare::DecodeError),
}

/// Why a message could not be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The peer speaks a version that we do not.
    #[error("unsupported protocol version {version}")]
    UnsupportedVersion {
        /// The peer's version.
        version: u16,
    },
    /// The peer's version has no such message.
    #[error(transparent)]
    NotInVersion(#[from] NotInVersion),
}

/// Whether we speak a protocol version.
pub fn is_supported(version: u16) -> bool {
    (MIN_PROTOCOL_VERSION..=PROTOCOL_VERSION).contains(&version)
}

impl ToRivet {
    /// Reads one frame of an envoy. Bytes behind the message are ignored.
    pub fn decode(frame: Bytes, version: u16) -> Result<Self, DecodeError> {
        decode(frame, version, TO_RIVET_MAX_ITEMS)
    }

    /// Appends the message to `buffer`; on error `buffer` is as before.
    pub fn encode(&self, version: u16, buffer: &mut BytesMut) -> Result<(), EncodeError> {
        encode(self, version, buffer)
    }

    /// The message as one frame.
    pub fn to_frame(&self, version: u16) -> Result<Bytes, EncodeError> {
        to_frame(self, version)
    }
}

impl ToEnvoy {
    /// Reads one frame of the engine. Bytes behind the message are ignored.
    pub fn decode(frame: Bytes, version: u16) -> Result<Self, DecodeError> {
        decode(frame, version, TO_ENVOY_MAX_ITEMS)
    }

    /// Appends the message to `buffer`; on error `buffer` is as before.
    pub fn encode(&self, version: u16, buffer: &mut BytesMut) -> Result<(), EncodeError> {
        encode(self, version, buffer)
    }

    /// The message as one frame.
    pub fn to_frame(&self, version: u16) -> Result<Bytes, EncodeError> {
        to_frame(self, version)
    }
}

fn decode<M: Codec>(frame: Bytes, version: u16, max_items: usize) -> Result<M, DecodeError> {
    if !is_supported(version) {
        return Err(DecodeError::UnsupportedVersion { version });
    }
    Ok(M::read(&mut Reader::new(frame, version, max_items))?)
}

fn encode<M: Codec>(message: &M, version: u16, buffer: &mut BytesMut) -> Result<(), EncodeError> {
    if !is_supported(version) {
        return Err(EncodeError::UnsupportedVersion { version });
    }
    let length_before = buffer.len();
    message.write(&mut Writer::new(buffer, version)).map_err(|error| {
        buffer.truncate(length_before);
        EncodeError::from(error)
    })
}

fn to_frame<M: Codec>(message: &M, version: u16) -> Result<Bytes, EncodeError> {
    let mut buffer = BytesMut::new();
    encode(message, version, &mut buffer)?;
    Ok(buffer.freeze())
}
