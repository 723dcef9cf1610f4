//! Changing entries.

use std::collections::BTreeMap;

use bytes::Bytes;
use protocol::id::Id;
use store::{Batch, Decision, Reads, View};

use super::bucket::Bucket;
use super::deletion::Deletion;
use super::entry::{self, Entry, counted_bytes};
use super::place::{self, Place};
use super::{Changes, KvError, Obstacle, admit};
use crate::ledger::Ledger;
use crate::{ActorData, STANDING_KEYS, Standing, standing_keys};

impl ActorData {
    /// Makes changes together, or none of them.
    pub(super) async fn change_entries(
        &self,
        actor: Id,
        generation: u32,
        changes: Changes,
        deletion: Deletion,
    ) -> Result<(), Obstacle> {
        let rows = changes.keys().map(|key| place::row(&actor, key));
        let reads = Reads::keys(standing_keys(&actor).into_iter().chain(rows));
        let change =
            Change { actor, update_ts: (self.clock)(), max_storage_bytes: self.options.max_storage_bytes, changes, deletion };
        self.transact(reads, move |view| change.attempt(view, generation)).await
    }
}

/// A transaction that changes entries. Its view has the standing, then the row of each changed key in order; in a second
/// round also the rows of those of them that are in a bucket.
struct Change {
    actor: Id,
    update_ts: i64,
    max_storage_bytes: u64,
    changes: Changes,
    deletion: Deletion,
}

/// What a transaction is going to write.
struct Draft {
    batch: Batch,
    ledger: Ledger,
    /// Buckets touched, by their rows.
    buckets: BTreeMap<Bytes, Bucket>,
}

impl Change {
    fn attempt(&self, view: &View<'_>, generation: u32) -> Result<Decision<()>, Obstacle> {
        let standing = Standing::of(&self.actor, view)?;
        admit(&standing, generation, self.deletion.under_way())?;
        let used_before = standing.ledger.used_bytes();
        let mut draft = Draft { batch: Batch::new(), ledger: standing.ledger, buckets: BTreeMap::new() };

        let first_round_keys = STANDING_KEYS + self.changes.len();
        let mut rows_in_buckets = Vec::new();
        for (index, (key, value)) in self.changes.iter().enumerate() {
            let row = place::row(&self.actor, key);
            let found = view.get(STANDING_KEYS + index);
            match Place::of(key) {
                Place::Row => {
                    draft.change(key, value.as_ref(), row, found, self.update_ts)?;
                }
                Place::Bucket { rest } => {
                    let bucket = draft.bucket(&row, found)?;
                    let inner_row = place::bucket_row(&self.actor, bucket, &rest);
                    let position = first_round_keys + rows_in_buckets.len();
                    // Missing in the first round, whose draft is thrown away if there is anything to read.
                    let inner_found = if position < view.key_count() { view.get(position) } else { None };
                    rows_in_buckets.push(inner_row.clone());
                    let entries = draft.change(key, value.as_ref(), inner_row, inner_found, self.update_ts)?;
                    draft.buckets.insert(row, Bucket { entries: bucket.entries.saturating_add_signed(entries), ..bucket });
                }
            }
        }
        if !rows_in_buckets.is_empty() && view.key_count() == first_round_keys {
            return Ok(Decision::ReadMore(Reads::keys(rows_in_buckets)));
        }
        let used_after = draft.ledger.used_bytes();
        if used_after > self.max_storage_bytes && used_after > used_before {
            return Err(KvError::QuotaExceeded.into());
        }
        Ok(draft.finish(&self.actor, &self.deletion))
    }
}

impl Draft {
    /// Changes one entry, whose row is `found` now. Returns how many entries more there are.
    fn change(
        &mut self,
        key: &[u8],
        value: Option<&Bytes>,
        row: Bytes,
        found: Option<&[u8]>,
        update_ts: i64,
    ) -> Result<i64, KvError> {
        let mut more = 0;
        if let Some(found) = found {
            let freed = counted_bytes(key, entry::value_length(&row, found)?);
            self.ledger.kv_bytes = self.ledger.kv_bytes.saturating_sub(freed);
            more -= 1;
        }
        if let Some(value) = value {
            self.ledger.kv_bytes += counted_bytes(key, value.len());
            let entry = Entry::new(update_ts, value.clone()).row(&row);
            self.batch.put(row, entry);
            more += 1;
        } else if found.is_some() {
            self.batch.delete(row);
        }
        Ok(more)
    }

    /// The bucket with this row, as this transaction left it; a new one if there is none.
    fn bucket(&mut self, row: &Bytes, found: Option<&[u8]>) -> Result<Bucket, KvError> {
        match (self.buckets.get(row), found) {
            (Some(bucket), _) => Ok(*bucket),
            (None, Some(found)) => Ok(Bucket::decode(row, found)?),
            (None, None) => {
                self.ledger.kv_buckets += 1;
                Ok(Bucket { number: self.ledger.kv_buckets, entries: 0 })
            }
        }
    }

    fn finish(mut self, actor: &Id, deletion: &Deletion) -> Decision<()> {
        if self.batch.is_empty() && self.ledger.deleting.as_ref() == deletion.afterwards() {
            return Decision::Skip(());
        }
        self.ledger.deleting = deletion.afterwards().cloned();
        for (row, bucket) in self.buckets {
            match bucket.entries {
                0 => self.batch.delete(row),
                _ => {
                    let value = bucket.row(&row);
                    self.batch.put(row, value);
                }
            }
        }
        self.ledger.put(&mut self.batch, actor);
        Decision::Commit(self.batch, ())
    }
}
