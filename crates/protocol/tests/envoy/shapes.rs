//! What every message type looks like in the notation of the vector file, and how to make some value of it.
//!
//! Wire names and shapes are written down here once more, apart from the codec, so that a slip there shows.

use bare::Map;
use bytes::Bytes;
use proptest::prelude::*;
use protocol::envoy::*;
use serde_json::{Value, json};

use crate::hex;

/// Endless bytes that decide what a value becomes; zeros behind the end. Shrinks with the bytes.
pub(crate) struct Source(std::vec::IntoIter<u8>);

impl Source {
    fn byte(&mut self) -> u8 {
        self.0.next().unwrap_or(0)
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.byte())
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound
    }
}

/// Some value of any type of message.
pub(crate) fn sample<T: Shape + std::fmt::Debug>() -> impl Strategy<Value = T> {
    proptest::collection::vec(any::<u8>(), 0..200).prop_map(|bytes| T::sample(&mut Source(bytes.into_iter())))
}

pub(crate) trait Shape: Sized {
    /// The value in the notation of the vector file.
    fn notation(&self) -> Value;
    /// Some value.
    fn sample(source: &mut Source) -> Self;
}

fn object<const N: usize>(fields: [(&str, Value); N]) -> Value {
    Value::Object(fields.into_iter().map(|(name, value)| (camel_case(name), value)).collect())
}

fn camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |name, word| name + &word[..1].to_uppercase() + &word[1..])
}

macro_rules! numbers {
    ($($number:ident => |$value:ident| $notation:expr;)+) => {$(
        impl Shape for $number {
            fn notation(&self) -> Value {
                let $value = self;
                $notation
            }
            fn sample(source: &mut Source) -> Self {
                Self::from_le_bytes(source.bytes())
            }
        }
    )+};
}

numbers! {
    u16 => |value| json!(value);
    u32 => |value| json!(value);
    u64 => |value| json!({"$int": value.to_string()});
    i64 => |value| json!({"$int": value.to_string()});
}

impl Shape for bool {
    fn notation(&self) -> Value {
        json!(self)
    }
    fn sample(source: &mut Source) -> Self {
        source.below(2) == 1
    }
}

impl Shape for String {
    fn notation(&self) -> Value {
        json!(self)
    }
    fn sample(source: &mut Source) -> Self {
        ["", "a", "bc", "\u{fc}\u{10348}\0", &"long".repeat(50)][source.below(5)].to_owned()
    }
}

impl Shape for Bytes {
    fn notation(&self) -> Value {
        json!({"$hex": hex(self)})
    }
    fn sample(source: &mut Source) -> Self {
        let length = [0, 1, 5, 127, 128, 300][source.below(6)];
        (0..length).map(|_| source.byte()).collect()
    }
}

impl<T: Shape> Shape for Option<T> {
    fn notation(&self) -> Value {
        self.as_ref().map_or(Value::Null, T::notation)
    }
    fn sample(source: &mut Source) -> Self {
        bool::sample(source).then(|| T::sample(source))
    }
}

impl<T: Shape> Shape for Vec<T> {
    fn notation(&self) -> Value {
        self.iter().map(T::notation).collect()
    }
    fn sample(source: &mut Source) -> Self {
        (0..source.below(4)).map(|_| T::sample(source)).collect()
    }
}

impl<T: Shape> Shape for Map<T> {
    fn notation(&self) -> Value {
        json!({"$map": self.iter().map(|(key, value)| json!([key, value.notation()])).collect::<Value>()})
    }
    fn sample(source: &mut Source) -> Self {
        (0..source.below(4)).map(|_| (String::sample(source), T::sample(source))).collect()
    }
}

impl<T: Shape> Shape for SqliteResult<T> {
    fn notation(&self) -> Value {
        match self {
            Ok(value) => json!({"tag": std::any::type_name::<T>().rsplit("::").next(), "val": value.notation()}),
            Err(error) => json!({"tag": "SqliteErrorResponse", "val": error.notation()}),
        }
    }
    fn sample(source: &mut Source) -> Self {
        if bool::sample(source) { Ok(T::sample(source)) } else { Err(SqliteErrorResponse::sample(source)) }
    }
}

impl Shape for GatewayId {
    fn notation(&self) -> Value {
        json!({"$hex": hex(&self.0)})
    }
    fn sample(source: &mut Source) -> Self {
        Self(source.bytes())
    }
}

impl Shape for RequestId {
    fn notation(&self) -> Value {
        json!({"$hex": hex(&self.0)})
    }
    fn sample(source: &mut Source) -> Self {
        Self(source.bytes())
    }
}

impl Shape for SqliteValue {
    fn notation(&self) -> Value {
        let (tag, value) = match self {
            Self::Null => return json!({"tag": "SqliteValueNull", "val": null}),
            Self::Integer(value) => ("SqliteValueInteger", value.notation()),
            Self::Float(value) => ("SqliteValueFloat", json!({"$hex": hex(&value.to_be_bytes())})),
            Self::Text(value) => ("SqliteValueText", value.notation()),
            Self::Blob(value) => ("SqliteValueBlob", value.notation()),
        };
        json!({"tag": tag, "val": {"value": value}})
    }
    fn sample(source: &mut Source) -> Self {
        match source.below(5) {
            0 => Self::Null,
            1 => Self::Integer(Shape::sample(source)),
            2 => Self::Float(f64::from(u32::sample(source)) / 3.0),
            3 => Self::Text(Shape::sample(source)),
            _ => Self::Blob(Shape::sample(source)),
        }
    }
}

macro_rules! structs {
    ($($name:ident { $($field:ident),+ $(,)? })+) => {$(
        impl Shape for $name {
            fn notation(&self) -> Value {
                let Self { $($field),+ } = self;
                object([$((stringify!($field), $field.notation())),+])
            }
            fn sample(source: &mut Source) -> Self {
                Self { $($field: Shape::sample(source)),+ }
            }
        }
    )+};
}

/// `as` marks an arm whose wire form is a struct with one field of that name; in Rust the field is the arm's value.
macro_rules! unions {
    ($($name:ident { $($arm:ident $(($value:ident))? $({ $($field:ident),+ })? $tag:literal $(as $outer:literal)?,)+ })+) => {$(
        impl Shape for $name {
            fn notation(&self) -> Value {
                match self {
                    $(Self::$arm { $(0: $value)? $($($field),+)? } => {
                        let values = [
                            Value::Null
                            $(, $value.notation())?
                            $(, object([$((stringify!($field), $field.notation())),+]))?
                        ];
                        let value = values.last();
                        $(let value = json!({$outer: value});)?
                        json!({"tag": $tag, "val": value})
                    })+
                }
            }
            #[allow(unused_variables, reason = "arms without a value take nothing from the source")]
            fn sample(source: &mut Source) -> Self {
                let arms: &[fn(&mut Source) -> Self] = &[$(|source| Self::$arm {
                    $(0: { let $value = Shape::sample(source); $value })?
                    $($($field: Shape::sample(source)),+)?
                }),+];
                arms[source.below(arms.len())](source)
            }
        }
    )+};
}

macro_rules! enums {
    ($($name:ident { $($arm:ident),+ $(,)? })+) => {$(
        impl Shape for $name {
            fn notation(&self) -> Value {
                match self {
                    $(Self::$arm => json!(stringify!($arm)),)+
                }
            }
            fn sample(source: &mut Source) -> Self {
                let arms = [$(Self::$arm),+];
                arms[source.below(arms.len())]
            }
        }
    )+};
}

structs! {
    ActorCheckpoint { actor_id, generation, index }
    ActorConfig { name, key, create_ts, input }
    EventWrapper { checkpoint, inner }
    HibernatingRequest { gateway_id, request_id }
    PreloadedKvEntry { key, value, metadata }
    PreloadedKv { entries, requested_get_keys, requested_prefixes }
    CommandStartActor { config, hibernating_requests, preloaded_kv }
    CommandStopActor { reason }
    CommandWrapper { checkpoint, inner }
    KvMetadata { version, update_ts }
    ToRivetMetadata { prepopulate_actor_names, metadata }
    ActorName { metadata }
    ToRivetAckCommands { last_command_checkpoints }
    ToRivetKvRequest { actor_id, request_id, data }
    ProtocolMetadata { envoy_lost_threshold, actor_stop_threshold, max_response_payload_size }
    ToEnvoyAckEvents { last_event_checkpoints }
    SqliteErrorResponse { group, code, message }
    SqliteDirtyPage { pgno, bytes }
    SqliteFetchedPage { pgno, bytes }
    SqliteGetPagesRequest { actor_id, pgnos, expected_generation, expected_head_txid }
    SqliteGetPagesOk { pages, head_txid }
    SqliteCommitRequest { actor_id, dirty_pages, db_size_pages, now_ms, expected_generation, expected_head_txid }
    SqliteCommitOk { head_txid }
    SqliteCommitStageBeginRequest { actor_id, expected_generation, expected_head_txid }
    SqliteCommitStageBeginOk { txid }
    SqliteCommitStageSegmentRequest { actor_id, expected_generation, txid, first_pgno, dirty_pages }
    SqliteCommitStageSegmentOk { staged_bytes }
    SqliteCommitFinalizeRequest { actor_id, expected_generation, txid, new_db_size_pages, now_ms, segment_first_pgnos }
    SqliteCommitFinalizeOk { head_txid }
    SqliteQueryResult { columns, rows }
    SqliteExecuteResult { columns, rows, changes, last_insert_row_id }
    SqliteExecRequest { namespace_id, actor_id, generation, sql }
    SqliteExecuteRequest { namespace_id, actor_id, generation, sql, params }
    SqliteBatchStatement { sql, params }
    SqliteExecuteBatchRequest { namespace_id, actor_id, generation, statements }
    SqliteExecOk { result }
    SqliteExecuteOk { result }
    SqliteExecuteBatchOk { results }
    MessageId { gateway_id, request_id, message_index }
    ToEnvoyTunnelMessage { message_id, message_kind }
    ToRivetTunnelMessage { message_id, message_kind }
    RequestStart { actor_id, actor_generation, method, path, headers, body, stream, response_stream }
    BodyChunk { body, finish }
    RequestAbort { actor_id, actor_generation, reason }
    WebSocketOpen { actor_id, actor_generation, path, headers }
    ResponseStart { status, headers, body, stream }
    ResponseAbort { reason }
    HttpStreamAbortReason { kind, detail }
}

enums! {
    StopCode { Ok, Error }
    StopActorReason { SleepIntent, StopIntent, Destroy, GoingAway, Lost }
    HttpStreamAbortReasonKind { Unknown, Cancelled, HandlerError, InternalError }
}

unions! {
    ActorIntent {
        Sleep "ActorIntentSleep",
        Stop "ActorIntentStop",
    }
    ActorState {
        Running "ActorStateRunning",
        Stopped { code, message } "ActorStateStopped",
    }
    Event {
        ActorIntent { intent } "EventActorIntent",
        ActorStateUpdate { state } "EventActorStateUpdate",
        ActorSetAlarm { alarm_ts } "EventActorSetAlarm",
    }
    Command {
        StartActor(command) "CommandStartActor",
        StopActor(command) "CommandStopActor",
    }
    KvListQuery {
        All "KvListAllQuery",
        Range { start, end, exclusive } "KvListRangeQuery",
        Prefix { key } "KvListPrefixQuery",
    }
    KvRequestData {
        Get { keys } "KvGetRequest",
        List { query, reverse, limit } "KvListRequest",
        Put { keys, values } "KvPutRequest",
        Delete { keys } "KvDeleteRequest",
        DeleteRange { start, end } "KvDeleteRangeRequest",
        Drop "KvDropRequest",
    }
    KvResponseData {
        Error { message } "KvErrorResponse",
        Get { keys, values, metadata } "KvGetResponse",
        List { keys, values, metadata } "KvListResponse",
        Put "KvPutResponse",
        Delete "KvDeleteResponse",
        Drop "KvDropResponse",
    }
    ToEnvoyTunnelMessageKind {
        RequestStart(start) "ToEnvoyRequestStart",
        RequestChunk(chunk) "ToEnvoyRequestChunk",
        RequestAbort(abort) "ToEnvoyRequestAbort",
        RequestBodyCancel "ToEnvoyRequestBodyCancel",
        ResponseBodyWindowUpdate { consumed_bytes } "ToEnvoyResponseBodyWindowUpdate",
        WebSocketOpen(open) "ToEnvoyWebSocketOpen",
        WebSocketMessage { data, binary } "ToEnvoyWebSocketMessage",
        WebSocketClose { code, reason } "ToEnvoyWebSocketClose",
    }
    ToRivetTunnelMessageKind {
        ResponseStart(start) "ToRivetResponseStart",
        ResponseChunk(chunk) "ToRivetResponseChunk",
        ResponseAbort(abort) "ToRivetResponseAbort",
        RequestBodyWindowUpdate { consumed_bytes } "ToRivetRequestBodyWindowUpdate",
        RequestBodyCancel "ToRivetRequestBodyCancel",
        WebSocketOpen { can_hibernate } "ToRivetWebSocketOpen",
        WebSocketMessage { data, binary } "ToRivetWebSocketMessage",
        WebSocketMessageAck { index } "ToRivetWebSocketMessageAck",
        WebSocketClose { code, reason, hibernate } "ToRivetWebSocketClose",
    }
    ToRivet {
        Metadata(metadata) "ToRivetMetadata",
        Events(events) "ToRivetEvents",
        AckCommands(ack) "ToRivetAckCommands",
        Stopping "ToRivetStopping",
        Pong { ts } "ToRivetPong",
        KvRequest(request) "ToRivetKvRequest",
        TunnelMessage(message) "ToRivetTunnelMessage",
        SqliteGetPages { request_id, data } "ToRivetSqliteGetPagesRequest",
        SqliteCommit { request_id, data } "ToRivetSqliteCommitRequest",
        SqliteCommitStageBegin { request_id, data } "ToRivetSqliteCommitStageBeginRequest",
        SqliteCommitStageSegment { request_id, data } "ToRivetSqliteCommitStageSegmentRequest",
        SqliteCommitFinalize { request_id, data } "ToRivetSqliteCommitFinalizeRequest",
        SqliteExec { request_id, data } "ToRivetSqliteExecRequest",
        SqliteExecute { request_id, data } "ToRivetSqliteExecuteRequest",
        SqliteExecuteBatch { request_id, data } "ToRivetSqliteExecuteBatchRequest",
    }
    ToEnvoy {
        Init(metadata) "ToEnvoyInit" as "metadata",
        Commands(commands) "ToEnvoyCommands",
        AckEvents(ack) "ToEnvoyAckEvents",
        KvResponse { request_id, data } "ToEnvoyKvResponse",
        TunnelMessage(message) "ToEnvoyTunnelMessage",
        Ping { ts } "ToEnvoyPing",
        SqliteGetPages { request_id, data } "ToEnvoySqliteGetPagesResponse",
        SqliteCommit { request_id, data } "ToEnvoySqliteCommitResponse",
        SqliteCommitStageBegin { request_id, data } "ToEnvoySqliteCommitStageBeginResponse",
        SqliteCommitStageSegment { request_id, data } "ToEnvoySqliteCommitStageSegmentResponse",
        SqliteCommitFinalize { request_id, data } "ToEnvoySqliteCommitFinalizeResponse",
        SqliteExec { request_id, data } "ToEnvoySqliteExecResponse",
        SqliteExecute { request_id, data } "ToEnvoySqliteExecuteResponse",
        SqliteExecuteBatch { request_id, data } "ToEnvoySqliteExecuteBatchResponse",
    }
}
