//! The file system that SQLite sees: one database file per session, and files that go with it.
//!
//! It is registered once for the process. A session makes itself known to its thread for the length of each call
//! ([`Current`]), so that opening a file finds it without a table of sessions or names.

#![expect(unsafe_code, reason = "SQLite is written in C and calls these functions")]

mod file;

use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use libsqlite3_sys as ffi;
use parking_lot::Mutex;

use self::file::{File, OpenFile};
use crate::blocks::Blocks;
use crate::database::Database;
use crate::scratch::Scratch;

/// The name under which SQLite knows this file system.
pub(crate) const NAME: &CStr = c"rivet-pages";
/// The name of the database file: each session has its own, so they may all be called the same.
pub(crate) const DATABASE_NAME: &CStr = c"actor.db";
/// Longest file name, in bytes, with what SQLite appends for journals.
const MAX_NAME_BYTES: c_int = 64;

/// What a session's files have in common.
pub(crate) struct Files {
    pub(crate) database: Mutex<Database>,
    blocks: Arc<Blocks>,
    /// The database file is open. It must not be opened twice: each would have its own idea of what is in it.
    is_open: AtomicBool,
    /// The connection is set up: from now on [`crate::pragma`] decides which of its settings change.
    is_set_up: AtomicBool,
    /// The connection was given settings, or temporary tables, which are lost when it is closed.
    has_own_state: AtomicBool,
}

impl Files {
    pub(crate) fn new(database: Database, blocks: Arc<Blocks>) -> Self {
        Self {
            database: Mutex::new(database),
            blocks,
            is_open: AtomicBool::new(false),
            is_set_up: AtomicBool::new(false),
            has_own_state: AtomicBool::new(false),
        }
    }

    pub(crate) fn set_up(&self) {
        self.is_set_up.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_set_up(&self) -> bool {
        self.is_set_up.load(Ordering::Relaxed)
    }

    pub(crate) fn note_own_state(&self) {
        self.has_own_state.store(true, Ordering::Relaxed);
    }

    pub(crate) fn has_own_state(&self) -> bool {
        self.has_own_state.load(Ordering::Relaxed)
    }
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<Files>>> = const { RefCell::new(None) };
}

/// As long as this lives, files that SQLite opens on this thread are those of one session.
pub(crate) struct Current {
    before: Option<Arc<Files>>,
}

impl Current {
    pub(crate) fn set(files: &Arc<Files>) -> Self {
        Self { before: CURRENT.with_borrow_mut(|current| current.replace(Arc::clone(files))) }
    }
}

impl Drop for Current {
    fn drop(&mut self) {
        let before = self.before.take();
        CURRENT.with_borrow_mut(|current| *current = before);
    }
}

/// Makes the file system known to SQLite, once. Returns SQLite's result code.
pub(crate) fn register() -> c_int {
    static REGISTERED: OnceLock<c_int> = OnceLock::new();
    *REGISTERED.get_or_init(|| {
        // SAFETY: no arguments; may be called any number of times.
        let initialized = unsafe { ffi::sqlite3_initialize() };
        if initialized != ffi::SQLITE_OK {
            return initialized;
        }
        let vfs = Box::leak(Box::new(table()));
        // SAFETY: the table is never freed or changed by us, and its functions fit their types.
        unsafe { ffi::sqlite3_vfs_register(vfs, 0) }
    })
}

fn table() -> ffi::sqlite3_vfs {
    ffi::sqlite3_vfs {
        iVersion: 2,
        szOsFile: file_bytes(),
        mxPathname: MAX_NAME_BYTES,
        pNext: std::ptr::null_mut(),
        zName: NAME.as_ptr(),
        pAppData: std::ptr::null_mut(),
        xOpen: Some(open),
        xDelete: Some(delete),
        xAccess: Some(access),
        xFullPathname: Some(full_pathname),
        xDlOpen: None,
        xDlError: None,
        xDlSym: None,
        xDlClose: None,
        xRandomness: Some(randomness),
        xSleep: Some(sleep),
        xCurrentTime: None,
        xGetLastError: None,
        xCurrentTimeInt64: Some(current_time),
        xSetSystemCall: None,
        xGetSystemCall: None,
        xNextSystemCall: None,
    }
}

const fn file_bytes() -> c_int {
    // A few pointers.
    size_of::<File>() as c_int
}

/// Runs a callback. A panic must not reach C: it becomes an error of the statement.
fn guarded(fallback: c_int, callback: impl FnOnce() -> c_int) -> c_int {
    // What a panic leaves behind is not looked at again: the session counts as lost.
    catch_unwind(AssertUnwindSafe(callback)).unwrap_or_else(|_| {
        CURRENT.with_borrow(|current| {
            if let Some(files) = current {
                files.database.lock().lose();
            }
        });
        fallback
    })
}

unsafe extern "C" fn open(
    _vfs: *mut ffi::sqlite3_vfs,
    _name: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    let file = file.cast::<File>();
    // SAFETY: SQLite gives `szOsFile` bytes, suitably aligned, and looks at the methods even if opening fails.
    unsafe { file.write(File::closed()) };
    guarded(ffi::SQLITE_CANTOPEN, || {
        let Some(open_file) = CURRENT.with_borrow(|current| current.as_ref().and_then(|files| opened(files, flags))) else {
            return ffi::SQLITE_CANTOPEN;
        };
        // SAFETY: as above; and the pointer to the flags may be null.
        unsafe {
            file.write(File::open(open_file));
            if !out_flags.is_null() {
                out_flags.write(flags);
            }
        }
        ffi::SQLITE_OK
    })
}

/// What a file of this kind is; none for those that no session has: a second database, a write-ahead log.
fn opened(files: &Arc<Files>, flags: c_int) -> Option<OpenFile> {
    const SCRATCH: c_int = ffi::SQLITE_OPEN_TEMP_DB
        | ffi::SQLITE_OPEN_TRANSIENT_DB
        | ffi::SQLITE_OPEN_TEMP_JOURNAL
        | ffi::SQLITE_OPEN_SUBJOURNAL
        | ffi::SQLITE_OPEN_MAIN_JOURNAL;
    let scratch = || Scratch::new(Arc::clone(&files.blocks));
    if flags & ffi::SQLITE_OPEN_DELETEONCLOSE != 0 {
        // Nobody finds it again, whatever else it is: also the database into which VACUUM copies.
        Some(OpenFile::Temporary(Arc::clone(files), scratch()))
    } else if flags & ffi::SQLITE_OPEN_MAIN_DB != 0 {
        let is_first = !files.is_open.swap(true, Ordering::Relaxed);
        is_first.then(|| OpenFile::Database(Arc::clone(files)))
    } else if flags & ffi::SQLITE_OPEN_MAIN_JOURNAL != 0 {
        Some(OpenFile::Journal(Arc::clone(files), scratch()))
    } else if flags & SCRATCH != 0 {
        Some(OpenFile::Temporary(Arc::clone(files), scratch()))
    } else {
        None
    }
}

/// Any other file is gone when it is closed.
unsafe extern "C" fn delete(_vfs: *mut ffi::sqlite3_vfs, _name: *const c_char, _sync: c_int) -> c_int {
    ffi::SQLITE_OK
}

/// No session finds a journal that another has left.
unsafe extern "C" fn access(_vfs: *mut ffi::sqlite3_vfs, _name: *const c_char, _flags: c_int, found: *mut c_int) -> c_int {
    // SAFETY: SQLite gives a place for the answer.
    unsafe { found.write(0) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn full_pathname(
    _vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    room: c_int,
    full_name: *mut c_char,
) -> c_int {
    // SAFETY: a name is a string with a NUL at its end.
    let name = unsafe { CStr::from_ptr(name) }.to_bytes_with_nul();
    if usize::try_from(room).is_ok_and(|room| name.len() <= room) {
        // SAFETY: there is room for it, and the two do not overlap.
        unsafe { std::ptr::copy_nonoverlapping(name.as_ptr().cast(), full_name, name.len()) };
        ffi::SQLITE_OK
    } else {
        ffi::SQLITE_CANTOPEN
    }
}

/// SQLite's own file system, which knows the time.
fn system() -> Option<&'static ffi::sqlite3_vfs> {
    // SAFETY: SQLite's built-in file system is never freed; ours is not the default.
    unsafe { ffi::sqlite3_vfs_find(std::ptr::null()).as_ref() }
}

unsafe extern "C" fn randomness(_vfs: *mut ffi::sqlite3_vfs, bytes: c_int, into: *mut c_char) -> c_int {
    match system().and_then(|system| Some((system, system.xRandomness?))) {
        // SAFETY: the arguments are passed on to a function of the same type.
        Some((system, function)) => unsafe { function(std::ptr::from_ref(system).cast_mut(), bytes, into) },
        None => 0,
    }
}

/// Nobody waits for a lock: a session is the only user of its files.
unsafe extern "C" fn sleep(_vfs: *mut ffi::sqlite3_vfs, _microseconds: c_int) -> c_int {
    0
}

unsafe extern "C" fn current_time(_vfs: *mut ffi::sqlite3_vfs, time: *mut ffi::sqlite3_int64) -> c_int {
    match system().and_then(|system| Some((system, system.xCurrentTimeInt64?))) {
        // SAFETY: the arguments are passed on to a function of the same type.
        Some((system, function)) => unsafe { function(std::ptr::from_ref(system).cast_mut(), time) },
        None => ffi::SQLITE_ERROR,
    }
}
