//! Random statements to a session and to plain SQLite with a database in memory: equal answers, equal errors, equal content,
//! whatever happens to commits in between.

use proptest::prelude::*;
use protocol::envoy::SqliteValue;
use rusqlite::types::{Value, ValueRef};
use sqlite_vfs::{Session, SessionError, SessionOptions};

use crate::support::{Fate, MemoryPages};

/// All kinds of tables: plain, strict with foreign key and trigger, WITHOUT ROWID, full text, R-tree.
const SCHEMA: &str = "
    CREATE TABLE a (id INTEGER PRIMARY KEY, n INTEGER, t TEXT, b BLOB);
    CREATE INDEX a_n ON a (n);
    CREATE UNIQUE INDEX a_t ON a (t) WHERE n > 50;
    CREATE TABLE s (id INTEGER PRIMARY KEY AUTOINCREMENT, a INTEGER REFERENCES a ON DELETE CASCADE, v REAL NOT NULL) STRICT;
    CREATE TABLE w (k TEXT, l INTEGER, v, PRIMARY KEY (k, l DESC)) WITHOUT ROWID;
    CREATE TABLE log (what TEXT, id INTEGER);
    CREATE TRIGGER a_deleted AFTER DELETE ON a BEGIN INSERT INTO log VALUES ('deleted', old.id); END;
    CREATE TRIGGER a_full BEFORE INSERT ON a WHEN new.n = 13 BEGIN SELECT raise(ABORT, 'unlucky'); END;
    CREATE VIRTUAL TABLE f USING fts5(t);
    CREATE VIRTUAL TABLE r USING rtree(id, x0, x1);";

/// What can be compared after anything else.
const CONTENT: [&str; 7] = [
    "SELECT * FROM a ORDER BY id",
    "SELECT * FROM s ORDER BY id",
    "SELECT * FROM w ORDER BY k, l",
    "SELECT * FROM log ORDER BY rowid",
    "SELECT rowid, t FROM f WHERE f MATCH 'b*' ORDER BY rowid",
    "SELECT * FROM r ORDER BY id",
    "SELECT type, name, sql FROM sqlite_schema ORDER BY name",
];

#[derive(Debug, Clone)]
enum Step {
    Run(String, Vec<SqliteValue>),
    /// The session ends, perhaps in the middle of a transaction, and another begins.
    Reopen,
    JournalMode(&'static str),
    NextCommit(Fate),
}

fn statement() -> impl Strategy<Value = String> {
    let number = 0..100_i64;
    let id = 0..40_i64;
    // From within a page to a chain of overflow pages.
    let length = prop_oneof![0..50_i64, 0..3000_i64, 4000..40_000_i64];
    let content = (number.clone(), length).prop_map(|(n, length)| format!("substr(hex(zeroblob({length})) || {n}, 3)"));
    prop_oneof![
        6 => (id.clone(), number.clone(), content.clone())
            .prop_map(|(id, n, t)| format!("INSERT INTO a VALUES ({id}, {n}, {t}, zeroblob({n} * 40))")),
        3 => (id.clone(), content.clone()).prop_map(|(id, t)| format!("INSERT OR REPLACE INTO a VALUES ({id}, {id}, {t}, NULL)")),
        3 => (number.clone(), content.clone()).prop_map(|(n, t)| format!("UPDATE a SET t = {t}, n = n + 7 WHERE n < {n}")),
        2 => number.clone().prop_map(|n| format!("DELETE FROM a WHERE n > {n} RETURNING id")),
        3 => (id.clone(), number.clone()).prop_map(|(id, n)| format!("INSERT INTO s (a, v) VALUES (nullif({id}, 3), {n} / 3.0)")),
        3 => (number.clone(), id.clone(), content.clone())
            .prop_map(|(n, id, v)| format!("INSERT INTO w VALUES ('k' || {n}, {id}, {v}) ON CONFLICT DO UPDATE SET v = excluded.v")),
        1 => id.clone().prop_map(|id| format!("DELETE FROM w WHERE l >= {id}")),
        2 => number.clone().prop_map(|n| format!("INSERT INTO f VALUES ('bird b{n} fish')")),
        1 => number.clone().prop_map(|n| format!("DELETE FROM f WHERE rowid % 7 = {n} % 7")),
        2 => (id.clone(), number.clone()).prop_map(|(id, n)| format!("INSERT OR REPLACE INTO r VALUES ({id}, {n}, {n} + 1)")),
        1 => number.clone().prop_map(|n| format!("SELECT count(*), total(v) FROM s JOIN a ON a.id = s.a WHERE n < {n}")),
        1 => prop::sample::select(vec![
            "VACUUM", "REINDEX", "ANALYZE", "DROP INDEX a_n", "CREATE INDEX a_n ON a (n, t)", "ALTER TABLE log ADD COLUMN more",
            "DELETE FROM log", "DROP TABLE nothing", "PRAGMA incremental_vacuum", "PRAGMA user_version = 7", "PRAGMA user_version",
            "INSERT INTO f (f) VALUES ('optimize')", "SELECT a +", "PRAGMA foreign_key_check", "PRAGMA synchronous = OFF",
        ]).prop_map(String::from),
        6 => prop::sample::select(vec![
            "BEGIN", "BEGIN IMMEDIATE", "COMMIT", "COMMIT", "ROLLBACK", "SAVEPOINT one", "SAVEPOINT two", "RELEASE one",
            "ROLLBACK TO one", "ROLLBACK TO two", "RELEASE two",
        ]).prop_map(String::from),
    ]
}

/// Values of every kind, at the edges of each.
fn value() -> impl Strategy<Value = SqliteValue> {
    let floats = prop::sample::select(vec![0.5, -0.0, 1e300, f64::INFINITY, f64::NAN, f64::MIN_POSITIVE]);
    let texts = prop::sample::select(vec!["", "a", "a\0b", "\0", "42", "4.5e1", "ä🦀", "\u{feff}x"]);
    let blobs = prop::sample::select(vec![&b""[..], b"\0", b"a\0b", b"\xff\xfe", b"42"]);
    prop_oneof![
        Just(SqliteValue::Null),
        (0..40_i64).prop_map(SqliteValue::Integer),
        prop::sample::select(vec![i64::MIN, -1, i64::MAX]).prop_map(SqliteValue::Integer),
        floats.prop_map(SqliteValue::Float),
        texts.prop_map(|text| SqliteValue::Text(text.into())),
        blobs.prop_map(|blob| SqliteValue::Blob(blob.into())),
    ]
}

/// A statement and its parameters, or fewer than it has.
fn with_parameters() -> impl Strategy<Value = (String, Vec<SqliteValue>)> {
    let sql = prop::sample::select(vec![
        "INSERT OR REPLACE INTO a VALUES (?1 & 63, ?2, ?3, ?4)",
        "INSERT INTO s (a, v) VALUES (?2, coalesce(?1, ?3)) RETURNING *",
        "INSERT INTO w VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET v = excluded.v || ?4",
        "UPDATE a SET t = ?, b = ? WHERE id = ?",
        "SELECT * FROM w WHERE k >= ? AND v IS NOT ? AND l IS NOT ?",
        "SELECT ?1, typeof(?1), length(?1), hex(?1), ?1 || ?2, ?1 = ?3, CAST(?1 AS TEXT), CAST(?2 AS BLOB)",
    ]);
    (sql.prop_map(String::from), prop::collection::vec(value(), 0..=2))
        .prop_flat_map(|(sql, few)| (Just(sql), prop_oneof![1 => Just(few), 4 => prop::collection::vec(value(), 3)]))
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let fate = prop::sample::select(vec![Fate::Refused, Fate::Refused, Fate::Fenced, Fate::StoredAndFenced, Fate::Panics]);
    let step = prop_oneof![
        40 => statement().prop_map(|sql| Step::Run(sql, Vec::new())),
        8 => with_parameters().prop_map(|(sql, params)| Step::Run(sql, params)),
        1 => Just(Step::Reopen),
        1 => prop::sample::select(vec!["MEMORY", "TRUNCATE", "PERSIST", "DELETE"]).prop_map(Step::JournalMode),
        2 => fate.prop_map(Step::NextCommit),
    ];
    prop::collection::vec(step, 1..80)
}

/// Everything in the cache; what does not fit there written ahead of the commit; and that put aside in a file.
fn options() -> impl Strategy<Value = SessionOptions> {
    let usual = SessionOptions::default();
    let spilling = SessionOptions { cache_bytes: 12 * 4096, ..SessionOptions::default() };
    let put_aside = SessionOptions { transaction_max_bytes: 8 * 4096, folder: Some(std::env::temp_dir()), ..spilling.clone() };
    prop_oneof![Just(usual), Just(spilling), Just(put_aside)]
}

/// What a statement leads to; or SQLite's words.
type Answer = Result<Answered, String>;

#[derive(Debug, PartialEq)]
struct Answered {
    columns: Vec<String>,
    rows: Vec<Vec<SqliteValue>>,
    /// Of a statement that changes rows. Others repeat what the connection had before, which a reopened one does not know.
    changes: Option<i64>,
    /// The same, of a statement that adds rows to a table with row ids.
    row_id: Option<i64>,
}

impl Answered {
    fn new(sql: &str, columns: Vec<String>, rows: Vec<Vec<SqliteValue>>, changes: i64, row_id: Option<i64>) -> Self {
        let is_change = ["INSERT", "UPDATE", "DELETE"].iter().any(|verb| sql.starts_with(verb));
        let adds_rows = ["INSERT INTO a", "INSERT OR REPLACE INTO a", "INSERT INTO s"].iter().any(|start| sql.starts_with(start));
        let changes = is_change.then_some(changes);
        Self { columns, rows, changes, row_id: row_id.filter(|_| adds_rows && changes > Some(0)) }
    }
}

fn plain_value(value: &SqliteValue) -> Value {
    match value.clone() {
        SqliteValue::Null => Value::Null,
        SqliteValue::Integer(value) => Value::Integer(value),
        SqliteValue::Float(value) => Value::Real(value),
        SqliteValue::Text(text) => Value::Text(text),
        SqliteValue::Blob(blob) => Value::Blob(blob.into()),
    }
}

fn ask_plain(plain: &rusqlite::Connection, sql: &str, params: &[SqliteValue]) -> Answer {
    let cell = |value: ValueRef<'_>| match value {
        ValueRef::Null => SqliteValue::Null,
        ValueRef::Integer(value) => SqliteValue::Integer(value),
        ValueRef::Real(value) => SqliteValue::Float(value),
        // Bytes that are taken for text, without being any, are answered so.
        ValueRef::Text(text) => SqliteValue::Text(String::from_utf8_lossy(text).into_owned()),
        ValueRef::Blob(blob) => SqliteValue::Blob(blob.to_vec().into()),
    };
    let ask = || -> rusqlite::Result<_> {
        let mut statement = plain.prepare(sql)?;
        for (number, value) in (1..).zip(params) {
            statement.raw_bind_parameter(number, plain_value(value))?;
        }
        let mut rows = Vec::new();
        let mut found = statement.raw_query();
        while let Some(row) = found.next()? {
            let columns = row.as_ref().column_count();
            rows.push((0..columns).map(|column| Ok(cell(row.get_ref(column)?))).collect::<rusqlite::Result<Vec<_>>>()?);
        }
        drop(found);
        let columns = statement.column_names().map(String::from).collect();
        Ok(Answered::new(sql, columns, rows, plain.changes() as i64, Some(plain.last_insert_rowid())))
    };
    ask().map_err(|error| if let rusqlite::Error::SqlInputError { msg, .. } = error { msg } else { error.to_string() })
}

/// The other error is that of the pages.
fn ask_session(session: &mut Session, sql: &str, params: &[SqliteValue]) -> Result<Answer, SessionError> {
    match session.execute(sql, Some(params)) {
        Ok(answer) => Ok(Ok(Answered::new(sql, answer.columns, answer.rows, answer.changes, answer.last_insert_row_id))),
        Err(SessionError::Sql { message }) => {
            let words = ["failed to prepare sqlite execute statement: ", "failed to step sqlite execute statement: "];
            let own = words.iter().find_map(|prefix| message.strip_prefix(prefix));
            Ok(Err(own.unwrap_or_else(|| panic!("{message}")).to_owned()))
        }
        Err(other) => Err(other),
    }
}

struct Pair {
    pages: MemoryPages,
    options: SessionOptions,
    session: Session,
    plain: rusqlite::Connection,
}

impl Pair {
    fn new(options: SessionOptions) -> Self {
        let pages = MemoryPages::default();
        let mut session = pages.open_with(options.clone());
        session.exec(SCHEMA).unwrap();
        let plain = rusqlite::Connection::open_in_memory().unwrap();
        plain.execute_batch(SCHEMA).unwrap();
        Self { pages, options, session, plain }
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match step {
            Step::Run(sql, params) => self.run(sql, params)?,
            // Plain SQLite has its database in memory and no choice.
            Step::JournalMode(mode) => {
                self.session.execute(&format!("PRAGMA journal_mode = {mode}"), None).unwrap();
            }
            Step::NextCommit(fate) => self.pages.next_commits(&[*fate]),
            Step::Reopen => {
                self.roll_plain_back();
                self.reopen();
            }
        }
        prop_assert_eq!(self.session.in_transaction(), !self.plain.is_autocommit(), "after {:?}", step);
        Ok(())
    }

    fn run(&mut self, sql: &str, params: &[SqliteValue]) -> Result<(), TestCaseError> {
        let fate = self.pages.0.lock().fates.first().copied();
        match ask_session(&mut self.session, sql, params) {
            Ok(answer) => {
                prop_assert_eq!(answer, ask_plain(&self.plain, sql, params), "{} {:?}", sql, params);
                self.reopen_if_ended();
            }
            Err(error) => {
                prop_assert!(self.pages.0.lock().fates.is_empty(), "no commit was to fail: {:?}", error);
                if fate == Some(Fate::StoredAndFenced) {
                    // It may fail here, and so have failed there: then what was stored are bytes that nobody uses.
                    let _ = ask_plain(&self.plain, sql, params);
                }
                self.roll_plain_back();
                if fate == Some(Fate::Refused) {
                    self.compare(None)?;
                } else {
                    self.reopen();
                }
            }
        }
        Ok(())
    }

    /// The commit that met its fate may have been one that no statement depends on: VACUUM cuts the file off after its
    /// commit, and a rollback may leave other bytes in pages that nobody uses.
    fn reopen_if_ended(&mut self) {
        if self.session.execute("SELECT 1", None).is_err() {
            self.roll_plain_back();
            self.reopen();
        }
    }

    fn roll_plain_back(&self) {
        if !self.plain.is_autocommit() {
            self.plain.execute_batch("ROLLBACK").unwrap();
        }
    }

    fn reopen(&mut self) {
        self.session = self.pages.open_with(self.options.clone());
    }

    /// Everything, as this session sees it or as another would.
    fn compare(&mut self, other: Option<&MemoryPages>) -> Result<(), TestCaseError> {
        let mut opened = other.map(MemoryPages::open);
        let session = opened.as_mut().unwrap_or(&mut self.session);
        for sql in CONTENT {
            prop_assert_eq!(ask_session(session, sql, &[]).unwrap(), ask_plain(&self.plain, sql, &[]), "{}", sql);
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 2000, ..ProptestConfig::default() })]
    #[test]
    fn a_session_answers_as_plain_sqlite_does(steps in steps(), options in options()) {
        let mut pair = Pair::new(options);
        for step in &steps {
            pair.step(step)?;
        }
        pair.pages.next_commits(&[]);
        pair.compare(None)?;
        pair.roll_plain_back();
        let committed = pair.pages.fork();
        committed.check_integrity();
        pair.compare(Some(&committed))?;
    }
}
