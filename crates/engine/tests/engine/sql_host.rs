//! An actor on a scripted host that lets the engine execute its SQL (`spec/storage.md` 8).

use bytes::Bytes;
use protocol::envoy::{
    SqliteBatchStatement, SqliteErrorResponse, SqliteExecOk, SqliteExecRequest, SqliteExecuteBatchOk, SqliteExecuteBatchRequest,
    SqliteExecuteOk, SqliteExecuteRequest, SqliteExecuteResult, SqliteQueryResult, SqliteValue, ToEnvoy, ToRivet,
};
use testkit::envoy::{FakeEnvoy, Run};

/// A statement that runs until it is interrupted.
pub(crate) const ENDLESS: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";

/// How one generation of an actor speaks SQL over a connection of its host. Request ids are the caller's business where
/// several are open at once.
pub(crate) struct Sql {
    pub(crate) namespace: String,
    pub(crate) run: Run,
    next_id: u32,
}

impl Sql {
    pub(crate) fn of(run: &Run) -> Self {
        Self { namespace: "default".to_owned(), run: run.clone(), next_id: 0 }
    }

    /// As [`Self::of`], with ids that no other actor of the host has.
    pub(crate) fn numbered(run: &Run, first_id: u32) -> Self {
        Self { next_id: first_id, ..Self::of(run) }
    }

    fn id(&mut self) -> u32 {
        self.next_id += 1;
        self.next_id
    }

    /// Sends a script; returns the request's id.
    pub(crate) fn send_exec(&mut self, envoy: &FakeEnvoy, sql: &str) -> u32 {
        let request_id = self.id();
        let data = SqliteExecRequest {
            namespace_id: self.namespace.clone(),
            actor_id: self.run.actor_id.clone(),
            generation: self.run.generation.into(),
            sql: sql.to_owned(),
        };
        envoy.send(&ToRivet::SqliteExec { request_id, data });
        request_id
    }

    /// Sends a statement; returns the request's id.
    pub(crate) fn send_execute(&mut self, envoy: &FakeEnvoy, sql: &str, params: &[SqliteValue]) -> u32 {
        let request_id = self.id();
        let data = SqliteExecuteRequest {
            namespace_id: self.namespace.clone(),
            actor_id: self.run.actor_id.clone(),
            generation: self.run.generation.into(),
            sql: sql.to_owned(),
            params: Some(params.to_vec()),
        };
        envoy.send(&ToRivet::SqliteExecute { request_id, data });
        request_id
    }

    /// Runs a script.
    pub(crate) async fn exec(&mut self, envoy: &mut FakeEnvoy, sql: &str) -> Result<SqliteQueryResult, SqliteErrorResponse> {
        let id = self.send_exec(envoy, sql);
        let answer = |message: &ToEnvoy| {
            let ToEnvoy::SqliteExec { request_id, data } = message else { return None };
            (*request_id == id).then(|| data.clone())
        };
        envoy.expect("the result of a script", answer).await.map(|SqliteExecOk { result }| result)
    }

    /// Runs a statement.
    pub(crate) async fn execute(
        &mut self,
        envoy: &mut FakeEnvoy,
        sql: &str,
        params: &[SqliteValue],
    ) -> Result<SqliteExecuteResult, SqliteErrorResponse> {
        let id = self.send_execute(envoy, sql, params);
        executed(envoy, id).await
    }

    /// Runs statements without parameters as a batch.
    pub(crate) async fn batch(
        &mut self,
        envoy: &mut FakeEnvoy,
        statements: &[&str],
    ) -> Result<Vec<SqliteExecuteResult>, SqliteErrorResponse> {
        let id = self.id();
        let statement = |sql: &&str| SqliteBatchStatement { sql: (*sql).to_owned(), params: None };
        let data = SqliteExecuteBatchRequest {
            namespace_id: self.namespace.clone(),
            actor_id: self.run.actor_id.clone(),
            generation: self.run.generation.into(),
            statements: statements.iter().map(statement).collect(),
        };
        envoy.send(&ToRivet::SqliteExecuteBatch { request_id: id, data });
        let answer = |message: &ToEnvoy| {
            let ToEnvoy::SqliteExecuteBatch { request_id, data } = message else { return None };
            (*request_id == id).then(|| data.clone())
        };
        envoy.expect("the results of a batch", answer).await.map(|SqliteExecuteBatchOk { results }| results)
    }

    /// The only cell of a query's only row.
    pub(crate) async fn value(&mut self, envoy: &mut FakeEnvoy, sql: &str) -> SqliteValue {
        let result = self.execute(envoy, sql, &[]).await.unwrap();
        let [row] = &result.rows[..] else { panic!("{result:?} has not one row") };
        let [value] = &row[..] else { panic!("{result:?} has not one column") };
        value.clone()
    }
}

/// The answer to a statement that was sent before.
pub(crate) async fn executed(envoy: &mut FakeEnvoy, id: u32) -> Result<SqliteExecuteResult, SqliteErrorResponse> {
    let answer = |message: &ToEnvoy| {
        let ToEnvoy::SqliteExecute { request_id, data } = message else { return None };
        (*request_id == id).then(|| data.clone())
    };
    envoy.expect("the result of a statement", answer).await.map(|SqliteExecuteOk { result }| result)
}

/// Group and code of an error.
pub(crate) fn code(error: &SqliteErrorResponse) -> String {
    format!("{}.{}", error.group, error.code)
}

pub(crate) fn text(text: &str) -> SqliteValue {
    SqliteValue::Text(text.to_owned())
}

pub(crate) fn blob(bytes: &[u8]) -> SqliteValue {
    SqliteValue::Blob(Bytes::copy_from_slice(bytes))
}
