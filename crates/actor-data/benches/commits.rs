//! What commits of actors cost from request to durable answer: `cargo bench -p actor-data`. Prints a table; the folder
//! is the system's temporary one unless another is given as the first argument.
//!
//! Each commit has three half-compressible pages. The last line shows how long other actors wait while one publishes
//! the largest staged commit.

#![allow(clippy::unwrap_used, reason = "a benchmark that fails may stop")]
#![allow(clippy::print_stdout, reason = "the table is the point")]
#![allow(clippy::disallowed_methods, reason = "measures real time")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actor_data::{ActorData, Caller, Options, fence};
use bytes::Bytes;
use protocol::envoy::*;
use protocol::id::Id;
use store::{Batch, LmdbOptions, Store};

const COMMITS: usize = 10_000;
const PAGES_PER_COMMIT: u32 = 3;
/// Size of each database, as that of a small actor.
const SIZE: u32 = 18;
const STAGED_PAGES: u32 = 32_768;
const SPAN: u32 = 320;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    // Cargo adds this option to benchmarks; without it we are run as a test, and nobody wants to wait.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let parent = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let folder = tempfile::tempdir_in(parent.map_or_else(std::env::temp_dir, PathBuf::from)).unwrap();
    let store = Store::open_lmdb(LmdbOptions::new(folder.path())).unwrap();
    let data = ActorData::new(store.clone(), Options::default(), Arc::new(|| 0));

    println!("| | per second | p50 ms | p99 ms | max ms |");
    println!("|---|---|---|---|---|");
    commit_by_actors(&data, &store, 1, COMMITS / 4).await.print("commits, 1 actor");
    commit_by_actors(&data, &store, 64, COMMITS).await.print("commits, 64 actors");
    open(&data).await.print("opening read");
    publish(&data, &store).await;
    store.close().await;
}

async fn start(store: &Store, actor: Id) {
    let mut batch = Batch::new();
    fence::set_generation(&mut batch, &actor, 1);
    store.write(batch).await.unwrap();
}

fn actor(number: usize) -> Id {
    Id::from_parts((number as u128).to_be_bytes(), 1)
}

/// A page whose second half is zeros.
fn page(pgno: u32, seed: usize) -> SqliteDirtyPage {
    let mut bytes = vec![0; 4096];
    let mut number = (seed as u64) << 32 | u64::from(pgno);
    for byte in &mut bytes[..2048] {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *byte = (number >> 56) as u8;
    }
    SqliteDirtyPage { pgno, bytes: bytes.into() }
}

async fn commit(data: &ActorData, actor: Id, dirty_pages: Vec<SqliteDirtyPage>) {
    let request = SqliteCommitRequest {
        actor_id: String::new(),
        dirty_pages,
        db_size_pages: SIZE,
        now_ms: 0,
        expected_generation: Some(1),
        expected_head_txid: None,
    };
    data.commit(actor, Caller::Host(1), request).await.unwrap();
}

async fn commit_by_actors(data: &ActorData, store: &Store, actors: usize, commits: usize) -> Times {
    for number in 0..actors {
        start(store, actor(number)).await;
    }
    let begin = Instant::now();
    let tasks: Vec<_> = (0..actors)
        .map(|number| {
            let data = data.clone();
            tokio::spawn(async move {
                let mut each = Vec::new();
                for seed in 0..commits / actors {
                    let first = seed as u32 * PAGES_PER_COMMIT % SIZE;
                    let pages = (1..=PAGES_PER_COMMIT).map(|page_number| page(first + page_number, seed)).collect();
                    let begin = Instant::now();
                    commit(&data, actor(number), pages).await;
                    each.push(begin.elapsed());
                }
                each
            })
        })
        .collect();
    let mut each = Vec::new();
    for task in tasks {
        each.extend(task.await.unwrap());
    }
    Times::new(begin.elapsed(), each)
}

/// The first request of an actor that wakes.
async fn open(data: &ActorData) -> Times {
    let begin = Instant::now();
    let mut each = Vec::new();
    for number in 0..2000 {
        let request = SqliteGetPagesRequest {
            actor_id: String::new(),
            pgnos: (1..=128).collect(),
            expected_generation: Some(1),
            expected_head_txid: None,
        };
        let begin = Instant::now();
        let read = data.get_pages(actor(number % 64), Caller::Host(1), request).await.unwrap();
        each.push(begin.elapsed());
        assert_eq!(read.pages.len(), SIZE as usize);
    }
    Times::new(begin.elapsed(), each)
}

async fn publish(data: &ActorData, store: &Store) {
    let large = actor(1000);
    start(store, large).await;
    let (actor_id, expected_generation) = (String::new(), Some(1));
    let request = SqliteCommitStageBeginRequest { actor_id, expected_generation, expected_head_txid: None };
    let txid = data.stage_begin(large, Caller::Host(1), request).await.unwrap().txid;
    let mut segment_first_pgnos = Vec::new();
    let begin = Instant::now();
    for first_pgno in (0..STAGED_PAGES).step_by(SPAN as usize) {
        let last = (first_pgno + SPAN - 1).min(STAGED_PAGES);
        let dirty_pages = (first_pgno.max(1)..=last).map(|pgno| page(pgno, 1)).collect();
        let request =
            SqliteCommitStageSegmentRequest { actor_id: String::new(), expected_generation, txid, first_pgno, dirty_pages };
        data.stage_segment(large, Caller::Host(1), request).await.unwrap();
        segment_first_pgnos.push(first_pgno);
    }
    let staged = begin.elapsed();

    let neighbour = {
        let data = data.clone();
        let small = Bytes::from_static(b"key");
        tokio::spawn(async move {
            let mut each = Vec::new();
            let begin = Instant::now();
            while each.len() < 2000 && begin.elapsed() < Duration::from_secs(2) {
                let request = KvRequestData::Put { keys: vec![small.clone()], values: vec![small.clone()] };
                let begin = Instant::now();
                assert_eq!(data.kv(actor(0), 1, request).await, KvResponseData::Put);
                each.push(begin.elapsed());
            }
            Times::new(begin.elapsed(), each)
        })
    };
    let request = SqliteCommitFinalizeRequest {
        actor_id: String::new(),
        expected_generation,
        txid,
        new_db_size_pages: STAGED_PAGES,
        now_ms: 0,
        segment_first_pgnos,
    };
    let begin = Instant::now();
    data.finalize(large, Caller::Host(1), request).await.unwrap();
    let finalized = begin.elapsed();
    neighbour.await.unwrap().print("another actor's puts while a 128 MiB commit is published");
    println!("\n128 MiB: staged in {staged:.1?}, published in {finalized:.1?}");
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

    fn print(&self, name: &str) {
        let rate = self.sorted.len() as f64 / self.total.as_secs_f64();
        let at = |percent: usize| self.sorted[(self.sorted.len() * percent / 100).min(self.sorted.len() - 1)];
        let ms = |percent| at(percent).as_secs_f64() * 1e3;
        println!("| {name} | {rate:.0} | {:.2} | {:.2} | {:.2} |", ms(50), ms(99), ms(100));
    }
}
