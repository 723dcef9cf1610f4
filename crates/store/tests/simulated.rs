//! What only the simulated disk does: a crash at any moment.

#![cfg(feature = "simulation")]
#![allow(clippy::unwrap_used, reason = "an unwrap that fails is a test that fails")]

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use store::{Batch, Change, DiskFate, SimulatedDisk, StoreError};

/// Durable after 10 ms, heard of after 10 more.
struct SlowDisk {
    seen: Arc<Mutex<Vec<Change>>>,
}

impl DiskFate for SlowDisk {
    fn next_commit(&mut self) -> (Duration, Duration) {
        (Duration::from_millis(10), Duration::from_millis(10))
    }

    fn committed(&mut self, changes: &[Change]) {
        self.seen.lock().extend_from_slice(changes);
    }
}

fn put(key: &'static str) -> Batch {
    let mut batch = Batch::new();
    batch.put(key, "");
    batch
}

#[tokio::test(start_paused = true)]
async fn a_crash_spares_what_is_durable_and_nothing_else() {
    for (crash_after_ms, survives) in [(9, false), (11, true), (21, true)] {
        let seen = Arc::default();
        let disk = SimulatedDisk::new(SlowDisk { seen: Arc::clone(&seen) });
        let (store, process) = disk.open();
        let writer = tokio::spawn({
            let store = store.clone();
            async move { store.write(put("waited for")).await }
        });
        tokio::time::sleep(Duration::from_millis(crash_after_ms)).await;
        store.write_lazy(put("not waited for")).unwrap();
        process.kill();

        let heard = writer.await.unwrap();
        assert_eq!(heard.is_ok(), crash_after_ms == 21, "{heard:?}");
        assert!(matches!(store.write(put("late")).await, Err(StoreError::Closed)));
        let expected: &[&str] = if survives { &["waited for"] } else { &[] };
        let rows = disk.rows();
        let keys: Vec<_> = rows.into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, expected);
        assert_eq!(seen.lock().len(), expected.len());
        let (again, _) = disk.open();
        assert_eq!(again.get(vec!["waited for".into()]).await.unwrap()[0].is_some(), survives);
    }
}

#[tokio::test(start_paused = true)]
async fn what_nobody_waits_for_is_written_soon_and_in_order() {
    let disk = SimulatedDisk::new(SlowDisk { seen: Arc::default() });
    let (store, _process) = disk.open();
    store.write_lazy(put("lazy")).unwrap();
    tokio::time::sleep(Duration::from_millis(55)).await;
    assert!(disk.rows().is_empty());
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(disk.rows().len(), 1);
    store.write_lazy(put("second")).unwrap();
    store.write(put("third")).await.unwrap();
    assert_eq!(disk.rows().len(), 3);
}
