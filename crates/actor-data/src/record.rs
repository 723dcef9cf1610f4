//! What all stored records have in common: keys that begin alike, fields of fixed width, big-endian, and a seal.
//!
//! The seal is the last four bytes of every value: the CRC32 of the key and of the value before them. So a row whose bytes
//! have changed is found out, and so is one that is in the place of another one.

use bytes::Bytes;
use protocol::id::Id;
use store::Batch;

/// A stored record cannot be decoded, or its seal is broken: the disk or something else than the engine damaged it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a stored {record} record is damaged")]
pub struct Damaged {
    /// Which kind of record.
    pub record: &'static str,
}

/// First byte of a key. This room has those from `0x40` to `0x5f`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Subspace {
    Fence = 0x40,
    Ledger = 0x41,
    Page = 0x42,
    StagedPage = 0x43,
    Segment = 0x44,
    KvEntry = 0x45,
    KvBucket = 0x46,
    HistoryCommit = 0x47,
    HistoryPage = 0x48,
}

/// Subspaces with what an actor stores. The fence is not in it: it goes last.
pub(crate) const DATA_SUBSPACES: [Subspace; 8] = [
    Subspace::KvEntry,
    Subspace::KvBucket,
    Subspace::HistoryPage,
    Subspace::HistoryCommit,
    Subspace::StagedPage,
    Subspace::Segment,
    Subspace::Page,
    Subspace::Ledger,
];

/// Bytes before the part of a key that differs within one actor's subspace.
pub(crate) const PREFIX_BYTES: usize = 1 + 18;

/// A key: subspace, actor, and the rest in parts.
pub(crate) fn key(subspace: Subspace, actor: &Id, rest: &[&[u8]]) -> Bytes {
    let length = PREFIX_BYTES + rest.iter().map(|part| part.len()).sum::<usize>();
    let mut key = Vec::with_capacity(length);
    key.push(subspace as u8);
    key.extend_from_slice(actor.as_bytes());
    for part in rest {
        key.extend_from_slice(part);
    }
    key.into()
}

/// Bytes of a seal.
pub(crate) const SEAL_BYTES: usize = 4;

/// The seal of a record. Takes less than a microsecond for a page.
pub(crate) fn seal_of(key: &[u8], body: &[u8]) -> [u8; SEAL_BYTES] {
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(key);
    checksum.update(body);
    checksum.finalize().to_be_bytes()
}

/// The value to be stored under a key for this body.
pub(crate) fn seal(key: &[u8], mut body: Vec<u8>) -> Bytes {
    let seal = seal_of(key, &body);
    body.extend(seal);
    body.into()
}

/// The body of a stored value, if its seal is whole; `record` says what kind it is.
pub(crate) fn unseal<'v>(record: &'static str, key: &[u8], value: &'v [u8]) -> Result<&'v [u8], Damaged> {
    let (body, seal) = value.split_last_chunk().ok_or(Damaged { record })?;
    if *seal == seal_of(key, body) { Ok(body) } else { Err(Damaged { record }) }
}

/// Adds a sealed record to a batch.
pub(crate) fn put(batch: &mut Batch, key: Bytes, body: Vec<u8>) {
    let value = seal(&key, body);
    batch.put(key, value);
}

/// The `u32` at the end of a key.
pub(crate) fn last_u32(key: &[u8]) -> Option<u32> {
    key.last_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

/// Reads the fields of a record in order.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.chunk::<1>().map(u8::from_be_bytes)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.chunk().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.chunk().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.chunk().map(u64::from_be_bytes)
    }

    pub(crate) fn i64(&mut self) -> Option<i64> {
        self.chunk().map(i64::from_be_bytes)
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(bytes)
    }

    /// What is left, if it is nothing: records have no more than their fields.
    pub(crate) fn end(self) -> Option<()> {
        self.0.is_empty().then_some(())
    }

    fn chunk<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (chunk, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*chunk)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_change_of_a_byte_breaks_the_seal(
            key in prop::collection::vec(any::<u8>(), 1..40),
            body in prop::collection::vec(any::<u8>(), 0..100),
            place in any::<prop::sample::Index>(),
            change in 1..=u8::MAX,
        ) {
            let value = seal(&key, body.clone());
            prop_assert_eq!(unseal("test", &key, &value), Ok(&body[..]));

            let mut row = [key.as_slice(), value.as_ref()].concat();
            row[place.index(key.len() + value.len())] ^= change;
            let (key, value) = row.split_at(key.len());
            prop_assert_eq!(unseal("test", key, value), Err(Damaged { record: "test" }));
            prop_assert!(unseal("test", key, &value[..3]).is_err(), "too short for a seal");
        }
    }
}
