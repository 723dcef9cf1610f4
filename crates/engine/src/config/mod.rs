//! Configuration of the engine and its command line (`spec/engine-api.md` 13 to 15).
//!
//! Later sources win over earlier ones, key by key: built-in defaults, files, environment variables `RIVET__*`, command
//! line options. [`load`] is a pure function of the text of all of them; [`read_sources`] is the only code of the whole
//! workspace that reads the environment.
//!
//! The layers are merged as untyped trees that remember where each value was written (`tree`), then read as the typed
//! sections below (`deserialize`), completed with what follows from other keys (`load`) and checked (`validate`).
//!
//! The sections describe what a key is for. Whether this version acts on it is said in one place only, `ineffective`.

mod cli;
mod deserialize;
mod environment;
mod error;
mod guard;
mod ineffective;
mod load;
mod pegboard;
mod runtime;
mod sections;
mod shell;
mod storage;
#[cfg(test)]
mod tests;
mod time;
mod topology;
mod tree;
mod validate;
mod values;

use std::path::Path;

use serde::{Deserialize, Serialize};

pub use self::{
    cli::{Cli, Command, DataTask, RemoteRequest, RemoteTask, Start, UnknownService},
    error::{ConfigError, Origin},
    guard::{Guard, Https, RateLimit, Tls},
    ineffective::{Ineffective, IneffectiveClass},
    load::{Loaded, Sources, load},
    pegboard::{EnvoyLoadBalancer, HashBalancer, Pegboard, PlainBalancer},
    runtime::Runtime,
    sections::{ApiPeer, Auth, Logs, Metrics, Outbound},
    shell::read_sources,
    storage::{Durability, FileSystem, Nats, Pitr, Postgres, PostgresSsl, Sqlite, Storage},
    topology::{Datacenter, Topology},
    values::{HttpUrl, Micros, Millis, Network, Secret, Secs, Span},
};

/// The whole configuration, one field per section.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Who may use the management API.
    pub auth: Auth,
    /// The public listener.
    pub guard: Guard,
    /// The listener for other datacenters.
    pub api_peer: ApiPeer,
    /// The listener for metrics.
    pub metrics: Metrics,
    /// Actors, their hosts and the tunnel between clients and them.
    pub pegboard: Pegboard,
    /// Shutting down, and the data's version.
    pub runtime: Runtime,
    /// The datacenters. If not set: one, at the addresses the listeners are bound to.
    pub topology: Topology,
    /// How careful the engine is with data it acknowledged.
    pub storage: Storage,
    /// The embedded database; see [`Config::database`].
    pub file_system: FileSystem,
    /// The shared database; see [`Config::database`].
    pub postgres: Option<Postgres>,
    /// The message bus; see [`Config::bus`].
    pub nats: Option<Nats>,
    /// Limits of what one actor stores.
    pub sqlite: Sqlite,
    /// Where the engine itself may send requests.
    pub outbound: Outbound,
    /// Where logs go.
    pub logs: Logs,

    // Accepted without effect, see `ineffective`.
    cache: ineffective::Cache,
    clickhouse: Option<ineffective::ClickHouse>,
    features: ineffective::Features,
    memory: ineffective::Memory,
    pyroscope: Option<ineffective::Pyroscope>,
    telemetry: ineffective::Telemetry,
}

/// Which database holds the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Database<'a> {
    /// The embedded one, in this directory.
    Embedded(&'a Path),
    /// A PostgreSQL-compatible server.
    Postgres(&'a Postgres),
}

/// What carries messages between nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bus<'a> {
    /// Nothing: this is the only node.
    InProcess,
    /// NATS.
    Nats(&'a Nats),
}

impl Config {
    /// The database to use: PostgreSQL if that section is set, else the embedded one.
    pub fn database(&self) -> Database<'_> {
        match &self.postgres {
            Some(postgres) => Database::Postgres(postgres),
            None => Database::Embedded(&self.file_system.path),
        }
    }

    /// The message bus to use: `nats`, else `postgres.nats`, else none.
    pub fn bus(&self) -> Bus<'_> {
        let of_database = self.postgres.as_ref().and_then(|postgres| postgres.nats.as_ref());
        self.nats.as_ref().or(of_database).map_or(Bus::InProcess, Bus::Nats)
    }

    /// The configuration as JSON for people to read, with secrets masked. Apart from those it can be loaded again and
    /// gives the same configuration.
    ///
    /// # Errors
    /// Only if a path is not UTF-8, which JSON cannot hold.
    pub fn show(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self)
    }
}

impl Default for Config {
    fn default() -> Self {
        let guard = Guard::default();
        let api_peer = ApiPeer::default();
        Self {
            topology: Topology::single((guard.host, guard.port).into(), (api_peer.host, api_peer.port).into()),
            auth: Auth::default(),
            guard,
            api_peer,
            metrics: Metrics::default(),
            pegboard: Pegboard::default(),
            runtime: Runtime::default(),
            storage: Storage::default(),
            file_system: FileSystem::default(),
            postgres: None,
            nats: None,
            sqlite: Sqlite::default(),
            outbound: Outbound::default(),
            logs: Logs::default(),
            cache: ineffective::Cache::default(),
            clickhouse: None,
            features: ineffective::Features::default(),
            memory: ineffective::Memory::default(),
            pyroscope: None,
            telemetry: ineffective::Telemetry::default(),
        }
    }
}
