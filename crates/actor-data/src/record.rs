//! What all stored records have in common: keys that begin alike, and fields of fixed width, big-endian.

use bytes::Bytes;
use protocol::id::Id;

/// A stored record cannot be decoded: the disk or an older version of the engine damaged it, or a newer one wrote it.
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
}

/// Subspaces with what an actor stores. The fence is not in it: it goes last.
pub(crate) const DATA_SUBSPACES: [Subspace; 6] =
    [Subspace::KvEntry, Subspace::KvBucket, Subspace::StagedPage, Subspace::Segment, Subspace::Page, Subspace::Ledger];

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
