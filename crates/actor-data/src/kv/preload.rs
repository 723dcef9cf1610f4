//! Reading what travels with a start.

use std::sync::Arc;

use bytes::Bytes;
use protocol::envoy::PreloadedKv;
use protocol::id::Id;
use store::Explorer;

use super::bucket::Bucket;
use super::entry;
use super::list::KeyRange;
use super::place::{self, Place, Row};
use super::{KvError, Obstacle, admit};
use crate::preload::{Candidate, Manifest, PrefixSelection, Selection};
use crate::{ActorData, Standing, standing_keys};

impl ActorData {
    /// The entries that travel with the start of a generation, from one state of the store: in the order of the manifest,
    /// and not more than `budget` bytes ([`crate::preload::entry_bytes`]); a budget of 0 gives none. Of each prefix no more is
    /// read than there is room for, and one entry.
    ///
    /// # Errors
    /// [`KvError::NotCurrent`] and [`KvError::NoActor`]: the start has been overtaken. [`KvError::Store`] and
    /// [`KvError::Damaged`].
    pub async fn preload(
        &self,
        actor: Id,
        generation: u32,
        manifest: Manifest,
        budget: u64,
    ) -> Result<Option<PreloadedKv>, KvError> {
        if budget == 0 {
            return Ok(None);
        }
        let manifest = Arc::new(manifest);
        loop {
            let manifest = manifest.clone();
            let select = move |explorer: &Explorer<'_>| Reader { explorer, actor }.select(generation, &manifest, budget);
            match self.store.explore(select).await? {
                Ok(selected) => return Ok(Some(selected)),
                Err(obstacle) => self.overcome(actor, generation, obstacle).await?,
            }
        }
    }
}

/// Reads one actor's entries from one state of the store.
struct Reader<'e, 's> {
    explorer: &'e Explorer<'s>,
    actor: Id,
}

impl<'s> Reader<'_, 's> {
    fn select(&self, generation: u32, manifest: &Manifest, budget: u64) -> Result<PreloadedKv, Obstacle> {
        let [fence, ledger] = standing_keys(&self.actor);
        admit(&Standing::decode(&self.actor, self.explorer.get(&fence)?, self.explorer.get(&ledger)?)?, generation, None)?;

        let mut selection = Selection::new(budget);
        for key in manifest.keys() {
            if selection.is_full() {
                break;
            }
            let found = self.find(key)?;
            selection.add_key(key, found);
        }
        for asked in manifest.prefixes() {
            let Some(mut run) = selection.begin_prefix(asked) else { continue };
            self.read_prefix(&asked.prefix, &mut run)?;
            selection.end_prefix(run);
        }
        Ok(selection.finish())
    }

    fn find<'k>(&self, key: &'k Bytes) -> Result<Option<Candidate<'k>>, KvError>
    where
        's: 'k,
    {
        let mut row_key = place::row(&self.actor, key);
        let mut row = self.explorer.get(&row_key)?;
        if let Place::Bucket { rest } = Place::of(key)
            && let Some(bucket) = row
        {
            row_key = place::bucket_row(&self.actor, Bucket::decode(&row_key, bucket)?, &rest);
            row = self.explorer.get(&row_key)?;
        }
        Ok(row.map(|row| entry::candidate(key, &row_key, row)).transpose()?)
    }

    /// Hands the entries of a prefix on until one does not fit.
    fn read_prefix(&self, prefix: &Bytes, run: &mut PrefixSelection<'_>) -> Result<(), KvError> {
        let range = KeyRange::prefix(prefix.clone())?;
        let (start, end) = range.rows(&self.actor);
        for row in self.explorer.range(&start, &end)? {
            let (row, value) = row?;
            let goes_on = match Row::of(&Bytes::copy_from_slice(row)) {
                Row::Entry(key) => run.add(entry::candidate(&key, row, value)?),
                Row::Bucket(beginning) => self.read_bucket(&range, &beginning, Bucket::decode(row, value)?, run)?,
            };
            if !goes_on {
                break;
            }
        }
        Ok(())
    }

    fn read_bucket(
        &self,
        range: &KeyRange,
        beginning: &[u8],
        bucket: Bucket,
        run: &mut PrefixSelection<'_>,
    ) -> Result<bool, KvError> {
        let (start, end) = range.bucket_rows(&self.actor, beginning, bucket);
        for row in self.explorer.range(&start, &end)? {
            let (row, value) = row?;
            let key = [beginning, &place::rest(&Bytes::copy_from_slice(row))].concat();
            if !run.add(entry::candidate(&key, row, value)?) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
