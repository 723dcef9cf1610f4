//! Putting together all parts that need no sockets and no machine: what decides, and who asks it.

use std::sync::Arc;

use actor_data::ActorData;
use axum::Router;
use gateway::Tunnels;
use lifecycle::actor::Rules;
use lifecycle::envoy::EnvoyRules;
use lifecycle::pool::{BreakerRules, PollRules};
use protocol::envoy::{GatewayId, ProtocolMetadata};
use protocol::limits;
use store::Store;
use tokio::sync::{mpsc, watch};

use crate::api::{self, ApiContext};
use crate::catalog::Catalog;
use crate::catalog::pool_config::PoolRules;
use crate::clock::Clock;
use crate::config::{Config, Millis, Topology};
use crate::envoy::{Access, EnvoyContext};
use crate::error::StartError;
use crate::gateway_settings::{host_message_rate, waiting_limits};
use crate::hosts::Hosts;
use crate::pools::{self, Pools};
use crate::random::Randomness;
use crate::scheduler::{self, OutboundOrder, Scheduler, SchedulerConfig};
use crate::serverless::{self, Endpoints};
use crate::sockets::OpenSockets;
use crate::sql::{RemoteSql, SqlSettings};

/// What a control plane finds around it.
pub(crate) struct Surroundings {
    pub(crate) store: Store,
    pub(crate) clock: Clock,
    pub(crate) randomness: Randomness,
    pub(crate) gateway_id: GatewayId,
    pub(crate) topology: Topology,
    /// True when hosts are to be told to go.
    pub(crate) shutdown: watch::Receiver<bool>,
    /// Dropped when that has been done.
    pub(crate) alive: mpsc::Sender<()>,
}

/// The parts that others are put on top of.
pub(crate) struct ControlPlane {
    pub(crate) scheduler: Scheduler,
    pub(crate) sql: RemoteSql,
    pub(crate) hosts: Hosts,
    pub(crate) tunnels: Tunnels,
    pub(crate) api: Router,
    pub(crate) envoys: Arc<EnvoyContext>,
    pub(crate) datacenter_label: u16,
    pub(crate) randomness: Randomness,
    /// What is to be done about requests to the endpoints of serverless pools.
    pub(crate) orders: mpsc::UnboundedReceiver<OutboundOrder>,
    /// Carries them out.
    pub(crate) endpoints: Endpoints,
}

/// Builds everything on what the store holds. [`Scheduler::run_timers`], [`Scheduler::prune_history`] and
/// [`RemoteSql::close_idle`] are left to the caller.
pub(crate) async fn assemble(config: &Config, around: Surroundings) -> Result<ControlPlane, StartError> {
    let Surroundings { store, clock, randomness, gateway_id, topology, shutdown, alive } = around;
    let (datacenter_name, datacenter_label) =
        topology.own().map_or(("default".to_owned(), 1), |(name, own)| (name.to_owned(), own.datacenter_label));
    let data_options =
        actor_data::Options { max_storage_bytes: config.sqlite.max_storage_bytes, ..actor_data::Options::default() };
    let data_clock = clock.clone();
    let data = ActorData::new(store.clone(), data_options, Arc::new(move || data_clock.now()));
    let sql = RemoteSql::new(data.clone(), sql_settings(config));
    let catalog = Catalog::load(store.clone(), datacenter_label, clock.clone(), randomness.clone()).await?;
    let hosts = Hosts::new(envoy_rules(config), clock.clone(), randomness.clone());
    let pools = Pools::new(catalog.clone(), hosts.clone(), clock.clone(), breaker_rules(config));
    let (order, orders) = mpsc::unbounded_channel();
    let sockets = OpenSockets::new(store.clone(), clock.clone());
    let tunnels = Tunnels::new(gateway_id, Arc::new(sockets.clone()), waiting_limits(config));
    let scheduler_config = SchedulerConfig {
        rules: actor_rules(config),
        stop_threshold_ms: ms(config.pegboard.actor_stop_threshold),
        datacenter_label,
        datacenter_name,
        creation_burst: config.pegboard.actor_create_rate_limit_requests,
        creation_drip: config.pegboard.actor_create_rate_limit_drip_rate_ms.duration(),
        history_retention_s: seconds(config.sqlite.pitr.retention_ms),
    };
    let parts = scheduler::Parts {
        store: store.clone(),
        data: data.clone(),
        sql: sql.clone(),
        catalog: catalog.clone(),
        hosts: hosts.clone(),
        pools,
        orders: order,
        tunnels: tunnels.clone(),
        sockets,
        clock: clock.clone(),
        randomness: randomness.clone(),
    };
    let scheduler = scheduler::load(scheduler_config, parts).await?;

    let endpoints = Endpoints::new(
        &config.outbound,
        serverless::Parts {
            catalog: catalog.clone(),
            scheduler: scheduler.clone(),
            data: data.clone(),
            clock: clock.clone(),
            randomness: randomness.clone(),
            public_url: topology.own().map_or_else(String::new, |(_, own)| own.public_url.as_str().to_owned()),
            admin_token: config.auth.admin_token.clone(),
            preload_max_bytes: config.pegboard.preload_max_total_bytes,
            poll_rules: poll_rules(config),
        },
    );

    let access = Access::new(&topology, config.auth.admin_token.clone());
    let api = api::router(Arc::new(ApiContext {
        catalog: catalog.clone(),
        scheduler: scheduler.clone(),
        hosts: hosts.clone(),
        data: data.clone(),
        store,
        topology,
        admin_token: config.auth.admin_token.clone(),
        pool_rules: pool_rules(config),
        endpoints: endpoints.clone(),
    }));
    let envoys = Arc::new(EnvoyContext {
        catalog,
        hosts: hosts.clone(),
        scheduler: scheduler.clone(),
        tunnels: tunnels.clone(),
        data,
        sql: sql.clone(),
        storage_metrics: Arc::default(),
        access,
        clock,
        randomness: randomness.clone(),
        ping_interval: config.pegboard.envoy_update_ping_interval.duration(),
        message_rate: host_message_rate(config),
        init: init_message(config),
        shutdown,
        _alive: alive,
    });
    Ok(ControlPlane { scheduler, sql, hosts, tunnels, api, envoys, datacenter_label, randomness, orders, endpoints })
}

fn ms(span: Millis) -> i64 {
    span.duration().as_millis() as i64
}

/// Rounded up: something is not nothing.
fn seconds(span: Millis) -> u32 {
    u32::try_from(span.count().div_ceil(1000)).unwrap_or(u32::MAX)
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

fn poll_rules(config: &Config) -> PollRules {
    let pegboard = &config.pegboard;
    PollRules {
        default_ms: ms(pegboard.default_metadata_poll_interval),
        min_ms: ms(pegboard.min_metadata_poll_interval),
        max_exponent: limits::METADATA_POLL_BACKOFF_MAX_EXPONENT,
        reset_ms: limits::METADATA_POLL_BACKOFF_RESET.as_millis() as i64,
    }
}

fn pool_rules(config: &Config) -> PoolRules {
    let seconds = config.pegboard.serverless_drain_grace_period.duration().as_secs();
    let longest = config.pegboard.actor_stop_threshold.duration().max(limits::SERVERLESS_DRAIN_GRACE_MAX);
    PoolRules {
        default_drain_grace_s: u32::try_from(seconds).unwrap_or(u32::MAX),
        max_drain_grace_ms: longest.as_millis() as u64,
    }
}

fn sql_settings(config: &Config) -> SqlSettings {
    let sqlite = &config.sqlite;
    // Both are checked to be far below what fits.
    let number = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
    SqlSettings {
        max_sessions: number(sqlite.remote_max_sessions),
        threads: number(sqlite.remote_threads),
        memory_max_bytes: sqlite.remote_memory_max_size,
        folder: config.file_system.path.clone(),
        aside_max_bytes: sqlite.remote_disk_max_size,
        statement_timeout: sqlite.remote_statement_timeout_ms.duration(),
        idle_timeout: sqlite.remote_idle_timeout_ms.duration(),
        transaction_idle_timeout: sqlite.remote_transaction_idle_timeout_ms.duration(),
    }
}

fn init_message(config: &Config) -> ProtocolMetadata {
    ProtocolMetadata {
        envoy_lost_threshold: ms(config.pegboard.envoy_lost_threshold),
        actor_stop_threshold: ms(config.pegboard.actor_stop_threshold),
        max_response_payload_size: config.pegboard.envoy_max_response_payload_size,
    }
}
