//! A key-value entry.
//!
//! Key: as `kv::place` says.
//!
//! | Value | Bytes | |
//! |---|---|---|
//! | version | 1 | 1 |
//! | update time | 8 | epoch milliseconds of the put |
//! | writer length | 1 | |
//! | writer | 0 to 255 | version text of the engine that wrote it |
//! | value | the rest | |

use bytes::Bytes;

use crate::Damaged;
use crate::limits::KV_ENTRY_OVERHEAD_BYTES;
use crate::preload::Candidate;
use crate::record::Fields;

const VERSION: u8 = 1;

/// The version text that goes into new entries.
const WRITER: &str = env!("CARGO_PKG_VERSION");
const WRITER_LENGTH: u8 = WRITER.len() as u8;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) update_ts: i64,
    /// Version text of the engine that wrote the entry.
    pub(super) writer: Bytes,
    pub(super) value: Bytes,
}

impl Entry {
    /// An entry that is written now.
    pub(super) fn new(update_ts: i64, value: Bytes) -> Self {
        Self { update_ts, writer: Bytes::from_static(WRITER.as_bytes()), value }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        debug_assert_eq!(self.writer.len(), usize::from(WRITER_LENGTH));
        let mut row = Vec::with_capacity(1 + 8 + 1 + self.writer.len() + self.value.len());
        row.push(VERSION);
        row.extend(self.update_ts.to_be_bytes());
        row.push(WRITER_LENGTH);
        row.extend(&self.writer);
        row.extend(&self.value);
        row
    }

    pub(super) fn decode(row: &Bytes) -> Result<Self, Damaged> {
        let (update_ts, writer, value) = parse(row).ok_or(DAMAGED)?;
        Ok(Self { update_ts, writer: row.slice_ref(writer), value: row.slice_ref(value) })
    }
}

const DAMAGED: Damaged = Damaged { record: "key-value entry" };

/// Bytes of an entry that count against the storage limit.
pub(super) fn counted_bytes(key: &[u8], value_length: usize) -> u64 {
    (key.len() + value_length) as u64 + KV_ENTRY_OVERHEAD_BYTES
}

/// Length of the value in a row.
pub(super) fn value_length(row: &[u8]) -> Result<usize, Damaged> {
    parse(row).map(|(_, _, value)| value.len()).ok_or(DAMAGED)
}

/// The entry of a key in a row, to be looked at.
pub(super) fn candidate<'a>(key: &'a [u8], row: &'a [u8]) -> Result<Candidate<'a>, Damaged> {
    let (update_ts, writer, value) = parse(row).ok_or(DAMAGED)?;
    Ok(Candidate { key, value, writer, update_ts })
}

fn parse(row: &[u8]) -> Option<(i64, &[u8], &[u8])> {
    let mut fields = Fields(row);
    if fields.u8()? != VERSION {
        return None;
    }
    let update_ts = fields.i64()?;
    let writer_length = fields.u8()?;
    let writer = fields.bytes(writer_length.into())?;
    Some((update_ts, writer, fields.0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn round_trips(update_ts: i64, value in prop::collection::vec(any::<u8>(), 0..100), cut in 0..100usize) {
            let entry = Entry::new(update_ts, value.into());
            let row = Bytes::from(entry.encode());
            prop_assert_eq!(value_length(&row), Ok(entry.value.len()));
            prop_assert_eq!(Entry::decode(&row), Ok(entry.clone()));
            let head = row.len() - entry.value.len();
            prop_assert_eq!(Entry::decode(&row.slice(..cut.min(head - 1))), Err(DAMAGED));
        }
    }
}
