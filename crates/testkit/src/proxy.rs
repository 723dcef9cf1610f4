//! A TCP proxy that misbehaves on command, for tests of what happens when the network does.
//!
//! It knows nothing of what it carries. Faults are set for each direction, for one connection, for those that are open or
//! for those to come, at any time; see [`Fault`]. What it holds is bounded: a direction that cannot go on is not read.

mod connection;
mod disturbance;
mod fault;
mod lane;
mod overtaking;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use tokio::task::{JoinHandle, JoinSet};

use connection::{Control, Controls, Crossing};

pub use connection::Ending;
pub use disturbance::{Disturbances, Step};
pub use fault::{Direction, Fault, Scope, UnknownFault};

/// Connections that are carried at once; more wait to be accepted.
const CONNECTIONS_MAX: usize = 1024;
/// Events that a slow listener may be behind; it misses older ones.
const EVENTS_MAX: usize = 4096;
/// After a failed accept the listener rests this long.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);
/// How long the server may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What happens in the proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A client has connected.
    Opened {
        /// Counts connections, from 1.
        connection: u64,
    },
    /// A connection has ended.
    Ended {
        /// Which one.
        connection: u64,
        /// How.
        ending: Ending,
        /// Bytes that have reached the server.
        up_bytes: u64,
        /// Bytes that have reached the client.
        down_bytes: u64,
    },
}

/// An open connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OpenConnection {
    /// Counts connections, from 1.
    pub connection: u64,
    /// Bytes that have reached the server.
    pub up_bytes: u64,
    /// Bytes that have reached the client.
    pub down_bytes: u64,
}

/// A running proxy. Dropping it closes everything at once.
#[derive(Debug)]
pub struct FaultyProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    listener: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    upstream: SocketAddr,
    state: Mutex<State>,
    crossing: Crossing,
    events: broadcast::Sender<Event>,
}

#[derive(Debug)]
struct State {
    last: u64,
    open: BTreeMap<u64, Arc<Controls>>,
    /// Faults of connections to come.
    future: Faults,
    /// Faults of the next ones, each for one connection.
    next: VecDeque<Faults>,
}

#[derive(Debug, Clone, Copy)]
struct Faults {
    up: Fault,
    down: Fault,
}

impl Faults {
    fn set(&mut self, direction: Direction, fault: Fault) {
        match direction {
            Direction::Up => self.up = fault,
            Direction::Down => self.down = fault,
        }
    }
}

impl FaultyProxy {
    /// Listens on a free port of 127.0.0.1 and carries connections to `upstream`, faultlessly at first.
    ///
    /// # Errors
    /// No port can be bound.
    pub async fn start(upstream: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let healthy = Faults { up: Fault::Pass, down: Fault::Pass };
        let state = State { last: 0, open: BTreeMap::new(), future: healthy, next: VecDeque::new() };
        let shared = Arc::new(Shared {
            upstream,
            state: Mutex::new(state),
            crossing: Crossing::default(),
            events: broadcast::Sender::new(EVENTS_MAX),
        });
        let listener = tokio::spawn(accept(shared.clone(), listener));
        Ok(Self { address, shared, listener })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets a fault begin, in place of the last one of that direction. Returns how many open connections it has met. Each
    /// call for [`Scope::Next`] is for a connection of its own.
    pub fn set(&self, scope: Scope, direction: Direction, fault: Fault) -> usize {
        self.shared.plan(scope, fault, &[direction])
    }

    /// As [`Self::set`], for both directions.
    pub fn set_both(&self, scope: Scope, fault: Fault) -> usize {
        self.shared.plan(scope, fault, &[Direction::Up, Direction::Down])
    }

    /// Connections that are open, oldest first.
    pub fn open(&self) -> Vec<OpenConnection> {
        self.shared.open()
    }

    /// The fault of a connection that is open.
    pub fn fault(&self, connection: u64, direction: Direction) -> Option<Fault> {
        let state = self.shared.state.lock();
        state.open.get(&connection).map(|controls| *controls.of(direction).fault.borrow())
    }

    /// How often bytes were overtaken by those of another connection.
    pub fn overtaken(&self) -> u64 {
        self.shared.crossing.up.count() + self.shared.crossing.down.count()
    }

    /// What happens from now on.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.shared.events.subscribe()
    }

    /// Disturbs random open connections for so long, then lets everything pass again; `seen` hears of each step. The
    /// sequence of faults depends on the seed alone; which bytes they meet does not.
    pub async fn disturb(&self, seed: u64, duration: Duration, seen: impl FnMut(&Step)) {
        disturbance::run(self, Disturbances::new(seed), duration, seen).await;
    }

    /// Closes the port and all connections, and waits until they are closed.
    pub async fn shutdown(mut self) {
        self.listener.abort();
        // Ends with the error that says so.
        let _ = (&mut self.listener).await;
    }
}

impl Drop for FaultyProxy {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

impl Shared {
    fn plan(&self, scope: Scope, fault: Fault, directions: &[Direction]) -> usize {
        let mut state = self.state.lock();
        if scope == Scope::Next {
            let mut next = state.future;
            directions.iter().for_each(|direction| next.set(*direction, fault));
            state.next.push_back(next);
            return 0;
        }
        if matches!(scope, Scope::Future | Scope::All) {
            directions.iter().for_each(|direction| state.future.set(*direction, fault));
        }
        let met = state.open.iter().filter(|(id, _)| scope.meets(**id));
        met.map(|(_, controls)| {
            for direction in directions {
                controls.of(*direction).fault.send_replace(fault);
            }
        })
        .count()
    }

    fn open(&self) -> Vec<OpenConnection> {
        let state = self.state.lock();
        let shown = |(id, controls): (&u64, &Arc<Controls>)| OpenConnection {
            connection: *id,
            up_bytes: controls.up.passed_bytes(),
            down_bytes: controls.down.passed_bytes(),
        };
        state.open.iter().map(shown).collect()
    }

    fn admit(&self) -> (u64, Arc<Controls>) {
        let mut state = self.state.lock();
        state.last += 1;
        let id = state.last;
        let faults = state.next.pop_front().unwrap_or(state.future);
        let controls = Arc::new(Controls { up: Control::new(faults.up), down: Control::new(faults.down) });
        state.open.insert(id, controls.clone());
        self.tell(Event::Opened { connection: id });
        (id, controls)
    }

    fn tell(&self, event: Event) {
        // Nobody has to listen.
        let _ = self.events.send(event);
    }

    async fn carry(&self, client: TcpStream) {
        let (id, controls) = self.admit();
        let ending = match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(self.upstream)).await {
            Ok(Ok(server)) => {
                // A failure costs latency only.
                let _ = (client.set_nodelay(true), server.set_nodelay(true));
                connection::run(client, server, &controls, &self.crossing).await
            }
            Ok(Err(_)) | Err(_) => {
                connection::reset([&client]);
                Ending::Unreachable
            }
        };
        self.state.lock().open.remove(&id);
        let (up_bytes, down_bytes) = (controls.up.passed_bytes(), controls.down.passed_bytes());
        self.tell(Event::Ended { connection: id, ending, up_bytes, down_bytes });
    }
}

impl Scope {
    fn meets(self, open: u64) -> bool {
        match self {
            Self::Open | Self::All => true,
            Self::Next | Self::Future => false,
            Self::One(id) => id == open,
        }
    }
}

/// Accepts connections until it is aborted, which ends them too.
async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((client, _)) => {
                    let shared = shared.clone();
                    connections.spawn(async move { shared.carry(client).await });
                }
                // Out of files, most likely.
                Err(_) => tokio::time::sleep(ACCEPT_BACKOFF).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}
