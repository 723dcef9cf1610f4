//! Putting the parts together.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gateway::Gateway;
use protocol::envoy::GatewayId;
use protocol::limits;
use store::{LmdbOptions, Store, StoreError};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::clock::Clock;
use crate::config::{Bus, Config, Database, Durability, Topology};
use crate::control_plane::{self, ControlPlane, Surroundings};
use crate::error::StartError;
use crate::gateway_settings::gateway_config;
use crate::metrics::{self, ListenerMetrics, MetricsContext};
use crate::random::Randomness;
use crate::scheduler::Scheduler;
use crate::server::{self, Routes};
use crate::serverless::{poller, runner};

/// A running engine. Dropping it stops everything at once; [`Engine::shutdown`] lets open requests finish.
pub struct Engine {
    address: SocketAddr,
    metrics_address: SocketAddr,
    store: Store,
    /// Set first: nothing new is accepted.
    closing: watch::Sender<bool>,
    /// Set when open requests are done: hosts are told to go.
    stopping: watch::Sender<bool>,
    public: JoinHandle<()>,
    gateway: Gateway<Scheduler>,
    /// Set then, too: the actors of serverless pools move to the next process.
    draining: watch::Sender<bool>,
    requests: JoinHandle<()>,
    hosts_gone: mpsc::Receiver<()>,
    background: JoinSet<()>,
    grace: Duration,
}

impl Engine {
    /// Opens the data, binds the listeners and begins to serve.
    ///
    /// # Errors
    /// The data folder cannot be used, a port is taken, or the configuration asks for something that does not exist yet.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        refuse_what_does_not_exist(&config)?;
        // Bound before the data is opened, so that a second engine on the same port stops early.
        let public = server::bind("public", (config.guard.host, config.guard.port).into()).await?;
        let peer = server::bind("api-peer", (config.api_peer.host, config.api_peer.port).into()).await?;
        let scrape = server::bind("metrics", (config.metrics.host, config.metrics.port).into()).await?;
        let address = local_address(&public, "public")?;
        let metrics_address = local_address(&scrape, "metrics")?;
        let store = open_store(&config)?;
        let (closing, closed) = watch::channel(false);
        let (stopping, shutdown) = watch::channel(false);
        let (alive, hosts_gone) = mpsc::channel(1);

        let topology = effective_topology(&config, address, local_address(&peer, "api-peer")?);
        let plane = control_plane::assemble(
            &config,
            Surroundings {
                store: store.clone(),
                clock: Clock::system(),
                randomness: Randomness::system(),
                gateway_id: GatewayId(rand::random()),
                topology,
                shutdown,
                alive,
            },
        )
        .await?;
        let ControlPlane { scheduler, sql, hosts, tunnels, api, envoys, datacenter_label, randomness, orders, endpoints } = plane;
        let gateway = Gateway::new(Arc::new(scheduler.clone()), tunnels.clone(), gateway_config(&config));
        let listener = Arc::<ListenerMetrics>::default();
        let storage = envoys.storage_metrics.clone();
        let routes = Arc::new(Routes {
            gateway: gateway.clone(),
            envoys,
            api: api.clone(),
            datacenter_label,
            randomness,
            tcp_nodelay: config.guard.tcp_nodelay,
            request_body_max_bytes: config.guard.http_max_request_body_size,
            metrics: listener.clone(),
        });
        let sources = MetricsContext {
            hosts,
            scheduler: scheduler.clone(),
            sql: sql.clone(),
            gateway: gateway.clone(),
            tunnels,
            listener,
            store: store.clone(),
            storage,
        };
        let metrics = metrics::router(sources, config.metrics.token.clone());

        let mut background = JoinSet::new();
        background.spawn(scheduler.clone().prune_history());
        background.spawn(scheduler.run_timers());
        background.spawn(sql.close_idle());
        background.spawn(poller::run(endpoints.clone()));
        background.spawn(serve_axum(peer, api));
        background.spawn(serve_axum(scrape, metrics));
        let (draining, drain) = watch::channel(false);
        let requests = tokio::spawn(runner::run(endpoints, orders, drain));
        let public = tokio::spawn(server::serve(routes, public, closed));
        let grace = config.runtime.guard_shutdown_duration.duration();
        Ok(Self {
            address,
            metrics_address,
            store,
            closing,
            stopping,
            public,
            gateway,
            draining,
            requests,
            hosts_gone,
            background,
            grace,
        })
    }

    /// Where the public port is bound.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the metrics port is bound.
    pub fn metrics_address(&self) -> SocketAddr {
        self.metrics_address
    }

    /// Waits until the engine cannot go on, because its store has failed for good, and says why. Then nothing is acknowledged any
    /// more, and [`Engine::abandon`] is what is left to do: another process finds on disk all that ever was.
    pub async fn failed(&self) -> StoreError {
        self.store.failed().await
    }

    /// As [`Engine::shutdown`], but open requests, which cannot succeed any more, only have the time to hear so.
    pub async fn abandon(mut self) {
        self.grace = limits::SHUTDOWN_HOSTS_FAREWELL;
        self.shutdown().await;
    }

    /// Stops: nothing new is accepted, WebSockets of clients are closed at once, open HTTP requests finish within
    /// `runtime.guard_shutdown_duration`, the actors of serverless pools stop so that the next process can start them, and then
    /// hosts are told to reconnect elsewhere. What was accepted is on disk when this
    /// returns.
    pub async fn shutdown(mut self) {
        let _ = self.closing.send(true);
        let deadline = tokio::time::Instant::now() + self.grace;
        let clients = async { tokio::join!(self.gateway.close_websockets(), &mut self.public) };
        if tokio::time::timeout_at(deadline, clients).await.is_err() {
            tracing::warn!("open requests did not finish in time and are dropped");
            self.public.abort();
        }
        let _ = self.draining.send(true);
        let drained_by = deadline.max(tokio::time::Instant::now() + limits::SHUTDOWN_ENDPOINTS_FAREWELL);
        if tokio::time::timeout_at(drained_by, &mut self.requests).await.is_err() {
            tracing::warn!("actors of serverless pools did not stop in time; their start requests are dropped");
            self.requests.abort();
        }
        let _ = self.stopping.send(true);
        // Ends when the last connection has written its close frame and dropped its sender.
        let told_by = deadline.max(tokio::time::Instant::now() + limits::SHUTDOWN_HOSTS_FAREWELL);
        let _ = tokio::time::timeout_at(told_by, self.hosts_gone.recv()).await;
        self.background.shutdown().await;
        self.store.close().await;
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.public.abort();
        self.requests.abort();
        // Nobody waits for them here.
        drop(self.gateway.close_websockets());
    }
}

/// Waits until the engine stops.
pub(crate) async fn stopping(shutdown: &mut watch::Receiver<bool>) {
    // An error means that the engine is gone altogether.
    let _ = shutdown.wait_for(|stopping| *stopping).await;
}

async fn serve_axum(listener: TcpListener, router: axum::Router) {
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    // Runs until its task is stopped; accept errors are handled inside.
    if let Err(error) = axum::serve(listener, service).await {
        tracing::error!(%error, "a listener has ended");
    }
}

fn local_address(listener: &TcpListener, name: &'static str) -> Result<SocketAddr, StartError> {
    listener.local_addr().map_err(|source| StartError::Bind {
        listener: name,
        address: SocketAddr::from(([0, 0, 0, 0], 0)),
        source,
    })
}

fn open_store(config: &Config) -> Result<Store, StartError> {
    let path = match config.database() {
        Database::Embedded(path) => path.to_owned(),
        Database::Postgres(_) => return Err(not_implemented("postgres", "storage in PostgreSQL")),
    };
    let durability = match config.storage.durability {
        Durability::Fsync => store::Durability::Fsync,
        Durability::Os => store::Durability::Os,
    };
    Ok(Store::open_lmdb(LmdbOptions { durability, ..LmdbOptions::new(path) })?)
}

fn refuse_what_does_not_exist(config: &Config) -> Result<(), StartError> {
    match config.bus() {
        Bus::InProcess => {}
        Bus::Nats(_) => return Err(not_implemented("nats", "running several nodes")),
    }
    if config.guard.https.is_some() {
        return Err(not_implemented("guard.https", "TLS"));
    }
    if config.topology.datacenters.len() > 1 {
        return Err(not_implemented("topology.datacenters", "more than one datacenter"));
    }
    Ok(())
}

fn not_implemented(key: &'static str, what: &'static str) -> StartError {
    StartError::NotImplemented { key, what }
}

/// The topology, with the ports that were really bound where it follows from them.
fn effective_topology(config: &Config, public: SocketAddr, peer: SocketAddr) -> Topology {
    let configured =
        Topology::single((config.guard.host, config.guard.port).into(), (config.api_peer.host, config.api_peer.port).into());
    if config.topology == configured { Topology::single(public, peer) } else { config.topology.clone() }
}
