//! Failures that the engine answers management calls with (`spec/engine-api.md` 5.3), and why it may not start.

use protocol::error::{Coded, Surface};
use serde_json::{Map, Value};

/// A failure of a management call, or of creating an actor through the gateway.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ApiError {
    /// The request cannot be understood.
    #[error("Request is invalid: {reason}")]
    BadRequest {
        /// What is wrong.
        reason: String,
    },
    /// The token is missing or wrong.
    #[error("Access denied: {reason}")]
    Forbidden {
        /// Which of the two.
        reason: &'static str,
    },
    /// There is no such route.
    #[error("The requested resource was not found")]
    NotFound,
    /// The request makes no sense.
    #[error("{message}")]
    InvalidInput {
        /// Why.
        message: String,
    },
    /// A list call names too many actors.
    #[error("Too many actor IDs provided. Maximum is {max}, got {count}")]
    TooManyActorIds {
        /// How many it named.
        count: usize,
        /// How many it may name.
        max: usize,
    },
    /// Unknown namespace.
    #[error("The namespace does not exist.")]
    NamespaceNotFound,
    /// A namespace with this name exists.
    #[error("Namespace name must be unique.")]
    NamespaceNameNotUnique,
    /// The namespace breaks a rule.
    #[error("Failed to create namespace: {reason}")]
    NamespaceFailedToCreate {
        /// Which.
        reason: &'static str,
    },
    /// Unknown datacenter.
    #[error("The provided datacenter does not exist.")]
    DatacenterNotFound,
    /// Unknown or destroyed actor.
    #[error("The actor does not exist or was destroyed.")]
    ActorNotFound,
    /// The actor key is empty.
    #[error("Key label cannot be empty.")]
    EmptyKey,
    /// The actor key is too long.
    #[error("Key label too large (max {max_size} bytes): {key_preview}")]
    KeyTooLarge {
        /// Bytes allowed.
        max_size: usize,
        /// The beginning of the key.
        key_preview: String,
    },
    /// The actor name is empty.
    #[error("Actor name cannot be empty.")]
    EmptyName,
    /// The actor name is too long.
    #[error("Actor name too long (max {max_size} characters).")]
    NameTooLong {
        /// Characters allowed.
        max_size: usize,
    },
    /// The key is taken.
    #[error("Actor key '{key}' already in use for actor '{existing_actor_id}'")]
    DuplicateKey {
        /// The key.
        key: String,
        /// Who holds it.
        existing_actor_id: String,
    },
    /// The actor's input is too large.
    #[error("Input too large (max {max_size}).")]
    InputTooLarge {
        /// Bytes allowed.
        max_size: usize,
    },
    /// Too many creations in a namespace.
    #[error("Too many actors created at once. Try again later.")]
    CreationRateLimit,
    /// The pool has no configuration.
    #[error(
        "No runner config with name '{pool_name}' are available in any datacenter for the namespace '{namespace}'. Validate a provider is listed that matches the requested pool name."
    )]
    NoRunnerConfigConfigured {
        /// Namespace name.
        namespace: String,
        /// Pool name.
        pool_name: String,
    },
    /// No history of the actor's database is kept.
    #[error(
        "No history of this actor's database is kept. Set `history_retention` of its pool; it counts from the actor's next start on."
    )]
    HistoryNotKept,
    /// The history of the actor's database begins after the time that was asked for.
    #[error("The history of this actor's database begins at {since}.")]
    HistoryTooShort {
        /// When it begins, in epoch milliseconds.
        since: i64,
    },
    /// The actor is being restored already.
    #[error("Another restore of this actor is under way.")]
    RestoreUnderWay,
    /// Others are being restored or forked.
    #[error("Too many actors are being restored or forked. Try again later.")]
    RestoresBusy,
    /// The actor wrote all the time.
    #[error("The actor's database changes faster than it can be restored. Try again when there is less to do.")]
    RestoreOutrun,
    /// The database was larger then than the actor's data may be now.
    #[error("The database of that time has no room in the actor's storage.")]
    RestoreTooLarge,
    /// The KV entry does not exist.
    #[error("The KV key does not exist for this actor.")]
    KvKeyNotFound,
    /// The pool configuration breaks a rule.
    #[error("Invalid runner config: {reason}")]
    RunnerConfigInvalid {
        /// Which.
        reason: String,
    },
    /// The pool has no configuration.
    #[error("No config for this runner exists.")]
    RunnerConfigNotFound,
    /// The pool's hosts connect by themselves.
    #[error("No serverless pool for this runner exists.")]
    ServerlessPoolNotFound,
    /// A pool's endpoint did not say what it is.
    #[error("Failed to fetch serverless metadata: {message}.")]
    FailedToFetchMetadata {
        /// In one sentence.
        message: String,
        /// The same as an object with all that is known.
        reason: Value,
    },
    /// There is no room for what was to be stored. Nothing was done.
    #[error("The engine has no room to store anything. Try again when its operator has made some.")]
    StoreFull,
    /// The engine's disk is read-only. Nothing was done.
    #[error("The engine cannot store anything, because its disk is read-only. Try again when its operator has changed that.")]
    StoreReadOnly,
    /// Bytes that are stored are not what was written. Whatever does not need them is answered as ever.
    #[error("What is stored for this is damaged. Its operator can ask `rivet-engine check` what else is, and restore a backup.")]
    StoreDamaged,
    /// The engine failed. The cause is in the log.
    #[error("An internal error occurred")]
    Internal,
}

impl Coded for ApiError {
    fn group(&self) -> &'static str {
        match self {
            Self::BadRequest { .. } | Self::Forbidden { .. } | Self::NotFound => "api",
            Self::InvalidInput { .. } | Self::TooManyActorIds { .. } => "validation",
            Self::NamespaceNotFound | Self::NamespaceNameNotUnique | Self::NamespaceFailedToCreate { .. } => "namespace",
            Self::DatacenterNotFound => "datacenter",
            Self::ActorNotFound
            | Self::EmptyKey
            | Self::KeyTooLarge { .. }
            | Self::EmptyName
            | Self::NameTooLong { .. }
            | Self::DuplicateKey { .. }
            | Self::InputTooLarge { .. }
            | Self::CreationRateLimit
            | Self::NoRunnerConfigConfigured { .. }
            | Self::HistoryNotKept
            | Self::HistoryTooShort { .. }
            | Self::RestoreUnderWay
            | Self::RestoresBusy
            | Self::RestoreOutrun
            | Self::RestoreTooLarge
            | Self::KvKeyNotFound => "actor",
            Self::RunnerConfigInvalid { .. } | Self::RunnerConfigNotFound => "runner_config",
            Self::ServerlessPoolNotFound | Self::FailedToFetchMetadata { .. } => "serverless_runner_pool",
            Self::StoreFull | Self::StoreReadOnly | Self::StoreDamaged => "store",
            Self::Internal => "core",
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::BadRequest { .. } => "bad_request",
            Self::Forbidden { .. } => "forbidden",
            Self::NotFound
            | Self::NamespaceNotFound
            | Self::DatacenterNotFound
            | Self::ActorNotFound
            | Self::RunnerConfigNotFound
            | Self::ServerlessPoolNotFound => "not_found",
            Self::FailedToFetchMetadata { .. } => "failed_to_fetch_metadata",
            Self::InvalidInput { .. } => "invalid_input",
            Self::TooManyActorIds { .. } => "too_many_actor_ids",
            Self::NamespaceNameNotUnique => "name_not_unique",
            Self::NamespaceFailedToCreate { .. } => "failed_to_create",
            Self::EmptyKey => "empty_key",
            Self::KeyTooLarge { .. } => "key_too_large",
            Self::EmptyName => "empty_name",
            Self::NameTooLong { .. } => "name_too_long",
            Self::DuplicateKey { .. } => "duplicate_key",
            Self::InputTooLarge { .. } => "input_too_large",
            Self::CreationRateLimit => "creation_rate_limit",
            Self::NoRunnerConfigConfigured { .. } => "no_runner_config_configured",
            Self::HistoryNotKept => "history_not_kept",
            Self::HistoryTooShort { .. } => "history_too_short",
            Self::RestoreUnderWay => "restore_under_way",
            Self::RestoresBusy => "restores_busy",
            Self::RestoreOutrun => "restore_outrun",
            Self::RestoreTooLarge => "restore_too_large",
            Self::KvKeyNotFound => "kv_key_not_found",
            Self::RunnerConfigInvalid { .. } => "invalid",
            Self::StoreFull => "full",
            Self::StoreReadOnly => "read_only",
            Self::StoreDamaged => "damaged",
            Self::Internal => "internal_error",
        }
    }

    fn status(&self, surface: Surface) -> u16 {
        match (self, surface) {
            (Self::NotFound, _) | (Self::ActorNotFound, Surface::Gateway) => 404,
            (Self::Forbidden { .. }, _) => 403,
            (Self::CreationRateLimit, Surface::Gateway) => 429,
            (Self::StoreDamaged | Self::Internal, _) => 500,
            (Self::StoreFull | Self::StoreReadOnly | Self::RestoresBusy, _) => 503,
            (
                Self::BadRequest { .. }
                | Self::InvalidInput { .. }
                | Self::TooManyActorIds { .. }
                | Self::NamespaceNotFound
                | Self::NamespaceNameNotUnique
                | Self::NamespaceFailedToCreate { .. }
                | Self::DatacenterNotFound
                | Self::ActorNotFound
                | Self::EmptyKey
                | Self::KeyTooLarge { .. }
                | Self::EmptyName
                | Self::NameTooLong { .. }
                | Self::DuplicateKey { .. }
                | Self::InputTooLarge { .. }
                | Self::CreationRateLimit
                | Self::NoRunnerConfigConfigured { .. }
                | Self::HistoryNotKept
                | Self::HistoryTooShort { .. }
                | Self::RestoreUnderWay
                | Self::RestoreOutrun
                | Self::RestoreTooLarge
                | Self::KvKeyNotFound
                | Self::RunnerConfigInvalid { .. }
                | Self::RunnerConfigNotFound
                | Self::ServerlessPoolNotFound
                | Self::FailedToFetchMetadata { .. },
                Surface::Api | Surface::Gateway,
            ) => 400,
        }
    }

    fn metadata(&self) -> Map<String, Value> {
        let pairs: Vec<(&str, Value)> = match self {
            Self::BadRequest { reason } | Self::RunnerConfigInvalid { reason } => vec![("reason", reason.as_str().into())],
            Self::Forbidden { reason } | Self::NamespaceFailedToCreate { reason } => vec![("reason", (*reason).into())],
            Self::InvalidInput { message } => vec![("message", message.as_str().into())],
            Self::FailedToFetchMetadata { reason, .. } => vec![("reason", reason.clone())],
            Self::TooManyActorIds { count, max } => vec![("count", (*count).into()), ("max", (*max).into())],
            Self::KeyTooLarge { max_size, key_preview } => {
                vec![("max_size", (*max_size).into()), ("key_preview", key_preview.as_str().into())]
            }
            Self::HistoryTooShort { since } => vec![("since", (*since).into())],
            Self::NameTooLong { max_size } | Self::InputTooLarge { max_size } => vec![("max_size", (*max_size).into())],
            Self::DuplicateKey { key, existing_actor_id } => {
                vec![("existing_actor_id", existing_actor_id.as_str().into()), ("key", key.as_str().into())]
            }
            Self::NoRunnerConfigConfigured { namespace, pool_name } => {
                vec![("namespace", namespace.as_str().into()), ("pool_name", pool_name.as_str().into())]
            }
            Self::NotFound
            | Self::NamespaceNotFound
            | Self::NamespaceNameNotUnique
            | Self::DatacenterNotFound
            | Self::ActorNotFound
            | Self::EmptyKey
            | Self::EmptyName
            | Self::CreationRateLimit
            | Self::HistoryNotKept
            | Self::RestoreUnderWay
            | Self::RestoresBusy
            | Self::RestoreOutrun
            | Self::RestoreTooLarge
            | Self::KvKeyNotFound
            | Self::RunnerConfigNotFound
            | Self::ServerlessPoolNotFound
            | Self::StoreFull
            | Self::StoreReadOnly
            | Self::StoreDamaged
            | Self::Internal => Vec::new(),
        };
        pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }
}

impl From<store::StoreError> for ApiError {
    fn from(error: store::StoreError) -> Self {
        // The store has told the operator of these; each request would tell it once more.
        if matches!(error, store::StoreError::Full(_)) {
            return Self::StoreFull;
        }
        if matches!(error, store::StoreError::ReadOnly { .. }) {
            return Self::StoreReadOnly;
        }
        tracing::error!(%error, "the store failed");
        if matches!(error, store::StoreError::Damaged { .. }) { Self::StoreDamaged } else { Self::Internal }
    }
}

impl From<crate::records::CorruptRow> for ApiError {
    fn from(error: crate::records::CorruptRow) -> Self {
        tracing::error!(%error, "the store holds a row that cannot be read");
        Self::StoreDamaged
    }
}

impl From<actor_data::Damaged> for ApiError {
    fn from(error: actor_data::Damaged) -> Self {
        tracing::error!(%error, "the store holds a row that cannot be read");
        Self::StoreDamaged
    }
}

impl From<actor_data::KvError> for ApiError {
    fn from(error: actor_data::KvError) -> Self {
        use actor_data::KvError;
        match error {
            KvError::NoActor | KvError::NotCurrent { .. } => Self::ActorNotFound,
            KvError::Store(error) => error.into(),
            KvError::Damaged(error) => error.into(),
            KvError::TooManyKeys
            | KvError::TooManyEntries
            | KvError::LengthMismatch
            | KvError::PutTooLarge
            | KvError::KeyTooLong
            | KvError::PrefixTooLong
            | KvError::StartTooLong
            | KvError::EndTooLong
            | KvError::ValueTooLarge
            | KvError::QuotaExceeded
            | KvError::ListTooLarge => Self::BadRequest { reason: error.to_string() },
        }
    }
}

impl From<actor_data::HistoryError> for ApiError {
    fn from(error: actor_data::HistoryError) -> Self {
        use actor_data::HistoryError;
        match error {
            HistoryError::NoActor => Self::ActorNotFound,
            HistoryError::NotKept => Self::HistoryNotKept,
            HistoryError::TooEarly { since } => Self::HistoryTooShort { since },
            HistoryError::UnderWay => Self::RestoreUnderWay,
            HistoryError::Busy => Self::RestoresBusy,
            HistoryError::Outrun => Self::RestoreOutrun,
            HistoryError::QuotaExceeded => Self::RestoreTooLarge,
            HistoryError::Store(error) => error.into(),
            HistoryError::Damaged(error) => error.into(),
            HistoryError::Upkeep(_) | HistoryError::Interrupted => {
                tracing::error!(%error, "the history of an actor's database cannot be used");
                Self::Internal
            }
        }
    }
}

/// Why the engine did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder cannot be opened.
    #[error(transparent)]
    Store(#[from] store::StoreError),
    /// The data folder holds something that cannot be read.
    #[error(transparent)]
    Corrupt(#[from] crate::records::CorruptRow),
    /// A listener could not be bound.
    #[error("the {listener} listener cannot be bound to {address}: {source}")]
    Bind {
        /// Which listener.
        listener: &'static str,
        /// Where.
        address: std::net::SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The configuration asks for something that this version cannot do.
    #[error("`{key}` is set, but {what} is not available in this version of the engine")]
    NotImplemented {
        /// The configuration key.
        key: &'static str,
        /// What it would turn on.
        what: &'static str,
    },
}

impl StartError {
    /// A stable name of the failure, `group.code`, for scripts.
    pub fn code(&self) -> String {
        match self {
            Self::Store(error) => format!("store.{}", error.code()),
            Self::Corrupt(_) => "store.corrupt".into(),
            Self::Bind { source, .. } if source.kind() == std::io::ErrorKind::AddrInUse => "listener.address_in_use".into(),
            Self::Bind { .. } => "listener.bind_failed".into(),
            Self::NotImplemented { .. } => "config.not_implemented".into(),
        }
    }
}
