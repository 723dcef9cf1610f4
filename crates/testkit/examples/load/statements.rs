//! SQL that the engine executes for many actors, each sending the next statement as soon as the last one is answered.

use std::collections::HashMap;
use std::time::Duration;

use protocol::envoy::{SqliteExecRequest, SqliteExecuteRequest, SqliteValue, ToEnvoy, ToRivet};
use testkit::envoy::{FakeEnvoy, Run};
use tokio::time::Instant;

use crate::caller::Caller;
use crate::host::taken_by;
use crate::process::EngineProcess;
use crate::rates::{Span, measure};
use crate::starts::create;

/// What is executed again and again.
#[derive(Clone, Copy)]
pub(crate) enum Statement {
    /// Changes a row: one durable commit of one page.
    Update,
    /// Reads it.
    Select,
}

impl Statement {
    fn name(self) -> &'static str {
        match self {
            Self::Update => "statements that change a row",
            Self::Select => "statements that read a row",
        }
    }

    fn sql(self) -> &'static str {
        match self {
            Self::Update => "UPDATE t SET v = v + ? WHERE k = 1",
            Self::Select => "SELECT v, ? FROM t WHERE k = 1",
        }
    }
}

/// So many actors, over one host's connection.
pub(crate) async fn measure_statements(engine: &EngineProcess, actors: usize, statement: Statement) {
    let mut envoy = taken_by(engine.address()).await;
    let mut caller = Caller::connect(engine.address()).await;
    let mut speakers = Speakers { statement, next_request: 0, waiting: HashMap::new() };
    let mut started = Vec::with_capacity(actors);
    for number in 0..actors {
        create(&mut caller, &number.to_string()).await;
        let (run, _) = envoy.expect_start().await;
        envoy.running(&run);
        let data = SqliteExecRequest {
            namespace_id: "default".to_owned(),
            actor_id: run.actor_id.clone(),
            generation: run.generation.into(),
            sql: "CREATE TABLE t (k INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 0)".to_owned(),
        };
        envoy.send(&ToRivet::SqliteExec { request_id: 0, data });
        started.push(run);
    }
    for run in started {
        speakers.send(&envoy, run);
    }
    measure(engine, statement.name(), vec![(envoy, speakers)], speak_until).await;
}

struct Speakers {
    statement: Statement,
    next_request: u32,
    /// Whose statement is under way, since when.
    waiting: HashMap<u32, (Run, Instant)>,
}

impl Speakers {
    fn send(&mut self, envoy: &FakeEnvoy, run: Run) {
        let data = SqliteExecuteRequest {
            namespace_id: "default".to_owned(),
            actor_id: run.actor_id.clone(),
            generation: run.generation.into(),
            sql: self.statement.sql().to_owned(),
            params: Some(vec![SqliteValue::Integer(1)]),
        };
        let request_id = self.next_request;
        self.next_request = self.next_request.wrapping_add(1);
        envoy.send(&ToRivet::SqliteExecute { request_id, data });
        self.waiting.insert(request_id, (run, Instant::now()));
    }
}

async fn speak_until((mut envoy, mut speakers): (FakeEnvoy, Speakers), span: Span) -> Vec<Duration> {
    let mut took = Vec::new();
    while !span.is_over() {
        let message = envoy.any().await.expect("the host's connection");
        let ToEnvoy::SqliteExecute { request_id, data } = message else { continue };
        data.unwrap_or_else(|error| panic!("{error:?}"));
        let (run, since) = speakers.waiting.remove(&request_id).expect("an answer to a request");
        took.extend(span.took(since));
        speakers.send(&envoy, run);
    }
    took
}
