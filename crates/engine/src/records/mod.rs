//! What the engine stores: one file per kind of row, with its layout.
//!
//! Key space: the first byte is the kind. `0x01` to `0x3f` belong to the engine, `0x40` and up to `actor-data`. Ids are their
//! 18 bytes, numbers are big-endian so that the order of keys is the order of numbers. At most one part of a key has a
//! variable length in front of another; it then carries its length. Actor and namespace rows begin with a layout version;
//! pools and actor names are JSON, which names its fields; index rows have no value, or an id.

pub(crate) mod actor;
pub(crate) mod actor_index;
pub(crate) mod actor_name;
pub(crate) mod check;
pub(crate) mod namespace;
pub(crate) mod open_socket;
pub(crate) mod pool;

use bare::{Codec, Reader, Writer};
use bytes::{Bytes, BytesMut};

/// A stored row that this engine cannot read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a stored {kind} row cannot be read: {reason}")]
pub struct CorruptRow {
    /// What kind of row.
    pub kind: &'static str,
    /// Why.
    pub reason: String,
}

/// Layout version in front of each value made by [`encode`].
const VALUE_VERSION: u8 = 1;
/// Stored rows hold no lists.
const MAX_ITEMS: usize = 0;

/// Encodes a value: the layout version, then the fields.
fn encode(write: impl FnOnce(&mut Writer<'_>) -> Result<(), bare::NotInVersion>) -> Bytes {
    let mut buffer = BytesMut::new();
    buffer.extend_from_slice(&[VALUE_VERSION]);
    let mut writer = Writer::new(&mut buffer, u16::from(VALUE_VERSION));
    // No stored field is bound to a protocol version, so nothing can be missing in this one.
    let written = write(&mut writer);
    debug_assert!(written.is_ok(), "stored rows have no version gates");
    buffer.freeze()
}

/// Decodes a value made by [`encode`].
fn decode<T>(
    kind: &'static str,
    value: Bytes,
    read: impl FnOnce(&mut Reader) -> Result<T, bare::DecodeError>,
) -> Result<T, CorruptRow> {
    let corrupt = |reason: String| CorruptRow { kind, reason };
    match value.first() {
        Some(&VALUE_VERSION) => {}
        Some(other) => return Err(corrupt(format!("layout version {other} is newer than this engine"))),
        None => return Err(corrupt("it is empty".into())),
    }
    let mut reader = Reader::new(value.slice(1..), u16::from(VALUE_VERSION), MAX_ITEMS);
    read(&mut reader).map_err(|error| corrupt(error.to_string()))
}

fn write<T: Codec>(writer: &mut Writer<'_>, value: &T) -> Result<(), bare::NotInVersion> {
    value.write(writer)
}

fn read<T: Codec>(reader: &mut Reader) -> Result<T, bare::DecodeError> {
    T::read(reader)
}
