//! The open files.

use std::ffi::{c_int, c_void};
use std::sync::Arc;

use libsqlite3_sys as ffi;

use super::{Files, guarded};
use crate::database::{Extent, Failed};
use crate::pages::PAGE_BYTES;
use crate::pragma;
use crate::scratch::Scratch;

/// Smallest part of a journal that is written as one, in bytes. There is no disk; it only decides how long its header is.
const SECTOR_BYTES: c_int = 512;

/// An open file as SQLite holds it. The first field is what it knows of it.
#[repr(C)]
pub(super) struct File {
    methods: *const ffi::sqlite3_io_methods,
    /// From [`Box::into_raw`]; null if the file is not open.
    open: *mut OpenFile,
}

/// What a file is.
pub(super) enum OpenFile {
    Database(Arc<Files>),
    /// The rollback journal of the database.
    Journal(Arc<Files>, Scratch),
    Temporary(Arc<Files>, Scratch),
}

impl File {
    pub(super) const fn closed() -> Self {
        Self { methods: std::ptr::null(), open: std::ptr::null_mut() }
    }

    pub(super) fn open(open: OpenFile) -> Self {
        Self { methods: &raw const METHODS, open: Box::into_raw(Box::new(open)) }
    }
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    // Without shared memory and memory maps.
    iVersion: 1,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(lock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: None,
    xShmLock: None,
    xShmBarrier: None,
    xShmUnmap: None,
    xFetch: None,
    xUnfetch: None,
};

/// The file behind SQLite's pointer.
///
/// # Safety
/// `file` is one that [`super::open`] has opened and [`close`] has not closed. SQLite uses it from one thread at a time and
/// makes no call within a call, so this is the only reference.
unsafe fn open_file<'a>(file: *mut ffi::sqlite3_file) -> &'a mut OpenFile {
    // SAFETY: the caller's.
    unsafe { &mut *(*file.cast::<File>()).open }
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    let file = file.cast::<File>();
    // SAFETY: SQLite closes a file once; after that it is not open, and the box is ours again.
    let open = unsafe {
        let open = (*file).open;
        file.write(File::closed());
        Box::from_raw(open)
    };
    guarded(ffi::SQLITE_IOERR_CLOSE, move || {
        drop(open);
        ffi::SQLITE_OK
    })
}

unsafe extern "C" fn read(file: *mut ffi::sqlite3_file, into: *mut c_void, amount: c_int, offset: i64) -> c_int {
    let (Ok(amount), Ok(offset)) = (usize::try_from(amount), u64::try_from(offset)) else { return ffi::SQLITE_IOERR_READ };
    // SAFETY: SQLite gives room for `amount` bytes, which nobody else looks at meanwhile. It may never have been written to,
    // so that is done before it is taken for a slice.
    let into = unsafe {
        std::ptr::write_bytes(into.cast::<u8>(), 0, amount);
        std::slice::from_raw_parts_mut(into.cast::<u8>(), amount)
    };
    // SAFETY: of the method's caller.
    let open = unsafe { open_file(file) };
    guarded(ffi::SQLITE_IOERR_READ, || match open {
        OpenFile::Database(files) => read_database(files, into, offset),
        OpenFile::Journal(files, scratch) => {
            if offset == 0 {
                files.database.lock().set_undoing(true);
            }
            read_scratch(files, scratch, into, offset)
        }
        OpenFile::Temporary(files, scratch) => read_scratch(files, scratch, into, offset),
    })
}

fn read_database(files: &Files, into: &mut [u8], offset: u64) -> c_int {
    let Some((pgno, start)) = page_at(offset, into.len()) else { return ffi::SQLITE_IOERR_READ };
    match files.database.lock().read(pgno, start, into) {
        Ok(Extent::Whole) => ffi::SQLITE_OK,
        Ok(Extent::Beyond) => {
            into.fill(0);
            ffi::SQLITE_IOERR_SHORT_READ
        }
        Err(Failed) => ffi::SQLITE_IOERR_READ,
    }
}

/// The page that holds `length` bytes from `offset` on, and where in it they begin. SQLite never reads across pages.
fn page_at(offset: u64, length: usize) -> Option<(u32, usize)> {
    let start = usize::try_from(offset % PAGE_BYTES as u64).ok()?;
    let pgno = u32::try_from(offset / PAGE_BYTES as u64).ok()?.checked_add(1)?;
    (start + length <= PAGE_BYTES).then_some((pgno, start))
}

fn read_scratch(files: &Files, scratch: &Scratch, into: &mut [u8], offset: u64) -> c_int {
    match scratch.read(into, offset) {
        Ok(count) if count == into.len() => ffi::SQLITE_OK,
        Ok(_) => ffi::SQLITE_IOERR_SHORT_READ,
        Err(trouble) => {
            files.database.lock().fail_for(trouble);
            ffi::SQLITE_IOERR_READ
        }
    }
}

unsafe extern "C" fn write(file: *mut ffi::sqlite3_file, from: *const c_void, amount: c_int, offset: i64) -> c_int {
    let (Ok(amount), Ok(offset)) = (usize::try_from(amount), u64::try_from(offset)) else { return ffi::SQLITE_IOERR_WRITE };
    // SAFETY: SQLite gives `amount` bytes, which nobody changes meanwhile.
    let from = unsafe { std::slice::from_raw_parts(from.cast::<u8>(), amount) };
    // SAFETY: of the method's caller.
    let open = unsafe { open_file(file) };
    guarded(ffi::SQLITE_IOERR_WRITE, || match open {
        OpenFile::Database(files) => match page_at(offset, from.len()) {
            Some((pgno, _)) if from.len() == PAGE_BYTES => full_if_failed(files.database.lock().write(pgno, from)),
            _ => ffi::SQLITE_IOERR_WRITE,
        },
        OpenFile::Journal(files, scratch) | OpenFile::Temporary(files, scratch) => {
            full_if_failed(scratch.write(from, offset).map_err(|trouble| files.database.lock().fail_for(trouble)))
        }
    })
}

/// SQLite rolls the transaction back.
fn full_if_failed(outcome: Result<(), Failed>) -> c_int {
    if outcome.is_ok() { ffi::SQLITE_OK } else { ffi::SQLITE_FULL }
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, length: i64) -> c_int {
    let Ok(length) = u64::try_from(length) else { return ffi::SQLITE_IOERR_TRUNCATE };
    // SAFETY: of the method's caller.
    let open = unsafe { open_file(file) };
    guarded(ffi::SQLITE_IOERR_TRUNCATE, || match open {
        OpenFile::Database(files) => match u32::try_from(length.div_ceil(PAGE_BYTES as u64)) {
            Ok(pages) => {
                files.database.lock().truncate(pages);
                ffi::SQLITE_OK
            }
            Err(_) => ffi::SQLITE_IOERR_TRUNCATE,
        },
        OpenFile::Journal(files, scratch) => {
            files.database.lock().set_undoing(false);
            truncate_scratch(files, scratch, length)
        }
        OpenFile::Temporary(files, scratch) => truncate_scratch(files, scratch, length),
    })
}

fn truncate_scratch(files: &Files, scratch: &mut Scratch, length: u64) -> c_int {
    match scratch.truncate(length) {
        Ok(()) => ffi::SQLITE_OK,
        Err(trouble) => {
            files.database.lock().fail_for(trouble);
            ffi::SQLITE_IOERR_TRUNCATE
        }
    }
}

/// What a sync means for the database is said by `SQLITE_FCNTL_SYNC`, which comes also if a host turns syncs off.
unsafe extern "C" fn sync(_file: *mut ffi::sqlite3_file, _flags: c_int) -> c_int {
    ffi::SQLITE_OK
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, size: *mut i64) -> c_int {
    // SAFETY: of the method's caller.
    let open = unsafe { open_file(file) };
    guarded(ffi::SQLITE_IOERR_FSTAT, || {
        let length = match open {
            OpenFile::Database(files) => files.database.lock().length(),
            OpenFile::Journal(_, scratch) | OpenFile::Temporary(_, scratch) => scratch.length(),
        };
        // SAFETY: SQLite gives a place for the answer.
        unsafe { size.write(i64::try_from(length).unwrap_or(i64::MAX)) };
        ffi::SQLITE_OK
    })
}

/// A session is the only user of its files.
unsafe extern "C" fn lock(_file: *mut ffi::sqlite3_file, _level: c_int) -> c_int {
    ffi::SQLITE_OK
}

unsafe extern "C" fn check_reserved_lock(_file: *mut ffi::sqlite3_file, is_locked: *mut c_int) -> c_int {
    // SAFETY: SQLite gives a place for the answer.
    unsafe { is_locked.write(0) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn file_control(file: *mut ffi::sqlite3_file, operation: c_int, argument: *mut c_void) -> c_int {
    // SAFETY: of the method's caller.
    let OpenFile::Database(files) = (unsafe { open_file(file) }) else { return ffi::SQLITE_NOTFOUND };
    guarded(ffi::SQLITE_IOERR, || match operation {
        // Sent before each sync of the database, and in its place if a host turns syncs off.
        ffi::SQLITE_FCNTL_SYNC => match files.database.lock().sync() {
            Ok(()) => ffi::SQLITE_OK,
            Err(Failed) => ffi::SQLITE_IOERR_FSYNC,
        },
        ffi::SQLITE_FCNTL_COMMIT_PHASETWO => {
            files.database.lock().committed();
            ffi::SQLITE_OK
        }
        // SAFETY: the argument of this operation is an array of three strings: answer, name, value or null.
        ffi::SQLITE_FCNTL_PRAGMA => unsafe { pragma_called(files, argument.cast()) },
        _ => ffi::SQLITE_NOTFOUND,
    })
}

/// # Safety
/// `strings` points to a place for an answer, the name of a PRAGMA, and its value, which may be null.
unsafe fn pragma_called(files: &Files, strings: *mut *mut std::ffi::c_char) -> c_int {
    // SAFETY: the caller's.
    let (name, value) = unsafe {
        let text = |place: usize| {
            let text = *strings.add(place);
            (!text.is_null()).then(|| std::ffi::CStr::from_ptr(text).to_string_lossy())
        };
        (text(1).unwrap_or_default(), text(2))
    };
    if !files.is_set_up() {
        return ffi::SQLITE_NOTFOUND;
    }
    match pragma::judge(&name, value.as_deref()) {
        // That is between SQLite and `Connection`'s authorizer.
        pragma::Judgement::Harmless | pragma::Judgement::ChangesSession | pragma::Judgement::Ignored => ffi::SQLITE_NOTFOUND,
        // SAFETY: the caller's.
        pragma::Judgement::Answered(answer) => unsafe { answer_pragma(strings, answer, ffi::SQLITE_OK) },
        // SAFETY: the caller's.
        pragma::Judgement::Refused(why) => unsafe { answer_pragma(strings, why, ffi::SQLITE_ERROR) },
    }
}

/// # Safety
/// As for [`pragma_called`].
unsafe fn answer_pragma(strings: *mut *mut std::ffi::c_char, answer: &std::ffi::CStr, code: c_int) -> c_int {
    // SAFETY: SQLite frees the answer with its own allocator, from which `sqlite3_mprintf` takes it; the format consumes one
    // argument, a string.
    unsafe { strings.write(ffi::sqlite3_mprintf(c"%s".as_ptr(), answer.as_ptr())) };
    code
}

unsafe extern "C" fn sector_size(_file: *mut ffi::sqlite3_file) -> c_int {
    SECTOR_BYTES
}

/// What is written stays as it is and in order: a session does not outlive its process.
unsafe extern "C" fn device_characteristics(_file: *mut ffi::sqlite3_file) -> c_int {
    ffi::SQLITE_IOCAP_SAFE_APPEND | ffi::SQLITE_IOCAP_SEQUENTIAL | ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE
}
