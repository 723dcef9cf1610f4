//! What is to be read, and the answer.

use std::collections::BTreeMap;
use std::iter;
use std::ops::Bound;

use bytes::Bytes;

use crate::{MAX_KEY_BYTES, StoreError};

/// Bytes that a [`Scan`] made by [`Scan::range`] or [`Scan::prefix`] may return.
pub const DEFAULT_SCAN_MAX_BYTES: usize = 16 * 1024 * 1024;

/// Entries of a key range, in key order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    /// First key; empty means from the first of all.
    pub start: Bytes,
    /// Key behind the last one. If it is not above `start`, nothing is found. May be longer than a key can be.
    pub end: Bytes,
    /// Descending order; `limit` then counts from the top.
    pub reverse: bool,
    /// Most entries to return.
    pub limit: usize,
    /// Bytes of keys and values above which the scan fails instead of returning a cut result.
    pub max_bytes: usize,
}

impl Scan {
    /// All entries from `start` (inclusive) to `end` (exclusive), ascending, at most [`DEFAULT_SCAN_MAX_BYTES`].
    pub fn range(start: impl Into<Bytes>, end: impl Into<Bytes>) -> Self {
        Self { start: start.into(), end: end.into(), reverse: false, limit: usize::MAX, max_bytes: DEFAULT_SCAN_MAX_BYTES }
    }

    /// All entries whose key begins with `prefix`, otherwise as [`Scan::range`].
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let prefix = prefix.into();
        let end = prefix_end(&prefix);
        Self::range(prefix, end)
    }

    /// The same with another `limit`.
    #[must_use]
    pub fn limit(self, limit: usize) -> Self {
        Self { limit, ..self }
    }

    /// Takes entries from the range, already in the right order, until a limit is reached.
    pub(crate) fn collect<'a>(
        &self,
        entries: impl Iterator<Item = Result<Entry<'a>, StoreError>>,
    ) -> Result<Vec<Entry<'a>>, StoreError> {
        let mut found = Vec::new();
        let mut bytes = 0;
        for entry in entries.take(self.limit) {
            let (key, value) = entry?;
            bytes += key.len() + value.len();
            if bytes > self.max_bytes {
                return Err(StoreError::ScanTooLarge { max_bytes: self.max_bytes });
            }
            found.push((key, value));
        }
        Ok(found)
    }

    /// The range for an ordered map; none if it is empty by its bounds.
    pub(crate) fn bounds(&self) -> Option<KeyRange<'_>> {
        key_range(&self.start, &self.end)
    }
}

/// A key and its value.
pub(crate) type Entry<'a> = (&'a [u8], &'a [u8]);

/// Entries that are read one by one.
pub(crate) type Entries<'a> = Box<dyn Iterator<Item = Result<Entry<'a>, StoreError>> + 'a>;

/// A range of keys in the form that ordered maps take.
pub(crate) type KeyRange<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// From `start` (inclusive, may be empty) to `end` (exclusive); none if no key can lie in between.
pub(crate) fn key_range<'a>(start: &'a [u8], end: &'a [u8]) -> Option<KeyRange<'a>> {
    // Drivers may panic on inverted ranges, and LMDB knows no empty keys.
    let first = if start.is_empty() { Bound::Unbounded } else { Bound::Included(start) };
    (start < end).then_some((first, Bound::Excluded(end)))
}

/// The smallest bound above every key that begins with `prefix`.
pub fn prefix_end(prefix: &[u8]) -> Bytes {
    match prefix.iter().rposition(|&byte| byte != 0xff) {
        Some(last) => {
            let mut end = prefix[..=last].to_vec();
            end[last] += 1;
            end.into()
        }
        // Longer than any key, so above every key.
        None => vec![0xff; MAX_KEY_BYTES + 1].into(),
    }
}

/// Keys and ranges to be read together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reads {
    /// Single keys.
    pub keys: Vec<Bytes>,
    /// Ranges.
    pub ranges: Vec<Scan>,
}

impl Reads {
    /// Single keys only.
    pub fn keys(keys: impl IntoIterator<Item = Bytes>) -> Self {
        Self { keys: keys.into_iter().collect(), ranges: Vec::new() }
    }
}

/// What was found; positions are those of the [`Reads`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Values of the single keys.
    pub keys: Vec<Option<Bytes>>,
    /// Entries of the ranges.
    pub ranges: Vec<Vec<(Bytes, Bytes)>>,
}

/// One state of the store, as a driver sees it.
pub(crate) trait Snapshot<'a> {
    fn get(&self, key: &[u8]) -> Result<Option<&'a [u8]>, StoreError>;
    fn scan(&self, scan: &Scan) -> Result<Vec<Entry<'a>>, StoreError>;
    /// The entries of a range in key order, each read when it is asked for.
    fn range(&self, start: &[u8], end: &[u8]) -> Result<Entries<'a>, StoreError>;
}

impl<'a> Snapshot<'a> for &'a BTreeMap<Bytes, Bytes> {
    fn get(&self, key: &[u8]) -> Result<Option<&'a [u8]>, StoreError> {
        Ok(BTreeMap::get(self, key).map(|value| &**value))
    }

    fn scan(&self, scan: &Scan) -> Result<Vec<Entry<'a>>, StoreError> {
        let Some(range) = scan.bounds() else { return Ok(Vec::new()) };
        let entries = BTreeMap::range::<[u8], _>(self, range).map(|(key, value)| Ok((&**key, &**value)));
        if scan.reverse { scan.collect(entries.rev()) } else { scan.collect(entries) }
    }

    fn range(&self, start: &[u8], end: &[u8]) -> Result<Entries<'a>, StoreError> {
        let Some(range) = key_range(start, end) else { return Ok(Box::new(iter::empty())) };
        let entries = BTreeMap::range::<[u8], _>(self, range);
        Ok(Box::new(entries.map(|(key, value)| Ok((&**key, &**value)))))
    }
}

/// Reads everything and copies it, so that it outlives the snapshot.
pub(crate) fn read_all<'a>(reads: &Reads, snapshot: &impl Snapshot<'a>) -> Result<Found, StoreError> {
    let copy = Bytes::copy_from_slice;
    let mut found = Found::default();
    for key in &reads.keys {
        found.keys.push(snapshot.get(key)?.map(copy));
    }
    for scan in &reads.ranges {
        let entries = snapshot.scan(scan)?;
        found.ranges.push(entries.into_iter().map(|(key, value)| (copy(key), copy(value))).collect());
    }
    Ok(found)
}
