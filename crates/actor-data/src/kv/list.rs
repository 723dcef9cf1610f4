//! Reading entries in the order of their keys.

use bytes::Bytes;
use protocol::envoy::{KvListQuery, KvResponseData};
use protocol::id::Id;
use store::{Reads, Scan, StoreError, prefix_end};

use super::bucket::Bucket;
use super::entry::Entry;
use super::place::{self, ROW_KEY_MAX_BYTES, Row};
use super::read::lists;
use super::{KvError, Obstacle, admit};
use crate::limits::{KV_KEY_MAX_BYTES, KV_LIST_DEFAULT_ENTRIES, KV_LIST_MAX_BYTES};
use crate::record::{self, Subspace};
use crate::{ActorData, Standing, standing_keys};

/// Keys from `start` (included) to `end` (excluded; none is the end of all).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyRange {
    pub(crate) start: Bytes,
    pub(crate) end: Option<Bytes>,
}

impl KeyRange {
    pub(super) fn all() -> Self {
        Self { start: Bytes::new(), end: None }
    }

    pub(super) fn half_open(start: Bytes, end: Bytes) -> Result<Self, KvError> {
        check_range(&start, &end)?;
        Ok(Self { start, end: Some(end) })
    }

    pub(super) fn of_query(query: KvListQuery) -> Result<Self, KvError> {
        match query {
            KvListQuery::All => Ok(Self::all()),
            KvListQuery::Range { start, end, exclusive: true } => Self::half_open(start, end),
            KvListQuery::Range { start, end, exclusive: false } => {
                check_range(&start, &end)?;
                // The smallest key above `end`.
                Ok(Self { start, end: Some([end.as_ref(), &[0]].concat().into()) })
            }
            KvListQuery::Prefix { key } => Self::prefix(key),
        }
    }

    pub(super) fn prefix(prefix: Bytes) -> Result<Self, KvError> {
        if prefix.len() > KV_KEY_MAX_BYTES {
            return Err(KvError::PrefixTooLong);
        }
        let has_end = prefix.iter().any(|byte| *byte != 0xff);
        Ok(Self { end: has_end.then(|| prefix_end(&prefix)), start: prefix })
    }

    pub(super) fn contains(&self, key: &Bytes) -> bool {
        *key >= self.start && self.end.as_ref().is_none_or(|end| key < end)
    }

    /// The rows that may lead to entries in the range: at most the first and the last one, if they are buckets, lead to
    /// none.
    pub(super) fn rows(&self, actor: &Id) -> (Bytes, Bytes) {
        let start = place::row(actor, &self.start);
        let end = match &self.end {
            None => prefix_end(&record::key(Subspace::KvEntry, actor, &[])),
            Some(end) if end.len() <= ROW_KEY_MAX_BYTES => place::row(actor, end),
            // Some keys of the bucket may be below the end.
            Some(end) => [place::row(actor, end).as_ref(), &[0]].concat().into(),
        };
        (start, end)
    }

    /// The rows in the bucket of keys with this beginning that are in the range.
    pub(super) fn bucket_rows(&self, actor: &Id, beginning: &[u8], bucket: Bucket) -> (Bytes, Bytes) {
        let all = place::bucket_row(actor, bucket, &[]);
        // A bound that does not begin so is below or above the whole bucket.
        let start = self.start.strip_prefix(beginning).unwrap_or_default();
        let start = place::bucket_row(actor, bucket, start);
        let end = self.end.as_ref().and_then(|end| end.strip_prefix(beginning));
        (start, end.map_or_else(|| prefix_end(&all), |end| place::bucket_row(actor, bucket, end)))
    }
}

fn check_range(start: &Bytes, end: &Bytes) -> Result<(), KvError> {
    if start.len() > KV_KEY_MAX_BYTES {
        return Err(KvError::StartTooLong);
    }
    if end.len() > KV_KEY_MAX_BYTES {
        return Err(KvError::EndTooLong);
    }
    Ok(())
}

/// Entries taken from a range so far.
struct Listing<'a> {
    actor: &'a Id,
    range: &'a KeyRange,
    reverse: bool,
    limit: usize,
    found: Vec<(Bytes, Entry)>,
    /// Bytes that may still be taken.
    room: usize,
}

impl ActorData {
    pub(super) async fn list_entries(
        &self,
        actor: Id,
        generation: u32,
        range: KeyRange,
        reverse: bool,
        limit: Option<u64>,
    ) -> Result<KvResponseData, Obstacle> {
        let limit = usize::try_from(limit.unwrap_or(KV_LIST_DEFAULT_ENTRIES)).unwrap_or(usize::MAX);
        let found = self.list_range(&actor, generation, &range, reverse, limit, None).await?;
        let (keys, values, metadata) = lists(found);
        Ok(KvResponseData::List { keys, values, metadata })
    }

    /// The entries of a range in order, at most `limit`, for a caller who carries out this deletion, or none.
    pub(super) async fn list_range(
        &self,
        actor: &Id,
        generation: u32,
        range: &KeyRange,
        reverse: bool,
        limit: usize,
        deletion: Option<&KeyRange>,
    ) -> Result<Vec<(Bytes, Entry)>, Obstacle> {
        let mut listing = Listing { actor, range, reverse, limit, found: Vec::new(), room: KV_LIST_MAX_BYTES };
        // Every row leads to entries in the range, but for a bucket at each end of it.
        let rows = if limit == 0 { 0 } else { limit.saturating_add(2) };
        let scan = listing.scan(range.rows(actor), rows);
        let reads = Reads { keys: standing_keys(actor).into(), ranges: vec![scan] };
        let mut found = self.store.read(reads).await.map_err(too_large)?;
        admit(&Standing::decode(actor, found.keys[0].as_deref(), found.keys[1].as_deref())?, generation, deletion)?;

        for (row, value) in found.ranges.pop().unwrap_or_default() {
            if listing.is_full() {
                break;
            }
            match Row::of(&row) {
                Row::Entry(key) => listing.add(key, &row, &value)?,
                Row::Bucket(beginning) => {
                    self.list_bucket(&mut listing, &beginning, Bucket::decode(&row, &value)?).await?;
                }
            }
        }
        Ok(listing.found)
    }

    async fn list_bucket(&self, listing: &mut Listing<'_>, beginning: &[u8], bucket: Bucket) -> Result<(), KvError> {
        let rows = listing.range.bucket_rows(listing.actor, beginning, bucket);
        let scan = listing.scan(rows, listing.limit - listing.found.len());
        for (row, value) in self.store.scan(scan).await.map_err(too_large)? {
            listing.add([beginning, &place::rest(&row)].concat().into(), &row, &value)?;
        }
        Ok(())
    }
}

impl Listing<'_> {
    fn scan(&self, (start, end): (Bytes, Bytes), limit: usize) -> Scan {
        Scan { reverse: self.reverse, limit, max_bytes: self.room, ..Scan::range(start, end) }
    }

    fn is_full(&self) -> bool {
        self.found.len() == self.limit
    }

    fn add(&mut self, key: Bytes, row: &Bytes, value: &Bytes) -> Result<(), KvError> {
        self.room = self.room.checked_sub(key.len() + value.len()).ok_or(KvError::ListTooLarge)?;
        self.found.push((key, Entry::decode(row, value)?));
        Ok(())
    }
}

fn too_large(error: StoreError) -> KvError {
    if matches!(error, StoreError::ScanTooLarge { .. }) { KvError::ListTooLarge } else { error.into() }
}
