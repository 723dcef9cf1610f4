//! Deleting ranges of entries.
//!
//! A range may have more entries than one transaction should change, and yet all of them go, or none. So the first of several
//! transactions notes the range in the ledger, and the last one takes it out again. Whoever finds a range there, after a crash
//! or in a new generation, deletes what is left of it before anything else: nobody sees half of a deletion. Who only looks for single
//! keys, as the management API does beside a host that runs, does not see those in the range, and leaves the rest to others: as
//! only one host at a time writes, no step of one deletion can take another one of the same range for its own.

use bytes::Bytes;
use protocol::id::Id;
use store::StoreError;

use super::entry::Entry;
use super::list::KeyRange;
use super::{Changes, KvError};
use crate::{ActorData, Damaged};

/// Entries deleted in one step of a range: with the largest keys and values they are still less than a list may have.
const STEP_ENTRIES: usize = 64;

/// Why something cannot be done now.
#[derive(Debug)]
pub(super) enum Obstacle {
    Error(KvError),
    /// The deletion of this range is to be finished before.
    Deletion(KeyRange),
    /// Somebody else has finished the deletion that was to go on.
    Finished,
}

impl From<KvError> for Obstacle {
    fn from(error: KvError) -> Self {
        Self::Error(error)
    }
}

impl From<StoreError> for Obstacle {
    fn from(error: StoreError) -> Self {
        Self::Error(error.into())
    }
}

impl From<Damaged> for Obstacle {
    fn from(error: Damaged) -> Self {
        Self::Error(error.into())
    }
}

/// What a transaction means for the deletion of a range.
#[derive(Debug, Clone)]
pub(super) enum Deletion {
    /// It is no part of one, or all of it.
    None,
    /// The first of several steps.
    Begins(KeyRange),
    /// A later step.
    GoesOn { range: KeyRange, is_last: bool },
}

impl Deletion {
    /// The deletion that must be under way.
    pub(super) fn under_way(&self) -> Option<&KeyRange> {
        match self {
            Self::None | Self::Begins(_) => None,
            Self::GoesOn { range, .. } => Some(range),
        }
    }

    /// The deletion that is under way afterwards.
    pub(super) fn afterwards(&self) -> Option<&KeyRange> {
        match self {
            Self::None | Self::GoesOn { is_last: true, .. } => None,
            Self::Begins(range) | Self::GoesOn { range, is_last: false } => Some(range),
        }
    }
}

impl ActorData {
    /// Deletes the entries of a range.
    pub(super) async fn delete_entries(&self, actor: Id, generation: u32, range: KeyRange) -> Result<(), Obstacle> {
        let entries = self.list_range(&actor, generation, &range, false, STEP_ENTRIES, None).await?;
        if entries.len() < STEP_ENTRIES {
            return self.change_entries(actor, generation, deletions(entries), Deletion::None).await;
        }
        let begins = Deletion::Begins(range.clone());
        self.change_entries(actor, generation, deletions(entries), begins).await?;
        // From here on all of them are deleted as far as anybody can tell, even if this generation is over before the last step
        // or the disk is full: to call that refused would be wrong.
        match self.finish_deletion(actor, generation, range).await {
            Err(error @ KvError::Damaged(_)) => Err(error.into()),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Removes what is in the way; then it can be tried again.
    pub(super) async fn overcome(&self, actor: Id, generation: u32, obstacle: Obstacle) -> Result<(), KvError> {
        match obstacle {
            Obstacle::Error(error) => Err(error),
            Obstacle::Deletion(range) => self.finish_deletion(actor, generation, range).await,
            Obstacle::Finished => Ok(()),
        }
    }

    /// Deletes what is left of a range whose deletion has begun. Somebody else may do the same at the same time, and be faster.
    async fn finish_deletion(&self, actor: Id, generation: u32, range: KeyRange) -> Result<(), KvError> {
        loop {
            match self.delete_step(actor, generation, &range).await {
                Ok(false) => {}
                Ok(true) | Err(Obstacle::Finished | Obstacle::Deletion(_)) => return Ok(()),
                Err(Obstacle::Error(error)) => return Err(error),
            }
        }
    }

    /// Whether it was the last step.
    async fn delete_step(&self, actor: Id, generation: u32, range: &KeyRange) -> Result<bool, Obstacle> {
        let entries = self.list_range(&actor, generation, range, false, STEP_ENTRIES, Some(range)).await?;
        let is_last = entries.len() < STEP_ENTRIES;
        let deletion = Deletion::GoesOn { range: range.clone(), is_last };
        self.change_entries(actor, generation, deletions(entries), deletion).await?;
        Ok(is_last)
    }
}

fn deletions(entries: Vec<(Bytes, Entry)>) -> Changes {
    entries.into_iter().map(|(key, _)| (key, None)).collect()
}

#[cfg(test)]
mod tests {
    use std::future::{Future, poll_fn};
    use std::pin::pin;
    use std::sync::Arc;
    use std::task::Poll;

    use protocol::envoy::{KvListQuery, KvRequestData, KvResponseData};
    use store::{Batch, Durability, LmdbOptions, Store};

    use super::*;
    use crate::ledger::{self, Ledger};
    use crate::preload::Manifest;
    use crate::{Options, fence};

    const ACTOR: Id = Id::NIL;

    fn key(number: usize) -> Bytes {
        format!("{number:03}").into()
    }

    fn put(keys: impl Iterator<Item = Bytes>) -> KvRequestData {
        let keys: Vec<Bytes> = keys.collect();
        KvRequestData::Put { values: keys.clone(), keys }
    }

    async fn start(data: &ActorData, generation: u32) {
        let mut batch = Batch::new();
        fence::set_generation(&mut batch, &ACTOR, generation);
        data.store.write(batch).await.unwrap();
    }

    /// What the range of the interrupted deletion is, and all keys that are to be there when it is finished.
    fn range() -> (KeyRange, Vec<Bytes>) {
        let range = KeyRange { start: key(10), end: Some(key(190)) };
        (range, (0..10).chain(190..200).map(key).collect())
    }

    /// The data of an actor after a crash amid the deletion of a range.
    async fn interrupted() -> ActorData {
        let data = ActorData::new(Store::memory(), Options::default(), Arc::new(|| 0));
        start(&data, 1).await;
        for first in [0, 100] {
            assert_eq!(data.kv(ACTOR, 1, put((first..first + 100).map(key))).await, KvResponseData::Put);
        }
        let (range, _) = range();
        let entries = data.list_range(&ACTOR, 1, &range, false, STEP_ENTRIES, None).await.unwrap();
        data.change_entries(ACTOR, 1, deletions(entries), Deletion::Begins(range)).await.unwrap();
        data
    }

    async fn is_under_way(data: &ActorData) -> bool {
        let found = data.store.get(vec![ledger::key(&ACTOR)]).await.unwrap();
        Ledger::decode(&ACTOR, found[0].as_ref().unwrap()).unwrap().deleting.is_some()
    }

    async fn keys(data: &ActorData, generation: u32) -> Vec<Bytes> {
        let request = KvRequestData::List { query: KvListQuery::All, reverse: None, limit: None };
        let answer = data.kv(ACTOR, generation, request).await;
        let KvResponseData::List { keys, .. } = answer else { panic!("{answer:?}") };
        keys
    }

    #[tokio::test]
    async fn nobody_sees_half_of_a_deletion() {
        let (_, left) = range();
        let data = interrupted().await;
        assert_eq!(keys(&data, 1).await, left);

        let data = interrupted().await;
        let answer = data.kv(ACTOR, 1, KvRequestData::Get { keys: vec![key(5), key(150)] }).await;
        assert!(matches!(&answer, KvResponseData::Get { keys, .. } if *keys == [key(5)]), "{answer:?}");

        let data = interrupted().await;
        assert_eq!(data.kv_get(ACTOR, key(150)).await.unwrap(), None);
        assert!(data.kv_get(ACTOR, key(5)).await.unwrap().is_some());
        assert!(is_under_way(&data).await, "not for the management API to finish");

        let data = interrupted().await;
        let manifest = Manifest::new(vec![key(5), key(150)], Vec::new()).unwrap();
        let preloaded = data.preload(ACTOR, 1, manifest, 1_000).await.unwrap().unwrap();
        assert_eq!(preloaded.entries.len(), 1);

        // The next generation finds it, too, and so does one that only wants to write.
        let data = interrupted().await;
        start(&data, 2).await;
        assert_eq!(data.kv(ACTOR, 2, put([key(150)].into_iter())).await, KvResponseData::Put);
        assert_eq!(keys(&data, 2).await.len(), left.len() + 1);
        assert_eq!(data.kv(ACTOR, 2, KvRequestData::Drop).await, KvResponseData::Drop);
        assert_eq!(keys(&data, 2).await, Vec::<Bytes>::new());
    }

    #[tokio::test]
    async fn what_is_put_after_a_deletion_stays() {
        let (range, left) = range();
        let data = interrupted().await;
        // Two have seen the same unfinished deletion; one of them finishes it.
        data.finish_deletion(ACTOR, 1, range.clone()).await.unwrap();
        assert_eq!(data.kv(ACTOR, 1, put((20..120).map(key))).await, KvResponseData::Put);
        data.finish_deletion(ACTOR, 1, range).await.unwrap();
        assert_eq!(keys(&data, 1).await.len(), left.len() + 100);
    }

    /// Found by the crash suite: the steps after the first were refused to a generation that had ended, and so was the request,
    /// although the next generation carried it out.
    #[tokio::test]
    async fn a_deletion_that_has_begun_is_not_refused() {
        // On disk, because there a request waits in between.
        let folder = tempfile::tempdir().unwrap();
        let options = LmdbOptions { durability: Durability::Os, ..LmdbOptions::new(folder.path()) };
        let data = ActorData::new(Store::open_lmdb(options).unwrap(), Options::default(), Arc::new(|| 0));
        start(&data, 1).await;
        for first in (0..100 * STEP_ENTRIES).step_by(STEP_ENTRIES) {
            assert_eq!(data.kv(ACTOR, 1, put((first..first + STEP_ENTRIES).map(key))).await, KvResponseData::Put);
        }
        let mut dropping = pin!(data.kv(ACTOR, 1, KvRequestData::Drop));
        // It gets on only when it is polled, by little more than a step at a time.
        while !is_under_way(&data).await {
            let polled = poll_fn(|context| Poll::Ready(dropping.as_mut().poll(context))).await;
            assert_eq!(polled, Poll::Pending, "more than one step");
        }
        start(&data, 2).await;
        assert_eq!(dropping.await, KvResponseData::Drop);
        assert_eq!(keys(&data, 2).await, Vec::<Bytes>::new());
    }
}
