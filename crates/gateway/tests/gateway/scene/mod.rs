//! A gateway without an engine around it.

mod client;
mod directory;
mod host;
mod journal;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use gateway::{
    ActorView, AdmissionConfig, ClientLimits, Gateway, GatewayConfig, GatewayError, GenerationEnd, RateLimit, Readiness, Tunnels,
    VainWait, WaitingLimits,
};
use http_body_util::Full;
use protocol::envoy::GatewayId;
use protocol::id::{ActorId, Id};
use protocol::limits;
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub(crate) use client::{Answer, Connection, Socket, get, request};
pub(crate) use directory::ScriptedDirectory;
pub(crate) use host::{Host, Request, headers};
pub(crate) use journal::ScriptedJournal;

/// The gateway of these tests.
pub(crate) const GATEWAY: GatewayId = GatewayId(*b"gate");
/// The ray id of every request that brings none.
pub(crate) const RAY: &str = "test-ray";
/// Where clients come from unless a test says otherwise.
pub(crate) const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7));

/// A gateway with its directory.
pub(crate) struct Scene {
    pub(crate) gateway: Gateway<ScriptedDirectory>,
    pub(crate) directory: Arc<ScriptedDirectory>,
    pub(crate) tunnels: Tunnels,
    pub(crate) journal: Arc<ScriptedJournal>,
    next_session: AtomicU64,
}

impl Scene {
    /// With the defaults of the product.
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    /// With other limits.
    pub(crate) fn with(change: impl FnOnce(&mut GatewayConfig)) -> Self {
        let waiting = WaitingLimits {
            for_actors_max_bytes: limits::WAITING_FOR_ACTORS_MAX_BYTES,
            for_clients_max_bytes: limits::WAITING_FOR_CLIENTS_MAX_BYTES,
        };
        Self::with_waiting(waiting, change)
    }

    /// With other limits, also of what may wait over all requests.
    pub(crate) fn with_waiting(waiting: WaitingLimits, change: impl FnOnce(&mut GatewayConfig)) -> Self {
        let mut config = default_config();
        change(&mut config);
        let directory = Arc::new(ScriptedDirectory::default());
        let journal = Arc::new(ScriptedJournal::default());
        let tunnels = Tunnels::new(GATEWAY, journal.clone(), waiting);
        let gateway = Gateway::new(directory.clone(), tunnels.clone(), config);
        Self { gateway, directory, tunnels, journal, next_session: AtomicU64::new(1) }
    }

    /// An actor that sleeps.
    pub(crate) fn actor(&self, number: u8) -> ActorId {
        let actor = actor_id(number);
        self.directory.show(actor, ActorView { readiness: Readiness::NotReady, ended_generations: 0, last_end: None });
        actor
    }

    /// A host's connection with the newest protocol; each call is a new host.
    pub(crate) fn host(&self) -> Host {
        let number = self.next_session.fetch_add(1, Ordering::Relaxed);
        Host::connect(self.tunnels.clone(), number, number, 8)
    }

    /// A host that speaks an older protocol version.
    pub(crate) fn host_of_version(&self, version: u16) -> Host {
        let number = self.next_session.fetch_add(1, Ordering::Relaxed);
        Host::connect(self.tunnels.clone(), number, number, version)
    }

    /// The same host once more, on a new connection.
    pub(crate) fn reconnect(&self, host: &Host) -> Host {
        let session = self.next_session.fetch_add(1, Ordering::Relaxed);
        Host::connect(self.tunnels.clone(), host.link.host().0, session, host.link.protocol_version())
    }

    /// The actor has been given to a host, where it starts.
    pub(crate) fn place(&self, actor: ActorId, generation: u32, host: &Host) {
        self.tunnels.generation_placed(actor, generation, host.link.host());
        let link = Some(host.link.clone());
        self.directory.change(actor, |view| view.readiness = Readiness::Hosted { generation, link });
    }

    /// The actor runs on a host.
    pub(crate) fn run(&self, actor: ActorId, generation: u32, host: &Host) {
        self.tunnels.generation_placed(actor, generation, host.link.host());
        let link = Some(host.link.clone());
        self.directory.change(actor, |view| view.readiness = Readiness::Ready { generation, link });
    }

    /// The actor's host is out of touch: its connection has ended, the actor still counts as running.
    pub(crate) fn lose_link(&self, actor: ActorId, generation: u32, host: &Host) {
        self.directory.change(actor, |view| view.readiness = Readiness::Ready { generation, link: None });
        self.tunnels.link_lost(&host.link);
    }

    /// The actor's generation has ended: it sleeps, crashed, or moves.
    pub(crate) fn stop(&self, actor: ActorId) {
        self.fail(actor, GenerationEnd::Stopped);
    }

    /// The actor's generation has ended in this way.
    pub(crate) fn fail(&self, actor: ActorId, end: GenerationEnd) {
        self.end(actor, Readiness::NotReady, end);
    }

    /// The actor is gone for good.
    pub(crate) fn destroy(&self, actor: ActorId) {
        self.end(actor, Readiness::Destroyed, GenerationEnd::Stopped);
    }

    fn end(&self, actor: ActorId, readiness: Readiness, end: GenerationEnd) {
        let mut ended = None;
        self.directory.change(actor, |view| {
            ended = match view.readiness {
                Readiness::Ready { generation, .. } | Readiness::Hosted { generation, .. } => Some(generation),
                Readiness::NotReady | Readiness::Destroyed => None,
            };
            view.readiness = readiness;
            view.ended_generations += 1;
            view.last_end = Some(Arc::new(end));
        });
        if let Some(generation) = ended {
            self.tunnels.generation_ended(actor, generation);
        }
    }

    /// A client's connection.
    pub(crate) async fn connect(&self) -> Connection {
        self.connect_from(PEER).await
    }

    /// A client's connection from an address.
    pub(crate) async fn connect_from(&self, peer: IpAddr) -> Connection {
        Connection::open(self.gateway.clone(), peer).await
    }

    /// A client's connection, byte by byte.
    pub(crate) fn connect_raw(&self) -> tokio::io::DuplexStream {
        client::raw(self.gateway.clone(), PEER)
    }

    /// A client's WebSocket, not yet accepted by any actor.
    pub(crate) async fn websocket(&self, target: &str) -> Socket {
        self.websocket_with(target, &[]).await
    }

    /// The same with headers.
    pub(crate) async fn websocket_with(&self, target: &str, headers: &[(&str, &str)]) -> Socket {
        Socket::open(self.gateway.clone(), PEER, target, headers).await
    }

    /// Lets everything run that can run now, and then checks that no request is left in the gateway's tables.
    pub(crate) async fn expect_no_leak(&self) {
        settle().await;
        assert_eq!(self.tunnels.open_count(), 0, "open tunnels are left behind");
        let metrics = self.gateway.metrics();
        let sockets: u64 = metrics.websockets_open.iter().map(|(_state, open)| open.get()).sum();
        let open = (metrics.http_requests_open.get(), sockets, metrics.tasks.get(), self.gateway.admission_counts().in_flight);
        assert_eq!(open, (0, 0, 0, 0), "requests, sockets, tasks or slots are left behind");
        let waiting = (self.tunnels.waiting_for_actors_bytes(), self.tunnels.waiting_for_clients_bytes());
        assert_eq!(waiting, (0, 0), "bytes are left behind");
        assert_eq!(self.journal.open(), [], "the journal has sockets that are over");
    }
}

/// The id of an actor in these tests.
pub(crate) fn actor_id(number: u8) -> ActorId {
    Id::from_parts([number; 16], 1).to_string().parse().expect("ids print as they parse")
}

/// Virtual time passes in steps of a millisecond when tasks sleep.
#[track_caller]
pub(crate) fn assert_took(began: Instant, expected: Duration) {
    let took = began.elapsed();
    assert!((expected..expected + Duration::from_millis(50)).contains(&took), "{took:?} instead of {expected:?}");
}

/// Sends a request on a connection of its own, in the background.
pub(crate) async fn ask(scene: &Scene, request: http::Request<Full<Bytes>>) -> JoinHandle<Answer> {
    let mut client: Connection = scene.connect().await;
    tokio::spawn(async move { client.send(request).await })
}

/// What a wait for an actor ends with that has been too long.
pub(crate) fn ready_timeout(actor: ActorId) -> GatewayError {
    let wait = VainWait { actor, waited: limits::ACTOR_READY_TIMEOUT, obstacle: None, last_end: None };
    GatewayError::ActorReadyTimeout(Box::new(wait))
}

/// Lets all tasks run until each waits for something; takes a millisecond of virtual time.
pub(crate) async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

fn default_config() -> GatewayConfig {
    GatewayConfig {
        actor_ready_timeout: limits::ACTOR_READY_TIMEOUT,
        resolve_timeout: limits::RESOLVE_TIMEOUT,
        response_start_timeout: limits::RESPONSE_START_TIMEOUT,
        response_chunk_idle_timeout: Some(limits::RESPONSE_CHUNK_IDLE_TIMEOUT),
        request_body_max_bytes: limits::HTTP_REQUEST_BODY_MAX_BYTES,
        response_payload_max_bytes: limits::ENVOY_RESPONSE_PAYLOAD_MAX_BYTES,
        websocket_open_timeout: limits::WEBSOCKET_OPEN_TIMEOUT,
        websocket_message_max_bytes: limits::WEBSOCKET_MESSAGE_MAX_BYTES,
        websocket_ack_timeout: limits::WEBSOCKET_ACK_TIMEOUT,
        websocket_send_timeout: limits::WEBSOCKET_SEND_TIMEOUT,
        websocket_ping_timeout: limits::WEBSOCKET_PING_TIMEOUT,
        websocket_message_rate: None,
        hibernation_wake_timeout: limits::HIBERNATION_WAKE_TIMEOUT,
        hibernation_pending_max_bytes: limits::HIBERNATION_PENDING_MAX_BYTES,
        admission: default_admission(),
        websocket_health_route: false,
        admin_token: None,
    }
}

fn default_admission() -> AdmissionConfig {
    let rate = RateLimit { requests: limits::ACTOR_RATE_LIMIT_REQUESTS, period: limits::ACTOR_RATE_LIMIT_PERIOD };
    AdmissionConfig {
        per_client: ClientLimits::default(),
        per_actor: ClientLimits { rate: Some(rate), max_in_flight: Some(limits::ACTOR_IN_FLIGHT_MAX) },
        exempt_loopback: true,
        trusted_proxies: ["127.0.0.0/8", "10.0.0.0/8"].map(|network| network.parse().expect("a network")).to_vec(),
        remembered_max: limits::ADMISSION_REMEMBERED_MAX as usize,
        remembered_for: limits::ADMISSION_REMEMBERED_FOR,
    }
}
