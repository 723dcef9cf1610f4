//! The engine, all who write to it, and what happens to them.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use futures_util::future::{join_all, try_join_all};
use http::{Method, StatusCode};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use serde_json::json;
use testkit::process::EngineProcess;
use testkit::{client, in_time};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::churn::{Churn, creation, post};
use crate::host::{Actors, RawHost};
use crate::kv::KvWriter;
use crate::ledger::{Checked, Counts, Violation};
use crate::pages::PageWriter;
use crate::sdk::SdkLoad;
use crate::sql::SqlWriter;
use crate::writer::{Writer, audit, load};

const POOL: &str = "raw";
const HOSTS: usize = 2;
/// Actors whose pages are committed, and such as run SQL in the engine.
const PAGE_ACTORS: usize = 4;
const SQL_ACTORS: usize = 3;
/// From the first write until the kill, at most.
const LOAD_MS: u64 = 400;
/// From the start of a process until it is killed before it was asked for anything, at most.
const START_MS: u64 = 60;
/// Once in so many times the engine is killed while it starts.
const KILLED_AT_START: u32 = 4;
/// Once in so many times hosts go with the engine, and their actors have to start elsewhere.
const HOSTS_DIE: u32 = 5;
/// Pause between two actors that are moved or put to sleep, at most.
const MOVE_MS: u64 = 150;

const SETTINGS: [(&str, &str); 5] = [
    // How long the actors of a host wait that has gone with the engine. A host on the npm package needs up to 2.5 s to come back.
    ("RIVET__PEGBOARD__ENVOY_LOST_THRESHOLD", "3000"),
    ("RIVET__PEGBOARD__BASE_RETRY_TIMEOUT", "100"),
    ("RIVET__PEGBOARD__RETRY_RESET_DURATION", "100"),
    ("RIVET__PEGBOARD__RESCHEDULE_BACKOFF_MAX_EXPONENT", "1"),
    ("RIVET__PEGBOARD__ACTOR_CREATE_RATE_LIMIT_REQUESTS", "1000000000"),
];

/// An actor of the hosts that speak the protocol themselves.
struct Actor {
    id: String,
    kv: KvWriter,
    database: Database,
}

/// One host commits pages of a database, another one has the engine execute SQL.
enum Database {
    Pages(PageWriter),
    Sql(SqlWriter),
}

impl Database {
    async fn audit(&mut self) -> Checked {
        match self {
            Self::Pages(writer) => audit(writer).await,
            Self::Sql(writer) => audit(writer).await,
        }
    }

    async fn load(&mut self, down: watch::Receiver<bool>) -> Checked {
        match self {
            Self::Pages(writer) => load(writer, down).await,
            Self::Sql(writer) => load(writer, down).await,
        }
    }
}

/// A host that serves, until the end of its connection gives it back.
type Serving = JoinHandle<RawHost>;

pub(crate) struct Scene {
    engine: EngineProcess,
    book: Actors,
    hosts: Vec<Serving>,
    actors: Vec<Actor>,
    churn: Churn,
    sdk: Option<SdkLoad>,
    random: StdRng,
    began: Instant,
    /// The last time, in milliseconds since 1970.
    killed_at: u128,
    kills: u32,
    kills_at_start: u32,
    host_deaths: u32,
}

impl Scene {
    pub(crate) async fn start(binary: &Path, folder: &Path, seed: u64, conformance: Option<&Path>) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let mut engine = EngineProcess::prepare(binary, folder, &SETTINGS);
        engine.start().await;
        engine.put_pool(POOL).await;
        let book = Actors::default();
        let hosts = (0..HOSTS).map(|_| RawHost::new(POOL, &book));
        let hosts = connect(hosts.collect(), engine.address()).await;
        let mut actors = Vec::with_capacity(PAGE_ACTORS + SQL_ACTORS);
        for number in 0..PAGE_ACTORS + SQL_ACTORS {
            let answer = post(engine.address(), "/actors?namespace=default", &creation("written", POOL, None)).await;
            let answer = answer.expect("the engine answers");
            let id = answer["actor"]["actor_id"].as_str().expect("an actor").to_owned();
            let kv = KvWriter::new(&id, book.watch(&id), fork(&mut random));
            let database = match number < PAGE_ACTORS {
                true => Database::Pages(PageWriter::new(&id, book.watch(&id), fork(&mut random))),
                false => Database::Sql(SqlWriter::new(&id, book.watch(&id), fork(&mut random))),
            };
            actors.push(Actor { id, kv, database });
        }
        let sdk = conformance.map(|conformance| SdkLoad::start(conformance, folder, &engine, random.next_u64() >> 12));
        let churn = Churn::new(&book, POOL);
        let began = Instant::now();
        Self { engine, book, hosts, actors, churn, sdk, random, began, killed_at: 0, kills: 0, kills_at_start: 0, host_deaths: 0 }
    }

    /// Compares all that is stored with the books.
    pub(crate) async fn audit(&mut self) -> Checked {
        let address = self.engine.address();
        let actors = self.actors.iter_mut().map(|actor| async {
            wake(address, &actor.id).await?;
            audit(&mut actor.kv).await?;
            actor.database.audit().await
        });
        let sdk = async {
            match &mut self.sdk {
                Some(sdk) => sdk.audit().await,
                None => Ok(()),
            }
        };
        let (actors, churn, sdk) = tokio::join!(try_join_all(actors), self.churn.audit(address), sdk);
        actors?;
        churn?;
        sdk
    }

    /// Has everybody write, and kills the engine amid that.
    pub(crate) async fn load_and_kill(&mut self) -> Checked {
        if let Some(sdk) = &mut self.sdk {
            sdk.load().await?;
        }
        let address = self.engine.address();
        let pause = Duration::from_millis(self.random.random_range(0..=LOAD_MS));
        let mut mover = fork(&mut self.random);
        let ids: Vec<String> = self.actors.iter().map(|actor| actor.id.clone()).collect();
        let (end, down) = watch::channel(false);
        let writers = self.actors.iter_mut().map(|actor| {
            let (kv_down, database_down) = (down.clone(), down.clone());
            async { tokio::try_join!(load(&mut actor.kv, kv_down), actor.database.load(database_down)) }
        });
        let killed_at = &mut self.killed_at;
        let killer = async {
            sleep(pause).await;
            *killed_at = UNIX_EPOCH.elapsed().unwrap_or_default().as_millis();
            let was_running = self.engine.kill();
            end.send_replace(true);
            was_running
        };
        let others =
            async { tokio::join!(self.churn.load(address, down.clone()), move_actors(address, &ids, &mut mover, down.clone())) };
        let (written, was_running, _) = tokio::join!(join_all(writers), killer, others);
        self.kills += 1;
        if !was_running {
            return Err(Violation(format!("the engine has ended by itself; {}", self.engine.log_tail())));
        }
        written.into_iter().try_for_each(|written| written.map(drop))
    }

    /// Brings engine and hosts back; perhaps at the second attempt, and perhaps other hosts.
    pub(crate) async fn start_again(&mut self) -> Checked {
        let hosts_die = self.random.random_ratio(1, HOSTS_DIE);
        if let Some(sdk) = &mut self.sdk {
            sdk.down(self.killed_at, hosts_die).await?;
        }
        let mut hosts = Vec::with_capacity(HOSTS);
        for serving in self.hosts.drain(..) {
            hosts.push(in_time("the end of a host's connection", serving).await.expect("a host's task"));
        }
        if hosts_die {
            hosts.swap_remove(self.random.random_range(0..HOSTS)).die();
            hosts.push(RawHost::new(POOL, &self.book));
            self.host_deaths += 1;
        }
        while self.random.random_ratio(1, KILLED_AT_START) {
            self.engine.spawn();
            sleep(Duration::from_millis(self.random.random_range(0..=START_MS))).await;
            if !self.engine.kill() {
                return Err(Violation(format!("the engine has ended while starting; {}", self.engine.log_tail())));
            }
            self.kills_at_start += 1;
        }
        self.check_store()?;
        self.engine.start().await;
        self.hosts = connect(hosts, self.engine.address()).await;
        Ok(())
    }

    /// Has the engine's own tool look at every row, as the crash left them.
    fn check_store(&self) -> Checked {
        let checked = self.engine.run(&["check"]);
        if checked.status.success() {
            return Ok(());
        }
        let said = [checked.stdout, checked.stderr].concat();
        Err(Violation(format!("`rivet-engine check` ends with {}:\n{}", checked.status, String::from_utf8_lossy(&said))))
    }

    /// Ends all processes.
    pub(crate) async fn end(self) {
        if let Some(sdk) = self.sdk {
            sdk.end().await;
        }
    }

    /// What was done so far, in a few lines.
    pub(crate) fn figures(&self) -> String {
        let (mut kv, mut pages, mut sql) = (Counts::default(), Counts::default(), Counts::default());
        for actor in &self.actors {
            kv += actor.kv.counts();
            match &actor.database {
                Database::Pages(writer) => pages += writer.counts(),
                Database::Sql(writer) => sql += writer.counts(),
            }
        }
        let sdk = self.sdk.as_ref().map(|sdk| format!("\n  npm package: {}", sdk.counts())).unwrap_or_default();
        format!(
            "{} kills under load and {} during a start in {:.0} s, {} times with hosts\n  pairs: {kv}\n  pages: {pages}\n  SQL: {sql}\n  actors: {}{sdk}",
            self.kills,
            self.kills_at_start,
            self.began.elapsed().as_secs_f64(),
            self.host_deaths,
            self.churn.counts(),
        )
    }
}

fn fork(random: &mut StdRng) -> StdRng {
    StdRng::seed_from_u64(random.next_u64())
}

/// Connects hosts, and returns when all are connected.
async fn connect(hosts: Vec<RawHost>, address: SocketAddr) -> Vec<Serving> {
    let mut serving = Vec::with_capacity(hosts.len());
    for host in hosts {
        let (connected, is_connected) = oneshot::channel();
        serving.push(tokio::spawn(host.serve(address, connected)));
        in_time("a host to be connected", is_connected).await.expect("a host's task");
    }
    serving
}

/// Asks an actor for something, so that it is awake.
async fn wake(address: SocketAddr, actor_id: &str) -> Checked {
    let answer = client::call(address, Method::GET, &format!("/gateway/{actor_id}/request/x")).await;
    match answer.status {
        StatusCode::OK => Ok(()),
        _ => Err(Violation(format!("actor {actor_id} cannot be reached: {}", answer.text()))),
    }
}

/// Moves actors and puts them to sleep, so that they change their generation amid what is written.
async fn move_actors(address: SocketAddr, ids: &[String], random: &mut StdRng, mut down: watch::Receiver<bool>) {
    let moving = async {
        loop {
            sleep(Duration::from_millis(random.random_range(0..=MOVE_MS))).await;
            let id = &ids[random.random_range(0..ids.len())];
            let how = if random.random() { "sleep" } else { "reschedule" };
            let told = post(address, &format!("/actors/{id}/{how}?namespace=default"), &json!({})).await;
            // Whoever sleeps is woken by a request, which waits for the actor.
            let request = client::empty(Method::GET, &format!("/gateway/{id}/request/x"));
            if told.is_none() || client::try_send(address, request).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = moving => {}
        _ = down.wait_for(|down| *down) => {}
    }
}
