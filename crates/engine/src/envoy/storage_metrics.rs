//! What is counted of storage requests; `docs/metrics.md` explains it. SQL has its own.

use std::time::Duration;

use gateway::metrics::{By, Counter, Histogram, Label};
use protocol::envoy::{KvResponseData, ToEnvoy};

/// Everything that is counted of them.
#[derive(Debug, Default)]
pub(crate) struct StorageMetrics {
    /// From the arrival of a request to its answer, waiting for those before it included.
    pub(crate) durations: By<Kind, Histogram>,
    /// Requests that were refused, or failed.
    pub(crate) errors: By<Kind, Counter>,
}

/// A kind of request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    KeyValue,
    GetPages,
    /// Or a step of one.
    Commit,
}

impl StorageMetrics {
    /// Counts an answer.
    pub(super) fn answered(&self, answer: &ToEnvoy, took: Duration) {
        let (kind, succeeded) = match answer {
            ToEnvoy::KvResponse { data, .. } => (Kind::KeyValue, !matches!(data, KvResponseData::Error { .. })),
            ToEnvoy::SqliteGetPages { data, .. } => (Kind::GetPages, data.is_ok()),
            ToEnvoy::SqliteCommit { data, .. } => (Kind::Commit, data.is_ok()),
            ToEnvoy::SqliteCommitStageBegin { data, .. } => (Kind::Commit, data.is_ok()),
            ToEnvoy::SqliteCommitStageSegment { data, .. } => (Kind::Commit, data.is_ok()),
            ToEnvoy::SqliteCommitFinalize { data, .. } => (Kind::Commit, data.is_ok()),
            ToEnvoy::Init(_)
            | ToEnvoy::Commands(_)
            | ToEnvoy::AckEvents(_)
            | ToEnvoy::TunnelMessage(_)
            | ToEnvoy::Ping { .. }
            | ToEnvoy::SqliteExec { .. }
            | ToEnvoy::SqliteExecute { .. }
            | ToEnvoy::SqliteExecuteBatch { .. } => return,
        };
        self.durations.get(kind).observe(took);
        if !succeeded {
            self.errors.get(kind).inc();
        }
    }
}

impl Label for Kind {
    const KEY: &'static str = "type";
    const ALL: &'static [Self] = &[Self::KeyValue, Self::GetPages, Self::Commit];

    fn name(self) -> &'static str {
        match self {
            Self::KeyValue => "kv",
            Self::GetPages => "get_pages",
            Self::Commit => "commit",
        }
    }

    fn index(self) -> usize {
        self as usize
    }
}
