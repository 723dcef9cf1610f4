//! One actor's data, and requests as its host would make them.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use actor_data::{ActorData, Caller, Options, fence};
use bytes::Bytes;
use protocol::envoy::*;
use protocol::id::Id;
use store::{Batch, Durability, LmdbOptions, Scan, Store};
use tempfile::TempDir;

pub(crate) const PAGE: usize = 4096;

/// An actor that runs as some generation.
pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) data: ActorData,
    pub(crate) actor: Id,
    pub(crate) generation: u32,
    /// Number of the connection over which requests come.
    pub(crate) connection: u64,
    /// What the clock shows.
    pub(crate) now: Arc<AtomicI64>,
}

impl World {
    /// A new actor in memory, as generation 1.
    pub(crate) async fn new() -> Self {
        Self::with(Store::memory(), Options::default()).await
    }

    pub(crate) async fn with_limit(max_storage_bytes: u64) -> Self {
        Self::with(Store::memory(), Options { max_storage_bytes, ..Options::default() }).await
    }

    /// On disk; after a first time, as the data was left.
    pub(crate) async fn on_disk(folder: &TempDir) -> Self {
        let options = LmdbOptions { durability: Durability::Os, ..LmdbOptions::new(folder.path()) };
        Self::with(Store::open_lmdb(options).unwrap(), Options::default()).await
    }

    pub(crate) async fn with(store: Store, options: Options) -> Self {
        let now = Arc::new(AtomicI64::new(1_700_000_000_000));
        let clock = now.clone();
        let data = ActorData::new(store.clone(), options, Arc::new(move || clock.load(Ordering::Relaxed)));
        let mut world = Self { store, data, actor: Id::from_parts([9; 16], 1), generation: 0, connection: 1, now };
        world.start().await;
        world
    }

    /// The next generation starts.
    pub(crate) async fn start(&mut self) {
        self.generation += 1;
        let mut batch = Batch::new();
        fence::set_generation(&mut batch, &self.actor, self.generation);
        self.store.write(batch).await.unwrap();
    }

    /// The next generation starts, and keeps history.
    pub(crate) async fn start_with_history(&mut self, retention_s: u32) {
        self.generation += 1;
        let mut batch = Batch::new();
        fence::set_generation_with_history(&mut batch, &self.actor, self.generation, retention_s);
        self.store.write(batch).await.unwrap();
    }

    pub(crate) async fn destroy(&self) {
        let mut batch = Batch::new();
        fence::mark_destroyed(&mut batch, &self.actor);
        self.store.write(batch).await.unwrap();
    }

    /// The host shows that it has seen the answer to the last commit, and everything left behind is done.
    pub(crate) async fn settle(&self) {
        let head = self.data.get_pages(self.actor, Caller::Host(self.connection), self.get_request([])).await.unwrap().head_txid;
        let request = SqliteGetPagesRequest { expected_head_txid: head, ..self.get_request([]) };
        self.data.get_pages(self.actor, Caller::Host(self.connection), request).await.unwrap();
        self.data.settle(self.actor).await.unwrap();
    }

    /// Every key in the store.
    pub(crate) async fn rows(&self) -> Vec<Bytes> {
        let scan = Scan { max_bytes: usize::MAX, ..Scan::prefix("") };
        self.store.scan(scan).await.unwrap().into_iter().map(|(key, _)| key).collect()
    }

    pub(crate) async fn kv(&self, request: KvRequestData) -> KvResponseData {
        self.data.kv(self.actor, self.generation, request).await
    }

    pub(crate) fn get_request(&self, pgnos: impl IntoIterator<Item = u32>) -> SqliteGetPagesRequest {
        SqliteGetPagesRequest {
            actor_id: self.actor.to_string(),
            pgnos: pgnos.into_iter().collect(),
            expected_generation: Some(self.generation.into()),
            expected_head_txid: None,
        }
    }

    pub(crate) fn commit_request(&self, dirty_pages: Vec<SqliteDirtyPage>, size: u32) -> SqliteCommitRequest {
        SqliteCommitRequest {
            actor_id: self.actor.to_string(),
            dirty_pages,
            db_size_pages: size,
            now_ms: 0,
            expected_generation: Some(self.generation.into()),
            expected_head_txid: None,
        }
    }

    /// Commits without a fence on the head.
    pub(crate) async fn commit(&self, pages: &[(u32, u8)], size: u32) -> SqliteResult<u64> {
        let request = self.commit_request(dirty(pages), size);
        Ok(self.data.commit(self.actor, Caller::Host(self.connection), request).await?.head_txid.unwrap())
    }

    /// Numbers of the pages in the answer, and the first byte of each, all of whose bytes must be alike.
    pub(crate) async fn read(&self, pgnos: impl IntoIterator<Item = u32>) -> SqliteResult<Vec<(u32, u8)>> {
        let read = self.data.get_pages(self.actor, Caller::Host(self.connection), self.get_request(pgnos)).await?;
        let pages = read.pages.into_iter().map(|page| {
            let bytes = page.bytes.unwrap();
            assert!(bytes.len() == PAGE && bytes.iter().all(|byte| *byte == bytes[0]), "page {}", page.pgno);
            (page.pgno, bytes[0])
        });
        Ok(pages.collect())
    }

    pub(crate) async fn begin(&self) -> SqliteResult<u64> {
        let request = SqliteCommitStageBeginRequest {
            actor_id: self.actor.to_string(),
            expected_generation: Some(self.generation.into()),
            expected_head_txid: None,
        };
        Ok(self.data.stage_begin(self.actor, Caller::Host(self.connection), request).await?.txid)
    }

    pub(crate) async fn segment(&self, txid: u64, first_pgno: u32, pages: &[(u32, u8)]) -> SqliteResult<u64> {
        let request = SqliteCommitStageSegmentRequest {
            actor_id: self.actor.to_string(),
            expected_generation: Some(self.generation.into()),
            txid,
            first_pgno,
            dirty_pages: dirty(pages),
        };
        Ok(self.data.stage_segment(self.actor, Caller::Host(self.connection), request).await?.staged_bytes)
    }

    pub(crate) async fn finalize(&self, txid: u64, size: u32, segments: &[u32]) -> SqliteResult<u64> {
        let request = SqliteCommitFinalizeRequest {
            actor_id: self.actor.to_string(),
            expected_generation: Some(self.generation.into()),
            txid,
            new_db_size_pages: size,
            now_ms: 0,
            segment_first_pgnos: segments.to_vec(),
        };
        Ok(self.data.finalize(self.actor, Caller::Host(self.connection), request).await?.head_txid.unwrap())
    }
}

/// Pages full of one byte each.
pub(crate) fn dirty(pages: &[(u32, u8)]) -> Vec<SqliteDirtyPage> {
    pages.iter().map(|(pgno, content)| SqliteDirtyPage { pgno: *pgno, bytes: vec![*content; PAGE].into() }).collect()
}

/// The parts of an error, as `group.code: message`.
pub(crate) fn text<T: std::fmt::Debug>(result: SqliteResult<T>) -> String {
    let error = result.unwrap_err();
    format!("{}.{}: {}", error.group, error.code, error.message)
}
