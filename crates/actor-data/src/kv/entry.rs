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
//! | value | the rest but the seal | |
//! | seal | 4 | `record` |

use bytes::Bytes;

use crate::Damaged;
use crate::limits::KV_ENTRY_OVERHEAD_BYTES;
use crate::preload::Candidate;
use crate::record::{self, Fields, SEAL_BYTES};

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

    /// The value of the entry's row.
    pub(super) fn row(&self, key: &[u8]) -> Bytes {
        record::seal(key, self.encode())
    }

    fn encode(&self) -> Vec<u8> {
        debug_assert_eq!(self.writer.len(), usize::from(WRITER_LENGTH));
        let mut row = Vec::with_capacity(1 + 8 + 1 + self.writer.len() + self.value.len() + SEAL_BYTES);
        row.push(VERSION);
        row.extend(self.update_ts.to_be_bytes());
        row.push(WRITER_LENGTH);
        row.extend(&self.writer);
        row.extend(&self.value);
        row
    }

    pub(super) fn decode(key: &[u8], row: &Bytes) -> Result<Self, Damaged> {
        let (update_ts, writer, value) = read(key, row)?;
        Ok(Self { update_ts, writer: row.slice_ref(writer), value: row.slice_ref(value) })
    }
}

const RECORD: &str = "key-value entry";

/// Bytes of an entry that count against the storage limit.
pub(super) fn counted_bytes(key: &[u8], value_length: usize) -> u64 {
    (key.len() + value_length) as u64 + KV_ENTRY_OVERHEAD_BYTES
}

/// Length of the value in a row.
pub(super) fn value_length(row_key: &[u8], row: &[u8]) -> Result<usize, Damaged> {
    Ok(read(row_key, row)?.2.len())
}

/// The entry of a key in a row, to be looked at.
pub(super) fn candidate<'a>(key: &'a [u8], row_key: &[u8], row: &'a [u8]) -> Result<Candidate<'a>, Damaged> {
    let (update_ts, writer, value) = read(row_key, row)?;
    Ok(Candidate { key, value, writer, update_ts })
}

/// Update time, writer and value.
fn read<'r>(row_key: &[u8], row: &'r [u8]) -> Result<(i64, &'r [u8], &'r [u8]), Damaged> {
    parse(record::unseal(RECORD, row_key, row)?).ok_or(Damaged { record: RECORD })
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
            let row = entry.row(b"key");
            prop_assert_eq!(value_length(b"key", &row), Ok(entry.value.len()));
            prop_assert_eq!(Entry::decode(b"key", &row), Ok(entry.clone()));
            let body = entry.encode();
            let head = body.len() - entry.value.len();
            let cut = record::seal(b"key", body[..cut.min(head - 1)].to_vec());
            prop_assert_eq!(Entry::decode(b"key", &cut), Err(Damaged { record: RECORD }));
        }
    }
}
