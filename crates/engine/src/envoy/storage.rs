//! Storage requests of hosts: one after another per actor, different actors side by side (`spec/storage.md` 2.4).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use actor_data::ActorData;
use gateway::EnvoyLink;
use parking_lot::Mutex;
use protocol::envoy::{
    KvRequestData, KvResponseData, SqliteCommitFinalizeRequest, SqliteCommitRequest, SqliteCommitStageBeginRequest,
    SqliteCommitStageSegmentRequest, SqliteDirtyPage, SqliteErrorResponse, SqliteGetPagesRequest, ToEnvoy, ToRivetKvRequest,
};
use protocol::id::ActorId;
use protocol::limits;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::hosts::Host;
use crate::scheduler::Scheduler;

/// A request as it came.
pub(super) enum StorageRequest {
    Kv(ToRivetKvRequest),
    GetPages(u32, SqliteGetPagesRequest),
    Commit(u32, SqliteCommitRequest),
    StageBegin(u32, SqliteCommitStageBeginRequest),
    StageSegment(u32, SqliteCommitStageSegmentRequest),
    Finalize(u32, SqliteCommitFinalizeRequest),
}

/// The requests of one connection. What waits is bounded by bytes: above the bound the connection is read no further.
pub(super) struct StorageLanes {
    shared: Arc<Shared>,
    budget: Arc<Semaphore>,
}

struct Shared {
    data: ActorData,
    scheduler: Scheduler,
    host: Arc<Host>,
    link: EnvoyLink,
    /// An entry means that its lane runs; the queue holds what waits for it.
    lanes: Mutex<HashMap<ActorId, VecDeque<Job>>>,
}

struct Job {
    request: StorageRequest,
    /// What the host ran when the request came: a later generation must not do what an earlier one asked for.
    assigned: Option<u32>,
    _budget: Option<OwnedSemaphorePermit>,
}

const BUDGET_UNIT_BYTES: usize = limits::KIB;

impl StorageLanes {
    pub(super) fn new(data: ActorData, scheduler: Scheduler, host: Arc<Host>, link: EnvoyLink) -> Self {
        let shared = Shared { data, scheduler, host, link, lanes: Mutex::default() };
        let units = limits::STORAGE_QUEUE_MAX_BYTES / BUDGET_UNIT_BYTES;
        Self { shared: Arc::new(shared), budget: Arc::new(Semaphore::new(units)) }
    }

    /// Queues a request, waiting while too much waits already.
    pub(super) async fn push(&self, request: StorageRequest) {
        let actor = match request.actor_id().parse::<ActorId>() {
            Ok(actor) => actor,
            Err(error) => {
                self.shared.reply(request.refused_id(&error.to_string())).await;
                return;
            }
        };
        // The first word of a generation that an endpoint was asked for may be a read of its pages.
        if let Some(generation) = request.expected_generation() {
            self.shared.scheduler.claim(&self.shared.host, actor, generation);
        }
        let assigned = self.shared.host.generation_of(actor);
        let units = request.payload_bytes().div_ceil(BUDGET_UNIT_BYTES).max(1) as u32;
        // The budget is never closed, so there always is a permit at some point.
        let budget = self.budget.clone().acquire_many_owned(units).await.ok();
        let job = Job { request, assigned, _budget: budget };
        let mut lanes = self.shared.lanes.lock();
        match lanes.get_mut(&actor) {
            Some(waiting) => waiting.push_back(job),
            None => {
                lanes.insert(actor, VecDeque::new());
                drop(lanes);
                tokio::spawn(run_lane(self.shared.clone(), actor, job));
            }
        }
    }
}

async fn run_lane(shared: Arc<Shared>, actor: ActorId, first: Job) {
    let mut next = Some(first);
    while let Some(job) = next {
        // The host repeats over its next connection what was not answered over this one.
        if shared.link.is_closed() {
            shared.lanes.lock().remove(&actor);
            return;
        }
        let answer = shared.answer(actor, job.assigned, job.request).await;
        shared.reply(answer).await;
        let mut lanes = shared.lanes.lock();
        next = lanes.get_mut(&actor).and_then(VecDeque::pop_front);
        if next.is_none() {
            lanes.remove(&actor);
        }
    }
}

impl Shared {
    async fn reply(&self, answer: ToEnvoy) {
        let bytes = answer_bytes(&answer);
        // A connection that has ended needs no answers: its host gives up what it sent over it.
        let _ = self.link.send(answer, bytes).await;
    }

    async fn answer(&self, actor: ActorId, assigned: Option<u32>, request: StorageRequest) -> ToEnvoy {
        match request {
            StorageRequest::Kv(ToRivetKvRequest { request_id, data, .. }) => {
                let data = match assigned {
                    Some(generation) => self.data.kv(actor, generation, data).await,
                    None => KvResponseData::Error { message: "actor does not exist".into() },
                };
                ToEnvoy::KvResponse { request_id, data }
            }
            StorageRequest::GetPages(request_id, request) => {
                let data = match foreign(assigned, request.expected_generation) {
                    None => self.data.get_pages(actor, request).await,
                    Some(refusal) => Err(refusal),
                };
                ToEnvoy::SqliteGetPages { request_id, data }
            }
            StorageRequest::Commit(request_id, request) => {
                let data = match foreign(assigned, request.expected_generation) {
                    None => self.data.commit(actor, request).await,
                    Some(refusal) => Err(refusal),
                };
                ToEnvoy::SqliteCommit { request_id, data }
            }
            StorageRequest::StageBegin(request_id, request) => {
                let data = match foreign(assigned, request.expected_generation) {
                    None => self.data.stage_begin(actor, request).await,
                    Some(refusal) => Err(refusal),
                };
                ToEnvoy::SqliteCommitStageBegin { request_id, data }
            }
            StorageRequest::StageSegment(request_id, request) => {
                let data = match foreign(assigned, request.expected_generation) {
                    None => self.data.stage_segment(actor, request).await,
                    Some(refusal) => Err(refusal),
                };
                ToEnvoy::SqliteCommitStageSegment { request_id, data }
            }
            StorageRequest::Finalize(request_id, request) => {
                let data = match foreign(assigned, request.expected_generation) {
                    None => self.data.finalize(actor, request).await,
                    Some(refusal) => Err(refusal),
                };
                ToEnvoy::SqliteCommitFinalize { request_id, data }
            }
        }
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

/// The answer to statements that the engine is asked to execute: it stores pages, but runs no SQL yet.
pub(super) fn no_remote_sql() -> SqliteErrorResponse {
    SqliteErrorResponse {
        group: "sqlite".into(),
        code: "remote_unavailable".into(),
        message: "remote SQL execution is unavailable in this version of the engine; use the local SQLite backend".into(),
    }
}

impl StorageRequest {
    fn actor_id(&self) -> &str {
        match self {
            Self::Kv(request) => &request.actor_id,
            Self::GetPages(_, request) => &request.actor_id,
            Self::Commit(_, request) => &request.actor_id,
            Self::StageBegin(_, request) => &request.actor_id,
            Self::StageSegment(_, request) => &request.actor_id,
            Self::Finalize(_, request) => &request.actor_id,
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
        };
        generation.and_then(|generation| u32::try_from(generation).ok())
    }

    fn payload_bytes(&self) -> usize {
        let pages = |pages: &[SqliteDirtyPage]| pages.iter().map(|page| page.bytes.len()).sum();
        match self {
            Self::Kv(request) => match &request.data {
                KvRequestData::Put { keys, values } => keys.iter().chain(values).map(bytes::Bytes::len).sum(),
                KvRequestData::Get { .. }
                | KvRequestData::List { .. }
                | KvRequestData::Delete { .. }
                | KvRequestData::DeleteRange { .. }
                | KvRequestData::Drop => 0,
            },
            Self::GetPages(_, request) => request.pgnos.len() * size_of::<u32>(),
            Self::Commit(_, request) => pages(&request.dirty_pages),
            Self::StageSegment(_, request) => pages(&request.dirty_pages),
            Self::StageBegin(..) | Self::Finalize(..) => 0,
        }
    }

    /// The answer to a request whose actor id is none.
    fn refused_id(self, reason: &str) -> ToEnvoy {
        let refusal = || SqliteErrorResponse {
            group: "core".into(),
            code: "internal_error".into(),
            message: format!("invalid sqlite actor id: {reason}"),
        };
        match self {
            Self::Kv(request) => {
                let data = KvResponseData::Error { message: reason.to_owned() };
                ToEnvoy::KvResponse { request_id: request.request_id, data }
            }
            Self::GetPages(request_id, _) => ToEnvoy::SqliteGetPages { request_id, data: Err(refusal()) },
            Self::Commit(request_id, _) => ToEnvoy::SqliteCommit { request_id, data: Err(refusal()) },
            Self::StageBegin(request_id, _) => ToEnvoy::SqliteCommitStageBegin { request_id, data: Err(refusal()) },
            Self::StageSegment(request_id, _) => ToEnvoy::SqliteCommitStageSegment { request_id, data: Err(refusal()) },
            Self::Finalize(request_id, _) => ToEnvoy::SqliteCommitFinalize { request_id, data: Err(refusal()) },
        }
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
