//! Actor types: checkpoints, events and commands (`spec/envoy-protocol.md` 5.3, 8 and 9).

use bytes::Bytes;

use super::kv::KvMetadata;
use super::tunnel::{GatewayId, RequestId};
use super::wire::{wire_structs, wire_unions};

wire_structs! {
    /// Position in the command or event stream of one (actor, generation). The two streams count separately.
    struct ActorCheckpoint {
        /// Text form of the actor id.
        actor_id: String,
        /// Placement counter of the actor, from 1.
        generation: u32,
        /// Events count from 0; commands from 1 (normal pool) or 0 (serverless).
        index: i64,
    }

    /// What an actor is, sent again with every start.
    struct ActorConfig {
        /// Actor type.
        name: String,
        /// Serialised key ([`crate::key::serialize`]).
        key: Option<String>,
        /// Epoch milliseconds.
        create_ts: i64,
        /// Raw bytes given at creation, at most 4 MiB.
        input: Option<Bytes>,
    }

    /// An event at its place in the stream.
    struct EventWrapper {
        /// Place of the event.
        checkpoint: ActorCheckpoint,
        /// The event.
        inner: Event,
    }

    /// A client WebSocket that stayed open at the gateway while its actor slept.
    struct HibernatingRequest {
        /// Gateway that holds the socket.
        gateway_id: GatewayId,
        /// The socket at that gateway.
        request_id: RequestId,
    }

    /// One stored entry that travels with a start command.
    struct PreloadedKvEntry {
        /// Key bytes.
        key: Bytes,
        /// Value bytes.
        value: Bytes,
        /// When and by what it was written.
        metadata: KvMetadata,
    }

    /// Stored entries that travel with a start command. What was looked up and is not among the entries is absent.
    struct PreloadedKv {
        /// Everything that was found.
        entries: Vec<PreloadedKvEntry>,
        /// Single keys that were looked up.
        requested_get_keys: Vec<Bytes>,
        /// Prefixes that were looked up.
        requested_prefixes: Vec<Bytes>,
    }

    /// Start one generation of an actor.
    struct CommandStartActor {
        /// What to start.
        config: ActorConfig,
        /// Sockets to restore.
        hibernating_requests: Vec<HibernatingRequest>,
        /// Stored entries, sent only when the actor type asked for them.
        preloaded_kv: Option<PreloadedKv>,
    }

    /// Stop one generation of an actor.
    struct CommandStopActor {
        /// Why.
        reason: StopActorReason,
    }

    /// A command at its place in the stream.
    struct CommandWrapper {
        /// Place of the command.
        checkpoint: ActorCheckpoint,
        /// The command.
        inner: Command,
    }
}

wire_unions! {
    /// How an actor ended.
    enum StopCode {
        /// As wished.
        Ok,
        /// It crashed.
        Error,
    }

    /// What an actor wants of the engine.
    enum ActorIntent {
        /// Be stopped until the next wake.
        Sleep,
        /// Be stopped and destroyed.
        Stop,
    }

    /// State that the host reports.
    union ActorState {
        /// Start finished.
        Running,
        /// The generation is over.
        Stopped {
            /// Well or badly.
            code: StopCode,
            /// Text of the crash.
            message: Option<String>,
        },
    }

    /// What happened to an actor.
    union Event {
        /// The actor wants something.
        ActorIntent {
            /// The wish.
            intent: ActorIntent,
        },
        /// The actor's state changed.
        ActorStateUpdate {
            /// The new state.
            state: ActorState,
        },
        /// The actor's wake-up time is replaced.
        ActorSetAlarm {
            /// Epoch milliseconds; none clears it.
            alarm_ts: Option<i64>,
        },
    }

    /// Why an actor is stopped.
    enum StopActorReason {
        /// Answer to a sleep intent, or sleep asked for through the API.
        SleepIntent,
        /// Answer to a stop intent: the actor will be destroyed.
        StopIntent,
        /// Deleted through the API.
        Destroy,
        /// The actor moves to another host.
        GoingAway,
        /// The engine gave this generation up.
        Lost,
    }

    /// What the host is to do.
    union Command {
        /// Start a generation.
        StartActor(CommandStartActor),
        /// Stop a generation.
        StopActor(CommandStopActor),
    }
}
