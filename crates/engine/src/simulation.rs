//! The engine without sockets, on a disk, a clock and draws that somebody else makes up: for the simulator in `testkit`.
//!
//! Nothing here decides anything. The scheduler, its timers, the management API and the connections of hosts are the ones
//! that are shipped; only framing, HTTP to the endpoints of serverless pools and the gateway's tunnels are missing. It is a
//! feature of its own, and not merely hidden, so that a shipped binary cannot have a clock that lies.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use axum::body::Body;
use bytes::Bytes;
use gateway::Directory;
use http::{Request, header};
use http_body_util::BodyExt;
use lifecycle::Ts;
use lifecycle::actor::{ActorRecord, Identity, Input};
use lifecycle::pool::PoolError;
use parking_lot::Mutex;
use protocol::envoy::{ActorCheckpoint, Command, CommandWrapper, EventWrapper, GatewayId};
use protocol::id::ActorId;
use serde_json::Value;
use store::{KillSwitch, SimulatedDisk};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tower::ServiceExt;

use crate::catalog::PoolConfig;
use crate::catalog::pool_config::{PoolConfigRequest, PoolRules};
use crate::clock::Clock;
use crate::config::Config;
use crate::control_plane::{self, ControlPlane, Surroundings};
use crate::envoy::{self, EnvoyContext};
use crate::error::StartError;
use crate::random::Randomness;
use crate::records::{actor, actor_index};
use crate::scheduler::{OutboundOrder, Scheduler};

pub use crate::envoy::{FromEngine, HostEnd};

/// What chance decides for one engine process.
#[derive(Debug, Clone)]
pub struct Chance {
    /// Its draws follow from this.
    pub seed: u64,
    /// When the machine's clock began to run.
    pub began: Instant,
    /// The time of day that it showed then, in milliseconds since the Unix epoch. Changed later, it is a step of the clock.
    pub time_of_day: Arc<AtomicI64>,
}

/// One engine process.
pub struct SimulatedEngine {
    scheduler: Scheduler,
    envoys: Arc<EnvoyContext>,
    api: axum::Router,
    orders: Option<mpsc::UnboundedReceiver<OutboundOrder>>,
    stopping: watch::Sender<bool>,
    process: KillSwitch,
    tasks: Mutex<Vec<AbortHandle>>,
}

/// What is to be done about a request to the endpoint of a serverless pool.
#[derive(Debug, Clone)]
pub enum StartOrder {
    /// It is to be made.
    Start {
        /// For this actor.
        identity: Arc<Identity>,
        /// For this generation.
        generation: u32,
    },
    /// Nobody needs it any more.
    Over {
        /// The actor.
        actor: ActorId,
        /// The generation.
        generation: u32,
    },
}

/// A stored row, as far as the simulator looks into it.
#[derive(Debug, Clone)]
pub enum Row {
    /// An actor's record.
    Actor(Box<ActorRecord>),
    /// An actor holds a key (the row's own key, which names it), or does not any more.
    Holder(Option<ActorId>),
    /// An actor has written something.
    Kv(ActorId),
    /// Something else.
    Other,
}

impl SimulatedEngine {
    /// Starts on what is on the disk.
    ///
    /// # Errors
    /// As for [`crate::Engine::start`].
    pub async fn boot(config: &Config, disk: &SimulatedDisk, chance: Chance) -> Result<Self, StartError> {
        let (store, process) = disk.open();
        let (stopping, shutdown) = watch::channel(false);
        let (alive, _) = mpsc::channel(1);
        let around = Surroundings {
            store,
            clock: Clock::simulated(chance.began, chance.time_of_day),
            randomness: Randomness::seeded(chance.seed),
            gateway_id: GatewayId(*b"simu"),
            topology: config.topology.clone(),
            shutdown,
            alive,
        };
        let plane = control_plane::assemble(config, around).await?;
        let ControlPlane { scheduler, api, envoys, orders, .. } = plane;
        let timers = tokio::spawn(scheduler.clone().run_timers()).abort_handle();
        let tasks = Mutex::new(vec![timers]);
        Ok(Self { scheduler, envoys, api, orders: Some(orders), stopping, process, tasks })
    }

    /// Sets a pool's configuration, in the form of the management API; none if it is not valid or cannot be stored.
    pub async fn put_pool(&self, name: &str, config: Value) -> Option<()> {
        let namespace = self.envoys.catalog.namespace("default")?;
        let request: PoolConfigRequest = serde_json::from_value(config).ok()?;
        let rules = PoolRules { default_drain_grace_s: 1, max_drain_grace_ms: u64::MAX };
        let config = PoolConfig::from_request(request, rules).ok()?;
        self.envoys.catalog.put_pool(namespace.namespace_id, name, config).await.ok().map(drop)
    }

    /// Connects a host; `query` is that of `/envoys/connect`.
    ///
    /// # Errors
    /// The reason of the close frame.
    pub fn connect(&self, query: &str) -> Result<HostEnd, String> {
        let (end, task) = envoy::connect(self.envoys.clone(), query)?;
        self.tasks.lock().push(task);
        Ok(end)
    }

    /// Calls the management API, and gives its status and answer; status 0 if there is none.
    pub fn call(&self, method: &str, path: &str, body: &Value) -> impl Future<Output = (u16, Value)> + Send + 'static {
        let request = Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, "application/json");
        let request = request.body(Body::from(body.to_string()));
        let api = self.api.clone();
        async move {
            let Ok(request) = request else { return (0, Value::Null) };
            let Ok(response) = api.oneshot(request).await;
            let status = response.status().as_u16();
            let body = response.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            (status, serde_json::from_slice(&body).unwrap_or_default())
        }
    }

    /// What the gateway knows of actors, and how it wakes them.
    pub fn directory(&self) -> impl Directory + Clone {
        self.scheduler.clone()
    }

    /// The orders for serverless pools; none when they were taken before.
    pub fn take_orders(&mut self) -> Option<mpsc::UnboundedReceiver<StartOrder>> {
        let mut orders = self.orders.take()?;
        let (sender, receiver) = mpsc::unbounded_channel();
        let forward = tokio::spawn(async move {
            while let Some(order) = orders.recv().await {
                let order = match order {
                    OutboundOrder::Start { identity, generation } => StartOrder::Start { identity, generation },
                    OutboundOrder::Over { actor, generation } => StartOrder::Over { actor, generation },
                };
                if sender.send(order).is_err() {
                    return;
                }
            }
        });
        self.tasks.lock().push(forward.abort_handle());
        Some(receiver)
    }

    /// The command that a start request carries; none when the generation is over.
    pub fn start_command(
        &self,
        actor: ActorId,
        generation: u32,
    ) -> impl Future<Output = Option<CommandWrapper>> + Send + 'static {
        let context = self.envoys.clone();
        async move {
            let start = envoy::start_command(&context, actor, generation).await?;
            let checkpoint = ActorCheckpoint { actor_id: actor.to_string(), generation, index: 0 };
            Some(CommandWrapper { checkpoint, inner: Command::StartActor(start) })
        }
    }

    /// An endpoint has accepted a start request.
    pub fn outbound_accepted(&self, identity: &Identity) {
        self.scheduler.outbound_accepted(identity);
    }

    /// A start request that was ordered at `began`, by the machine's uptime in milliseconds, was refused, or has ended before its
    /// actor.
    pub fn outbound_failed(&self, identity: &Identity, generation: u32, began: Ts, error: PoolError) {
        self.scheduler.outbound_failed(identity, generation, began, error);
    }

    /// The time of a start request is nearly up: its actor moves.
    pub fn lifespan_ends(&self, actor: ActorId, generation: u32) {
        self.scheduler.post(actor, Input::Evict { generation });
    }

    /// How many actors have a place in a serverless pool of the namespace `default`.
    pub fn places(&self, pool: &str) -> usize {
        let namespace = self.envoys.catalog.namespace("default");
        namespace.map_or(0, |namespace| self.scheduler.places(namespace.namespace_id, pool))
    }

    /// What an engine would do that forgets to check generations: takes an event as if the present host had just reported it of
    /// the present generation. For proving that the simulator notices.
    pub async fn believe_blindly(&self, event: &EventWrapper) {
        if let Ok(actor) = event.checkpoint.actor_id.parse::<ActorId>() {
            envoy::believe_blindly(&self.scheduler, actor, event).await;
        }
    }

    /// Tells hosts to go, and waits for nothing: what follows is [`Self::kill`].
    pub fn announce_end(&self) {
        let _ = self.stopping.send(true);
    }

    /// Ends the process at once.
    pub fn kill(&self) {
        self.process.kill();
        for task in self.tasks.lock().drain(..) {
            task.abort();
        }
    }
}

impl fmt::Debug for SimulatedEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimulatedEngine")
    }
}

/// Looks into a row that was written, or deleted: no value. None if it cannot be read.
pub fn read_row(key: &[u8], value: Option<&Bytes>) -> Option<Row> {
    // The kinds of rows are those of `records` and `actor_data`.
    Some(match (key.first()?, value) {
        (0x10, Some(value)) => {
            let stored = actor::parse(actor_index::actor_at_end(key).ok()?, value.clone()).ok()?;
            Row::Actor(Box::new(stored.record))
        }
        (0x12, Some(value)) => Row::Holder(Some(actor_index::holder(value).ok()?)),
        (0x12, None) => Row::Holder(None),
        (0x45, Some(_)) => Row::Kv(ActorId::from_bytes(*key.get(1..)?.first_chunk()?)),
        (_, _) => Row::Other,
    })
}
