//! What is counted here; `docs/metrics.md` explains it.

use gateway::metrics::{By, Counter, Gauge, Histogram, Label};

/// Everything that the executor of SQL counts.
#[derive(Debug, Default)]
pub(crate) struct SqlMetrics {
    /// Databases that are open.
    pub(crate) sessions: Gauge,
    /// Databases that were opened.
    pub(crate) opened: Counter,
    /// Statements and batches that run at this moment.
    pub(crate) running: Gauge,
    /// From the arrival of a request to its answer, by what came of it.
    pub(crate) requests: By<Outcome, Histogram>,
}

/// What came of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Outcome {
    /// It was executed.
    Success,
    /// It failed, or was not executed.
    Error,
    /// Its time was up.
    Timeout,
}

impl Label for Outcome {
    const KEY: &'static str = "result";
    const ALL: &'static [Self] = &[Self::Success, Self::Error, Self::Timeout];

    fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Error => "error",
            Self::Timeout => "timeout",
        }
    }

    fn index(self) -> usize {
        self as usize
    }
}
