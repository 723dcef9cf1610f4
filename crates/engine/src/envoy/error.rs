//! Why a host's connection is refused or ended. A host sees only the reason text of the close frame
//! (`spec/envoy-protocol.md` 2.3).

use protocol::error::{Coded, Surface};
use serde_json::{Map, Value};

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum EnvoyClose {
    #[error("The connection parameter `{parameter}` is missing or invalid: {expected}.")]
    InvalidRequest { parameter: &'static str, expected: &'static str },
    #[error("The namespace does not exist.")]
    NamespaceNotFound,
    #[error("The pool has no configuration.")]
    NoRunnerConfig,
    #[error("Another connection with the same key has taken over.")]
    Eviction,
    #[error("No pong arrived in time.")]
    TimedOut,
    #[error("The engine is shutting down.")]
    GoingAway,
    #[error("The connection sent something that cannot be processed.")]
    Internal,
}

impl EnvoyClose {
    /// The close code: 1000 where nothing went wrong.
    pub(super) fn close_code(self) -> u16 {
        match self {
            Self::Eviction => 1000,
            Self::InvalidRequest { .. }
            | Self::NamespaceNotFound
            | Self::NoRunnerConfig
            | Self::TimedOut
            | Self::GoingAway
            | Self::Internal => 1011,
        }
    }
}

impl Coded for EnvoyClose {
    fn group(&self) -> &'static str {
        match self {
            Self::NamespaceNotFound => "namespace",
            Self::InvalidRequest { .. } | Self::NoRunnerConfig | Self::Eviction | Self::TimedOut | Self::GoingAway => "ws",
            Self::Internal => "core",
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::InvalidRequest { .. } => "invalid_request",
            Self::NamespaceNotFound => "not_found",
            Self::NoRunnerConfig => "no_runner_config",
            Self::Eviction => "eviction",
            Self::TimedOut => "timed_out",
            Self::GoingAway => "going_away",
            Self::Internal => "internal_error",
        }
    }

    fn status(&self, _surface: Surface) -> u16 {
        match self {
            Self::Internal => 500,
            Self::InvalidRequest { .. }
            | Self::NamespaceNotFound
            | Self::NoRunnerConfig
            | Self::Eviction
            | Self::TimedOut
            | Self::GoingAway => 400,
        }
    }

    fn metadata(&self) -> Map<String, Value> {
        let pair = match self {
            Self::InvalidRequest { parameter, .. } => ("parameter", *parameter),
            Self::NamespaceNotFound
            | Self::NoRunnerConfig
            | Self::Eviction
            | Self::TimedOut
            | Self::GoingAway
            | Self::Internal => return Map::new(),
        };
        Map::from_iter([(pair.0.to_owned(), pair.1.into())])
    }
}
