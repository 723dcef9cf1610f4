//! Reading single entries.

use bytes::Bytes;
use protocol::envoy::{KvMetadata, KvResponseData};
use protocol::id::Id;
use store::Reads;

use super::bucket::Bucket;
use super::entry::Entry;
use super::place::{self, Place};
use super::{KvError, Obstacle, check_generation, check_keys};
use crate::limits::KV_KEY_MAX_BYTES;
use crate::{ActorData, STANDING_KEYS, Standing, standing_keys};

impl ActorData {
    /// The value of a key and when it was put, in epoch milliseconds; none if there is no such entry, or no such actor.
    /// For the management API, which asks no generation.
    ///
    /// # Errors
    /// [`KvError::Store`] and [`KvError::Damaged`].
    pub async fn kv_get(&self, actor: Id, key: Bytes) -> Result<Option<(Bytes, i64)>, KvError> {
        if key.len() > KV_KEY_MAX_BYTES {
            return Ok(None);
        }
        match self.find_entries(&actor, u32::MAX, std::slice::from_ref(&key)).await {
            Ok(mut entries) => Ok(entries.pop().flatten().map(|entry| (entry.value, entry.update_ts))),
            Err(KvError::NoActor) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn get_entries(&self, actor: Id, generation: u32, mut keys: Vec<Bytes>) -> Result<KvResponseData, Obstacle> {
        check_keys(&keys)?;
        // As the published engine does; hosts match by key and take either.
        keys.dedup();
        let entries = self.find_entries(&actor, generation, &keys).await?;
        let found = keys.into_iter().zip(entries).filter_map(|(key, entry)| Some((key, entry?)));
        let (keys, values, metadata) = lists(found);
        Ok(KvResponseData::Get { keys, values, metadata })
    }

    /// The entries of the keys, in the same order.
    async fn find_entries(&self, actor: &Id, generation: u32, keys: &[Bytes]) -> Result<Vec<Option<Entry>>, KvError> {
        let row_keys: Vec<Bytes> = keys.iter().map(|key| place::row(actor, key)).collect();
        let reads = Reads::keys(standing_keys(actor).into_iter().chain(row_keys.iter().cloned()));
        let found = self.store.read(reads).await?.keys;
        let standing = Standing::decode(actor, found[0].as_deref(), found[1].as_deref())?;
        check_generation(&standing, generation)?;
        let is_deleted = |key: &Bytes| standing.ledger.deleting.as_ref().is_some_and(|range| range.contains(key));

        let mut entries = Vec::with_capacity(keys.len());
        for ((key, row_key), row) in keys.iter().zip(&row_keys).zip(&found[STANDING_KEYS..]) {
            entries.push(match (row, Place::of(key)) {
                (None, _) => None,
                (Some(_), _) if is_deleted(key) => None,
                (Some(row), Place::Row) => Some(Entry::decode(row_key, row)?),
                (Some(row), Place::Bucket { rest }) => self.find_in_bucket(actor, Bucket::decode(row_key, row)?, &rest).await?,
            });
        }
        Ok(entries)
    }

    async fn find_in_bucket(&self, actor: &Id, bucket: Bucket, rest: &[u8]) -> Result<Option<Entry>, KvError> {
        let row_key = place::bucket_row(actor, bucket, rest);
        let row = self.store.get(vec![row_key.clone()]).await?.pop().flatten();
        Ok(row.map(|row| Entry::decode(&row_key, &row)).transpose()?)
    }
}

/// The three lists of a reply.
pub(super) fn lists(entries: impl IntoIterator<Item = (Bytes, Entry)>) -> (Vec<Bytes>, Vec<Bytes>, Vec<KvMetadata>) {
    let parts = entries
        .into_iter()
        .map(|(key, entry)| (key, entry.value, KvMetadata { version: entry.writer, update_ts: entry.update_ts }));
    parts.collect()
}
