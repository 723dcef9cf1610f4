//! SQLite's connection object.

#![expect(unsafe_code, reason = "SQLite is written in C")]

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::Arc;

use libsqlite3_sys as ffi;

use crate::interrupt::Interrupter;
use crate::pragma::{self, Judgement};
use crate::statement::Statement;
use crate::vfs::{self, Files};

/// Steps of SQLite's machine between two looks at the [`Interrupter`]: some microseconds.
const STEPS_BETWEEN_LOOKS: c_int = 1000;

/// SQLite's answer to something it does not do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// Its extended result code.
    pub(crate) code: c_int,
    pub(crate) message: String,
}

/// A connection, used by one thread at a time.
pub(crate) struct Connection {
    handle: NonNull<ffi::sqlite3>,
    /// What the callbacks look at. SQLite holds pointers into it, so it lives as long as the handle.
    observed: ManuallyDrop<Box<Observed>>,
}

struct Observed {
    interrupter: Interrupter,
    files: Arc<Files>,
    /// What is done now must be done to its end.
    is_undisturbed: Cell<bool>,
    /// A statement is running: what SQLite prepares now, it prepares for itself.
    is_stepping: Cell<bool>,
}

// SAFETY: SQLite is built thread-safe, and a connection that is opened without a mutex of its own may move between threads
// that use it one after another. The cell is only touched by callbacks, on the thread that uses the connection.
unsafe impl Send for Connection {}

/// What SQLite does with a value, in bytes, or a request.
pub(crate) struct Limits {
    pub(crate) value_max_bytes: usize,
}

impl Connection {
    /// Opens the database of the session that is current on this thread.
    pub(crate) fn open(files: &Arc<Files>, interrupter: Interrupter, limits: &Limits) -> Result<Self, Refusal> {
        let registered = vfs::register();
        if registered != ffi::SQLITE_OK {
            return Err(Refusal::of_code(registered));
        }
        let flags = ffi::SQLITE_OPEN_READWRITE | ffi::SQLITE_OPEN_CREATE | ffi::SQLITE_OPEN_NOMUTEX | ffi::SQLITE_OPEN_EXRESCODE;
        let mut handle = std::ptr::null_mut();
        // SAFETY: the names are strings with a NUL at their end, and there is a place for the handle.
        let code = unsafe { ffi::sqlite3_open_v2(vfs::DATABASE_NAME.as_ptr(), &raw mut handle, flags, vfs::NAME.as_ptr()) };
        // There is a handle even if opening fails, unless there is no memory for one.
        let Some(handle) = NonNull::new(handle) else { return Err(Refusal::of_code(code)) };
        let observed = ManuallyDrop::new(Box::new(Observed {
            interrupter,
            files: Arc::clone(files),
            is_undisturbed: Cell::new(false),
            is_stepping: Cell::new(false),
        }));
        let connection = Self { handle, observed };
        if code != ffi::SQLITE_OK {
            return Err(connection.refusal(code));
        }
        connection.configure(limits);
        Ok(connection)
    }

    fn configure(&self, limits: &Limits) {
        let observed = std::ptr::from_ref::<Observed>(&self.observed).cast_mut().cast::<c_void>();
        let value_max_bytes = c_int::try_from(limits.value_max_bytes).unwrap_or(c_int::MAX);
        let unused: *mut c_int = std::ptr::null_mut();
        // SAFETY: the handle is open. The callbacks fit their types and get a pointer that outlives the handle. Hosts cannot
        // write into SQLite's own tables in a way that makes it misbehave: that is what "defensive" means, and its two
        // arguments are as documented.
        unsafe {
            ffi::sqlite3_limit(self.handle.as_ptr(), ffi::SQLITE_LIMIT_LENGTH, value_max_bytes);
            ffi::sqlite3_limit(self.handle.as_ptr(), ffi::SQLITE_LIMIT_WORKER_THREADS, 0);
            ffi::sqlite3_db_config(self.handle.as_ptr(), ffi::SQLITE_DBCONFIG_DEFENSIVE, 1 as c_int, unused);
            ffi::sqlite3_progress_handler(self.handle.as_ptr(), STEPS_BETWEEN_LOOKS, Some(must_stop), observed);
            ffi::sqlite3_set_authorizer(self.handle.as_ptr(), Some(authorize), observed);
        }
    }

    /// Statements that are prepared from now on run no triggers.
    pub(crate) fn disable_triggers(&self) {
        let unused: *mut c_int = std::ptr::null_mut();
        // SAFETY: the handle is open, and the two arguments are as documented.
        unsafe {
            ffi::sqlite3_db_config(self.handle.as_ptr(), ffi::SQLITE_DBCONFIG_ENABLE_TRIGGER, 0 as c_int, unused);
        }
    }

    pub(crate) fn as_ptr(&self) -> *mut ffi::sqlite3 {
        self.handle.as_ptr()
    }

    /// Prepares the statement that begins at `start`, and says where the next one begins. No statement is empty text or a
    /// comment.
    pub(crate) fn prepare(&self, sql: &CStr, start: usize, is_kept: bool) -> Result<(Option<Statement>, usize), Refusal> {
        // With its NUL: otherwise SQLite copies the text, for each statement of a long script all that is left of it.
        let rest = &sql.to_bytes_with_nul()[start..];
        let Ok(length) = c_int::try_from(rest.len()) else { return Err(Refusal::of_code(ffi::SQLITE_TOOBIG)) };
        let flags = if is_kept { ffi::SQLITE_PREPARE_PERSISTENT } else { 0 };
        let mut statement = std::ptr::null_mut();
        let mut tail = std::ptr::null();
        let begin = rest.as_ptr().cast::<c_char>();
        // SAFETY: the handle is open, `length` bytes of text are there, and there are places for the answers.
        let code = unsafe { ffi::sqlite3_prepare_v3(self.as_ptr(), begin, length, flags, &raw mut statement, &raw mut tail) };
        if code != ffi::SQLITE_OK {
            return Err(self.refusal(code));
        }
        // The tail points into the text or to its end.
        let end = sql.count_bytes();
        let next = if tail.is_null() { end } else { (start + tail.addr().saturating_sub(begin.addr())).min(end) };
        // SAFETY: SQLite has just made this statement for us alone.
        Ok((NonNull::new(statement).map(|statement| unsafe { Statement::new(statement) }), next))
    }

    /// Lets a statement run to its next row. See [`Statement::step`].
    pub(crate) fn step(&self, statement: &mut Statement) -> Result<bool, Refusal> {
        self.observed.is_stepping.set(true);
        let code = statement.step();
        self.observed.is_stepping.set(false);
        match code {
            ffi::SQLITE_ROW => Ok(true),
            ffi::SQLITE_DONE => Ok(false),
            code => Err(self.refusal(code)),
        }
    }

    /// Whether somebody wants what is done now to stop.
    pub(crate) fn must_stop(&self) -> bool {
        self.observed.must_stop()
    }

    /// From now on, or until now, nobody stops a statement.
    pub(crate) fn set_undisturbed(&self, is_undisturbed: bool) {
        self.observed.is_undisturbed.set(is_undisturbed);
    }

    /// Ends a statement that has more rows than are wanted. What it has changed is undone, and its transaction with it.
    pub(crate) fn abort(&self, statement: &mut Statement) {
        if !statement.is_read_only() {
            // Resetting it would be a success, and commit.
            // SAFETY: the handle is open.
            unsafe { ffi::sqlite3_interrupt(self.as_ptr()) };
            statement.step();
        }
    }

    /// Rows changed by the last INSERT, UPDATE or DELETE.
    pub(crate) fn changes(&self) -> i64 {
        // SAFETY: the handle is open.
        unsafe { ffi::sqlite3_changes64(self.as_ptr()) }
    }

    pub(crate) fn last_insert_row_id(&self) -> i64 {
        // SAFETY: the handle is open.
        unsafe { ffi::sqlite3_last_insert_rowid(self.as_ptr()) }
    }

    pub(crate) fn in_transaction(&self) -> bool {
        // SAFETY: the handle is open.
        unsafe { ffi::sqlite3_get_autocommit(self.as_ptr()) == 0 }
    }

    /// SQLite's words for the result of the last call.
    pub(crate) fn refusal(&self, code: c_int) -> Refusal {
        // SAFETY: the handle is open, and the text is valid until the next call, before which it is copied.
        let message = unsafe {
            let text = ffi::sqlite3_errmsg(self.as_ptr());
            if text.is_null() { None } else { Some(CStr::from_ptr(text).to_string_lossy().into_owned()) }
        };
        message.map_or_else(|| Refusal::of_code(code), |message| Refusal { code, message })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // SAFETY: the handle is open and not used after this.
        let code = unsafe { ffi::sqlite3_close(self.as_ptr()) };
        if code == ffi::SQLITE_OK {
            // SAFETY: only SQLite had pointers into it, and it is dropped once.
            unsafe { ManuallyDrop::drop(&mut self.observed) };
        } else {
            // A statement is left. `Session` drops its statements first, so this does not happen; if it did, the connection
            // would go on to exist, and what it points to with it.
            tracing::error!(code, "a connection to a database could not be closed");
        }
    }
}

impl Refusal {
    pub(crate) fn of_code(code: c_int) -> Self {
        // SAFETY: the text is a constant of SQLite.
        let message = unsafe { CStr::from_ptr(ffi::sqlite3_errstr(code)) }.to_string_lossy().into_owned();
        Self { code, message }
    }

    /// Whether SQLite stopped because [`must_stop`] said so.
    pub(crate) fn is_interrupt(&self) -> bool {
        self.code & 0xff == ffi::SQLITE_INTERRUPT
    }
}

impl Observed {
    fn must_stop(&self) -> bool {
        self.interrupter.is_interrupted() && !self.is_undisturbed.get()
    }

    fn authorize_pragma(&self, name: &str, value: Option<&str>, schema: Option<&str>) -> c_int {
        if !self.files.is_set_up() {
            return ffi::SQLITE_OK;
        }
        match pragma::judge(name, value) {
            Judgement::Harmless => ffi::SQLITE_OK,
            // The file system has the words for it, but is asked only about the file of the database.
            Judgement::Answered(_) | Judgement::Refused(_) if schema.is_none_or(|schema| schema == "main") => ffi::SQLITE_OK,
            Judgement::Answered(_) | Judgement::Refused(_) => ffi::SQLITE_IGNORE,
            Judgement::Ignored => ffi::SQLITE_IGNORE,
            Judgement::ChangesSession => {
                self.files.note_own_state();
                ffi::SQLITE_OK
            }
        }
    }
}

unsafe extern "C" fn must_stop(observed: *mut c_void) -> c_int {
    // SAFETY: see `configure`.
    let observed = unsafe { &*observed.cast::<Observed>() };
    c_int::from(observed.must_stop())
}

/// Asked about everything a statement would do, while it is prepared.
unsafe extern "C" fn authorize(
    observed: *mut c_void,
    action: c_int,
    first: *const c_char,
    second: *const c_char,
    schema: *const c_char,
    _trigger: *const c_char,
) -> c_int {
    // SAFETY: see `configure`.
    let observed = unsafe { &*observed.cast::<Observed>() };
    match action {
        ffi::SQLITE_ATTACH => {
            // SAFETY: a string with a NUL at its end, or null if the name is not a constant.
            let name = (!first.is_null()).then(|| unsafe { CStr::from_ptr(first) });
            match name.map(CStr::to_bytes) {
                // VACUUM attaches a temporary database, which has no name.
                Some(b"") if observed.is_stepping.get() => ffi::SQLITE_OK,
                // Any other would be a file, perhaps one of the machine, or as much of the memory of all as it likes.
                Some(_) | None => ffi::SQLITE_DENY,
            }
        }
        ffi::SQLITE_PRAGMA => {
            // SAFETY: strings with a NUL at their end, or null.
            let text = |text: *const c_char| unsafe { (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy()) };
            observed.authorize_pragma(&text(first).unwrap_or_default(), text(second).as_deref(), text(schema).as_deref())
        }
        ffi::SQLITE_CREATE_TEMP_INDEX
        | ffi::SQLITE_CREATE_TEMP_TABLE
        | ffi::SQLITE_CREATE_TEMP_TRIGGER
        | ffi::SQLITE_CREATE_TEMP_VIEW => {
            observed.files.note_own_state();
            ffi::SQLITE_OK
        }
        _ => ffi::SQLITE_OK,
    }
}

/// Bounds the memory of SQLite in this process, that is of all sessions together, in bytes: caches, sorts, and what a
/// statement computes with. A statement that needs more fails. 0 removes the bound.
pub fn set_heap_limit(bytes: u64) {
    let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
    // SAFETY: may be called at any time, from any thread.
    unsafe { ffi::sqlite3_hard_heap_limit64(bytes) };
}

/// Memory that SQLite uses in this process, in bytes.
#[must_use]
pub fn heap_used() -> u64 {
    // SAFETY: may be called at any time, from any thread.
    u64::try_from(unsafe { ffi::sqlite3_memory_used() }).unwrap_or(0)
}
