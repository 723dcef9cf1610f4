//! An actor on a scripted host that executes its SQL by itself: what the engine sees of it are pages (`spec/storage.md` 6).

use std::collections::BTreeMap;

use bytes::Bytes;
use protocol::envoy::{SqliteCommitRequest, SqliteDirtyPage, SqliteErrorResponse, SqliteGetPagesRequest, ToEnvoy, ToRivet};
use testkit::envoy::{FakeEnvoy, Run};

const PAGE_BYTES: usize = 4096;

/// What a host knows of the database of one of its actors.
pub(crate) struct Database {
    pub(crate) run: Run,
    pub(crate) head: u64,
    pub(crate) pages: BTreeMap<u32, Bytes>,
    requests: u32,
}

impl Database {
    pub(crate) fn of(run: &Run) -> Self {
        Self { run: run.clone(), head: 0, pages: BTreeMap::new(), requests: 0 }
    }

    /// Adds pages in one commit.
    pub(crate) async fn commit(&mut self, envoy: &mut FakeEnvoy, count: u32) -> Result<(), SqliteErrorResponse> {
        let pages = self.send_commit(envoy, count);
        let done = envoy.expect("the answer to a commit", |message| {
            let ToEnvoy::SqliteCommit { request_id: answered, data } = message else { return None };
            (*answered == self.requests).then(|| data.clone())
        });
        self.head = done.await?.head_txid.unwrap();
        self.pages.extend(pages.into_iter().map(|page| (page.pgno, page.bytes)));
        Ok(())
    }

    /// Sends a commit that would add pages; returns these.
    pub(crate) fn send_commit(&mut self, envoy: &FakeEnvoy, count: u32) -> Vec<SqliteDirtyPage> {
        let first = self.pages.len() as u32 + 1;
        // Nothing that could be compressed.
        let page = || -> Bytes { (0..PAGE_BYTES / 8).flat_map(|_| rand::random::<[u8; 8]>()).collect() };
        let dirty_pages: Vec<_> = (first..first + count).map(|pgno| SqliteDirtyPage { pgno, bytes: page() }).collect();
        let data = SqliteCommitRequest {
            actor_id: self.run.actor_id.clone(),
            dirty_pages: dirty_pages.clone(),
            db_size_pages: first + count - 1,
            now_ms: 0,
            expected_generation: Some(self.run.generation.into()),
            expected_head_txid: Some(self.head),
        };
        self.requests += 1;
        envoy.send(&ToRivet::SqliteCommit { request_id: self.requests, data });
        dirty_pages
    }

    /// The same pages in another run, or of another actor.
    pub(crate) fn in_run(&self, run: &Run, head: u64) -> Self {
        Self { run: run.clone(), head, pages: self.pages.clone(), requests: self.requests }
    }

    /// Everything that was acknowledged is there, and nothing else.
    pub(crate) async fn check(&mut self, envoy: &mut FakeEnvoy) {
        let data = SqliteGetPagesRequest {
            actor_id: self.run.actor_id.clone(),
            pgnos: (1..=self.pages.len() as u32 + 1).collect(),
            expected_generation: Some(self.run.generation.into()),
            expected_head_txid: None,
        };
        self.requests += 1;
        envoy.send(&ToRivet::SqliteGetPages { request_id: self.requests, data });
        let found = envoy.expect("pages", |message| {
            let ToEnvoy::SqliteGetPages { data, .. } = message else { return None };
            Some(data.clone().unwrap())
        });
        let found = found.await;
        assert_eq!(found.head_txid, Some(self.head));
        let pages = found.pages.into_iter().filter_map(|page| Some((page.pgno, page.bytes?)));
        assert!(pages.eq(self.pages.clone()));
    }
}
