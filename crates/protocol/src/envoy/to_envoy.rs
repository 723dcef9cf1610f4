//! Engine to envoy (`spec/envoy-protocol.md` 5.2).

use super::actor::{ActorCheckpoint, CommandWrapper};
use super::kv::KvResponseData;
use super::remote_sql::{SqliteExecOk, SqliteExecuteBatchOk, SqliteExecuteOk};
use super::sqlite::{
    SqliteCommitFinalizeOk, SqliteCommitOk, SqliteCommitStageBeginOk, SqliteCommitStageSegmentOk, SqliteGetPagesOk, SqliteResult,
};
use super::tunnel::ToEnvoyTunnelMessage;
use super::wire::{wire_structs, wire_unions};

wire_structs! {
    /// What the engine tells a host first.
    struct ProtocolMetadata {
        /// Time without connection after which actors count as lost, in milliseconds.
        envoy_lost_threshold: i64,
        /// Upper bound of a graceful stop, in milliseconds.
        actor_stop_threshold: i64,
        /// Largest unstreamed response, in bytes.
        max_response_payload_size: u64,
    }

    /// Events that need not be sent again.
    struct ToEnvoyAckEvents {
        /// For each (actor, generation), the highest index processed.
        last_event_checkpoints: Vec<ActorCheckpoint>,
    }
}

wire_unions! {
    /// Everything that the engine says to an envoy.
    union ToEnvoy {
        /// First message of every connection.
        Init(ProtocolMetadata),
        /// Start and stop actors.
        Commands(Vec<CommandWrapper>),
        /// Events were processed.
        AckEvents(ToEnvoyAckEvents),
        /// Answer to a KV request.
        KvResponse {
            /// The request's.
            request_id: u32,
            /// The answer.
            data: KvResponseData,
        },
        /// Request or message from a client.
        TunnelMessage(ToEnvoyTunnelMessage),
        /// Is the host alive?
        Ping {
            /// Epoch milliseconds.
            ts: i64,
        },
        /// Pages read.
        SqliteGetPages {
            /// The request's.
            request_id: u32,
            /// The answer.
            data: SqliteResult<SqliteGetPagesOk>,
        },
        /// Pages written.
        SqliteCommit {
            /// The request's.
            request_id: u32,
            /// The answer.
            data: SqliteResult<SqliteCommitOk>,
        },
        /// Staged transaction begun.
        #[since(7)]
        SqliteCommitStageBegin {
            /// The request's.
            request_id: u32,
            /// The answer.
            data: SqliteResult<SqliteCommitStageBeginOk>,
        },
        /// Pages staged.
        #[since(7)]
        SqliteCommitStageSegment {
            /// The request's.
            request_id: u32,
            /// The answer.
            data: SqliteResult<SqliteCommitStageSegmentOk>,
        },
        /// Staged transaction published.
        #[since(7)]
        SqliteCommitFinalize {
            /// The request's.
            request_id: u32,
            /// The answer.
            data: SqliteResult<SqliteCommitFinalizeOk>,
        },
        /// Script run.
        SqliteExec {
            /// The request's.
            request_id: u32,
            /// The answer.
            data: SqliteResult<SqliteExecOk>,
        },
        /// Statement run.
        SqliteExecute {
            /// The request's.
            request_id: u32,
            /// The answer.
            data: SqliteResult<SqliteExecuteOk>,
        },
        /// Batch run.
        SqliteExecuteBatch {
            /// The request's.
            request_id: u32,
            /// The answer.
            data: SqliteResult<SqliteExecuteBatchOk>,
        },
    }
}
