//! Where data is kept and how nodes talk to each other: `storage`, `file_system` or `postgres`, `nats` or `memory`,
//! and `sqlite` (`spec/engine-api.md` 13.3).

use std::path::{Path, PathBuf};

use protocol::limits;
use serde::{Deserialize, Serialize};

use super::values::{Millis, Secret};

/// How careful the engine is with data it acknowledged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Storage {
    /// When a write counts as durable.
    pub durability: Durability,
}

/// When a write counts as durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", expecting = "one of fsync, os")]
pub enum Durability {
    /// Once it is on the disk. Survives the loss of power.
    #[default]
    Fsync,
    /// Once the operating system has it. Survives the loss of the process, not of the machine.
    Os,
}

/// The embedded database. Unused if `postgres` is set too: an SDK that launches the engine always sets the path here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FileSystem {
    /// Data directory, for one process at a time. If not set: `rivet-engine/db` in the user's data directory, or
    /// `./data/db` where there is none.
    pub path: PathBuf,
}

impl FileSystem {
    /// The data directory for a user whose data directory is known, or not.
    pub(super) fn default_path(user_data_dir: Option<&Path>) -> PathBuf {
        user_data_dir.map_or_else(|| PathBuf::from("./data/db"), |dir| dir.join("rivet-engine").join("db"))
    }
}

impl Default for FileSystem {
    fn default() -> Self {
        Self { path: Self::default_path(None) }
    }
}

/// A PostgreSQL-compatible database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Postgres {
    /// Connection URL. Secret, because it may hold a password.
    pub url: Secret,
    /// TLS towards the database.
    pub ssl: Option<PostgresSsl>,
    /// The message bus of several nodes on this database; `nats` at the top level wins.
    pub nats: Option<Nats>,
}

/// PEM files for TLS towards PostgreSQL.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PostgresSsl {
    /// Certificate of the authority that signed the server's; the system's authorities if unset.
    pub root_cert_path: Option<PathBuf>,
    /// Certificate of this client. With `client_key_path` or not at all.
    pub client_cert_path: Option<PathBuf>,
    /// Key of this client.
    pub client_key_path: Option<PathBuf>,
}

/// A NATS server that carries messages between nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nats {
    /// Servers as `host` or `host:port`, at least one.
    pub addresses: Vec<String>,
    /// Port of servers given without one.
    #[serde(default = "nats_port")]
    pub port: u16,
    /// Commands that may wait to be sent.
    #[serde(default = "nats_client_capacity")]
    pub client_capacity: u64,
    /// Messages that may wait in one subscription.
    #[serde(default = "nats_subscription_capacity")]
    pub subscription_capacity: u64,
    /// User name, with `password`.
    pub username: Option<String>,
    /// Password.
    pub password: Option<Secret>,

    // Accepted without effect: messages inside one node never pass through NATS.
    #[serde(default)]
    disable_memory_optimization: bool,
}

fn nats_port() -> u16 {
    4222
}

fn nats_client_capacity() -> u64 {
    1_048_576
}

fn nats_subscription_capacity() -> u64 {
    262_144
}

/// Limits of what one actor stores, and of the SQL that the engine executes for hosts without a SQLite of their own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sqlite {
    /// Bytes one actor may store, key-value and SQLite together; at least 1.
    pub max_storage_bytes: u64,
    /// Databases in which the engine executes SQL that may be open at once; at least 1. Above it the one that was idle for
    /// longest is closed, and opened again at its next statement.
    pub remote_max_sessions: u64,
    /// Statements that the engine executes at once; 1 to 400.
    pub remote_threads: u64,
    /// Bytes of memory that SQLite may use for all of them together; as much again for what open transactions have changed,
    /// temporary tables and sorts, which go into the data folder beyond that; and again for results that are not sent yet. At
    /// least 16 MiB.
    pub remote_memory_max_size: u64,
    /// Bytes that transactions, temporary tables and sorts may put aside in the data folder for lack of memory, all together;
    /// one database may have half of it. At least 16 MiB.
    pub remote_disk_max_size: u64,
    /// From the arrival of a statement to its end; at least 1 ms. Hosts wait for about 30 s.
    pub remote_statement_timeout_ms: Millis,
    /// A database without open transaction is closed after this time without a statement; at least 1 ms.
    pub remote_idle_timeout_ms: Millis,
    /// A transaction is rolled back after this time without a statement, and its instance ends; at least 1 ms.
    pub remote_transaction_idle_timeout_ms: Millis,

    /// The history of databases.
    pub pitr: Pitr,

    // Accepted without effect, see `ineffective`.
    compaction_write_bytes_per_second: Option<u64>,
    compaction_read_bytes_per_second: Option<u64>,
    actor_write_bytes_per_second: Option<u64>,
    actor_read_bytes_per_second: Option<u64>,
    compaction_admission_percent: Option<f64>,
    compaction_hot_fold_direct_to_shard: Option<bool>,
    compaction_stage_throttle_budget_multiplier: Option<f64>,
    compaction_install_throttle_budget_multiplier: Option<f64>,
    compaction_reclaim_throttle_budget_multiplier: Option<f64>,
    compaction_stage_admit_soft_util: Option<f64>,
    compaction_install_admit_soft_util: Option<f64>,
    compaction_reclaim_admit_soft_util: Option<f64>,
    compaction_stage_throttle_backoff_ms: Option<Millis>,
    compaction_max_hot_drain_span_txids: Option<u64>,
    manager_idle_poll_interval_ms: Option<Millis>,
    manager_reclaim_interval_ms: Option<Millis>,
    unstable_disable_commit_size_cap: Option<bool>,
    unstable_disable_compaction: Option<bool>,
}

impl Default for Sqlite {
    fn default() -> Self {
        Self {
            max_storage_bytes: actor_data::limits::DEFAULT_MAX_STORAGE_BYTES,
            remote_max_sessions: limits::REMOTE_SQL_SESSIONS_MAX,
            remote_threads: limits::REMOTE_SQL_THREADS,
            remote_memory_max_size: limits::REMOTE_SQL_MEMORY_MAX_BYTES,
            remote_disk_max_size: limits::REMOTE_SQL_ASIDE_MAX_BYTES,
            remote_statement_timeout_ms: Millis::of(limits::REMOTE_SQL_STATEMENT_TIMEOUT),
            remote_idle_timeout_ms: Millis::of(limits::REMOTE_SQL_IDLE_TIMEOUT),
            remote_transaction_idle_timeout_ms: Millis::of(limits::REMOTE_SQL_TRANSACTION_IDLE_TIMEOUT),
            pitr: Pitr::default(),
            compaction_write_bytes_per_second: None,
            compaction_read_bytes_per_second: None,
            actor_write_bytes_per_second: None,
            actor_read_bytes_per_second: None,
            compaction_admission_percent: None,
            compaction_hot_fold_direct_to_shard: None,
            compaction_stage_throttle_budget_multiplier: None,
            compaction_install_throttle_budget_multiplier: None,
            compaction_reclaim_throttle_budget_multiplier: None,
            compaction_stage_admit_soft_util: None,
            compaction_install_admit_soft_util: None,
            compaction_reclaim_admit_soft_util: None,
            compaction_stage_throttle_backoff_ms: None,
            compaction_max_hot_drain_span_txids: None,
            manager_idle_poll_interval_ms: None,
            manager_reclaim_interval_ms: None,
            unstable_disable_commit_size_cap: None,
            unstable_disable_compaction: None,
        }
    }
}

/// How far back a database can be put. Pools may differ, by their option `history_retention`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pitr {
    /// How long changes can be taken back; 0: not at all. A change of this counts from each actor's next start on.
    pub retention_ms: Millis,

    // Accepted without effect, see `ineffective`.
    interval_ms: Millis,
}
