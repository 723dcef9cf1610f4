//! Putting the parts together.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actor_data::ActorData;
use gateway::{Gateway, Tunnels};
use lifecycle::actor::Rules;
use lifecycle::envoy::EnvoyRules;
use lifecycle::pool::BreakerRules;
use protocol::envoy::{GatewayId, ProtocolMetadata};
use protocol::limits;
use store::{LmdbOptions, Store};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::api::{self, ApiContext};
use crate::catalog::Catalog;
use crate::catalog::pool_config::PoolRules;
use crate::clock::Clock;
use crate::config::{Bus, Config, Database, Durability, Millis, Topology};
use crate::envoy::{Access, EnvoyContext};
use crate::error::StartError;
use crate::gateway_settings::{gateway_config, waiting_limits};
use crate::hosts::Hosts;
use crate::metrics::{self, ListenerMetrics, MetricsContext};
use crate::pools::{self, Pools};
use crate::random::Randomness;
use crate::scheduler::{self, Scheduler, SchedulerConfig};
use crate::server::{self, Routes};
use crate::sockets::OpenSockets;

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
        let (datacenter_name, datacenter_label) =
            topology.own().map_or(("default".to_owned(), 1), |(name, own)| (name.to_owned(), own.datacenter_label));
        let data_options = actor_data::Options { max_storage_bytes: config.sqlite.max_storage_bytes };
        let (clock, randomness) = (Clock::system(), Randomness::system());
        let data_clock = clock.clone();
        let data = ActorData::new(store.clone(), data_options, Arc::new(move || data_clock.now()));
        let catalog = Catalog::load(store.clone(), datacenter_label, clock.clone(), randomness.clone()).await?;
        let hosts = Hosts::new(envoy_rules(&config), clock.clone(), randomness.clone());
        let pools = Pools::new(catalog.clone(), hosts.clone(), clock.clone(), breaker_rules(&config));
        let (orders, _outbound) = mpsc::unbounded_channel();
        let sockets = OpenSockets::new(store.clone(), clock.clone());
        let tunnels = Tunnels::new(GatewayId(rand::random()), Arc::new(sockets.clone()), waiting_limits(&config));
        let scheduler_config = SchedulerConfig {
            rules: actor_rules(&config),
            stop_threshold_ms: ms(config.pegboard.actor_stop_threshold),
            datacenter_label,
            datacenter_name,
            creation_burst: config.pegboard.actor_create_rate_limit_requests,
            creation_drip: config.pegboard.actor_create_rate_limit_drip_rate_ms.duration(),
        };
        let parts = scheduler::Parts {
            store: store.clone(),
            data: data.clone(),
            catalog: catalog.clone(),
            hosts: hosts.clone(),
            pools: pools.clone(),
            orders,
            tunnels: tunnels.clone(),
            sockets,
            clock: clock.clone(),
            randomness: randomness.clone(),
        };
        let scheduler = scheduler::load(scheduler_config, parts).await?;

        let access = Access::new(&topology, config.auth.admin_token.clone());
        let api = api::router(Arc::new(ApiContext {
            catalog: catalog.clone(),
            scheduler: scheduler.clone(),
            hosts: hosts.clone(),
            data: data.clone(),
            topology,
            admin_token: config.auth.admin_token.clone(),
            pool_rules: pool_rules(&config),
        }));
        let envoys = Arc::new(EnvoyContext {
            catalog,
            hosts: hosts.clone(),
            scheduler: scheduler.clone(),
            tunnels: tunnels.clone(),
            data,
            access,
            clock,
            randomness: randomness.clone(),
            ping_interval: config.pegboard.envoy_update_ping_interval.duration(),
            init: init_message(&config),
            shutdown,
            _alive: alive,
        });
        let gateway = Gateway::new(Arc::new(scheduler.clone()), tunnels.clone(), gateway_config(&config));
        let listener = Arc::<ListenerMetrics>::default();
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
        let sources = MetricsContext { hosts, scheduler: scheduler.clone(), gateway: gateway.clone(), tunnels, listener };
        let metrics = metrics::router(sources, config.metrics.token.clone());

        let mut background = JoinSet::new();
        background.spawn(scheduler.run_timers());
        background.spawn(serve_axum(peer, api));
        background.spawn(serve_axum(scrape, metrics));
        let public = tokio::spawn(server::serve(routes, public, closed));
        let grace = config.runtime.guard_shutdown_duration.duration();
        Ok(Self { address, metrics_address, store, closing, stopping, public, gateway, hosts_gone, background, grace })
    }

    /// Where the public port is bound.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the metrics port is bound.
    pub fn metrics_address(&self) -> SocketAddr {
        self.metrics_address
    }

    /// Stops: nothing new is accepted, WebSockets of clients are closed at once, open HTTP requests finish within
    /// `runtime.guard_shutdown_duration`, and then hosts are told to reconnect elsewhere. What was accepted is on disk when this
    /// returns.
    pub async fn shutdown(mut self) {
        let _ = self.closing.send(true);
        let deadline = tokio::time::Instant::now() + self.grace;
        let clients = async { tokio::join!(self.gateway.close_websockets(), &mut self.public) };
        if tokio::time::timeout_at(deadline, clients).await.is_err() {
            tracing::warn!("open requests did not finish in time and are dropped");
            self.public.abort();
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

fn ms(span: Millis) -> i64 {
    span.duration().as_millis() as i64
}

fn envoy_rules(config: &Config) -> EnvoyRules {
    EnvoyRules {
        ping_timeout_ms: ms(config.pegboard.envoy_ping_timeout),
        lost_threshold_ms: ms(config.pegboard.envoy_lost_threshold),
        eligible_threshold_ms: ms(config.pegboard.envoy_eligible_threshold),
    }
}

fn actor_rules(config: &Config) -> Rules {
    let pegboard = &config.pegboard;
    Rules {
        start_threshold_ms: ms(pegboard.actor_start_threshold),
        retry_base_ms: ms(pegboard.base_retry_timeout),
        retry_max_exponent: pegboard.reschedule_backoff_max_exponent,
        retry_reset_ms: ms(pegboard.retry_reset_duration),
        retry_give_up_ms: ms(pegboard.actor_retry_duration_threshold),
    }
}

fn breaker_rules(config: &Config) -> pools::PoolRules {
    let pegboard = &config.pegboard;
    pools::PoolRules {
        breaker: BreakerRules {
            base_ms: limits::SERVERLESS_RETRY_BASE.as_millis() as i64,
            max_ms: limits::SERVERLESS_RETRY_MAX.as_millis() as i64,
            probe_patience_ms: ms(pegboard.actor_start_threshold),
        },
        successes_to_clear_error: pegboard.runner_pool_consecutive_successes_to_clear_error,
    }
}

fn pool_rules(config: &Config) -> PoolRules {
    let seconds = config.pegboard.serverless_drain_grace_period.duration().as_secs();
    PoolRules { default_drain_grace_s: u32::try_from(seconds).unwrap_or(u32::MAX) }
}

fn init_message(config: &Config) -> ProtocolMetadata {
    ProtocolMetadata {
        envoy_lost_threshold: ms(config.pegboard.envoy_lost_threshold),
        actor_stop_threshold: ms(config.pegboard.actor_stop_threshold),
        max_response_payload_size: config.pegboard.envoy_max_response_payload_size,
    }
}
