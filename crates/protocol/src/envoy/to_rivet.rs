//! Envoy to engine (`spec/envoy-protocol.md` 5.1 and 5.5).

use super::actor::{ActorCheckpoint, EventWrapper};
use super::kv::KvRequestData;
use super::remote_sql::{SqliteExecRequest, SqliteExecuteBatchRequest, SqliteExecuteRequest};
use super::sqlite::{
    SqliteCommitFinalizeRequest, SqliteCommitRequest, SqliteCommitStageBeginRequest, SqliteCommitStageSegmentRequest,
    SqliteGetPagesRequest,
};
use super::tunnel::ToRivetTunnelMessage;
use super::wire::{wire_structs, wire_unions};

wire_structs! {
    /// What a host says of itself. What is none leaves the engine's knowledge unchanged.
    struct ToRivetMetadata {
        /// Actor types of the host.
        prepopulate_actor_names: Option<bare::Map<ActorName>>,
        /// JSON text.
        metadata: Option<String>,
    }

    /// What a host says of an actor type.
    struct ActorName {
        /// JSON text.
        metadata: String,
    }

    /// Commands that need not be sent again.
    struct ToRivetAckCommands {
        /// For each (actor, generation), the highest index processed.
        last_command_checkpoints: Vec<ActorCheckpoint>,
    }

    /// Something is asked of an actor's KV store.
    struct ToRivetKvRequest {
        /// Text form of the actor id.
        actor_id: String,
        /// Comes back in the answer. Unique per host process, but other kinds of request count separately.
        request_id: u32,
        /// The request.
        data: KvRequestData,
    }
}

wire_unions! {
    /// Everything that an envoy says to the engine.
    union ToRivet {
        /// The host introduces itself.
        Metadata(ToRivetMetadata),
        /// Events of actors.
        Events(Vec<EventWrapper>),
        /// Commands were processed.
        AckCommands(ToRivetAckCommands),
        /// The host shuts down gracefully.
        Stopping,
        /// Answer to a ping.
        Pong {
            /// The ping's.
            ts: i64,
        },
        /// KV request.
        KvRequest(ToRivetKvRequest),
        /// Answer or message to a client.
        TunnelMessage(ToRivetTunnelMessage),
        /// Read pages.
        SqliteGetPages {
            /// Comes back in the answer.
            request_id: u32,
            /// The request.
            data: SqliteGetPagesRequest,
        },
        /// Write pages.
        SqliteCommit {
            /// Comes back in the answer.
            request_id: u32,
            /// The request.
            data: SqliteCommitRequest,
        },
        /// Begin a staged transaction.
        #[since(7)]
        SqliteCommitStageBegin {
            /// Comes back in the answer.
            request_id: u32,
            /// The request.
            data: SqliteCommitStageBeginRequest,
        },
        /// Stage pages.
        #[since(7)]
        SqliteCommitStageSegment {
            /// Comes back in the answer.
            request_id: u32,
            /// The request.
            data: SqliteCommitStageSegmentRequest,
        },
        /// Publish a staged transaction.
        #[since(7)]
        SqliteCommitFinalize {
            /// Comes back in the answer.
            request_id: u32,
            /// The request.
            data: SqliteCommitFinalizeRequest,
        },
        /// Run a script.
        SqliteExec {
            /// Comes back in the answer.
            request_id: u32,
            /// The request.
            data: SqliteExecRequest,
        },
        /// Run a statement.
        SqliteExecute {
            /// Comes back in the answer.
            request_id: u32,
            /// The request.
            data: SqliteExecuteRequest,
        },
        /// Run a batch.
        SqliteExecuteBatch {
            /// Comes back in the answer.
            request_id: u32,
            /// The request.
            data: SqliteExecuteBatchRequest,
        },
    }
}
