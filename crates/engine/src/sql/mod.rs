//! SQL that the engine executes for hosts which have no SQLite of their own (`spec/storage.md` 8 and 16.5).
//!
//! A *session* is an open database: SQLite over the pages of one actor. It belongs to one generation and to one connection of
//! the generation's host, is opened at the first statement, and closed when either ends, when nobody has used it for a
//! while, or when others need its place or its memory. An open transaction keeps its session from the latter two, and has more
//! time; but whoever leaves it alone for longer cannot be trusted to know that it was rolled back, and must end. Temporary
//! tables and settings of the host's own are only lost where others could not work otherwise.
//!
//! An actor has one session at most. It reads and commits what the page protocol would, at the head that it has seen last. If
//! that was moved by somebody else, the host hears `depot.head_fence_mismatch` from then on, which ends its instance.
//!
//! * `table`: whose session is where (decisions only).
//! * `pages`: what SQLite reads and commits.
//! * `statement`: running one, on a thread that may block.
//! * `cancel`, `request`, `error`, `metrics`: what their names say.

mod cancel;
mod error;
mod metrics;
mod pages;
mod request;
mod statement;
mod table;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actor_data::ActorData;
use gateway::EnvoyLink;
use parking_lot::Mutex;
use protocol::id::ActorId;
use protocol::limits;
use sqlite_vfs::{Budget, SessionOptions};
use tokio::runtime::Handle;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use self::cancel::{Cancel, Reason};
use self::error::SqlError;
use self::metrics::Outcome;
use self::pages::Head;
use self::statement::{Claim, Open, Statement};
use self::table::{Owner, Patience, Table, Taken};
use crate::hosts::Host;

pub(crate) use self::metrics::SqlMetrics;
pub(crate) use self::request::{SqlAnswer, SqlReply, SqlRequest, SqlWork};

/// What an operator may change.
#[derive(Debug, Clone)]
pub(crate) struct SqlSettings {
    /// Sessions at once.
    pub(crate) max_sessions: usize,
    /// Statements at once.
    pub(crate) threads: usize,
    /// Memory of SQLite; again that of open transactions and of what is temporary; and again that of results, in bytes.
    pub(crate) memory_max_bytes: u64,
    /// Where transactions, temporary tables and sorts put aside what does not fit.
    pub(crate) folder: PathBuf,
    /// How much of that there may be, in bytes. One session may have half of it.
    pub(crate) aside_max_bytes: u64,
    /// From the arrival of a statement to its end.
    pub(crate) statement_timeout: Duration,
    /// Time without a statement after which a session is closed.
    pub(crate) idle_timeout: Duration,
    /// The same for one with an open transaction.
    pub(crate) transaction_idle_timeout: Duration,
}

/// Who asks: one connection of a host.
pub(crate) struct SqlCaller {
    pub(crate) host: Arc<Host>,
    pub(crate) link: EnvoyLink,
    /// Name of the namespace of the host.
    pub(crate) namespace: String,
    /// One for each statement that runs or whose answer waits for room: who does not read its answers gets no more of them.
    turns: Arc<Semaphore>,
}

impl SqlCaller {
    pub(crate) fn new(host: Arc<Host>, link: EnvoyLink, namespace: String) -> Self {
        Self { host, link, namespace, turns: Arc::new(Semaphore::new(limits::REMOTE_SQL_STATEMENTS_PER_HOST_MAX)) }
    }
}

/// The executor; clone freely.
#[derive(Clone)]
pub(crate) struct RemoteSql(Arc<Shared>);

struct Shared {
    data: ActorData,
    settings: SqlSettings,
    /// Of every session.
    options: SessionOptions,
    table: Mutex<Table<Open>>,
    /// One for each session that may be open.
    places: Arc<Semaphore>,
    /// One for each statement that may run.
    threads: Arc<Semaphore>,
    /// Told when there is a new idle session.
    idle_changed: Notify,
    metrics: SqlMetrics,
}

impl RemoteSql {
    /// The memory of SQLite is bounded for the whole process.
    pub(crate) fn new(data: ActorData, settings: SqlSettings) -> Self {
        sqlite_vfs::set_heap_limit(settings.memory_max_bytes);
        Self(Arc::new(Shared {
            data,
            options: session_options(&settings),
            table: Mutex::default(),
            places: Arc::new(Semaphore::new(settings.max_sessions)),
            threads: Arc::new(Semaphore::new(settings.threads)),
            idle_changed: Notify::new(),
            metrics: SqlMetrics::default(),
            settings,
        }))
    }

    pub(crate) fn metrics(&self) -> &SqlMetrics {
        &self.0.metrics
    }

    /// When the time of a request is up that has arrived just now.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.0.settings.statement_timeout
    }

    /// Executes a request, in the order in which this is called for an actor. `assigned`: the generation that the host ran
    /// when the request came.
    pub(crate) async fn answer(
        &self,
        caller: &SqlCaller,
        actor: ActorId,
        assigned: Option<u32>,
        request: SqlRequest,
        deadline: Instant,
    ) -> SqlAnswer {
        let began = deadline - self.0.settings.statement_timeout;
        let request = Arc::new(request);
        let answered = self.0.execute(caller, actor, assigned, request.clone(), deadline).await;
        let outcome = match &answered {
            Ok(_) => Outcome::Success,
            Err(SqlError::Timeout(_) | SqlError::NoThread(_) | SqlError::NoPlace(_) | SqlError::NotFree(_)) => Outcome::Timeout,
            Err(
                SqlError::OtherNamespace
                | SqlError::NotCurrent { .. }
                | SqlError::Over
                | SqlError::Panicked
                | SqlError::TransactionLost
                | SqlError::TransactionExpired(_)
                | SqlError::Poisoned(_)
                | SqlError::Failed(_),
            ) => Outcome::Error,
        };
        self.0.metrics.requests.get(outcome).observe(began.elapsed());
        answered.unwrap_or_else(|error| request.refusal(error.into()))
    }

    /// A generation is over: its session is closed, and what it did not commit never was.
    pub(crate) fn generation_ended(&self, actor: ActorId, generation: u32) {
        let closed = self.0.table.lock().generation_ended(actor, generation);
        close(closed);
    }

    /// A connection has ended, and counts as closed: the same for all its sessions.
    pub(crate) fn connection_ended(&self, link: &EnvoyLink) {
        let closed = self.0.table.lock().connection_ended(link.session().0);
        close(closed);
    }

    /// Closes sessions that nobody has used for long. Runs for ever.
    pub(crate) async fn close_idle(self) {
        let SqlSettings { idle_timeout: idle, transaction_idle_timeout: in_transaction, .. } = self.0.settings;
        let patience = Patience { idle, in_transaction };
        loop {
            let next = self.0.table.lock().next_expiry(patience);
            match next {
                // Whatever is used meanwhile is not due before this.
                Some(at) => tokio::time::sleep_until(at.min(Instant::now() + idle.min(in_transaction))).await,
                None => self.0.idle_changed.notified().await,
            }
            let rolled_back = SqlError::TransactionExpired(in_transaction).into();
            let closed = self.0.table.lock().expire(patience, Instant::now(), &rolled_back);
            close(closed);
        }
    }
}

fn session_options(settings: &SqlSettings) -> SessionOptions {
    SessionOptions {
        cache_bytes: limits::REMOTE_SQL_CACHE_BYTES,
        value_max_bytes: limits::REMOTE_SQL_VALUE_MAX_BYTES,
        bind_max_bytes: limits::REMOTE_SQL_PARAMS_MAX_BYTES,
        result_max_bytes: limits::REMOTE_SQL_RESULT_MAX_BYTES,
        transaction_max_bytes: limits::REMOTE_SQL_TRANSACTION_MEMORY_BYTES,
        budget: Budget::new(settings.memory_max_bytes),
        folder: Some(settings.folder.clone()),
        aside_max_bytes: settings.aside_max_bytes / 2,
        aside_budget: Budget::new(settings.aside_max_bytes),
        result_budget: Budget::new(settings.memory_max_bytes),
    }
}

/// Closes sessions, elsewhere: where much was changed and is not committed, it takes a while.
fn close(sessions: impl IntoIterator<Item = Open>) {
    let sessions: Vec<Open> = sessions.into_iter().collect();
    if !sessions.is_empty()
        && let Ok(runtime) = Handle::try_current()
    {
        runtime.spawn_blocking(move || drop(sessions));
    }
    // Without a runtime there is nobody left to be kept waiting.
}

impl Shared {
    async fn execute(
        self: &Arc<Self>,
        caller: &SqlCaller,
        actor: ActorId,
        assigned: Option<u32>,
        request: Arc<SqlRequest>,
        deadline: Instant,
    ) -> Result<SqlAnswer, SqlError> {
        if request.namespace() != caller.namespace {
            return Err(SqlError::OtherNamespace);
        }
        let generation = request.generation();
        let assigned = assigned.filter(|assigned| u64::from(*assigned) == generation);
        let assigned = assigned.ok_or(SqlError::NotCurrent { generation })?;
        let claim = self.claim(caller, actor, assigned, deadline).await?;
        let timeout = self.settings.statement_timeout;
        let cancel = claim.cancel.clone();
        let place = match &claim.session {
            Some(_) => None,
            None => Some(self.place(&cancel, deadline).await?),
        };
        // Only now: a statement that waits for a place must not be in the way of those that would make one free.
        let turn = in_time(&cancel, deadline, caller.turns.clone().acquire_owned(), SqlError::NoThread(timeout)).await?;
        let thread = in_time(&cancel, deadline, self.threads.clone().acquire_owned(), SqlError::NoThread(timeout)).await?;
        let statement = Statement {
            claim,
            place,
            request,
            protocol_version: caller.link.protocol_version(),
            timeout,
            _thread: thread.map_err(|_closed| SqlError::Over)?,
            _counted: self.metrics.running.hold(),
        };
        let shared = self.clone();
        let mut running = tokio::task::spawn_blocking(move || {
            let ran = statement.run();
            shared.relieve_memory();
            ran
        });
        let ran = match timeout_at(deadline, &mut running).await {
            Ok(ran) => ran,
            Err(_elapsed) => {
                cancel.raise(Reason::Timeout);
                // A commit that is under way comes to its end.
                running.await
            }
        };
        let (reply, charge) = ran.unwrap_or(Err(SqlError::Panicked))?;
        Ok(SqlAnswer { reply, turn: turn.ok(), charge: Some(charge) })
    }

    /// Takes the actor's session, or the right to open it.
    async fn claim(
        self: &Arc<Self>,
        caller: &SqlCaller,
        actor: ActorId,
        generation: u32,
        deadline: Instant,
    ) -> Result<Claim, SqlError> {
        let owner = Owner { generation, connection: caller.link.session().0 };
        loop {
            let (session, head, cancel) = match self.look(caller, actor, owner)? {
                Taken::Open(session, cancel) => {
                    let head = session.head.clone();
                    (Some(session), head, cancel)
                }
                Taken::Closed { head, cancel, replaced } => {
                    close(replaced);
                    (None, Arc::new(Head::at(head)), cancel)
                }
                Taken::Busy(freed) => {
                    let late = SqlError::NotFree(self.settings.statement_timeout);
                    timeout_at(deadline, freed).await.map_err(|_elapsed| late)?;
                    continue;
                }
                Taken::Poisoned(error) => return Err(SqlError::Poisoned(error)),
                Taken::Late => return Err(SqlError::NotCurrent { generation: generation.into() }),
            };
            return Ok(Claim { shared: self.clone(), actor, owner, cancel, session, head, poison: None });
        }
    }

    /// Who has lost the actor, or the connection, hears of it after the host's table and the link say so, and locks the table
    /// then. So what is taken here is either seen by them or refused here.
    fn look(&self, caller: &SqlCaller, actor: ActorId, owner: Owner) -> Result<Taken<Open>, SqlError> {
        let mut table = self.table.lock();
        if caller.link.is_closed() {
            return Err(SqlError::Over);
        }
        if caller.host.generation_of(actor) != Some(owner.generation) {
            return Err(SqlError::NotCurrent { generation: owner.generation.into() });
        }
        Ok(table.take(actor, owner))
    }

    /// Closes sessions that nobody uses while memory is short. Blocks.
    fn relieve_memory(&self) {
        let comfortable = self.settings.memory_max_bytes / 4 * 3;
        while sqlite_vfs::heap_used() > comfortable {
            let Some(evicted) = self.table.lock().evict() else { return };
            // Here and now, because the next look at the memory must see it.
            drop(evicted);
        }
    }

    /// Waits until one more session may be open. One that nobody uses is closed for it.
    async fn place(&self, cancel: &Cancel, deadline: Instant) -> Result<OwnedSemaphorePermit, SqlError> {
        if let Ok(place) = self.places.clone().try_acquire_owned() {
            return Ok(place);
        }
        let _waiting = Waiting::begin(self);
        let late = SqlError::NoPlace(self.settings.statement_timeout);
        let place = in_time(cancel, deadline, self.places.clone().acquire_owned(), late).await?;
        place.map_err(|_closed| SqlError::Over)
    }
}

/// A statement that waits for a place. From its beginning to its end no session stays open without need.
struct Waiting<'a>(&'a Shared);

impl<'a> Waiting<'a> {
    fn begin(shared: &'a Shared) -> Self {
        let evicted = {
            let mut table = shared.table.lock();
            table.begin_waiting();
            table.evict()
        };
        close(evicted);
        Self(shared)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.table.lock().end_waiting();
    }
}

/// Waits for something for as long as the statement has time, and somebody waits for its answer.
async fn in_time<T>(cancel: &Cancel, deadline: Instant, wait: impl Future<Output = T>, late: SqlError) -> Result<T, SqlError> {
    tokio::select! {
        biased;
        () = cancel.raised() => Err(SqlError::Over),
        waited = timeout_at(deadline, wait) => waited.map_err(|_elapsed| late),
    }
}
