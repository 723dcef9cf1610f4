//! What page commits cost on disk: `cargo bench -p store`. Prints a table; the folder is the system's temporary one
//! unless another is given as the first argument.
//!
//! Each commit is what an actor's small SQL transaction makes: three pages. Pages are 4 KiB as they come ("raw"), or
//! what is left of a half-compressible one ("packed").

#![allow(clippy::unwrap_used, reason = "a benchmark that fails may stop")]
#![allow(clippy::print_stdout, reason = "the table is the point")]
#![allow(clippy::disallowed_methods, reason = "measures real time")]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use store::{Batch, LmdbOptions, Store};

/// 131 MB of raw pages.
const PAGES: usize = 32_000;
const PAGES_PER_COMMIT: usize = 3;
const COMMITS: usize = PAGES / PAGES_PER_COMMIT;
const CLIENTS: usize = 64;
const READS: usize = 20_000;

const RAW_BYTES: usize = 4096;
const PACKED_BYTES: usize = 2150;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    // Cargo adds this option to benchmarks; without it we are run as a test, and nobody wants to wait.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let parent = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let parent = parent.map_or_else(std::env::temp_dir, PathBuf::from);

    println!("| page | 1 at a time: commits/s, p50, p99 ms | {CLIENTS} clients: commits/s, p50, p99 ms | disk MB |");
    println!("|---|---|---|---|");
    for (name, page_bytes) in [("raw", RAW_BYTES), ("packed", PACKED_BYTES)] {
        let folder = tempfile::tempdir_in(&parent).unwrap();
        let store = Store::open_lmdb(LmdbOptions::new(folder.path())).unwrap();
        let alone = write_all(&store, 1, page_bytes).await;
        store.close().await;

        let folder = tempfile::tempdir_in(&parent).unwrap();
        let store = Store::open_lmdb(LmdbOptions::new(folder.path())).unwrap();
        let grouped = write_all(&store, CLIENTS, page_bytes).await;
        let disk = disk_bytes(folder.path()) as f64 / 1e6;
        println!("| {name} {page_bytes} B | {} | {} | {disk:.0} |", alone.as_row(), grouped.as_row());
        if page_bytes == RAW_BYTES {
            continue;
        }
        print_reads(&store).await;
        store.close().await;
    }
}

async fn print_reads(store: &Store) {
    let single = time_each(READS, async |number| {
        assert!(store.get(vec![key(scatter(number))]).await.unwrap()[0].is_some());
    });
    let single = single.await;
    let opening = time_each(READS / 10, async |number| {
        let first = scatter(number).min(PAGES - 128);
        store.scan(store::Scan::range(key(first), key(first + 128))).await.unwrap();
    });
    let opening = opening.await;
    let hop = time_each(READS, async |_| tokio::task::spawn_blocking(|| ()).await.unwrap()).await;
    println!("\nrandom get: {}", single.as_micros());
    println!("scan of 128 pages: {}", opening.as_micros());
    println!("for comparison, an empty spawn_blocking: {}", hop.as_micros());
}

/// Writes all pages from so many clients at a time.
async fn write_all(store: &Store, clients: usize, page_bytes: usize) -> Times {
    let start = Instant::now();
    let tasks: Vec<_> = (0..clients)
        .map(|client| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut times = Vec::new();
                for commit in (client..COMMITS).step_by(clients) {
                    let batch = commit_batch(commit, page_bytes);
                    let start = Instant::now();
                    store.write(batch).await.unwrap();
                    times.push(start.elapsed());
                }
                times
            })
        })
        .collect();
    let mut each = Vec::new();
    for task in tasks {
        each.extend(task.await.unwrap());
    }
    Times::new(start.elapsed(), each)
}

fn commit_batch(commit: usize, page_bytes: usize) -> Batch {
    let mut batch = Batch::new();
    for page in 0..PAGES_PER_COMMIT {
        let number = commit * PAGES_PER_COMMIT + page;
        let mut bytes = vec![0; page_bytes];
        for (index, byte) in bytes[..page_bytes / 2].iter_mut().enumerate() {
            *byte = scatter(number + index) as u8;
        }
        batch.put(key(scatter(number)), bytes);
    }
    batch
}

/// Keys as long as those of an actor's pages.
fn key(number: usize) -> Bytes {
    format!("pages of actor:{number:08}").into()
}

/// The same numbers in another order: pages of different actors do not come sorted.
fn scatter(number: usize) -> usize {
    number * 7919 % PAGES
}

async fn time_each(count: usize, work: impl AsyncFn(usize)) -> Times {
    let begin = Instant::now();
    let mut each = Vec::new();
    for number in 0..count {
        let start = Instant::now();
        work(number).await;
        each.push(start.elapsed());
    }
    Times::new(begin.elapsed(), each)
}

fn disk_bytes(folder: &Path) -> u64 {
    std::fs::metadata(folder.join("data.mdb")).unwrap().len()
}

struct Times {
    total: Duration,
    sorted: Vec<Duration>,
}

impl Times {
    fn new(total: Duration, mut each: Vec<Duration>) -> Self {
        each.sort();
        Self { total, sorted: each }
    }

    fn percentile_ms(&self, percent: usize) -> f64 {
        self.sorted[self.sorted.len() * percent / 100].as_secs_f64() * 1e3
    }

    fn as_row(&self) -> String {
        let rate = self.sorted.len() as f64 / self.total.as_secs_f64();
        format!("{rate:.0}  {:.2}  {:.2}", self.percentile_ms(50), self.percentile_ms(99))
    }

    fn as_micros(&self) -> String {
        format!("p50 {:.1} µs, p99 {:.1} µs", self.percentile_ms(50) * 1e3, self.percentile_ms(99) * 1e3)
    }
}
