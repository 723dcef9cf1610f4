//! A gateway without an engine around it.

mod client;
mod directory;
mod host;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use gateway::{ActorView, Gateway, GatewayConfig, Readiness, Tunnels};
use protocol::envoy::GatewayId;
use protocol::id::{ActorId, Id};
use protocol::limits;

pub(crate) use client::{Answer, Connection, Socket, get, request};
pub(crate) use directory::ScriptedDirectory;
pub(crate) use host::{Host, Request, headers};

/// The ray id of every request that brings none.
pub(crate) const RAY: &str = "test-ray";
/// Where clients come from unless a test says otherwise.
pub(crate) const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7));

/// A gateway with its directory.
pub(crate) struct Scene {
    pub(crate) gateway: Gateway<ScriptedDirectory>,
    pub(crate) directory: Arc<ScriptedDirectory>,
    pub(crate) tunnels: Tunnels,
    next_session: AtomicU64,
}

impl Scene {
    /// With the defaults of the product.
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    /// With other limits.
    pub(crate) fn with(change: impl FnOnce(&mut GatewayConfig)) -> Self {
        let mut config = default_config();
        change(&mut config);
        let directory = Arc::new(ScriptedDirectory::default());
        let tunnels = Tunnels::new(GatewayId(*b"gate"));
        let gateway = Gateway::new(directory.clone(), tunnels.clone(), config);
        Self { gateway, directory, tunnels, next_session: AtomicU64::new(1) }
    }

    /// An actor that sleeps.
    pub(crate) fn actor(&self, number: u8) -> ActorId {
        let actor = actor_id(number);
        self.directory.show(actor, ActorView { readiness: Readiness::NotReady, ended_generations: 0 });
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

    /// The actor runs on a host.
    pub(crate) fn run(&self, actor: ActorId, generation: u32, host: &Host) {
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
        self.directory.change(actor, |view| {
            view.readiness = Readiness::NotReady;
            view.ended_generations += 1;
        });
        self.tunnels.generation_ended(actor);
    }

    /// The actor is gone for good.
    pub(crate) fn destroy(&self, actor: ActorId) {
        self.directory.change(actor, |view| {
            view.readiness = Readiness::Destroyed;
            view.ended_generations += 1;
        });
        self.tunnels.generation_ended(actor);
    }

    /// A client's connection.
    pub(crate) async fn connect(&self) -> Connection {
        self.connect_from(PEER).await
    }

    /// A client's connection from an address.
    pub(crate) async fn connect_from(&self, peer: IpAddr) -> Connection {
        Connection::open(self.gateway.clone(), peer).await
    }

    /// A client's WebSocket, not yet accepted by any actor.
    pub(crate) async fn websocket(&self, target: &str) -> Socket {
        Socket::open(self.gateway.clone(), PEER, target, &[]).await
    }

    /// Lets everything run that can run now, and then checks that no request is left in the gateway's tables.
    pub(crate) async fn expect_no_leak(&self) {
        settle().await;
        assert_eq!(self.tunnels.open_count(), 0, "open tunnels are left behind");
    }
}

/// The id of an actor in these tests.
pub(crate) fn actor_id(number: u8) -> ActorId {
    Id::from_parts([number; 16], 1).to_string().parse().expect("ids print as they parse")
}

/// Lets all tasks run until each waits for something; takes a millisecond of virtual time.
pub(crate) async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

fn default_config() -> GatewayConfig {
    GatewayConfig {
        actor_ready_timeout: Duration::from_secs(30),
        resolve_timeout: Duration::from_secs(15),
        response_start_timeout: Duration::from_secs(300),
        response_chunk_idle_timeout: Some(Duration::from_secs(30)),
        request_body_max_bytes: limits::HTTP_REQUEST_BODY_MAX_BYTES,
        response_payload_max_bytes: limits::ENVOY_RESPONSE_PAYLOAD_MAX_BYTES,
        websocket_open_timeout: Duration::from_secs(15),
        websocket_message_max_bytes: limits::WEBSOCKET_MESSAGE_MAX_BYTES,
        websocket_ack_timeout: Duration::from_secs(30),
        websocket_send_timeout: Duration::from_secs(5),
        hibernation_wake_timeout: Duration::from_secs(90),
        hibernation_pending_max_bytes: limits::HIBERNATION_PENDING_MAX_BYTES,
    }
}
