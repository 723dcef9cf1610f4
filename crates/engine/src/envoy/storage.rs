//! Storage requests of hosts: one after another per actor, different actors side by side (`spec/storage.md` 2.4). SQL that is
//! executed here has a lane of its own beside that of pages and key-value data, because a statement may take long. These two
//! share one: what a host has seen of its commits is judged by the order of its requests, and a lane per actor is where turns
//! over several connections are taken (`hosts::turns`).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use actor_data::{ActorData, Caller};
use parking_lot::Mutex;
use protocol::envoy::{
    KvRequestData, KvResponseData, SqliteCommitFinalizeRequest, SqliteCommitRequest, SqliteCommitStageBeginRequest,
    SqliteCommitStageSegmentRequest, SqliteErrorResponse, SqliteGetPagesRequest, ToEnvoy, ToRivetKvRequest,
};
use protocol::id::ActorId;
use protocol::limits;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::connection::EnvoyContext;
use super::storage_metrics::StorageMetrics;
use crate::scheduler::Scheduler;
use crate::sql::{RemoteSql, SqlAnswer, SqlCaller, SqlReply, SqlRequest};

/// A request as it came.
pub(super) enum StorageRequest {
    Kv(ToRivetKvRequest),
    GetPages(u32, SqliteGetPagesRequest),
    Commit(u32, SqliteCommitRequest),
    StageBegin(u32, SqliteCommitStageBeginRequest),
    StageSegment(u32, SqliteCommitStageSegmentRequest),
    Finalize(u32, SqliteCommitFinalizeRequest),
    Sql(SqlRequest),
}

/// What is done one after the other for an actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Family {
    /// Its pages and key-value data.
    Data,
    /// Its SQL.
    Sql,
}

/// The requests of one connection. What waits is bounded by bytes: above the bound the connection is read no further.
pub(super) struct StorageLanes {
    shared: Arc<Shared>,
    budget: Arc<Semaphore>,
}

struct Shared {
    data: ActorData,
    sql: RemoteSql,
    scheduler: Scheduler,
    caller: SqlCaller,
    metrics: Arc<StorageMetrics>,
    /// An entry means that its lane runs; the queue holds what waits for it.
    lanes: Mutex<HashMap<(ActorId, Family), VecDeque<Job>>>,
}

struct Job {
    request: StorageRequest,
    /// What the host ran when the request came: a later generation must not do what an earlier one asked for.
    assigned: Option<u32>,
    arrived: Instant,
    /// By when SQL must have been executed.
    deadline: Instant,
    _budget: Option<OwnedSemaphorePermit>,
}

const BUDGET_UNIT_BYTES: usize = limits::KIB;
const BUDGET_UNITS: usize = limits::STORAGE_QUEUE_MAX_BYTES / BUDGET_UNIT_BYTES;

impl StorageLanes {
    pub(super) fn new(context: &EnvoyContext, caller: SqlCaller) -> Self {
        let shared = Shared {
            data: context.data.clone(),
            sql: context.sql.clone(),
            scheduler: context.scheduler.clone(),
            caller,
            metrics: context.storage_metrics.clone(),
            lanes: Mutex::default(),
        };
        Self { shared: Arc::new(shared), budget: Arc::new(Semaphore::new(BUDGET_UNITS)) }
    }

    /// Queues a request that came in a frame of this size, waiting while too much waits already.
    pub(super) async fn push(&self, request: StorageRequest, frame_bytes: usize) {
        let actor = match request.actor_id().parse::<ActorId>() {
            Ok(actor) => actor,
            Err(error) => {
                request.refuse_id(&self.shared, &error.to_string()).await;
                return;
            }
        };
        // The first word of a generation that an endpoint was asked for may be a read of its pages.
        if let Some(generation) = request.expected_generation() {
            self.shared.scheduler.claim(&self.shared.caller.host, actor, generation);
        }
        let assigned = self.shared.caller.host.generation_of(actor);
        let lane = (actor, request.family());
        let arrived = Instant::now();
        let deadline = self.shared.sql.deadline();
        let units = request.occupied_bytes(frame_bytes).div_ceil(BUDGET_UNIT_BYTES).clamp(1, BUDGET_UNITS) as u32;
        // The budget is never closed, so there always is a permit at some point.
        let budget = self.budget.clone().acquire_many_owned(units).await.ok();
        let job = Job { request, assigned, arrived, deadline, _budget: budget };
        let mut lanes = self.shared.lanes.lock();
        match lanes.get_mut(&lane) {
            Some(waiting) => waiting.push_back(job),
            None => {
                lanes.insert(lane, VecDeque::new());
                drop(lanes);
                tokio::spawn(run_lane(self.shared.clone(), lane, job));
            }
        }
    }
}

impl Drop for StorageLanes {
    /// The connection has ended. What its statements did not commit is undone.
    fn drop(&mut self) {
        let link = &self.shared.caller.link;
        // Before the sessions are looked for: from here on there are no new ones.
        link.close();
        self.shared.sql.connection_ended(link);
    }
}

async fn run_lane(shared: Arc<Shared>, lane: (ActorId, Family), first: Job) {
    let host = &shared.caller.host;
    // SQL waits by itself for what runs for an old connection.
    let _turn = match lane.1 {
        Family::Data => Some(host.turns.take(lane.0).await),
        Family::Sql => None,
    };
    let mut next = Some(first);
    while let Some(job) = next {
        // A host does not wait for answers over a connection that has ended, and says anew over the next one what it wants.
        if shared.caller.link.is_closed() || !host.is_connected_over(shared.caller.link.session()) {
            shared.lanes.lock().remove(&lane);
            return;
        }
        shared.serve(lane.0, job).await;
        let mut lanes = shared.lanes.lock();
        next = lanes.get_mut(&lane).and_then(VecDeque::pop_front);
        if next.is_none() {
            lanes.remove(&lane);
        }
    }
}

impl Shared {
    /// Answers a request.
    async fn serve(&self, actor: ActorId, job: Job) {
        let Job { request, assigned, arrived, deadline, _budget } = job;
        // A host whose connection broke goes on from what it was told over that one.
        let caller = Caller::Host(self.caller.link.session().0);
        let answer = match request {
            StorageRequest::Sql(request) => {
                let answer = self.sql.answer(&self.caller, actor, assigned, request, deadline).await;
                return self.reply_to_sql(answer).await;
            }
            StorageRequest::Kv(ToRivetKvRequest { request_id, data, .. }) => {
                let data = match assigned {
                    Some(generation) => self.data.kv(actor, generation, data).await,
                    None => KvResponseData::Error { message: "actor does not exist".into() },
                };
                ToEnvoy::KvResponse { request_id, data }
            }
            StorageRequest::GetPages(request_id, request) => {
                let data = match foreign(assigned, request.expected_generation) {
                    None => self.data.get_pages(actor, caller, request).await,
                    Some(refusal) => Err(refusal),
                };
                ToEnvoy::SqliteGetPages { request_id, data }
            }
            StorageRequest::Commit(request_id, request) => {
                let data = match foreign(assigned, request.expected_generation) {
                    None => self.data.commit(actor, caller, request).await,
                    Some(refusal) => Err(refusal),
                };
                ToEnvoy::SqliteCommit { request_id, data }
            }
            StorageRequest::StageBegin(request_id, request) => {
                let data = match foreign(assigned, request.expected_generation) {
                    None => self.data.stage_begin(actor, caller, request).await,
                    Some(refusal) => Err(refusal),
                };
                ToEnvoy::SqliteCommitStageBegin { request_id, data }
            }
            StorageRequest::StageSegment(request_id, request) => {
                let data = match foreign(assigned, request.expected_generation) {
                    None => self.data.stage_segment(actor, caller, request).await,
                    Some(refusal) => Err(refusal),
                };
                ToEnvoy::SqliteCommitStageSegment { request_id, data }
            }
            StorageRequest::Finalize(request_id, request) => {
                let data = match foreign(assigned, request.expected_generation) {
                    None => self.data.finalize(actor, caller, request).await,
                    Some(refusal) => Err(refusal),
                };
                ToEnvoy::SqliteCommitFinalize { request_id, data }
            }
        };
        self.metrics.answered(&answer, arrived.elapsed());
        self.reply(answer).await;
    }

    async fn reply(&self, answer: ToEnvoy) {
        let bytes = answer_bytes(&answer);
        // A connection that has ended needs no answers: its host gives up what it sent over it.
        let _ = self.caller.link.send(answer, bytes).await;
    }

    async fn reply_to_sql(&self, answer: SqlAnswer) {
        let SqlAnswer { reply, turn: _turn, charge: _charge } = answer;
        let _ = match reply {
            SqlReply::Message(message, bytes) => self.caller.link.send(message, bytes).await,
            SqlReply::Frame(frame) => self.caller.link.send_frame(frame).await,
        };
    }
}

/// Refuses a host that does not run the generation it speaks for, in words that end the stale instance
/// (`spec/storage.md` 6.5). A request without generation is judged where its form is checked.
fn foreign(assigned: Option<u32>, expected_generation: Option<u64>) -> Option<SqliteErrorResponse> {
    let expected = expected_generation?;
    let is_owner = assigned.is_some_and(|generation| u64::from(generation) == expected);
    (!is_owner).then(|| SqliteErrorResponse {
        group: "depot".into(),
        code: "head_fence_mismatch".into(),
        message: format!("actor generation {expected} is not current"),
    })
}

impl StorageRequest {
    fn family(&self) -> Family {
        match self {
            Self::Kv(_)
            | Self::GetPages(..)
            | Self::Commit(..)
            | Self::StageBegin(..)
            | Self::StageSegment(..)
            | Self::Finalize(..) => Family::Data,
            Self::Sql(_) => Family::Sql,
        }
    }

    fn actor_id(&self) -> &str {
        match self {
            Self::Kv(request) => &request.actor_id,
            Self::GetPages(_, request) => &request.actor_id,
            Self::Commit(_, request) => &request.actor_id,
            Self::StageBegin(_, request) => &request.actor_id,
            Self::StageSegment(_, request) => &request.actor_id,
            Self::Finalize(_, request) => &request.actor_id,
            Self::Sql(request) => request.actor_id(),
        }
    }

    /// The generation that the request speaks for; key-value requests do not say.
    fn expected_generation(&self) -> Option<u32> {
        let generation = match self {
            Self::Kv(_) => None,
            Self::GetPages(_, request) => request.expected_generation,
            Self::Commit(_, request) => request.expected_generation,
            Self::StageBegin(_, request) => request.expected_generation,
            Self::StageSegment(_, request) => request.expected_generation,
            Self::Finalize(_, request) => request.expected_generation,
            Self::Sql(request) => Some(request.generation()),
        };
        generation.and_then(|generation| u32::try_from(generation).ok())
    }

    /// Bytes that it occupies while it waits, at most. What a host sent as bytes stays in its frame; the lists are made anew.
    fn occupied_bytes(&self, frame_bytes: usize) -> usize {
        let lists = match self {
            Self::Kv(request) => match &request.data {
                KvRequestData::Put { keys, values } => size_of_val(&keys[..]) + size_of_val(&values[..]),
                KvRequestData::Get { keys } | KvRequestData::Delete { keys } => size_of_val(&keys[..]),
                KvRequestData::List { .. } | KvRequestData::DeleteRange { .. } | KvRequestData::Drop => 0,
            },
            Self::GetPages(_, request) => size_of_val(&request.pgnos[..]),
            Self::Commit(_, request) => size_of_val(&request.dirty_pages[..]),
            Self::StageSegment(_, request) => size_of_val(&request.dirty_pages[..]),
            Self::Finalize(_, request) => size_of_val(&request.segment_first_pgnos[..]),
            Self::StageBegin(..) => 0,
            // Texts are copied, too.
            Self::Sql(request) => request.payload_bytes(),
        };
        frame_bytes + lists
    }

    /// Answers a request whose actor id is none.
    async fn refuse_id(self, shared: &Shared, reason: &str) {
        let refusal = || SqliteErrorResponse {
            group: "core".into(),
            code: "internal_error".into(),
            message: format!("invalid sqlite actor id: {reason}"),
        };
        let answer = match self {
            Self::Kv(request) => {
                let data = KvResponseData::Error { message: reason.to_owned() };
                ToEnvoy::KvResponse { request_id: request.request_id, data }
            }
            Self::GetPages(request_id, _) => ToEnvoy::SqliteGetPages { request_id, data: Err(refusal()) },
            Self::Commit(request_id, _) => ToEnvoy::SqliteCommit { request_id, data: Err(refusal()) },
            Self::StageBegin(request_id, _) => ToEnvoy::SqliteCommitStageBegin { request_id, data: Err(refusal()) },
            Self::StageSegment(request_id, _) => ToEnvoy::SqliteCommitStageSegment { request_id, data: Err(refusal()) },
            Self::Finalize(request_id, _) => ToEnvoy::SqliteCommitFinalize { request_id, data: Err(refusal()) },
            Self::Sql(request) => return shared.reply_to_sql(request.refusal(refusal())).await,
        };
        shared.reply(answer).await;
    }
}

/// Bytes of somebody's data in an answer.
fn answer_bytes(answer: &ToEnvoy) -> usize {
    match answer {
        ToEnvoy::SqliteGetPages { data: Ok(found), .. } => {
            found.pages.iter().filter_map(|page| page.bytes.as_ref()).map(bytes::Bytes::len).sum()
        }
        ToEnvoy::KvResponse { data: KvResponseData::Get { values, .. } | KvResponseData::List { values, .. }, .. } => {
            values.iter().map(bytes::Bytes::len).sum()
        }
        ToEnvoy::Init(_)
        | ToEnvoy::Commands(_)
        | ToEnvoy::AckEvents(_)
        | ToEnvoy::KvResponse { .. }
        | ToEnvoy::TunnelMessage(_)
        | ToEnvoy::Ping { .. }
        | ToEnvoy::SqliteGetPages { .. }
        | ToEnvoy::SqliteCommit { .. }
        | ToEnvoy::SqliteCommitStageBegin { .. }
        | ToEnvoy::SqliteCommitStageSegment { .. }
        | ToEnvoy::SqliteCommitFinalize { .. }
        | ToEnvoy::SqliteExec { .. }
        | ToEnvoy::SqliteExecute { .. }
        | ToEnvoy::SqliteExecuteBatch { .. } => 0,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn kv(data: KvRequestData) -> StorageRequest {
        StorageRequest::Kv(ToRivetKvRequest { actor_id: String::new(), request_id: 1, data })
    }

    /// However it is made up, what waits is counted with all that it keeps in memory.
    #[test]
    fn frames_and_lists_are_counted() {
        const FRAME_BYTES: usize = 60 * limits::MIB;
        let one_long_key = kv(KvRequestData::Get { keys: vec![Bytes::new()] });
        assert!(one_long_key.occupied_bytes(FRAME_BYTES) >= FRAME_BYTES);

        let keys = || vec![Bytes::new(); 1 << 20];
        let list_bytes = (1 << 20) * size_of::<Bytes>();
        assert_eq!(kv(KvRequestData::Delete { keys: keys() }).occupied_bytes(5), 5 + list_bytes);
        assert_eq!(kv(KvRequestData::Put { keys: keys(), values: keys() }).occupied_bytes(5), 5 + 2 * list_bytes);
        let claim = SqliteCommitFinalizeRequest {
            actor_id: String::new(),
            expected_generation: None,
            txid: 1,
            new_db_size_pages: 1,
            now_ms: 0,
            segment_first_pgnos: vec![1; 1 << 20],
        };
        assert_eq!(StorageRequest::Finalize(1, claim).occupied_bytes(5), 5 + (1 << 20) * size_of::<u32>());
    }
}
