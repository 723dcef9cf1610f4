//! The driver of the control plane: it feeds inputs to the pure actor machine, makes the result durable, and then acts.
//!
//! Each actor that is not asleep has a [`cell`] in memory with a lane: inputs are processed one batch after another, so a
//! step never races with another one of the same actor, and all inputs that arrive during a commit share the next one.
//! A sleeping actor has no cell: its cost is its rows on disk.

mod admission;
mod alarm;
mod boot;
mod cell;
mod create;
mod directory;
mod drain;
mod explain;
mod history;
mod hosting;
mod key_cache;
mod lane;
mod lookup;
mod outbound;
mod perform;
pub(crate) mod persist;
#[cfg(test)]
mod tests;
mod timers;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use actor_data::ActorData;
use gateway::{ActorView, Tunnels};
use lifecycle::actor::{Input, Rules};
use parking_lot::Mutex;
use protocol::id::ActorId;
use store::Store;
use tokio::sync::{Semaphore, mpsc, watch};

use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::error::ApiError;
use crate::hosts::Hosts;
use crate::pools::Pools;
use crate::random::Randomness;
use crate::sockets::OpenSockets;
use crate::sql::RemoteSql;
use admission::CreationLimit;
use cell::{ActorCell, Enter, Lookup};
use key_cache::KeyCache;
use outbound::Outbound;
use timers::Timers;

pub(crate) use boot::load;
pub(crate) use create::{Created, NewActor};
pub(crate) use hosting::StartConfig;
pub(crate) use lookup::ListQuery;
pub(crate) use outbound::OutboundOrder;

/// Many actors may be destroyed at once; deleting their data must leave the store to the living.
const RECLAIM_MAX_PARALLEL: usize = 4;

/// What the scheduler needs to know of the configuration.
#[derive(Debug, Clone)]
pub(crate) struct SchedulerConfig {
    pub(crate) rules: Rules,
    /// How long hosts may take to stop an actor, unless its pool grants more, in milliseconds.
    pub(crate) stop_threshold_ms: i64,
    pub(crate) datacenter_label: u16,
    pub(crate) datacenter_name: String,
    /// Creations that a namespace may make at once.
    pub(crate) creation_burst: u64,
    /// Time after which it may make one more.
    pub(crate) creation_drip: Duration,
    /// How long changes of databases can be taken back, unless their pool says something else, in seconds; 0: not at all.
    pub(crate) history_retention_s: u32,
}

/// What the scheduler works with.
pub(crate) struct Parts {
    pub(crate) store: Store,
    pub(crate) data: ActorData,
    pub(crate) sql: RemoteSql,
    pub(crate) catalog: Catalog,
    pub(crate) hosts: Hosts,
    pub(crate) pools: Pools,
    /// Takes the orders for serverless pools.
    pub(crate) orders: mpsc::UnboundedSender<OutboundOrder>,
    pub(crate) tunnels: Tunnels,
    pub(crate) sockets: OpenSockets,
    pub(crate) clock: Clock,
    pub(crate) randomness: Randomness,
}

/// The scheduler; clone freely.
#[derive(Clone)]
pub(crate) struct Scheduler(Arc<Shared>);

struct Shared {
    config: SchedulerConfig,
    store: Store,
    data: ActorData,
    sql: RemoteSql,
    catalog: Catalog,
    hosts: Hosts,
    pools: Pools,
    outbound: Outbound,
    seen_versions: drain::SeenVersions,
    tunnels: Tunnels,
    sockets: OpenSockets,
    clock: Clock,
    randomness: Randomness,
    cells: Mutex<HashMap<ActorId, Arc<ActorCell>>>,
    timers: Timers,
    keys: KeyCache,
    creation_limit: CreationLimit,
    /// Deletions of destroyed actors' data that may run at once.
    reclaiming: Semaphore,
    /// Keeps creation times unique, so that lists can be paged by them.
    last_create_ts: AtomicI64,
}

impl Scheduler {
    fn new(config: SchedulerConfig, parts: Parts) -> Self {
        let creation_limit = CreationLimit::new(config.creation_burst, config.creation_drip);
        let Parts { store, data, sql, catalog, hosts, pools, orders, tunnels, sockets, clock, randomness } = parts;
        Self(Arc::new(Shared {
            config,
            store,
            data,
            sql,
            catalog,
            hosts,
            pools,
            outbound: Outbound::new(orders),
            seen_versions: drain::SeenVersions::default(),
            tunnels,
            sockets,
            clock: clock.clone(),
            randomness,
            cells: Mutex::default(),
            timers: Timers::new(clock),
            keys: KeyCache::default(),
            creation_limit,
            reclaiming: Semaphore::new(RECLAIM_MAX_PARALLEL),
            last_create_ts: AtomicI64::new(0),
        }))
    }

    /// Feeds an input to an actor. It is processed soon; its effects are seen through [`Self::watch`].
    pub(crate) fn post(&self, actor: ActorId, input: Input) {
        self.enter(actor, |cell| cell.push(input.clone()));
    }

    /// As [`Self::post`], but waits while too many inputs wait for this actor already.
    pub(crate) async fn post_with_room(&self, actor: ActorId, input: Input) {
        let cell = self.enter(actor, |cell| cell.push(input.clone()));
        cell.room().await;
    }

    /// Watches an actor; `None` when there is none with this id. Fails when the store does.
    pub(crate) async fn watch(&self, actor: ActorId) -> Result<Option<watch::Receiver<ActorView>>, ApiError> {
        let mut loading = None;
        let mut receiver = None;
        let cell = self.enter(actor, |cell| {
            let (subscribed, until_loaded, enter) = cell.subscribe()?;
            receiver = Some(subscribed);
            loading = until_loaded;
            Some(enter)
        });
        let lookup = match loading {
            // Ends when the lane has looked the actor up.
            Some(loading) => loading.await.unwrap_or(Lookup::Failed),
            None => Lookup::Exists,
        };
        match lookup {
            Lookup::Exists => Ok(receiver),
            Lookup::Missing => {
                // Made-up ids must not fill the table until the next sweep.
                drop(receiver);
                self.retire(&cell);
                Ok(None)
            }
            Lookup::Failed => Err(ApiError::Internal),
        }
    }

    /// Does something with an actor's cell, making one if needed, and starts its lane if that is asked for.
    fn enter(&self, actor: ActorId, mut act: impl FnMut(&ActorCell) -> Option<Enter>) -> Arc<ActorCell> {
        loop {
            let cell = self.0.cells.lock().entry(actor).or_insert_with(|| Arc::new(ActorCell::new(actor))).clone();
            match act(&cell) {
                Some(Enter::StartLane) => {
                    tokio::spawn(lane::run(self.clone(), cell.clone()));
                    return cell;
                }
                Some(Enter::LaneRuns | Enter::Nothing) => return cell,
                // The cell was taken off the table meanwhile.
                None => continue,
            }
        }
    }

    /// Takes cells that nobody needs off the table. Called now and then; lanes do it themselves in the usual case.
    fn sweep(&self) {
        let mut cells = self.0.cells.lock();
        cells.retain(|_, cell| !cell.retire_if_idle());
    }

    /// Actors with a cell in memory.
    pub(crate) fn resident_actors(&self) -> usize {
        self.0.cells.lock().len()
    }
}
