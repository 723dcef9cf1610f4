//! Commits of one page by many actors, each as soon as its last one is acknowledged. The host keeps nothing, so this is the
//! engine's own share, and the disk's.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use protocol::envoy::{SqliteCommitRequest, SqliteDirtyPage, ToEnvoy, ToRivet};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use testkit::envoy::{FakeEnvoy, Run};
use tokio::time::Instant;

use crate::caller::Caller;
use crate::host::taken_by;
use crate::process::EngineProcess;
use crate::rates::{Span, measure};
use crate::starts::create;

const PAGE_BYTES: usize = 4096;
/// What a database has that the SDK has just made.
const FRESH_PAGES: u32 = 17;
/// The page that is written again and again: the one of an actor's state in such a database.
const STATE_PAGE: u32 = 5;
/// The part of the page that does not compress, in bytes; the rest is zeros.
const STATE_BYTES: usize = 1024;
const NOW_MS: i64 = 1_700_000_000_000;

/// So many actors, over one host's connection.
pub(crate) async fn measure_commits(engine: &EngineProcess, actors: usize) {
    let mut envoy = taken_by(engine.address()).await;
    let mut caller = Caller::connect(engine.address()).await;
    let mut writers = Writers { next_request: 0, waiting: HashMap::new(), random: SmallRng::seed_from_u64(1) };
    let mut started = Vec::with_capacity(actors);
    for number in 0..actors {
        create(&mut caller, &number.to_string()).await;
        let (run, _) = envoy.expect_start().await;
        envoy.running(&run);
        started.push(Writer { run, head: 0 });
    }
    for writer in started {
        writers.send(&envoy, writer, 1..=FRESH_PAGES);
    }
    measure(engine, "commits of one page", vec![(envoy, writers)], commit_until).await;
}

/// An actor's database.
struct Writer {
    run: Run,
    head: u64,
}

struct Writers {
    next_request: u32,
    /// Those whose commit is under way, since when.
    waiting: HashMap<u32, (Writer, Instant)>,
    random: SmallRng,
}

impl Writers {
    fn send(&mut self, envoy: &FakeEnvoy, writer: Writer, pages: impl Iterator<Item = u32>) {
        let dirty_pages = pages.map(|pgno| SqliteDirtyPage { pgno, bytes: self.page() }).collect();
        let data = SqliteCommitRequest {
            actor_id: writer.run.actor_id.clone(),
            dirty_pages,
            db_size_pages: FRESH_PAGES,
            now_ms: NOW_MS,
            expected_generation: Some(writer.run.generation.into()),
            expected_head_txid: Some(writer.head),
        };
        let request_id = self.next_request;
        self.next_request = self.next_request.wrapping_add(1);
        envoy.send(&ToRivet::SqliteCommit { request_id, data });
        self.waiting.insert(request_id, (writer, Instant::now()));
    }

    fn page(&mut self) -> Bytes {
        let mut page = vec![0; PAGE_BYTES];
        self.random.fill_bytes(&mut page[..STATE_BYTES]);
        page.into()
    }
}

async fn commit_until((mut envoy, mut writers): (FakeEnvoy, Writers), span: Span) -> Vec<Duration> {
    let mut took = Vec::new();
    while !span.is_over() {
        let message = envoy.any().await.expect("the host's connection");
        let ToEnvoy::SqliteCommit { request_id, data } = message else { continue };
        let committed = data.unwrap_or_else(|error| panic!("{error:?}"));
        let (mut writer, since) = writers.waiting.remove(&request_id).expect("an answer to a request");
        took.extend(span.took(since));
        writer.head = committed.head_txid.expect("the new head");
        writers.send(&envoy, writer, std::iter::once(STATE_PAGE));
    }
    took
}
