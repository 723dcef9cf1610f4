//! What an actor owns in the engine: its key-value entries and its SQLite database (`spec/storage.md` 3 and 6).
//!
//! [`ActorData`] answers the storage requests of hosts. Each write is one transaction of the store that checks the
//! *fence* (is the caller's generation still the actor's current one?) and the *ledger* (head, size, bytes used)
//! together with what it changes, so no lock and no order between callers is needed for safety. Whether the host that
//! asks is the one to which the actor is assigned is checked by the caller.
//!
//! Stored records, one module each, with their byte layout: `fence`, `ledger`, `page`, `segment`, `kv::entry`,
//! `kv::bucket`, `sqlite::history::rows`. What travels with a start is chosen in [`preload`]. All keys begin with a byte that tells the kind, from
//! `0x40` to `0x5f`, and the 18 bytes of the actor's id; numbers are big-endian. Every value ends with a checksum
//! (`record`): a damaged row fails the requests that need it, and nobody else's.

pub mod check;
mod delete;
pub mod export;
pub mod fence;
mod kv;
mod ledger;
pub mod limits;
mod page;
pub mod preload;
mod record;
mod segment;
mod sqlite;

use std::sync::Arc;

use bytes::Bytes;
use protocol::id::Id;
use store::{Decision, Reads, Store, StoreError, View};
use tokio::sync::Semaphore;

pub use crate::kv::KvError;
pub use crate::record::Damaged;
pub use crate::sqlite::Caller;
pub use crate::sqlite::history::{Amended, Draft, HistoryError, Past, Restored, as_it_was};

use crate::fence::Fence;
use crate::ledger::Ledger;
use crate::sqlite::history::Restores;
use crate::sqlite::{Undo, Upkeep};

/// Where the time comes from, in epoch milliseconds.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// What an operator may choose.
#[derive(Debug, Clone)]
pub struct Options {
    /// Bytes that one actor may store, key-value and SQLite together (`spec/storage.md` 12.1).
    pub max_storage_bytes: u64,
    /// Bytes that may be remembered of the newest commits of all actors, to take back those whose answers were lost
    /// (`spec/storage.md` 7.5).
    pub max_undo_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { max_storage_bytes: limits::DEFAULT_MAX_STORAGE_BYTES, max_undo_bytes: limits::DEFAULT_MAX_UNDO_BYTES }
    }
}

/// The data of all actors; a handle that is cheap to clone.
///
/// Page requests of a host for one actor must come one after the other, as it sends them, also over different connections:
/// by them is judged what the host knows (`sqlite::undo`). Everything else may overlap: key-value requests, the pages of SQL
/// that the engine executes, restores, what an old and a new generation ask for, and requests for different actors.
#[derive(Clone)]
pub struct ActorData {
    store: Store,
    options: Options,
    clock: Clock,
    undo: Arc<Undo>,
    upkeep: Arc<Upkeep>,
    restores: Restores,
    /// Turns of restores and copies.
    copies: Arc<Semaphore>,
}

impl ActorData {
    /// The data in a store.
    pub fn new(store: Store, options: Options, clock: Clock) -> Self {
        let undo = Arc::new(Undo::new(options.max_undo_bytes));
        Self {
            store,
            options,
            clock,
            undo,
            upkeep: Arc::default(),
            restores: Restores::default(),
            copies: Arc::new(Semaphore::new(limits::MAX_COPIES)),
        }
    }

    /// A transaction whose decision can fail: then it writes nothing.
    async fn transact<T, E>(
        &self,
        reads: Reads,
        mut attempt: impl FnMut(&View<'_>) -> Result<Decision<T>, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let decide = move |view: &View<'_>| match attempt(view) {
            Ok(Decision::Commit(batch, answer)) => Decision::Commit(batch, Ok(answer)),
            Ok(Decision::Skip(answer)) => Decision::Skip(Ok(answer)),
            Ok(Decision::ReadMore(reads)) => Decision::ReadMore(reads),
            Err(error) => Decision::Skip(Err(error)),
        };
        self.store.update(reads, decide).await?
    }
}

/// What is known about an actor before its data is looked at.
struct Standing {
    /// None if the actor never started, or is deleted completely.
    fence: Option<Fence>,
    ledger: Ledger,
}

/// Number of records in [`Standing`].
const STANDING_KEYS: usize = 2;

/// Keys of the records in [`Standing`]: they stand first in every transaction.
fn standing_keys(actor: &Id) -> [Bytes; STANDING_KEYS] {
    [fence::key(actor), ledger::key(actor)]
}

impl Standing {
    /// From a view whose first keys are [`standing_keys`].
    fn of(actor: &Id, view: &View<'_>) -> Result<Self, Damaged> {
        Self::decode(actor, view.get(0), view.get(1))
    }

    fn decode(actor: &Id, fence: Option<&[u8]>, ledger: Option<&[u8]>) -> Result<Self, Damaged> {
        let fence = fence.map(|value| Fence::decode(actor, value)).transpose()?;
        let ledger = ledger.map(|value| Ledger::decode(actor, value)).transpose()?;
        Ok(Self { fence, ledger: ledger.unwrap_or_default() })
    }

    /// For how long the actor's generation keeps the history of its database, in seconds; 0: not at all.
    fn retention_s(&self) -> u32 {
        match self.fence {
            Some(Fence::Generation { retention_s, .. }) => retention_s,
            Some(Fence::Destroyed) | None => 0,
        }
    }

    /// Whether this is the actor's current generation.
    fn is_current(&self, generation: u64) -> bool {
        matches!(self.fence, Some(Fence::Generation { number, .. }) if number == generation)
    }
}
