//! A request to execute SQL, and its answer.

use bytes::Bytes;
use protocol::envoy::{
    SqliteBatchStatement, SqliteBindParam, SqliteErrorResponse, SqliteExecOk, SqliteExecRequest, SqliteExecuteBatchOk,
    SqliteExecuteBatchRequest, SqliteExecuteOk, SqliteExecuteRequest, ToEnvoy,
};
use protocol::limits;
use sqlite_vfs::{Charge, Session, SessionError};
use tokio::sync::OwnedSemaphorePermit;

use super::error::not_misleading;

/// A request as it came (`spec/storage.md` 8.1).
#[derive(Debug)]
pub(crate) struct SqlRequest {
    pub(crate) request_id: u32,
    pub(crate) work: SqlWork,
}

/// What is to be executed.
#[derive(Debug)]
pub(crate) enum SqlWork {
    Exec(SqliteExecRequest),
    Execute(SqliteExecuteRequest),
    Batch(SqliteExecuteBatchRequest),
}

/// An answer.
#[derive(Debug)]
pub(crate) struct SqlAnswer {
    pub(crate) reply: SqlReply,
    /// To be dropped when the answer is on its way, as what follows.
    pub(crate) turn: Option<OwnedSemaphorePermit>,
    /// The memory that it takes.
    pub(crate) charge: Option<Charge>,
}

/// What is said to the host.
#[derive(Debug)]
pub(crate) enum SqlReply {
    /// A small one, and the bytes of somebody's data in it.
    Message(ToEnvoy, usize),
    /// Any other one, encoded.
    Frame(Bytes),
}

impl SqlRequest {
    /// Text form of the actor id.
    pub(crate) fn actor_id(&self) -> &str {
        match &self.work {
            SqlWork::Exec(request) => &request.actor_id,
            SqlWork::Execute(request) => &request.actor_id,
            SqlWork::Batch(request) => &request.actor_id,
        }
    }

    /// Name of the namespace.
    pub(super) fn namespace(&self) -> &str {
        match &self.work {
            SqlWork::Exec(request) => &request.namespace_id,
            SqlWork::Execute(request) => &request.namespace_id,
            SqlWork::Batch(request) => &request.namespace_id,
        }
    }

    /// The generation that it speaks for.
    pub(crate) fn generation(&self) -> u64 {
        match &self.work {
            SqlWork::Exec(request) => request.generation,
            SqlWork::Execute(request) => request.generation,
            SqlWork::Batch(request) => request.generation,
        }
    }

    /// What it occupies while it waits, in bytes, roughly.
    pub(crate) fn payload_bytes(&self) -> usize {
        match &self.work {
            SqlWork::Exec(request) => request.sql.len(),
            SqlWork::Execute(request) => request.sql.len() + params_bytes(request.params.as_deref()),
            SqlWork::Batch(request) => request.statements.iter().map(statement_bytes).sum(),
        }
    }

    /// Executes it. Takes its time.
    pub(super) fn run(&self, session: &mut Session) -> Result<ToEnvoy, SessionError> {
        let request_id = self.request_id;
        Ok(match &self.work {
            SqlWork::Exec(request) => {
                let result = session.exec(&request.sql)?;
                ToEnvoy::SqliteExec { request_id, data: Ok(SqliteExecOk { result }) }
            }
            SqlWork::Execute(request) => {
                let result = session.execute(&request.sql, request.params.as_deref())?;
                ToEnvoy::SqliteExecute { request_id, data: Ok(SqliteExecuteOk { result }) }
            }
            SqlWork::Batch(request) => {
                let results = session.execute_batch(&request.statements)?;
                ToEnvoy::SqliteExecuteBatch { request_id, data: Ok(SqliteExecuteBatchOk { results }) }
            }
        })
    }

    /// The answer that says why not.
    pub(crate) fn refusal(&self, error: SqliteErrorResponse) -> SqlAnswer {
        let request_id = self.request_id;
        let error = SqliteErrorResponse { message: not_misleading(error.message), ..error };
        let bytes = error.message.len();
        let message = match &self.work {
            SqlWork::Exec(_) => ToEnvoy::SqliteExec { request_id, data: Err(error) },
            SqlWork::Execute(_) => ToEnvoy::SqliteExecute { request_id, data: Err(error) },
            SqlWork::Batch(_) => ToEnvoy::SqliteExecuteBatch { request_id, data: Err(error) },
        };
        SqlAnswer { reply: SqlReply::Message(message, bytes), turn: None, charge: None }
    }
}

impl SqlReply {
    /// `bytes` of somebody's data are in the message. Encodes it here if that takes long.
    pub(super) fn new(message: ToEnvoy, bytes: usize, protocol_version: u16) -> Self {
        if bytes > limits::REMOTE_SQL_INLINE_ANSWER_MAX_BYTES
            && let Ok(frame) = message.to_frame(protocol_version)
        {
            return Self::Frame(frame);
        }
        // What cannot be encoded is reported where it would be written.
        Self::Message(message, bytes)
    }
}

fn statement_bytes(statement: &SqliteBatchStatement) -> usize {
    size_of::<SqliteBatchStatement>() + statement.sql.len() + params_bytes(statement.params.as_deref())
}

fn params_bytes(params: Option<&[SqliteBindParam]>) -> usize {
    let bytes = |param: &SqliteBindParam| match param {
        SqliteBindParam::Null | SqliteBindParam::Integer(_) | SqliteBindParam::Float(_) => 0,
        SqliteBindParam::Text(text) => text.len(),
        SqliteBindParam::Blob(blob) => blob.len(),
    };
    params.into_iter().flatten().map(|param| size_of::<SqliteBindParam>() + bytes(param)).sum()
}
