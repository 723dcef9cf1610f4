//! One actor whose host executes its SQL in one generation by itself, over pages, and in the next one lets the engine do it;
//! and plain SQLite beside it, which must answer the same (`spec/storage.md` checklist 41).

use std::sync::Arc;

use bytes::Bytes;
use protocol::envoy::{
    SqliteCommitRequest, SqliteDirtyPage, SqliteErrorResponse, SqliteExecuteResult, SqliteGetPagesRequest, SqliteValue, ToEnvoy,
    ToRivet,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rusqlite::types::ValueRef;
use serde_json::json;
use sqlite_vfs::{DirtyPages, Pages, PagesError, Session, SessionOptions};
use testkit::envoy::{FakeEnvoy, Run};
use tokio::runtime::Handle;
use tokio::sync::Mutex;

use crate::one_actor::{fall_asleep, running_actor, wake};
use crate::sql_host::Sql;

const GENERATIONS: usize = 6;
const STATEMENTS_PER_GENERATION: usize = 40;

const SCHEMA: [&str; 6] = [
    "CREATE TABLE a (id INTEGER PRIMARY KEY, n INTEGER, t TEXT, b BLOB)",
    "CREATE INDEX a_n ON a (n)",
    "CREATE TABLE s (id INTEGER PRIMARY KEY AUTOINCREMENT, a INTEGER REFERENCES a ON DELETE CASCADE, v REAL NOT NULL) STRICT",
    "CREATE TABLE w (k TEXT, l INTEGER, v, PRIMARY KEY (k, l DESC)) WITHOUT ROWID",
    "CREATE TRIGGER a_deleted AFTER DELETE ON a BEGIN INSERT INTO w VALUES ('deleted', old.id, old.t) ON CONFLICT DO NOTHING; END",
    "CREATE VIRTUAL TABLE f USING fts5(t)",
];

const CONTENT: [&str; 5] = [
    "SELECT * FROM a ORDER BY id",
    "SELECT * FROM s ORDER BY id",
    "SELECT * FROM w ORDER BY k, l",
    "SELECT rowid, t FROM f WHERE f MATCH 'bird' ORDER BY rowid",
    "SELECT type, name, sql FROM sqlite_schema ORDER BY name",
];

fn statement(random: &mut StdRng) -> String {
    let (id, n) = (random.random_range(0..30), random.random_range(0..100));
    let length = [20, 2_000, 30_000][random.random_range(0..3)];
    match random.random_range(0..16) {
        0..4 => format!("INSERT INTO a VALUES ({id}, {n}, 'ä{n}', zeroblob({length}))"),
        4 => format!("INSERT OR REPLACE INTO a VALUES ({id}, {n}, hex(zeroblob({length})), NULL)"),
        5 => format!("UPDATE a SET n = n + 7, t = t || {n} WHERE n < {n}"),
        6 => format!("DELETE FROM a WHERE n > {n} RETURNING id"),
        7 => format!("INSERT INTO s (a, v) VALUES (nullif({id}, 3), {n} / 3.0)"),
        8 => format!("INSERT INTO w VALUES ('k{n}', {id}, {n}) ON CONFLICT DO UPDATE SET v = excluded.v"),
        9 => format!("INSERT INTO f VALUES ('bird {n} fish')"),
        10 => format!("SELECT count(*), total(v) FROM s JOIN a ON a.id = s.a WHERE n < {n}"),
        11 => "SELECT nothing FROM a".to_owned(),
        12 => "VACUUM".to_owned(),
        13 => "BEGIN".to_owned(),
        14 => "COMMIT".to_owned(),
        _ => "ROLLBACK".to_owned(),
    }
}

/// Columns and rows, or SQLite's words.
type Answer = Result<(Vec<String>, Vec<Vec<SqliteValue>>), String>;

fn answer(result: SqliteExecuteResult) -> Answer {
    Ok((result.columns, result.rows))
}

fn words(message: &str) -> Answer {
    let prefixes = ["failed to prepare sqlite execute statement: ", "failed to step sqlite execute statement: "];
    let own = prefixes.iter().find_map(|prefix| message.strip_prefix(prefix));
    Err(own.unwrap_or_else(|| panic!("{message}")).to_owned())
}

fn ask_plain(plain: &rusqlite::Connection, sql: &str) -> Answer {
    let cell = |value: ValueRef<'_>| match value {
        ValueRef::Null => SqliteValue::Null,
        ValueRef::Integer(value) => SqliteValue::Integer(value),
        ValueRef::Real(value) => SqliteValue::Float(value),
        ValueRef::Text(text) => SqliteValue::Text(String::from_utf8(text.to_vec()).unwrap()),
        ValueRef::Blob(blob) => SqliteValue::Blob(blob.to_vec().into()),
    };
    let ask = || -> rusqlite::Result<_> {
        let mut statement = plain.prepare(sql)?;
        let columns: Vec<String> = statement.column_names().map(String::from).collect();
        let mut rows = Vec::new();
        let mut found = statement.raw_query();
        while let Some(row) = found.next()? {
            rows.push((0..columns.len()).map(|column| Ok(cell(row.get_ref(column)?))).collect::<rusqlite::Result<Vec<_>>>()?);
        }
        Ok((columns, rows))
    };
    ask().map_err(|error| {
        if let rusqlite::Error::SqlInputError { msg, .. } = error {
            return msg;
        }
        let rusqlite::Error::SqliteFailure(_, Some(message)) = error else { panic!("{sql}: {error}") };
        message
    })
}

/// The host's own SQLite: its pages come and go over the host's connection.
struct HostPages {
    envoy: Arc<Mutex<FakeEnvoy>>,
    runtime: Handle,
    run: Run,
    head: Option<u64>,
    next_id: u32,
}

fn error(answer: SqliteErrorResponse) -> PagesError {
    PagesError { is_fence: answer.code == "head_fence_mismatch", answer }
}

impl HostPages {
    fn id(&mut self) -> u32 {
        self.next_id += 1;
        self.next_id
    }
}

impl Pages for HostPages {
    fn read(&mut self, pgnos: &[u32]) -> Result<Vec<(u32, Bytes)>, PagesError> {
        let id = self.id();
        let data = SqliteGetPagesRequest {
            actor_id: self.run.actor_id.clone(),
            pgnos: pgnos.to_vec(),
            expected_generation: Some(self.run.generation.into()),
            expected_head_txid: self.head,
        };
        let mut envoy = self.runtime.block_on(self.envoy.lock());
        envoy.send(&ToRivet::SqliteGetPages { request_id: id, data });
        let found = self.runtime.block_on(envoy.expect("pages", |message| {
            let ToEnvoy::SqliteGetPages { request_id, data } = message else { return None };
            (*request_id == id).then(|| data.clone())
        }));
        let found = found.map_err(error)?;
        self.head = found.head_txid;
        Ok(found.pages.into_iter().filter_map(|page| Some((page.pgno, page.bytes?))).collect())
    }

    fn commit(&mut self, pages: DirtyPages, size: u32) -> Result<(), PagesError> {
        assert!(pages.len() <= 320, "the statements of this test are small");
        let id = self.id();
        let dirty_pages = pages.map(|page| page.map(|(pgno, bytes)| SqliteDirtyPage { pgno, bytes }));
        let data = SqliteCommitRequest {
            actor_id: self.run.actor_id.clone(),
            dirty_pages: dirty_pages.collect::<Result<_, _>>()?,
            db_size_pages: size,
            now_ms: 0,
            expected_generation: Some(self.run.generation.into()),
            expected_head_txid: self.head,
        };
        let mut envoy = self.runtime.block_on(self.envoy.lock());
        envoy.send(&ToRivet::SqliteCommit { request_id: id, data });
        let committed = self.runtime.block_on(envoy.expect("a commit", |message| {
            let ToEnvoy::SqliteCommit { request_id, data } = message else { return None };
            (*request_id == id).then(|| data.clone())
        }));
        self.head = committed.map_err(error)?.head_txid;
        Ok(())
    }
}

/// Where a generation executes its SQL.
enum Executor {
    Host(Arc<parking_lot::Mutex<Session>>),
    Engine(Sql),
}

impl Executor {
    async fn ask(&mut self, envoy: &Mutex<FakeEnvoy>, sql: &str) -> Answer {
        match self {
            Self::Host(session) => {
                let (session, sql) = (session.clone(), sql.to_owned());
                let asked = tokio::task::spawn_blocking(move || session.lock().execute(&sql, None)).await.unwrap();
                asked.map_or_else(|error| words(&error.to_string()), answer)
            }
            Self::Engine(remote) => {
                let asked = remote.execute(&mut *envoy.lock().await, sql, &[]).await;
                asked.map_or_else(|error| words(&error.message), answer)
            }
        }
    }
}

async fn open(envoy: &Arc<Mutex<FakeEnvoy>>, run: &Run, generation: usize) -> Executor {
    if generation % 2 == 1 {
        return Executor::Engine(Sql::numbered(run, 100_000 * generation as u32));
    }
    let next_id = 100_000 * generation as u32;
    let pages = HostPages { envoy: envoy.clone(), runtime: Handle::current(), run: run.clone(), head: None, next_id };
    let session = tokio::task::spawn_blocking(move || Session::open(pages, SessionOptions::default())).await.unwrap();
    Executor::Host(Arc::new(parking_lot::Mutex::new(session.unwrap())))
}

async fn differential(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let plain = rusqlite::Connection::open_in_memory().unwrap();
    let (engine, envoy, mut run) = running_actor(json!({})).await;
    let envoy = Arc::new(Mutex::new(envoy));
    for generation in 0..GENERATIONS {
        let mut executor = open(&envoy, &run, generation).await;
        let schema = SCHEMA.iter().filter(|_| generation == 0).map(|sql| (*sql).to_owned());
        let statements: Vec<String> = schema.chain((0..STATEMENTS_PER_GENERATION).map(|_| statement(&mut random))).collect();
        let content = CONTENT.iter().map(|sql| (*sql).to_owned());
        for sql in statements.into_iter().chain(content) {
            let answer = executor.ask(&envoy, &sql).await;
            assert_eq!(answer, ask_plain(&plain, &sql), "seed {seed}, generation {generation}: {sql}");
        }
        // Whatever is not committed is gone with the generation.
        drop(executor);
        if !plain.is_autocommit() {
            plain.execute_batch("ROLLBACK").unwrap();
        }
        let mut envoy = envoy.lock().await;
        fall_asleep(&engine, &mut envoy, &run).await;
        run = wake(&engine, &mut envoy, &run.actor_id).await;
    }
    let mut executor = open(&envoy, &run, GENERATIONS + 1).await;
    for sql in CONTENT.iter().chain(&["PRAGMA integrity_check"]) {
        assert_eq!(executor.ask(&envoy, sql).await, ask_plain(&plain, sql), "seed {seed}: {sql}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_does_not_matter_who_executes() {
    for seed in 1..=3 {
        differential(seed).await;
    }
}
