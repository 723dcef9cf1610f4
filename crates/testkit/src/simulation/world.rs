//! The world around the engine: its machine, its hosts and what connects them. One thing happens at a time, in an order that
//! follows from the seed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use bytes::Bytes;
use engine::config::Config;
use engine::simulation::{Chance as EngineChance, FromEngine, SimulatedEngine, StartOrder};
use lifecycle::Ts;
use parking_lot::{Mutex, MutexGuard};
use protocol::envoy::{CommandWrapper, ToRivet};
use protocol::id::ActorId;
use store::SimulatedDisk;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::clients::{Answer, Client};
use super::endpoint::{Endpoint, Request};
use super::host::{Host, HostTimer, Mood};
use super::ledger::{Ledger, Platter};
use super::log::Log;
use super::settings::{POOLS, engine_config, pool_config};
use super::{Chance, Planted};

/// Names a host within the simulation.
pub(super) type HostId = usize;
/// Names a connection within the simulation.
pub(super) type ConnectionId = usize;

/// What happens at a time that is known before.
#[derive(Debug)]
pub(super) enum Due {
    /// A message arrives at the engine.
    AtEngine(ConnectionId, ToRivet),
    /// A message, or the end of the connection, arrives at a host.
    AtHost(ConnectionId, FromEngine),
    /// The engine notices that a connection was cut.
    EngineNotices(ConnectionId),
    /// A host notices that its connection was cut.
    HostNotices(ConnectionId),
    /// A host tries to connect.
    Connect(HostId),
    /// Something happens to a host by itself.
    Host(HostId, HostTimer),
    /// A frozen host goes on.
    Thaw(HostId),
    /// Something goes wrong.
    Fault,
    /// A client does something.
    Client,
    /// The engine starts again.
    Boot,
    /// Something happens to a start request.
    Endpoint(Request),
    /// A client hears an answer of an engine process.
    Answer(u64, Answer),
}

/// What the engine, or something that runs in it, reports.
pub(super) enum News {
    /// An engine process is up.
    Booted(Box<SimulatedEngine>),
    /// The engine sends over a connection, or has ended it.
    FromEngine(ConnectionId, FromEngine),
    /// An engine process orders something of an endpoint.
    Order(u64, StartOrder),
    /// What a start request to a host carries.
    StartCommand(u64, HostId, Request, CommandWrapper),
    /// Something has just become durable, and nobody knows it yet.
    WorstMoment,
    /// An engine process has answered the call with this ticket.
    Answer(u64, u64, Answer),
}

/// One connection between a host and an engine process.
pub(super) struct Connection {
    pub(super) host: HostId,
    /// None as soon as the engine knows of its end.
    pub(super) frames: Option<mpsc::UnboundedSender<Bytes>>,
    /// Nothing arrives any more.
    pub(super) is_cut: bool,
    /// When the latest message arrives that is under way, in either direction: the order of messages is kept.
    pub(super) latest_ms: [u64; 2],
    /// Usual time under way, in milliseconds.
    pub(super) delay_ms: u64,
}

/// A host process and its end of the wire.
pub(super) struct Process {
    pub(super) host: Host,
    pub(super) is_alive: bool,
    pub(super) connection: Option<ConnectionId>,
    pub(super) attempts: u32,
    /// While it is frozen, what would have happened to it.
    pub(super) frozen: Option<Vec<Due>>,
}

/// Everything.
pub(super) struct World {
    pub(super) chance: Chance,
    pub(super) ledger: Arc<Mutex<Ledger>>,
    pub(super) engine: Option<SimulatedEngine>,
    /// Counts engine processes.
    pub(super) epoch: u64,
    pub(super) processes: Vec<Process>,
    pub(super) connections: Vec<Connection>,
    pub(super) clients: Client,
    pub(super) endpoint: Endpoint,
    pub(super) mood: Mood,
    pub(super) newest_version: u32,
    pub(super) news: mpsc::UnboundedSender<News>,
    inbox: mpsc::UnboundedReceiver<News>,
    agenda: BTreeMap<(u64, u64), Due>,
    next_entry: u64,
    pub(super) alarms: BTreeMap<ActorId, Ts>,
    began: Instant,
    config: Config,
    disk: SimulatedDisk,
    time_of_day: Arc<AtomicI64>,
    pub(super) planted: Option<Planted>,
}

/// The time of day when simulations begin; any would do.
const FIRST_DAY: Ts = 1_800_000_000_000;

impl World {
    pub(super) fn new(seed: u64, planted: Option<Planted>, keeps_log: bool) -> Self {
        let mut chance = Chance::new(seed);
        let time_of_day = Arc::new(AtomicI64::new(FIRST_DAY));
        let ledger = Arc::new(Mutex::new(Ledger::new(Log::new(keeps_log), time_of_day.clone())));
        let (news, inbox) = mpsc::unbounded_channel();
        let disk = SimulatedDisk::new(Platter { ledger: ledger.clone(), chance: chance.fork(), news: news.clone() });
        Self {
            chance,
            ledger,
            engine: None,
            epoch: 1,
            processes: Vec::new(),
            connections: Vec::new(),
            clients: Client::default(),
            endpoint: Endpoint::default(),
            mood: Mood::Wild,
            newest_version: 1,
            news,
            inbox,
            agenda: BTreeMap::new(),
            next_entry: 0,
            alarms: BTreeMap::new(),
            began: Instant::now(),
            config: engine_config(),
            disk,
            time_of_day,
            planted,
        }
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    pub(super) fn books(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock()
    }

    pub(super) fn note(&self, line: std::fmt::Arguments<'_>) {
        self.books().note(line);
    }

    /// Plans something, so many milliseconds from now.
    pub(super) fn plan(&mut self, in_ms: u64, due: Due) {
        self.plan_at(self.now_ms() + in_ms, due);
    }

    pub(super) fn plan_at(&mut self, at_ms: u64, due: Due) {
        let ticket = self.ticket();
        self.agenda.insert((at_ms, ticket), due);
    }

    /// The next number for something that is planned or asked for.
    pub(super) fn ticket(&mut self) -> u64 {
        self.next_entry += 1;
        self.next_entry
    }

    /// Lets things happen until a time, or until a rule is broken.
    pub(super) async fn run_until(&mut self, end_ms: u64) {
        while self.books().violation().is_none() {
            let next_ms = self.agenda.keys().next().map_or(end_ms, |(at_ms, _)| *at_ms);
            if next_ms >= end_ms && self.now_ms() >= end_ms {
                return;
            }
            let next = self.began + Duration::from_millis(next_ms.min(end_ms));
            tokio::select! {
                biased;
                Some(news) = self.inbox.recv() => self.hear(news).await,
                () = tokio::time::sleep_until(next) => {
                    let now_ms = self.now_ms();
                    if let Some(entry) = self.agenda.first_entry().filter(|entry| entry.key().0 <= now_ms) {
                        let due = entry.remove();
                        self.happen(due).await;
                    }
                }
            }
        }
    }

    async fn happen(&mut self, due: Due) {
        match due {
            Due::AtEngine(connection, message) => self.arrive_at_engine(connection, message).await,
            Due::AtHost(connection, message) => self.arrive_at_host(connection, message),
            Due::EngineNotices(connection) => self.engine_loses(connection),
            Due::HostNotices(connection) => self.host_loses(connection),
            Due::Connect(host) => self.connect(host),
            Due::Host(host, timer) => self.host_timer(host, timer),
            Due::Thaw(host) => self.thaw(host),
            Due::Fault => self.fault(),
            Due::Client => self.client_acts(),
            Due::Boot => self.boot(),
            Due::Endpoint(request) => self.endpoint_acts(request),
            Due::Answer(epoch, answer) => {
                if epoch == self.epoch {
                    self.answered(answer);
                }
            }
        }
    }

    async fn hear(&mut self, news: News) {
        match news {
            News::Booted(engine) => self.booted(*engine).await,
            News::FromEngine(connection, message) => self.engine_sends(connection, message),
            News::Order(epoch, order) if epoch == self.epoch => self.ordered(order),
            News::StartCommand(epoch, host, request, command) if epoch == self.epoch => {
                self.start_request_arrived(host, request, command);
            }
            // Who of those that watch an actor hears of a change first is drawn by the runtime, and not from the seed: so those
            // that are answered together hear it in the order of their calls.
            News::Answer(epoch, ticket, answer) => {
                self.agenda.insert((self.now_ms() + 1, ticket), Due::Answer(epoch, answer));
            }
            News::WorstMoment => {
                if self.mood == Mood::Wild {
                    self.crash();
                }
            }
            // The process that said so has died before anybody could hear it.
            News::Order(..) | News::StartCommand(..) => {}
        }
    }

    // ---- The engine's process

    /// Starts an engine process on what is durable.
    pub(super) fn boot(&mut self) {
        self.note(format_args!("engine process {} starts", self.epoch));
        let chance = EngineChance { seed: self.chance.number(), began: self.began, time_of_day: self.time_of_day.clone() };
        let (config, disk, news) = (self.config.clone(), self.disk.clone(), self.news.clone());
        let ledger = self.ledger.clone();
        tokio::spawn(async move {
            match SimulatedEngine::boot(&config, &disk, chance).await {
                Ok(engine) => drop(news.send(News::Booted(Box::new(engine)))),
                Err(error) => ledger.lock().violated(format!("the engine does not start: {error}")),
            }
        });
    }

    async fn booted(&mut self, mut engine: SimulatedEngine) {
        self.note(format_args!("engine process {} is up", self.epoch));
        for pool in POOLS {
            if self.epoch == 1 && engine.put_pool(pool, pool_config(pool)).await.is_none() {
                self.books().violated(format!("pool {pool} cannot be made"));
            }
        }
        if let Some(mut orders) = engine.take_orders() {
            let (news, epoch) = (self.news.clone(), self.epoch);
            tokio::spawn(async move {
                while let Some(order) = orders.recv().await {
                    if news.send(News::Order(epoch, order)).is_err() {
                        return;
                    }
                }
            });
        }
        self.engine = Some(engine);
    }

    /// Ends the engine's process at once. Everything in it is lost, and all its connections end.
    pub(super) fn crash(&mut self) {
        let Some(engine) = self.engine.take() else { return };
        self.note(format_args!("engine process {} dies", self.epoch));
        engine.kill();
        self.epoch += 1;
        self.endpoint.engine_died();
        self.clients.engine_died();
        for connection in 0..self.connections.len() {
            if self.connections[connection].frames.take().is_some() {
                self.connections[connection].is_cut = true;
                let notices_ms = self.chance.between(0, 300);
                self.plan(notices_ms, Due::HostNotices(connection));
            }
        }
        let names: Vec<String> = self.processes.iter().map(|process| process.host.name.clone()).collect();
        for name in names {
            self.books().out_of_touch(&name);
        }
        let down_ms = self.chance.between(1, 3_000);
        self.plan(down_ms, Due::Boot);
    }
}
