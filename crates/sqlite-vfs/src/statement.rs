//! SQLite's prepared statement.

#![expect(unsafe_code, reason = "SQLite is written in C")]

use std::ffi::{CStr, c_char, c_int};
use std::ptr::NonNull;

use bytes::Bytes;
use libsqlite3_sys as ffi;
use protocol::envoy::SqliteValue;

/// A statement, which belongs to one connection.
pub(crate) struct Statement {
    handle: NonNull<ffi::sqlite3_stmt>,
}

// SAFETY: as for `Connection`, with which it moves.
unsafe impl Send for Statement {}

/// There is no memory for a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OutOfMemory;

impl Statement {
    /// # Safety
    /// The statement exists and belongs to nobody else.
    pub(crate) unsafe fn new(handle: NonNull<ffi::sqlite3_stmt>) -> Self {
        Self { handle }
    }

    fn as_ptr(&self) -> *mut ffi::sqlite3_stmt {
        self.handle.as_ptr()
    }

    /// Binds the parameter with a number from 1 on. Returns SQLite's result code.
    pub(crate) fn bind(&mut self, number: usize, value: &SqliteValue) -> c_int {
        let Ok(number) = c_int::try_from(number) else { return ffi::SQLITE_RANGE };
        let statement = self.as_ptr();
        let copied = ffi::SQLITE_TRANSIENT();
        // SAFETY: the statement exists, lengths are those of the slices, and SQLite copies them.
        unsafe {
            match value {
                SqliteValue::Null => ffi::sqlite3_bind_null(statement, number),
                SqliteValue::Integer(value) => ffi::sqlite3_bind_int64(statement, number, *value),
                SqliteValue::Float(value) => ffi::sqlite3_bind_double(statement, number, *value),
                SqliteValue::Text(text) => {
                    let encoding = ffi::SQLITE_UTF8 as u8;
                    ffi::sqlite3_bind_text64(statement, number, text.as_ptr().cast(), text.len() as u64, copied, encoding)
                }
                // A null pointer, and perhaps that of an empty slice, would mean NULL.
                SqliteValue::Blob(blob) if blob.is_empty() => ffi::sqlite3_bind_zeroblob(statement, number, 0),
                SqliteValue::Blob(blob) => {
                    ffi::sqlite3_bind_blob64(statement, number, blob.as_ptr().cast(), blob.len() as u64, copied)
                }
            }
        }
    }

    /// Runs to the next row or to the end. Returns SQLite's result code.
    pub(crate) fn step(&mut self) -> c_int {
        // SAFETY: the statement exists.
        unsafe { ffi::sqlite3_step(self.as_ptr()) }
    }

    /// Makes it ready to run again, without parameters.
    pub(crate) fn reset(&mut self) {
        // SAFETY: the statement exists. The codes repeat what `step` has said.
        unsafe {
            ffi::sqlite3_reset(self.as_ptr());
            ffi::sqlite3_clear_bindings(self.as_ptr());
        }
    }

    pub(crate) fn is_read_only(&self) -> bool {
        // SAFETY: the statement exists.
        unsafe { ffi::sqlite3_stmt_readonly(self.as_ptr()) != 0 }
    }

    pub(crate) fn column_count(&self) -> usize {
        // SAFETY: the statement exists.
        usize::try_from(unsafe { ffi::sqlite3_column_count(self.as_ptr()) }).unwrap_or(0)
    }

    pub(crate) fn column_name(&self, column: usize) -> Result<String, OutOfMemory> {
        // SAFETY: the statement exists; the name is valid until the next call, before which it is copied.
        unsafe {
            let name: *const c_char = ffi::sqlite3_column_name(self.as_ptr(), column as c_int);
            if name.is_null() {
                return Err(OutOfMemory);
            }
            Ok(CStr::from_ptr(name).to_string_lossy().into_owned())
        }
    }

    /// The length of a column of the current row, in bytes; 0 if it is a number or NULL.
    pub(crate) fn column_bytes(&self, column: usize) -> usize {
        // SAFETY: the statement exists and has a row. Asking a number for its length would turn it into text.
        unsafe {
            match ffi::sqlite3_column_type(self.as_ptr(), column as c_int) {
                ffi::SQLITE_TEXT | ffi::SQLITE_BLOB => {
                    usize::try_from(ffi::sqlite3_column_bytes(self.as_ptr(), column as c_int)).unwrap_or(0)
                }
                _ => 0,
            }
        }
    }

    /// A column of the current row. Text that is not UTF-8 comes with replacement characters, as from the published engine.
    pub(crate) fn column(&self, column: usize) -> Result<SqliteValue, OutOfMemory> {
        let (statement, number) = (self.as_ptr(), column as c_int);
        // SAFETY: the statement exists and has a row.
        unsafe {
            match ffi::sqlite3_column_type(statement, number) {
                ffi::SQLITE_INTEGER => Ok(SqliteValue::Integer(ffi::sqlite3_column_int64(statement, number))),
                ffi::SQLITE_FLOAT => Ok(SqliteValue::Float(ffi::sqlite3_column_double(statement, number))),
                ffi::SQLITE_TEXT => {
                    let start = ffi::sqlite3_column_text(statement, number);
                    let bytes = self.column_slice(start, column)?;
                    Ok(SqliteValue::Text(String::from_utf8_lossy(bytes).into_owned()))
                }
                ffi::SQLITE_BLOB => {
                    let start = ffi::sqlite3_column_blob(statement, number).cast();
                    Ok(SqliteValue::Blob(Bytes::copy_from_slice(self.column_slice(start, column)?)))
                }
                _ => Ok(SqliteValue::Null),
            }
        }
    }

    /// # Safety
    /// `start` is what SQLite has just given for this column.
    unsafe fn column_slice(&self, start: *const u8, column: usize) -> Result<&[u8], OutOfMemory> {
        let length = self.column_bytes(column);
        match (start.is_null(), length) {
            (_, 0) => Ok(&[]),
            (true, _) => Err(OutOfMemory),
            // SAFETY: SQLite says how long it is; it stays until the next step, which needs `&mut self`.
            (false, length) => Ok(unsafe { std::slice::from_raw_parts(start, length) }),
        }
    }
}

impl Drop for Statement {
    fn drop(&mut self) {
        // SAFETY: the statement exists and is not used after this. The code repeats what `step` has said.
        unsafe { ffi::sqlite3_finalize(self.as_ptr()) };
    }
}
