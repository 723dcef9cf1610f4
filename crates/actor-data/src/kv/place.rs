//! Where an entry is stored.
//!
//! The store takes keys of 1,982 bytes, but an entry's key may have 2,048. So:
//!
//! | Key of the entry | Row | Holds |
//! |---|---|---|
//! | up to 1,900 bytes | `45`, actor id (18), key | the entry |
//! | longer | `45`, actor id (18), first 1,900 bytes of the key, `00` | the bucket for all keys that begin so |
//! | | `46`, actor id (18), number of the bucket (8), rest of the key | the entry |
//!
//! That keeps the order: the row of a bucket comes right behind that of the entry whose key is the 1,900 bytes, and
//! before all entries with greater keys. And no row but a bucket's has 1,901 bytes behind the id.

use bytes::Bytes;
use protocol::id::Id;

use super::bucket::Bucket;
use crate::record::{self, PREFIX_BYTES, Subspace};

/// Longest key of an entry with a row of its own. Part of the stored format.
pub(super) const ROW_KEY_MAX_BYTES: usize = 1900;

/// Where an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// In a row of its own.
    Row,
    /// In the bucket for the beginning of its key, under the rest.
    Bucket { rest: Bytes },
}

impl Place {
    pub(super) fn of(key: &Bytes) -> Self {
        if key.len() <= ROW_KEY_MAX_BYTES { Self::Row } else { Self::Bucket { rest: key.slice(ROW_KEY_MAX_BYTES..) } }
    }
}

/// The row of an entry with this key, or of its bucket.
pub(super) fn row(actor: &Id, key: &[u8]) -> Bytes {
    match key.split_at_checked(ROW_KEY_MAX_BYTES) {
        Some((beginning, [_, ..])) => record::key(Subspace::KvEntry, actor, &[beginning, &[0]]),
        Some((_, [])) | None => record::key(Subspace::KvEntry, actor, &[key]),
    }
}

/// The row of an entry in a bucket.
pub(super) fn bucket_row(actor: &Id, bucket: Bucket, rest: &[u8]) -> Bytes {
    record::key(Subspace::KvBucket, actor, &[&bucket.number.to_be_bytes(), rest])
}

/// What a row is about.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Row {
    /// The entry with this key.
    Entry(Bytes),
    /// The bucket of keys that begin with this.
    Bucket(Bytes),
}

impl Row {
    /// Of the key of a row in the first of the two subspaces.
    pub(super) fn of(row: &Bytes) -> Self {
        let key = row.slice(PREFIX_BYTES..);
        if key.len() <= ROW_KEY_MAX_BYTES { Self::Entry(key) } else { Self::Bucket(key.slice(..ROW_KEY_MAX_BYTES)) }
    }
}

/// The rest of an entry's key, of the key of its row in a bucket.
pub(super) fn rest(bucket_row: &Bytes) -> Bytes {
    bucket_row.slice(PREFIX_BYTES + size_of::<u64>()..)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::limits::KV_KEY_MAX_BYTES;

    const BUCKET: Bucket = Bucket { number: 7, entries: 1 };

    /// Keys around the limit, that differ in few places.
    fn key() -> impl Strategy<Value = Bytes> {
        let length = prop_oneof![0..4usize, 1898..1904usize, Just(KV_KEY_MAX_BYTES)];
        (length, prop::collection::vec((0..2100usize, 0..3u8), 0..3)).prop_map(|(length, changes)| {
            let mut key = vec![1; length];
            for (position, byte) in changes {
                if let Some(place) = key.get_mut(position) {
                    *place = byte;
                }
            }
            key.into()
        })
    }

    /// A key as the sequence of rows that lead to its entry.
    fn path(key: &Bytes) -> (Bytes, Bytes) {
        let row = row(&Id::NIL, key);
        match Place::of(key) {
            Place::Row => (row, Bytes::new()),
            Place::Bucket { rest } => (row, bucket_row(&Id::NIL, BUCKET, &rest)),
        }
    }

    proptest! {
        #[test]
        fn rows_sort_as_keys_do(one in key(), other in key()) {
            prop_assert_eq!(path(&one).cmp(&path(&other)), one.cmp(&other));
        }

        #[test]
        fn rows_are_short_and_tell_their_key(key in key()) {
            let (row, inner) = path(&key);
            prop_assert!(row.len() <= store::MAX_KEY_BYTES && inner.len() <= store::MAX_KEY_BYTES);
            let read = match Row::of(&row) {
                Row::Entry(key) => key,
                Row::Bucket(beginning) => [beginning, rest(&inner)].concat().into(),
            };
            prop_assert_eq!(read, key);
        }
    }
}
