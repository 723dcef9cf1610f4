//! Looking at the key-value rows of one actor in search of damage (`crate::check`).

use protocol::id::Id;
use store::{Explorer, StoreError, prefix_end};

use super::bucket::Bucket;
use super::entry::{self, counted_bytes};
use super::place::{self, ROW_KEY_MAX_BYTES, Row};
use crate::Bytes;
use crate::record::PREFIX_BYTES;

/// Bytes of a bucket's number.
const NUMBER_BYTES: usize = size_of::<u64>();

/// What is wrong with a row, or with all together.
pub(crate) struct Fault {
    pub(crate) code: &'static str,
    pub(crate) message: String,
}

/// Sums over the rows of one actor.
#[derive(Default)]
pub(crate) struct KvCheck {
    /// Entries seen.
    pub(crate) entries: u64,
    /// Whether there were rows that could not be counted.
    pub(crate) uncounted: bool,
    bytes: u64,
    newest_bucket: u64,
    /// Entries in all buckets that there are.
    in_known_buckets: u64,
    /// Rows of entries in any bucket.
    in_buckets: u64,
}

impl KvCheck {
    /// A row with an entry, or a bucket.
    pub(crate) fn row(
        &mut self,
        explorer: &Explorer<'_>,
        actor: &Id,
        key: &[u8],
        value: &[u8],
    ) -> Result<Result<(), Fault>, StoreError> {
        match Row::of(&Bytes::copy_from_slice(key)) {
            Row::Entry(entry_key) => Ok(self.entry(&entry_key, key, value)),
            Row::Bucket(_) => match Bucket::decode(key, value) {
                Ok(bucket) => self.bucket(explorer, actor, bucket),
                Err(damaged) => Ok(Err(self.damaged(damaged))),
            },
        }
    }

    /// A row with an entry in a bucket.
    pub(crate) fn row_in_bucket(&mut self, key: &[u8], value: &[u8]) -> Result<(), Fault> {
        if key.len() <= PREFIX_BYTES + NUMBER_BYTES {
            self.uncounted = true;
            return Err(Fault { code: "row.malformed", message: "a key-value row has a key that is too short".into() });
        }
        self.in_buckets += 1;
        // Only the length of the key counts, and all have as many bytes in front.
        let entry_key = vec![0; ROW_KEY_MAX_BYTES + key.len() - PREFIX_BYTES - NUMBER_BYTES];
        self.entry(&entry_key, key, value)
    }

    fn entry(&mut self, entry_key: &[u8], key: &[u8], value: &[u8]) -> Result<(), Fault> {
        self.entries += 1;
        match entry::value_length(key, value) {
            Ok(length) => {
                self.bytes += counted_bytes(entry_key, length);
                Ok(())
            }
            Err(damaged) => Err(self.damaged(damaged)),
        }
    }

    fn bucket(&mut self, explorer: &Explorer<'_>, actor: &Id, bucket: Bucket) -> Result<Result<(), Fault>, StoreError> {
        self.newest_bucket = self.newest_bucket.max(bucket.number);
        let prefix = place::bucket_row(actor, bucket, &[]);
        let mut entries = 0;
        for row in explorer.range(&prefix, &prefix_end(&prefix))? {
            row?;
            entries += 1;
        }
        self.in_known_buckets += entries;
        if entries == bucket.entries && entries > 0 {
            return Ok(Ok(()));
        }
        let Bucket { number, entries: said } = bucket;
        let message = format!("bucket {number} of its long keys should have {said} entries, and has {entries}");
        Ok(Err(Fault { code: "kv.bucket", message }))
    }

    fn damaged(&mut self, damaged: crate::Damaged) -> Fault {
        self.uncounted = true;
        Fault { code: "row.damaged", message: format!("a {} row is damaged", damaged.record) }
    }

    /// What is wrong with the sums.
    pub(crate) fn compare(&self, bytes: u64, buckets: u64) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut fault = |code, message| faults.push(Fault { code, message });
        if bytes != self.bytes {
            fault("ledger.kv_bytes", format!("its ledger counts {bytes} bytes of key-value data, but there are {}", self.bytes));
        }
        if self.newest_bucket > buckets {
            let newest = self.newest_bucket;
            fault("ledger.kv_buckets", format!("its ledger knows {buckets} buckets of long keys, but there is number {newest}"));
        }
        if self.in_buckets != self.in_known_buckets {
            let lost = self.in_buckets.saturating_sub(self.in_known_buckets);
            fault("kv.unreachable", format!("{lost} entries with long keys belong to no bucket"));
        }
        faults
    }
}
