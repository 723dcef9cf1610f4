//! The engine, all who write to it, and what happens to them.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use futures_util::future::{join_all, try_join_all};
use http::{Method, StatusCode};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngExt, SeedableRng};
use serde_json::json;
use testkit::process::EngineProcess;
use testkit::{client, in_time};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::churn::{Churn, creation, post};
use crate::export;
use crate::host::{Actors, Place, RawHost};
use crate::kv::KvWriter;
use crate::ledger::{Checked, Counts, Violation};
use crate::pages::PageWriter;
use crate::past::{self, Past};
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
/// Once in so many times connections are cut before the engine is killed.
const CUT: u32 = 3;
/// Once in so many times hosts go with the engine, and their actors have to start elsewhere.
const HOSTS_DIE: u32 = 5;
/// Once in so many times an actor is put back to what it was, again and again, when the engine is killed.
const RESTORED: u32 = 2;
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
    Sql { writer: SqlWriter, past: Past },
}

impl Database {
    async fn audit(&mut self) -> Checked {
        match self {
            Self::Pages(writer) => audit(writer).await,
            Self::Sql { writer, .. } => audit(writer).await,
        }
    }

    /// Writes, or goes back in time if it is to and can.
    async fn change(&mut self, address: SocketAddr, going_back: Option<StdRng>, down: watch::Receiver<bool>) -> Checked {
        match (self, going_back) {
            (Self::Sql { writer, past }, Some(mut random)) => past.restore(writer, address, &mut random, down).await,
            (Self::Sql { writer, .. }, None) => load(writer, down).await,
            (Self::Pages(writer), _) => load(writer, down).await,
        }
    }
}

/// A host that serves, until the end of its connection gives it back.
type Serving = JoinHandle<RawHost>;

pub(crate) struct Scene {
    engine: EngineProcess,
    book: Actors,
    hosts: Vec<Serving>,
    /// Whether the connections of all hosts are to be cut.
    cut: watch::Sender<bool>,
    actors: Vec<Actor>,
    churn: Churn,
    sdk: Option<SdkLoad>,
    random: StdRng,
    /// Whether actors are moved and put to sleep.
    moves: bool,
    began: Instant,
    /// The last time, in milliseconds since 1970.
    killed_at: u128,
    times: Times,
}

/// How often something was done to the engine or its hosts.
#[derive(Clone, Copy, Default)]
struct Times {
    kills: u32,
    kills_at_start: u32,
    host_deaths: u32,
    cuts: u32,
    exports: u32,
}

/// What ends the writing.
#[derive(Clone, Copy)]
enum End {
    /// The connections of hosts are cut, and the engine goes on.
    Cut,
    Kill,
}

impl Scene {
    pub(crate) async fn start(binary: &Path, folder: &Path, seed: u64, conformance: Option<&Path>) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let window = past::WINDOW_MS.to_string();
        let mut settings = SETTINGS.to_vec();
        settings.push(("RIVET__SQLITE__PITR__RETENTION_MS", &window));
        let mut engine = EngineProcess::prepare(binary, folder, &settings);
        engine.start().await;
        engine.put_pool(POOL).await;
        let book = Actors::default();
        let mut actors = Vec::with_capacity(PAGE_ACTORS + SQL_ACTORS);
        for number in 0..PAGE_ACTORS + SQL_ACTORS {
            let answer = post(engine.address(), "/actors?namespace=default", &creation("written", POOL, None)).await;
            let answer = answer.expect("the engine answers");
            let id = answer["actor"]["actor_id"].as_str().expect("an actor").to_owned();
            let kv = KvWriter::new(&id, book.watch(&id), fork(&mut random));
            let database = match number < PAGE_ACTORS {
                true => Database::Pages(PageWriter::new(&id, book.watch(&id), fork(&mut random))),
                false => {
                    let writer = SqlWriter::new(&id, book.watch(&id), fork(&mut random));
                    Database::Sql { writer, past: Past::default() }
                }
            };
            actors.push(Actor { id, kv, database });
        }
        let sdk = conformance.map(|conformance| SdkLoad::start(conformance, folder, &engine, random.next_u64() >> 12));
        let churn = Churn::new(&book, POOL);
        let (hosts, cut, began) = (Vec::new(), watch::Sender::new(false), Instant::now());
        let times = Times::default();
        let mut scene = Self { engine, book, hosts, cut, actors, churn, sdk, random, moves: true, began, killed_at: 0, times };
        scene.connect((0..HOSTS).map(|_| RawHost::new(POOL, &scene.book)).collect()).await;
        scene
    }

    /// Compares all that is stored with the books.
    pub(crate) async fn audit(&mut self) -> Checked {
        // Both at the same time, because the host on the npm package takes a second or two to come back.
        let mut sdk = self.sdk.take();
        let audit_sdk = async {
            match &mut sdk {
                Some(sdk) => sdk.audit().await,
                None => Ok(()),
            }
        };
        let (by_sdk, raw) = tokio::join!(audit_sdk, self.audit_actors());
        self.sdk = sdk;
        by_sdk.and(raw)?;
        self.churn.audit(self.engine.address()).await?;
        let now = past::between().await;
        for actor in &mut self.actors {
            if let Database::Sql { writer, past } = &mut actor.database {
                past.remember(now, writer.ledger().known().clone());
            }
        }
        Ok(())
    }

    /// From here on actors stay where they are, so that only what they own can be lost.
    pub(crate) fn stop_moving(&mut self) {
        self.moves = false;
    }

    /// The part of the hosts that speak the protocol, but for actors that come and go: as long as the engine runs, what was asked
    /// for without an answer may still happen to them.
    async fn audit_actors(&mut self) -> Checked {
        let address = self.engine.address();
        let actors = self.actors.iter_mut().map(|actor| async {
            let place = self.book.watch(&actor.id);
            let audits = async {
                audit(&mut actor.kv).await?;
                actor.database.audit().await
            };
            tokio::select! {
                audited = audits => audited,
                Err(violation) = keep_awake(address, &actor.id, place) => Err(violation),
            }
        });
        try_join_all(actors).await.map(drop)
    }

    /// Has everybody write, and kills the engine amid that; perhaps the connections of hosts are cut before.
    pub(crate) async fn load_and_kill(&mut self) -> Checked {
        let (before_cut, before_kill) = (self.any_moment(), self.any_moment());
        if let Some(sdk) = &mut self.sdk {
            sdk.load().await?;
        }
        if self.random.random_ratio(1, CUT) {
            self.write_until(End::Cut, before_cut).await?;
            let hosts = self.disconnected().await;
            self.connect(hosts).await;
            self.audit_actors().await?;
            self.times.cuts += 1;
        }
        self.load_and_kill_after(before_kill).await
    }

    fn any_moment(&mut self) -> Duration {
        Duration::from_millis(self.random.random_range(0..=LOAD_MS))
    }

    /// Has the hosts that speak the protocol write for so long, and kills the engine.
    pub(crate) async fn load_and_kill_after(&mut self, pause: Duration) -> Checked {
        self.write_until(End::Kill, pause).await?;
        self.times.kills += 1;
        Ok(())
    }

    async fn write_until(&mut self, end: End, pause: Duration) -> Checked {
        let address = self.engine.address();
        let mut mover = fork(&mut self.random);
        let moved: Vec<String> = self.actors.iter().filter(|_| self.moves).map(|actor| actor.id.clone()).collect();
        let mut going_back = self.going_back(end);
        let (ended, down) = watch::channel(false);
        let writers = self.actors.iter_mut().map(|actor| {
            let (kv_down, database_down) = (down.clone(), down.clone());
            let random = going_back.take_if(|(id, _)| *id == actor.id).map(|(_, random)| random);
            async { tokio::try_join!(load(&mut actor.kv, kv_down), actor.database.change(address, random, database_down)) }
        });
        let (engine, killed_at, cut) = (&mut self.engine, &mut self.killed_at, &self.cut);
        let ending = async {
            sleep(pause).await;
            let went_on = match end {
                End::Cut => {
                    cut.send_replace(true);
                    true
                }
                End::Kill => {
                    *killed_at = UNIX_EPOCH.elapsed().unwrap_or_default().as_millis();
                    engine.kill()
                }
            };
            ended.send_replace(true);
            went_on
        };
        let others = async {
            tokio::join!(self.churn.load(address, down.clone()), move_actors(address, &moved, &mut mover, down.clone()))
        };
        let (written, went_on, _) = tokio::join!(join_all(writers), ending, others);
        if !went_on {
            return Err(Violation(format!("the engine has ended by itself; {}", self.engine.log_tail())));
        }
        written.into_iter().try_for_each(|written| written.map(drop))
    }

    /// Who is put back to what it was until the engine is killed, perhaps; and which times it goes back to.
    fn going_back(&mut self, end: End) -> Option<(String, StdRng)> {
        if matches!(end, End::Cut) || !self.moves || !self.random.random_ratio(1, RESTORED) {
            return None;
        }
        let random = fork(&mut self.random);
        let sql = self.actors.iter().filter(|actor| matches!(actor.database, Database::Sql { .. }));
        let ids: Vec<&String> = sql.map(|actor| &actor.id).collect();
        ids.choose(&mut self.random).map(|id| ((*id).clone(), random))
    }

    /// Brings engine and hosts back; perhaps at the second attempt, and perhaps other hosts.
    pub(crate) async fn start_again(&mut self) -> Checked {
        let hosts_die = self.random.random_ratio(1, HOSTS_DIE);
        if let Some(sdk) = &mut self.sdk {
            sdk.down(self.killed_at, hosts_die).await?;
        }
        let mut hosts = self.disconnected().await;
        if hosts_die {
            hosts.swap_remove(self.random.random_range(0..HOSTS)).die();
            hosts.push(RawHost::new(POOL, &self.book));
            self.times.host_deaths += 1;
        }
        while self.random.random_ratio(1, KILLED_AT_START) {
            self.engine.spawn();
            sleep(Duration::from_millis(self.random.random_range(0..=START_MS))).await;
            if !self.engine.kill() {
                return Err(Violation(format!("the engine has ended while starting; {}", self.engine.log_tail())));
            }
            self.times.kills_at_start += 1;
        }
        self.check_store()?;
        self.check_export()?;
        self.engine.start().await;
        self.connect(hosts).await;
        Ok(())
    }

    /// Starts the engine again, and keeps a copy of its data as they are now.
    pub(crate) async fn remember_and_start_again(&mut self) {
        let hosts = self.disconnected().await;
        copy_files(&self.engine.data(), &self.kept());
        self.engine.start().await;
        self.connect(hosts).await;
    }

    /// Starts the engine again on the data that were kept: as if it had lost whatever was written since.
    pub(crate) async fn forget_and_start_again(&mut self) {
        let hosts = self.disconnected().await;
        fs::remove_dir_all(self.engine.data()).expect("a folder that can be removed");
        fs::rename(self.kept(), self.engine.data()).expect("a folder that can be renamed");
        self.engine.start().await;
        self.connect(hosts).await;
    }

    fn kept(&self) -> PathBuf {
        self.engine.data().with_extension("kept")
    }

    /// The hosts, when their connections have ended.
    async fn disconnected(&mut self) -> Vec<RawHost> {
        let mut hosts = Vec::with_capacity(HOSTS);
        for serving in self.hosts.drain(..) {
            hosts.push(in_time("the end of a host's connection", serving).await.expect("a host's task"));
        }
        hosts
    }

    /// Connects hosts, and returns when all are connected.
    async fn connect(&mut self, hosts: Vec<RawHost>) {
        self.cut.send_replace(false);
        for host in hosts {
            let (connected, is_connected) = oneshot::channel();
            self.hosts.push(tokio::spawn(host.serve(self.engine.address(), connected, self.cut.subscribe())));
            in_time("a host to be connected", is_connected).await.expect("a host's task");
        }
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

    /// Has SQLite look at the database of an actor, as the crash left it.
    fn check_export(&mut self) -> Checked {
        let by_engine = self.actors.iter().filter_map(|actor| match &actor.database {
            // What these commit are pages, and no database.
            Database::Pages(_) => None,
            Database::Sql { writer, .. } => Some(writer.actor_id()),
        });
        let by_sdk = self.sdk.iter().flat_map(SdkLoad::actor_ids);
        let ids: Vec<&str> = by_engine.chain(by_sdk).collect();
        let Some(id) = ids.choose(&mut self.random) else { return Ok(()) };
        export::check(&self.engine, id)?;
        self.times.exports += 1;
        Ok(())
    }

    /// Ends all processes.
    pub(crate) async fn end(self) {
        if let Some(sdk) = self.sdk {
            sdk.end().await;
        }
    }

    /// What was done so far, in a few lines.
    pub(crate) fn figures(&self) -> String {
        let (mut kv, mut pages, mut sql, mut restores) = (Counts::default(), Counts::default(), Counts::default(), 0);
        for actor in &self.actors {
            kv += actor.kv.counts();
            match &actor.database {
                Database::Pages(writer) => pages += writer.counts(),
                Database::Sql { writer, past } => {
                    sql += writer.counts();
                    restores += past.restores();
                }
            }
        }
        let sdk = self.sdk.as_ref().map(|sdk| format!("\n  npm package: {}", sdk.counts())).unwrap_or_default();
        let Times { kills, kills_at_start, host_deaths, cuts, exports } = self.times;
        let seconds = self.began.elapsed().as_secs();
        format!(
            "{kills} kills under load, {kills_at_start} during a start, in {seconds} s; {host_deaths} times with hosts; \
             connections cut {cuts} times; {restores} times back in time; {exports} databases exported and sound\n  \
             pairs: {kv}\n  pages: {pages}\n  SQL: {sql}\n  actors: {}{sdk}",
            self.churn.counts(),
        )
    }
}

fn copy_files(from: &Path, to: &Path) {
    fs::create_dir(to).expect("a new folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry of a folder");
        if entry.file_type().expect("the kind of a file").is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).expect("a file that can be copied");
        }
    }
}

fn fork(random: &mut StdRng) -> StdRng {
    StdRng::seed_from_u64(random.next_u64())
}

/// Has an actor woken whenever it sleeps: it may have been told to before the engine was killed, and do so only now.
async fn keep_awake(address: SocketAddr, actor_id: &str, mut place: watch::Receiver<Place>) -> Checked {
    loop {
        place.wait_for(|place| matches!(place, Place::Nowhere)).await.expect("the book of all actors");
        let answer = client::call(address, Method::GET, &format!("/gateway/{actor_id}/request/x")).await;
        // The request may have met the instance that was just told to stop.
        if answer.status != StatusCode::OK && answer.error() != (503, "guard.actor_stopped_while_waiting".to_owned()) {
            return Err(Violation(format!("actor {actor_id} cannot be reached: {}", answer.text())));
        }
    }
}

/// Moves actors and puts them to sleep, so that they change their generation amid what is written.
async fn move_actors(address: SocketAddr, ids: &[String], random: &mut StdRng, mut down: watch::Receiver<bool>) {
    let moving = async {
        loop {
            sleep(Duration::from_millis(random.random_range(0..=MOVE_MS))).await;
            let Some(id) = ids.choose(random) else { return };
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
