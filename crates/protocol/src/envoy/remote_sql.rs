//! SQL executed by the engine (`spec/envoy-protocol.md` 5.7 and 11, `spec/storage.md` 8).
//!
//! In all requests `namespace_id` holds the namespace *name* as given in the connection's URL.

use bare::{Arm, Arms, Codec, DecodeError, NotInVersion, Reader, Writer};
use bytes::Bytes;

use super::wire::wire_structs;

/// A parameter or a cell of a result.
#[derive(Debug, Clone, PartialEq)]
pub enum SqliteValue {
    /// NULL.
    Null,
    /// INTEGER.
    Integer(i64),
    /// REAL. Big-endian on the wire, unlike everything else.
    Float(f64),
    /// TEXT.
    Text(String),
    /// BLOB.
    Blob(Bytes),
}

#[derive(Clone, Copy)]
enum SqliteValueArm {
    Null,
    Integer,
    Float,
    Text,
    Blob,
}

const fn value_arm(name: &'static str, key: SqliteValueArm) -> Arm<SqliteValueArm> {
    Arm { name, since: 0, key }
}

const SQLITE_VALUE_ARMS: Arms<SqliteValueArm> = Arms {
    union: "SqliteValue",
    arms: &[
        value_arm("Null", SqliteValueArm::Null),
        value_arm("Integer", SqliteValueArm::Integer),
        value_arm("Float", SqliteValueArm::Float),
        value_arm("Text", SqliteValueArm::Text),
        value_arm("Blob", SqliteValueArm::Blob),
    ],
};

// By hand because of the big-endian float, which is fixed data as far as BARE is concerned.
impl Codec for SqliteValue {
    const MIN_SIZE: usize = 1;

    fn write(&self, writer: &mut Writer<'_>) -> Result<(), NotInVersion> {
        let mut arm = |arm: SqliteValueArm| writer.arm(&SQLITE_VALUE_ARMS, arm as usize);
        match self {
            Self::Null => arm(SqliteValueArm::Null),
            Self::Integer(value) => {
                arm(SqliteValueArm::Integer)?;
                value.write(writer)
            }
            Self::Float(value) => {
                arm(SqliteValueArm::Float)?;
                value.to_be_bytes().write(writer)
            }
            Self::Text(value) => {
                arm(SqliteValueArm::Text)?;
                value.write(writer)
            }
            Self::Blob(value) => {
                arm(SqliteValueArm::Blob)?;
                value.write(writer)
            }
        }
    }

    fn read(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(match reader.arm(&SQLITE_VALUE_ARMS)? {
            SqliteValueArm::Null => Self::Null,
            SqliteValueArm::Integer => Self::Integer(Codec::read(reader)?),
            SqliteValueArm::Float => Self::Float(f64::from_be_bytes(Codec::read(reader)?)),
            SqliteValueArm::Text => Self::Text(Codec::read(reader)?),
            SqliteValueArm::Blob => Self::Blob(Codec::read(reader)?),
        })
    }
}

/// A bound parameter.
pub type SqliteBindParam = SqliteValue;
/// A cell of a result.
pub type SqliteColumnValue = SqliteValue;

wire_structs! {
    /// Result of the last statement of a script.
    struct SqliteQueryResult {
        /// Column names.
        columns: Vec<String>,
        /// Rows, one cell per column.
        rows: Vec<Vec<SqliteColumnValue>>,
    }

    /// Result of one statement.
    struct SqliteExecuteResult {
        /// Column names.
        columns: Vec<String>,
        /// Rows, one cell per column.
        rows: Vec<Vec<SqliteColumnValue>>,
        /// The connection's running count, also after a SELECT.
        changes: i64,
        /// The connection's running value, also after a SELECT.
        last_insert_row_id: Option<i64>,
    }

    /// Run a script.
    struct SqliteExecRequest {
        /// Name of the namespace.
        namespace_id: String,
        /// Text form of the actor id.
        actor_id: String,
        /// Generation of the actor.
        generation: u64,
        /// The script.
        sql: String,
    }

    /// Run one statement.
    struct SqliteExecuteRequest {
        /// Name of the namespace.
        namespace_id: String,
        /// Text form of the actor id.
        actor_id: String,
        /// Generation of the actor.
        generation: u64,
        /// The statement.
        sql: String,
        /// Its parameters by position.
        params: Option<Vec<SqliteBindParam>>,
    }

    /// One statement of a batch.
    struct SqliteBatchStatement {
        /// The statement.
        sql: String,
        /// Its parameters by position.
        params: Option<Vec<SqliteBindParam>>,
    }

    /// Run statements in one transaction, all or nothing.
    struct SqliteExecuteBatchRequest {
        /// Name of the namespace.
        namespace_id: String,
        /// Text form of the actor id.
        actor_id: String,
        /// Generation of the actor.
        generation: u64,
        /// The statements in order.
        statements: Vec<SqliteBatchStatement>,
    }

    /// Answer to a script.
    struct SqliteExecOk {
        /// Result of its last statement.
        result: SqliteQueryResult,
    }

    /// Answer to a statement.
    struct SqliteExecuteOk {
        /// Its result.
        result: SqliteExecuteResult,
    }

    /// Answer to a batch.
    struct SqliteExecuteBatchOk {
        /// One result per statement.
        results: Vec<SqliteExecuteResult>,
    }
}
