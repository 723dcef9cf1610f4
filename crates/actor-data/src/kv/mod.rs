//! An actor's key-value entries (`spec/storage.md` 3).

mod bucket;
pub(crate) mod check;
mod deletion;
mod entry;
mod error;
mod list;
mod place;
mod preload;
mod read;
mod write;

use std::collections::BTreeMap;

use bytes::Bytes;
use protocol::envoy::{KvRequestData, KvResponseData};
use protocol::id::Id;

pub use self::error::KvError;

pub(crate) use self::list::KeyRange;

use self::deletion::{Deletion, Obstacle};
use crate::fence::Fence;
use crate::limits::{KV_KEY_MAX_BYTES, KV_MAX_KEYS, KV_PUT_MAX_BYTES, KV_VALUE_MAX_BYTES};
use crate::{ActorData, Standing};

impl ActorData {
    /// Answers a key-value request of a host that runs, or ran, this generation of the actor. It is refused if the actor
    /// is destroyed, or a newer generation has started since. A write is durable when it is answered.
    pub async fn kv(&self, actor: Id, generation: u32, request: KvRequestData) -> KvResponseData {
        let answer = self.try_kv(actor, generation, request).await;
        answer.unwrap_or_else(|error| {
            if error.is_internal() {
                tracing::error!(%error, %actor, "a key-value request failed in the store");
            }
            KvResponseData::Error { message: error.to_string() }
        })
    }

    async fn try_kv(&self, actor: Id, generation: u32, request: KvRequestData) -> Result<KvResponseData, KvError> {
        loop {
            match self.attempt_kv(actor, generation, request.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(obstacle) => self.overcome(actor, generation, obstacle).await?,
            }
        }
    }

    async fn attempt_kv(&self, actor: Id, generation: u32, request: KvRequestData) -> Result<KvResponseData, Obstacle> {
        match request {
            KvRequestData::Get { keys } => self.get_entries(actor, generation, keys).await,
            KvRequestData::List { query, reverse, limit } => {
                let range = KeyRange::of_query(query)?;
                self.list_entries(actor, generation, range, reverse.unwrap_or(false), limit).await
            }
            KvRequestData::Put { keys, values } => {
                let changes = put_changes(keys, values)?;
                self.change_entries(actor, generation, changes, Deletion::None).await?;
                Ok(KvResponseData::Put)
            }
            KvRequestData::Delete { keys } => {
                check_keys(&keys)?;
                let changes = keys.into_iter().map(|key| (key, None)).collect();
                self.change_entries(actor, generation, changes, Deletion::None).await?;
                Ok(KvResponseData::Delete)
            }
            KvRequestData::DeleteRange { start, end } => {
                let range = KeyRange::half_open(start, end)?;
                self.delete_entries(actor, generation, range).await?;
                Ok(KvResponseData::Delete)
            }
            KvRequestData::Drop => {
                self.delete_entries(actor, generation, KeyRange::all()).await?;
                Ok(KvResponseData::Drop)
            }
        }
    }
}

/// Who may use the entries (3.6), and when: not before a deletion is finished, unless that is what the caller does. Requests
/// carry no generation; the caller's is that of its host.
fn admit(standing: &Standing, generation: u32, deletion: Option<&KeyRange>) -> Result<(), Obstacle> {
    check_generation(standing, generation)?;
    match (deletion, &standing.ledger.deleting) {
        (None, None) => Ok(()),
        (None, Some(range)) => Err(Obstacle::Deletion(range.clone())),
        (Some(mine), Some(found)) if mine == found => Ok(()),
        (Some(_), Some(_) | None) => Err(Obstacle::Finished),
    }
}

fn check_generation(standing: &Standing, generation: u32) -> Result<(), KvError> {
    match standing.fence {
        Some(Fence::Generation { number, .. }) if number <= u64::from(generation) => Ok(()),
        Some(Fence::Generation { .. }) => Err(KvError::NotCurrent { generation }),
        Some(Fence::Destroyed) | None => Err(KvError::NoActor),
    }
}

/// New values of some keys; none to delete.
type Changes = BTreeMap<Bytes, Option<Bytes>>;

fn put_changes(keys: Vec<Bytes>, values: Vec<Bytes>) -> Result<Changes, KvError> {
    if keys.len() != values.len() {
        return Err(KvError::LengthMismatch);
    }
    if keys.len() > KV_MAX_KEYS {
        return Err(KvError::TooManyEntries);
    }
    let payload: usize = keys.iter().chain(&values).map(Bytes::len).sum();
    if payload > KV_PUT_MAX_BYTES {
        return Err(KvError::PutTooLarge);
    }
    if keys.iter().any(|key| key.len() > KV_KEY_MAX_BYTES) {
        return Err(KvError::KeyTooLong);
    }
    if values.iter().any(|value| value.len() > KV_VALUE_MAX_BYTES) {
        return Err(KvError::ValueTooLarge);
    }
    // If a key comes twice, the last one wins.
    Ok(keys.into_iter().zip(values.into_iter().map(Some)).collect())
}

/// Checks the keys of a get or delete.
fn check_keys(keys: &[Bytes]) -> Result<(), KvError> {
    if keys.len() > KV_MAX_KEYS {
        return Err(KvError::TooManyKeys);
    }
    if keys.iter().any(|key| key.len() > KV_KEY_MAX_BYTES) {
        return Err(KvError::KeyTooLong);
    }
    Ok(())
}
