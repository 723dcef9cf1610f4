//! Makes an actor's database forget which alarm its host has set.
//!
//! The published SDK keeps the alarm that it told the engine last in its table `_rivet_runtime`, and tells it only of another one
//! (`spec/scheduling.md` 4). A database that was put back or copied says what the engine was told then, and not what it
//! knows now, so that a schedule in it would not wake the actor. Without that memory the next start tells the engine when the
//! next schedule is due.
//!
//! This is the one place where the engine knows a table of the SDK's (`docs/decisions/0018`). It works on what is about to be
//! published, so there is no moment at which the database remembers too much; the actor's own triggers do not run, and as
//! few databases are worked on at a time as are restored or copied (`actor_data::limits::MAX_COPIES`).

use std::sync::Arc;

use actor_data::{Amended, Draft};
use bytes::Bytes;
use parking_lot::Mutex;
use protocol::envoy::SqliteErrorResponse;
use protocol::id::ActorId;
use protocol::limits;
use sqlite_vfs::{DirtyPages, Interrupter, Pages, PagesError, Session, SessionError, SessionOptions};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// Nothing, if the database is not one of the published SDK.
const IS_REMEMBERED: &str = "SELECT 1 FROM pragma_table_info('_rivet_runtime') WHERE name = 'last_pushed_alarm'";
const FORGET: &str = "UPDATE _rivet_runtime SET last_pushed_alarm = NULL WHERE last_pushed_alarm IS NOT NULL";
/// Memory for the few pages that are changed, with a good margin.
const TRANSACTION_MAX_BYTES: u64 = 4 * 1024 * 1024;

/// The pages that are to be different in the database of an actor. None if it is not one of the published SDK. None either if
/// it cannot be changed within [`limits::FORGET_ALARM_TIMEOUT`]: then it stays as it was, and a log line says so.
pub(crate) async fn forgotten(actor: ActorId, draft: Draft) -> Amended {
    if draft.size() == 0 {
        return Vec::new();
    }
    let (opened, mut interrupter) = oneshot::channel();
    let runtime = Handle::current();
    let mut work = tokio::task::spawn_blocking(move || forget(draft, runtime, opened));
    let done = match timeout(limits::FORGET_ALARM_TIMEOUT, &mut work).await {
        Ok(done) => done,
        Err(_) => {
            match interrupter.try_recv() {
                Ok(interrupter) => interrupter.interrupt(),
                // It is still being opened, and will find that nobody takes it.
                Err(_) => drop(interrupter),
            }
            // It ends within some microseconds, or when the store has read the pages that it waits for.
            work.await
        }
    };
    let reason = match done {
        Ok(Ok(amended)) => return amended,
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    tracing::warn!(
        actor_id = %actor,
        reason,
        "a restored or copied database still says which alarm was set: a schedule in it may not wake the actor (forget_alarm_timeout)"
    );
    Vec::new()
}

/// For a thread that may block.
fn forget(draft: Draft, runtime: Handle, opened: oneshot::Sender<Interrupter>) -> Result<Amended, SessionError> {
    let amended = Arc::new(Mutex::new(Vec::new()));
    let pages = DraftPages { draft, runtime, amended: amended.clone() };
    let options = SessionOptions { transaction_max_bytes: TRANSACTION_MAX_BYTES, ..SessionOptions::default() };
    let mut session = Session::open(pages, options)?;
    if opened.send(session.interrupter()).is_err() {
        return Err(SessionError::Interrupted);
    }
    session.disable_triggers();
    if !session.execute(IS_REMEMBERED, None)?.rows.is_empty() {
        session.execute(FORGET, None)?;
    }
    drop(session);
    Ok(std::mem::take(&mut amended.lock()))
}

/// A draft, and what is to be different in it.
struct DraftPages {
    draft: Draft,
    runtime: Handle,
    amended: Arc<Mutex<Amended>>,
}

impl Pages for DraftPages {
    fn read(&mut self, pgnos: &[u32]) -> Result<Vec<(u32, Bytes)>, PagesError> {
        // SQLite may read ahead, beyond the end.
        let within: Vec<u32> = pgnos.iter().copied().filter(|pgno| *pgno <= self.draft.size()).collect();
        self.runtime.block_on(self.draft.read(&within)).map_err(|error| failed(error.to_string()))
    }

    fn commit(&mut self, pages: DirtyPages, size: u32) -> Result<(), PagesError> {
        if size != self.draft.size() {
            return Err(failed("the size of the database would change".into()));
        }
        *self.amended.lock() = pages.collect::<Result<_, _>>()?;
        Ok(())
    }
}

fn failed(message: String) -> PagesError {
    let answer = SqliteErrorResponse { group: "store".into(), code: "failed".into(), message };
    PagesError { answer, is_fence: false }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use actor_data::{ActorData, Caller, Options, as_it_was, fence};
    use protocol::envoy::{SqliteColumnValue, SqliteCommitRequest, SqliteDirtyPage, SqliteGetPagesRequest};
    use store::{Batch, Store};

    use super::*;

    /// A database in memory.
    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<BTreeMap<u32, Bytes>>>);

    impl Pages for Memory {
        fn read(&mut self, pgnos: &[u32]) -> Result<Vec<(u32, Bytes)>, PagesError> {
            let pages = self.0.lock();
            Ok(pgnos.iter().filter_map(|pgno| Some((*pgno, pages.get(pgno)?.clone()))).collect())
        }

        fn commit(&mut self, dirty: DirtyPages, size: u32) -> Result<(), PagesError> {
            let dirty: Vec<_> = dirty.collect::<Result<_, _>>()?;
            let mut pages = self.0.lock();
            pages.extend(dirty);
            pages.retain(|pgno, _| *pgno <= size);
            Ok(())
        }
    }

    impl Memory {
        fn session(&self) -> Session {
            Session::open(self.clone(), SessionOptions::default()).unwrap()
        }

        /// As an actor's.
        async fn store(&self, data: &ActorData, store: &Store, actor: ActorId) {
            let mut batch = Batch::new();
            fence::set_generation(&mut batch, &actor, 1);
            store.write(batch).await.unwrap();
            let pages: Vec<_> = self.0.lock().iter().map(|(pgno, bytes)| (*pgno, bytes.clone())).collect();
            let request = SqliteCommitRequest {
                actor_id: String::new(),
                db_size_pages: pages.len() as u32,
                dirty_pages: pages.into_iter().map(|(pgno, bytes)| SqliteDirtyPage { pgno, bytes }).collect(),
                now_ms: 0,
                expected_generation: Some(1),
                expected_head_txid: None,
            };
            data.commit(actor, Caller::Engine, request).await.unwrap();
        }

        /// An actor's.
        async fn load(data: &ActorData, store: &Store, actor: ActorId) -> Self {
            let mut batch = Batch::new();
            fence::set_generation(&mut batch, &actor, 1);
            store.write(batch).await.unwrap();
            let request = SqliteGetPagesRequest {
                actor_id: String::new(),
                pgnos: (1..=100).collect(),
                expected_generation: Some(1),
                expected_head_txid: None,
            };
            let read = data.get_pages(actor, Caller::Engine, request).await.unwrap().pages;
            Self(Arc::new(Mutex::new(read.into_iter().filter_map(|page| Some((page.pgno, page.bytes?))).collect())))
        }
    }

    const SDK: &str = "CREATE TABLE _rivet_runtime (id INTEGER PRIMARY KEY, last_pushed_alarm INTEGER, other); \
                       INSERT INTO _rivet_runtime VALUES (1, 1700000000000, 'x'); \
                       CREATE TABLE changes (n); \
                       CREATE TRIGGER watch AFTER UPDATE ON _rivet_runtime BEGIN INSERT INTO changes VALUES (1); END";
    const LOOK: &str = "SELECT last_pushed_alarm, other, (SELECT count(*) FROM changes) FROM _rivet_runtime";

    /// The database of a fork.
    async fn copied(script: &str) -> (Memory, Memory) {
        let store = Store::memory();
        let data = ActorData::new(store.clone(), Options::default(), Arc::new(|| 1));
        let [from, as_it_is, fork] = [1, 2, 3].map(|number| ActorId::from_parts([number; 16], 1));
        let original = Memory::default();
        original.session().exec(script).unwrap();
        original.store(&data, &store, from).await;
        data.copy(from, as_it_is, None, as_it_was).await.unwrap();
        data.copy(from, fork, None, |draft| forgotten(fork, draft)).await.unwrap();
        (Memory::load(&data, &store, as_it_is).await, Memory::load(&data, &store, fork).await)
    }

    #[tokio::test]
    async fn the_alarm_is_forgotten_and_nothing_else_happens() {
        let (as_it_is, fork) = copied(SDK).await;
        let look = |memory: &Memory| memory.session().exec(LOOK).unwrap().rows.remove(0);
        let other = SqliteColumnValue::Text("x".into());
        let none = SqliteColumnValue::Integer(0);
        assert_eq!(look(&as_it_is), [SqliteColumnValue::Integer(1_700_000_000_000), other.clone(), none.clone()]);
        assert_eq!(look(&fork), [SqliteColumnValue::Null, other, none], "a trigger of the actor's has run");
    }

    #[tokio::test]
    async fn other_databases_stay_as_they_were() {
        for script in [
            "CREATE TABLE mine (n)",
            "CREATE TABLE _rivet_runtime (id)",
            "CREATE VIEW _rivet_runtime AS SELECT 1 AS last_pushed_alarm",
        ] {
            let (as_it_is, fork) = copied(script).await;
            assert_eq!(*as_it_is.0.lock(), *fork.0.lock(), "{script}");
        }
    }
}
