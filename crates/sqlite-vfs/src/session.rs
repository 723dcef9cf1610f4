//! One SQLite connection, and the three requests of `spec/storage.md` 8.

use std::ffi::CString;
use std::path::PathBuf;
use std::sync::Arc;

use protocol::envoy::{SqliteBatchStatement, SqliteBindParam, SqliteExecuteResult, SqliteQueryResult, SqliteValue};
use protocol::limits;

use crate::blocks::{Blocks, Budget, Charge, Room};
use crate::connection::{Connection, Limits, Refusal};
use crate::database::Database;
use crate::error::SessionError;
use crate::interrupt::Interrupter;
use crate::pages::Pages;
use crate::result::{self, NoRows};
use crate::statement::Statement;
use crate::statement_cache::StatementCache;
use crate::vfs::{Current, Files};

/// Bounds of a session.
#[derive(Debug, Clone)]
pub struct SessionOptions {
    /// Pages that SQLite keeps, in bytes. Up to 2 MiB more are read ahead while a request runs, 256 KiB between requests.
    pub cache_bytes: usize,
    /// Longest text or blob, and longest row, in bytes.
    pub value_max_bytes: usize,
    /// Parameters of one statement, in bytes (8.2).
    pub bind_max_bytes: usize,
    /// Rows of one reply, in bytes (`decisions.md` 19).
    pub result_max_bytes: usize,
    /// Memory, in bytes and beyond the cache, for what a transaction has changed and what undoes it, for temporary tables and
    /// for sorts.
    pub transaction_max_bytes: u64,
    /// The same for several sessions together.
    pub budget: Budget,
    /// Where they put aside what does not fit into memory, in a file without a name. Without a folder a statement that needs
    /// more fails with [`SessionError::TransactionTooLarge`].
    pub folder: Option<PathBuf>,
    /// What is put aside there at most, in bytes; a VACUUM needs three times the size of the database.
    pub aside_max_bytes: u64,
    /// The same for several sessions together.
    pub aside_budget: Budget,
    /// Memory for the results of several sessions together, until [`Session::take_charge`] is dropped.
    pub result_budget: Budget,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            cache_bytes: limits::REMOTE_SQL_CACHE_BYTES,
            value_max_bytes: limits::REMOTE_SQL_VALUE_MAX_BYTES,
            bind_max_bytes: limits::REMOTE_SQL_PARAMS_MAX_BYTES,
            result_max_bytes: limits::REMOTE_SQL_RESULT_MAX_BYTES,
            transaction_max_bytes: limits::REMOTE_SQL_TRANSACTION_MEMORY_BYTES,
            budget: Budget::default(),
            folder: None,
            aside_max_bytes: limits::REMOTE_SQL_ASIDE_MAX_BYTES / 2,
            aside_budget: Budget::default(),
            result_budget: Budget::default(),
        }
    }
}

/// One SQLite connection to one actor's database. Used by one thread at a time; calls block.
///
/// Dropping it rolls an open transaction back and calls nothing of its [`Pages`].
pub struct Session {
    statements: StatementCache,
    connection: Connection,
    files: Arc<Files>,
    interrupter: Interrupter,
    options: SessionOptions,
    result_bytes: usize,
    /// For the rows of the last answer.
    charge: Charge,
}

/// What a message says was being done.
#[derive(Clone, Copy)]
enum Request {
    Exec,
    Execute,
}

impl Request {
    fn name(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::Execute => "execute",
        }
    }
}

impl Session {
    /// Opens a connection. Reads the first pages.
    ///
    /// # Errors
    /// [`SessionError::Pages`] if they cannot be read, [`SessionError::Sql`] if they are not those of a database.
    pub fn open(pages: impl Pages, options: SessionOptions) -> Result<Self, SessionError> {
        let blocks = Arc::new(Blocks::new(Room {
            memory_max_bytes: options.transaction_max_bytes,
            memory: options.budget.clone(),
            folder: options.folder.clone(),
            file_max_bytes: options.aside_max_bytes,
            files: options.aside_budget.clone(),
        }));
        let database = Database::open(Box::new(pages), Arc::clone(&blocks))?;
        let files = Arc::new(Files::new(database, blocks));
        let interrupter = Interrupter::default();
        let limits = Limits { value_max_bytes: options.value_max_bytes };
        let opened = {
            let _current = Current::set(&files);
            Connection::open(&files, interrupter.clone(), &limits)
        };
        let connection = opened.map_err(|refusal| explain(&files, &refusal, "open the database"))?;
        let statements = StatementCache::default();
        let charge = Charge::of(&options.result_budget);
        let mut session = Self { statements, connection, files, interrupter, options, result_bytes: 0, charge };
        session.set_up()?;
        Ok(session)
    }

    /// The settings of `spec/storage.md` 7.1, so that both sides leave the same pages behind. Only what is temporary is not in
    /// SQLite's memory, which all actors share, but in our files, which have their bounds.
    fn set_up(&mut self) -> Result<(), SessionError> {
        let cache_kib = self.options.cache_bytes / 1024;
        self.exec(&format!(
            "PRAGMA page_size = 4096; PRAGMA journal_mode = DELETE; PRAGMA synchronous = NORMAL; PRAGMA temp_store = FILE; \
             PRAGMA auto_vacuum = NONE; PRAGMA locking_mode = EXCLUSIVE; PRAGMA cache_size = -{cache_kib}; \
             PRAGMA journal_size_limit = 0"
        ))?;
        self.files.set_up();
        Ok(())
    }

    /// Statements from now on run no triggers: for changes that are not the actor's own.
    pub fn disable_triggers(&mut self) {
        self.connection.disable_triggers();
    }

    /// Runs a script: any number of statements without parameters (8.2). The answer is that of the last statement that has
    /// columns, though perhaps no rows.
    ///
    /// # Errors
    /// See [`SessionError`]; statements before the failing one have their effect.
    pub fn exec(&mut self, sql: &str) -> Result<SqliteQueryResult, SessionError> {
        self.run(|session| session.exec_script(sql))
    }

    /// Runs one statement (8.2). Parameters that are not given are NULL.
    ///
    /// # Errors
    /// See [`SessionError`].
    pub fn execute(&mut self, sql: &str, params: Option<&[SqliteBindParam]>) -> Result<SqliteExecuteResult, SessionError> {
        self.run(|session| session.execute_statement(sql, params.unwrap_or_default()))
    }

    /// Runs statements in a transaction of their own, all or nothing (8.2).
    ///
    /// # Errors
    /// See [`SessionError`]; nothing has an effect then, unless a statement has ended the transaction itself.
    pub fn execute_batch(&mut self, statements: &[SqliteBatchStatement]) -> Result<Vec<SqliteExecuteResult>, SessionError> {
        self.run(|session| {
            session.exec_script("BEGIN")?;
            let results = session.execute_all(statements).map_err(|error| session.roll_back(error, ""));
            session.commit_batch(results?)
        })
    }

    fn execute_all(&mut self, statements: &[SqliteBatchStatement]) -> Result<Vec<SqliteExecuteResult>, SessionError> {
        let execute = |statement: &SqliteBatchStatement| {
            let params = statement.params.as_deref().unwrap_or_default();
            let result = self.execute_statement(&statement.sql, params);
            result.map_err(|error| error.when("execute remote sqlite batch statement"))
        };
        statements.iter().map(execute).collect()
    }

    fn commit_batch(&mut self, results: Vec<SqliteExecuteResult>) -> Result<Vec<SqliteExecuteResult>, SessionError> {
        match self.exec_script("COMMIT") {
            Ok(_) => Ok(results),
            Err(error) => Err(self.roll_back(error.when("commit remote sqlite batch"), " after failed commit")),
        }
    }

    /// Ends the transaction of a batch that has failed with this error.
    fn roll_back(&mut self, error: SessionError, after: &str) -> SessionError {
        match self.exec_undisturbed("ROLLBACK") {
            Ok(_) => error,
            // A statement has ended it already: SQLite, for some errors, or the host.
            Err(_) => error.when(&format!("rollback remote sqlite batch{after}")),
        }
    }

    /// Whether a transaction is open.
    #[must_use]
    pub fn in_transaction(&self) -> bool {
        self.connection.in_transaction()
    }

    /// Whether closing this session would lose something else that its host may rely on: temporary tables, or settings made
    /// by PRAGMA.
    #[must_use]
    pub fn has_own_state(&self) -> bool {
        self.files.has_own_state()
    }

    /// Bytes of the last answer, as `result_max_bytes` counts them.
    #[must_use]
    pub fn result_bytes(&self) -> usize {
        self.result_bytes
    }

    /// What the rows of the last answer take of `result_budget`. Whoever has the rows keeps it for as long.
    #[must_use]
    pub fn take_charge(&mut self) -> Charge {
        std::mem::replace(&mut self.charge, Charge::of(&self.options.result_budget))
    }

    /// The switch that stops this session's statements.
    #[must_use]
    pub fn interrupter(&self) -> Interrupter {
        self.interrupter.clone()
    }

    /// Everything that calls SQLite goes through here.
    fn run<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, SessionError>) -> Result<T, SessionError> {
        {
            let mut database = self.files.database.lock();
            if let Some(end) = database.end() {
                return Err(end.clone());
            }
            database.take_failure();
            database.take_refusal();
        }
        self.result_bytes = 0;
        drop(self.take_charge());
        let _current = Current::set(&self.files);
        let outcome = work(self);
        if let Err(error) = &outcome {
            self.result_bytes = 0;
            drop(self.take_charge());
            self.recover();
            if matches!(error, SessionError::TransactionTooLarge { .. } | SessionError::Pages(_)) {
                self.check_temporary_tables();
            }
        }
        self.files.database.lock().rest();
        outcome
    }

    /// After an error SQLite may have left the end of a rollback for its next look at the database. That comes now, so that
    /// an idle session holds no pages and the next request does not meet the errors of this one.
    fn recover(&mut self) {
        let was_refused = self.files.database.lock().take_refusal();
        if was_refused && self.connection.in_transaction() {
            // What RELEASE of the outermost savepoint could not commit is undone, but SQLite goes on as if within it.
            let _ = self.exec_undisturbed("ROLLBACK");
        }
        let is_left = |session: &Self| !session.connection.in_transaction() && session.files.database.lock().is_dirty();
        if is_left(self) {
            let looked = self.exec_undisturbed("PRAGMA schema_version");
            if is_left(self) {
                tracing::error!(?looked, "a transaction could not be rolled back; the session is given up");
                self.files.database.lock().lose();
            }
        }
    }

    /// SQLite undoes a change of temporary tables in their file, and if there is no room for that, nothing goes on, not even a
    /// statement that has nothing to do with them. Then these tables cannot be saved.
    fn check_temporary_tables(&mut self) {
        if let Err(error) = self.exec_undisturbed("SELECT 1 FROM temp.sqlite_schema LIMIT 1")
            && self.files.database.lock().end().is_none()
        {
            tracing::warn!(%error, "temporary tables could not be rolled back; the session is given up");
            self.files.database.lock().lose();
        }
    }

    /// What undoes a request runs also if the request was interrupted.
    fn exec_undisturbed(&mut self, sql: &str) -> Result<SqliteQueryResult, SessionError> {
        self.connection.set_undisturbed(true);
        let outcome = self.exec_script(sql);
        self.connection.set_undisturbed(false);
        outcome
    }

    fn exec_script(&mut self, sql: &str) -> Result<SqliteQueryResult, SessionError> {
        let sql = c_string(sql)?;
        let mut last = SqliteQueryResult { columns: Vec::new(), rows: Vec::new() };
        let mut start = 0;
        while start < sql.count_bytes() {
            self.check_interrupt()?;
            let prepared = self.connection.prepare(&sql, start, false);
            let (statement, next) = prepared.map_err(|refusal| self.refused(&refusal, "prepare", Request::Exec))?;
            start = next;
            let Some(mut statement) = statement else { continue };
            let room = self.options.result_max_bytes;
            let collected = result::collect(&self.connection, &mut statement, room, &mut self.charge);
            let collected = collected.map_err(|why| self.no_rows(&why, Request::Exec))?;
            if !collected.result.columns.is_empty() {
                last = collected.result;
                self.result_bytes = collected.bytes;
            }
        }
        Ok(last)
    }

    fn execute_statement(&mut self, sql: &str, params: &[SqliteBindParam]) -> Result<SqliteExecuteResult, SessionError> {
        self.check_interrupt()?;
        self.check_params(params)?;
        let Some(mut statement) = self.prepare(sql)? else {
            return Ok(SqliteExecuteResult { columns: Vec::new(), rows: Vec::new(), changes: 0, last_insert_row_id: None });
        };
        let outcome = self.bind_and_collect(&mut statement, params);
        statement.reset();
        self.statements.keep(sql, statement);
        let SqliteQueryResult { columns, rows } = outcome?;
        let changes = self.connection.changes();
        let last_insert_row_id = (changes > 0).then(|| self.connection.last_insert_row_id());
        Ok(SqliteExecuteResult { columns, rows, changes, last_insert_row_id })
    }

    /// No statement is empty text or a comment.
    fn prepare(&mut self, sql: &str) -> Result<Option<Statement>, SessionError> {
        if let Some(statement) = self.statements.take(sql) {
            return Ok(Some(statement));
        }
        let text = c_string(sql)?;
        let prepared = self.connection.prepare(&text, 0, StatementCache::wants(sql));
        let (statement, next) = prepared.map_err(|refusal| self.refused(&refusal, "prepare", Request::Execute))?;
        let is_over = |byte: &u8| byte.is_ascii_whitespace() || *byte == b';';
        if statement.is_some() && !sql.as_bytes()[next..].iter().all(is_over) {
            return Err(SessionError::sql("sqlite execute only supports a single statement"));
        }
        Ok(statement)
    }

    fn bind_and_collect(
        &mut self,
        statement: &mut Statement,
        params: &[SqliteBindParam],
    ) -> Result<SqliteQueryResult, SessionError> {
        for (number, value) in (1..).zip(params) {
            let code = statement.bind(number, value);
            if code != libsqlite3_sys::SQLITE_OK {
                let refusal = self.connection.refusal(code);
                return Err(SessionError::sql(format!("failed to bind sqlite parameter: {}", refusal.message)));
            }
        }
        // The results of a batch share one reply.
        let room = self.options.result_max_bytes.saturating_sub(self.result_bytes);
        let collected = result::collect(&self.connection, statement, room, &mut self.charge);
        let collected = collected.map_err(|why| self.no_rows(&why, Request::Execute))?;
        self.result_bytes += collected.bytes;
        Ok(collected.result)
    }

    fn check_interrupt(&self) -> Result<(), SessionError> {
        if self.connection.must_stop() { Err(SessionError::Interrupted) } else { Ok(()) }
    }

    fn check_params(&self, params: &[SqliteBindParam]) -> Result<(), SessionError> {
        let bytes: usize = params.iter().map(param_bytes).sum();
        let limit = self.options.bind_max_bytes;
        if bytes > limit {
            return Err(SessionError::sql(format!("remote sqlite bind params had {bytes} bytes, exceeding limit {limit}")));
        }
        Ok(())
    }

    fn no_rows(&self, why: &NoRows, request: Request) -> SessionError {
        match why {
            NoRows::Refused(refusal) => self.refused(refusal, "step", request),
            NoRows::TooLarge => SessionError::ResultTooLarge { limit: self.options.result_max_bytes },
            NoRows::NoRoom => SessionError::NoRoomForResult,
            NoRows::OutOfMemory => self.refused(&Refusal::of_code(libsqlite3_sys::SQLITE_NOMEM), "step", request),
        }
    }

    fn refused(&self, refusal: &Refusal, step: &str, request: Request) -> SessionError {
        explain(&self.files, refusal, &format!("{step} sqlite {} statement", request.name()))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.files.database.lock().close();
        let _current = Current::set(&self.files);
        self.statements.clear();
    }
}

/// SQLite's refusal, or what is behind it.
fn explain(files: &Files, refusal: &Refusal, doing: &str) -> SessionError {
    match files.database.lock().take_failure() {
        Some(failure) => failure,
        None if refusal.is_interrupt() => SessionError::Interrupted,
        None => SessionError::sql(format!("failed to {doing}: {}", refusal.message)),
    }
}

/// The text as SQLite takes it.
fn c_string(sql: &str) -> Result<CString, SessionError> {
    CString::new(sql).map_err(|error| SessionError::sql(error.to_string()))
}

fn param_bytes(param: &SqliteBindParam) -> usize {
    match param {
        SqliteValue::Null => 0,
        SqliteValue::Integer(_) | SqliteValue::Float(_) => 8,
        SqliteValue::Text(text) => text.len(),
        SqliteValue::Blob(blob) => blob.len(),
    }
}
