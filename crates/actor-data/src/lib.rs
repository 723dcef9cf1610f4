//! What an actor owns in the engine: its key-value entries and its SQLite database (`spec/storage.md` 3 and 6).
//!
//! [`ActorData`] answers the storage requests of hosts. Each write is one transaction of the store that checks the
//! *fence* (is the caller's generation still the actor's current one?) and the *ledger* (head, size, bytes used)
//! together with what it changes, so no lock and no order between callers is needed for safety. Whether the host that
//! asks is the one to which the actor is assigned is checked by the caller.
//!
//! Stored records, one module each, with their byte layout: `fence`, `ledger`, `page`, `segment`, `kv::entry`,
//! `kv::bucket`. What travels with a start is chosen in [`preload`]. All keys begin with a byte that tells the kind, from `0x40` to `0x5f`, and the 18 bytes of the actor's
//! id; numbers are big-endian.

mod delete;
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

pub use crate::kv::KvError;
pub use crate::record::Damaged;

use crate::fence::Fence;
use crate::ledger::Ledger;

/// Where the time comes from, in epoch milliseconds.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// What an operator may choose.
#[derive(Debug, Clone)]
pub struct Options {
    /// Bytes that one actor may store, key-value and SQLite together (`spec/storage.md` 12.1).
    pub max_storage_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { max_storage_bytes: limits::DEFAULT_MAX_STORAGE_BYTES }
    }
}

/// The data of all actors; a handle that is cheap to clone.
///
/// Requests of one actor must come one after the other, as its host sends them; those of different actors, and of an
/// old and a new generation, may come in any way.
#[derive(Clone)]
pub struct ActorData {
    store: Store,
    options: Options,
    clock: Clock,
}

impl ActorData {
    /// The data in a store.
    pub fn new(store: Store, options: Options, clock: Clock) -> Self {
        Self { store, options, clock }
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
    fn of(view: &View<'_>) -> Result<Self, Damaged> {
        Self::decode(view.get(0), view.get(1))
    }

    fn decode(fence: Option<&[u8]>, ledger: Option<&[u8]>) -> Result<Self, Damaged> {
        let ledger = ledger.map(Ledger::decode).transpose()?.unwrap_or_default();
        Ok(Self { fence: fence.map(Fence::decode).transpose()?, ledger })
    }

    /// Whether this is the actor's current generation.
    fn is_current(&self, generation: u64) -> bool {
        self.fence.is_some_and(|fence| fence == Fence::Generation(generation))
    }
}
