//! The rows of a database's past.
//!
//! A commit. Key: `47`, actor id (18), head that it made (8).
//!
//! | Value | Bytes | |
//! |---|---|---|
//! | version | 1 | 1 |
//! | time | 8 | of the commit, epoch milliseconds; never before that of an earlier one |
//! | size before | 4 | pages that the database had before it |
//! | noted before | 8 | bytes of the rows of all commits before it since the history began, without those that were undone |
//! | seal | 4 | `record` |
//!
//! A page that a commit changed or removed, as it was before. Key: `48`, actor id (18), head that the commit made (8), page
//! number (4). The value is that of a page row (`page`).

use bytes::Bytes;
use protocol::id::Id;
use store::Batch;

use crate::record::{self, Damaged, Fields, PREFIX_BYTES, SEAL_BYTES, Subspace};

const RECORD: &str = "history";
const VERSION: u8 = 1;

/// Bytes of the row of a commit, key and value.
pub(super) const COMMIT_ROW_BYTES: u64 = (PREFIX_BYTES + 8 + 1 + 8 + 4 + 8 + SEAL_BYTES) as u64;

/// A commit, as far as it must be known to take it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Commit {
    pub(super) time: i64,
    pub(super) size_before: u32,
    /// Bytes of the rows of all commits before it. The difference between two commits is what those from the one to below the
    /// other take, so that nobody needs to look at their pages to know it.
    pub(super) noted_before: u64,
}

pub(super) fn commit_key(actor: &Id, head: u64) -> Bytes {
    record::key(Subspace::HistoryCommit, actor, &[&head.to_be_bytes()])
}

pub(super) fn page_key(actor: &Id, head: u64, pgno: u32) -> Bytes {
    record::key(Subspace::HistoryPage, actor, &[&head.to_be_bytes(), &pgno.to_be_bytes()])
}

/// Whether the key is that of a commit, and not of a page.
pub(super) fn is_commit(key: &[u8]) -> bool {
    key.first() == Some(&(Subspace::HistoryCommit as u8))
}

/// The head in a key of either kind.
pub(super) fn head_of(key: &[u8]) -> Result<u64, Damaged> {
    let head = key.get(PREFIX_BYTES..).and_then(<[u8]>::split_first_chunk);
    let rest_bytes = if is_commit(key) { 0 } else { size_of::<u32>() };
    let head = head.filter(|(_, rest)| rest.len() == rest_bytes).map(|(head, _)| u64::from_be_bytes(*head));
    head.ok_or(Damaged { record: RECORD })
}

impl Commit {
    /// Adds the commit that made a head to a batch. Returns the bytes of its row.
    pub(super) fn put(self, batch: &mut Batch, actor: &Id, head: u64) -> u64 {
        record::put(batch, commit_key(actor, head), self.encode());
        COMMIT_ROW_BYTES
    }

    fn encode(self) -> Vec<u8> {
        let mut body = vec![VERSION];
        body.extend(self.time.to_be_bytes());
        body.extend(self.size_before.to_be_bytes());
        body.extend(self.noted_before.to_be_bytes());
        body
    }

    pub(super) fn decode(key: &[u8], value: &[u8]) -> Result<Self, Damaged> {
        let body = record::unseal(RECORD, key, value)?;
        Self::parse(Fields(body)).ok_or(Damaged { record: RECORD })
    }

    fn parse(mut fields: Fields<'_>) -> Option<Self> {
        let (version, time, size_before, noted_before) = (fields.u8()?, fields.i64()?, fields.u32()?, fields.u64()?);
        fields.end()?;
        (version == VERSION).then_some(Self { time, size_before, noted_before })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn round_trips(
            actor: [u8; 18],
            head: u64,
            pgno: u32,
            time: i64,
            size_before: u32,
            noted_before: u64,
            cut in 0..21usize,
        ) {
            let (actor, commit) = (Id::from_bytes(actor), Commit { time, size_before, noted_before });
            let key = commit_key(&actor, head);
            let decode = |body: &[u8]| Commit::decode(&key, &record::seal(&key, body.to_vec()));
            prop_assert_eq!(decode(&commit.encode()), Ok(commit));
            prop_assert!(decode(&commit.encode()[..cut]).is_err());
            let row_bytes = key.len() + record::seal(&key, commit.encode()).len();
            prop_assert_eq!(commit.put(&mut Batch::new(), &actor, head), row_bytes as u64);
            prop_assert!(head_of(&key[..key.len() - 1]).is_err() && head_of(&[&key[..], &[0]].concat()).is_err());
            let page = page_key(&actor, head, pgno);
            prop_assert_eq!((head_of(&key), head_of(&page), record::last_u32(&page)), (Ok(head), Ok(head), Some(pgno)));
        }
    }

    #[test]
    fn another_version_is_damaged() {
        let key = commit_key(&Id::NIL, 1);
        let mut body = Commit { time: 1, size_before: 1, noted_before: 0 }.encode();
        body[0] = 2;
        assert!(Commit::decode(&key, &record::seal(&key, body)).is_err());
    }
}
