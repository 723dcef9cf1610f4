//! From a running statement to the rows of a reply.

use protocol::envoy::{SqliteColumnValue, SqliteQueryResult};

use crate::blocks::Charge;
use crate::connection::{Connection, Refusal};
use crate::statement::{OutOfMemory, Statement};

/// What a row or a cell counts besides its text or blob, in bytes, against the bound of a reply.
const ITEM_BYTES: usize = 16;
/// What an item takes in memory besides its text or blob, in bytes: a cell, or a row with a place for its cells.
const ITEM_MEMORY_BYTES: usize = 40;

/// Why there are no rows.
#[derive(Debug)]
pub(crate) enum NoRows {
    Refused(Refusal),
    TooLarge,
    /// The budget of all results is used up.
    NoRoom,
    OutOfMemory,
}

impl From<OutOfMemory> for NoRows {
    fn from(_: OutOfMemory) -> Self {
        Self::OutOfMemory
    }
}

/// Rows and their size, in bytes.
pub(crate) struct Collected {
    pub(crate) result: SqliteQueryResult,
    pub(crate) bytes: usize,
}

/// Runs a statement to its end. If that fails, nothing of it remains. What the rows take is added to the charge.
pub(crate) fn collect(
    connection: &Connection,
    statement: &mut Statement,
    max_bytes: usize,
    charge: &mut Charge,
) -> Result<Collected, NoRows> {
    let outcome = collect_rows(connection, statement, max_bytes, charge);
    if let Err(NoRows::TooLarge | NoRows::NoRoom | NoRows::OutOfMemory) = &outcome {
        connection.abort(statement);
    }
    outcome
}

fn collect_rows(
    connection: &Connection,
    statement: &mut Statement,
    max_bytes: usize,
    charge: &mut Charge,
) -> Result<Collected, NoRows> {
    // SQLite prepares a statement again if the schema has changed, so the columns are known only after the first step.
    let mut has_row = connection.step(statement).map_err(NoRows::Refused)?;
    let columns: Vec<String> =
        (0..statement.column_count()).map(|column| statement.column_name(column)).collect::<Result<_, _>>()?;
    let mut bytes: usize = columns.iter().map(|name| name.len() + ITEM_BYTES).sum();
    let mut rows = Vec::new();
    while has_row {
        bytes += ITEM_BYTES;
        take(charge, ITEM_MEMORY_BYTES)?;
        let mut row = Vec::with_capacity(columns.len());
        for column in 0..columns.len() {
            // Before it is copied, and then what it has become.
            let stored = statement.column_bytes(column);
            if bytes + stored > max_bytes {
                return Err(NoRows::TooLarge);
            }
            take(charge, ITEM_MEMORY_BYTES + stored)?;
            let value = statement.column(column)?;
            let counted = value_bytes(&value);
            take(charge, (counted - ITEM_BYTES).saturating_sub(stored))?;
            bytes += counted;
            row.push(value);
        }
        if bytes > max_bytes {
            return Err(NoRows::TooLarge);
        }
        rows.push(row);
        has_row = connection.step(statement).map_err(NoRows::Refused)?;
    }
    Ok(Collected { result: SqliteQueryResult { columns, rows }, bytes })
}

fn take(charge: &mut Charge, bytes: usize) -> Result<(), NoRows> {
    if bytes == 0 || charge.grow(bytes) { Ok(()) } else { Err(NoRows::NoRoom) }
}

fn value_bytes(value: &SqliteColumnValue) -> usize {
    match value {
        SqliteColumnValue::Null | SqliteColumnValue::Integer(_) | SqliteColumnValue::Float(_) => ITEM_BYTES,
        SqliteColumnValue::Text(text) => text.len() + ITEM_BYTES,
        SqliteColumnValue::Blob(blob) => blob.len() + ITEM_BYTES,
    }
}
