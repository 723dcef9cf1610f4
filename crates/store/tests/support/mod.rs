//! What the store's tests share.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use bytes::Bytes;
use store::{Batch, Durability, LmdbOptions, Store};
use tokio::runtime::Runtime;

/// Runs a test on a fresh store of each driver.
pub(crate) async fn on_every_driver(test: impl AsyncFn(Store)) {
    test(Store::memory()).await;

    #[cfg(feature = "simulation")]
    test(store::SimulatedDisk::new(QuickDisk).open().0).await;

    let folder = tempfile::tempdir().unwrap();
    let store = Store::open_lmdb(options(&folder)).unwrap();
    test(store.clone()).await;
    store.close().await;
}

/// A simulated disk on which nothing happens that a real one would not do at its best.
#[cfg(feature = "simulation")]
pub(crate) struct QuickDisk;

#[cfg(feature = "simulation")]
impl store::DiskFate for QuickDisk {
    fn next_commit(&mut self) -> (std::time::Duration, std::time::Duration) {
        Default::default()
    }

    fn committed(&mut self, _changes: &[store::Change]) {}
}

/// A store that does not wait for the disk, except where a test is about that.
pub(crate) fn options(folder: &tempfile::TempDir) -> LmdbOptions {
    LmdbOptions { durability: Durability::Os, ..LmdbOptions::new(folder.path()) }
}

/// A batch of one entry.
pub(crate) fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Batch {
    let mut batch = Batch::new();
    batch.put(key, value);
    batch
}

/// A runtime for tests that are not async themselves.
pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}
