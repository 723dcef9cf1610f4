//! Every limit of the product in one table, each with its unit and the section that demands it.
//!
//! Limits that an operator may change have their *default* here and their key in the engine's configuration.

use std::time::Duration;

/// Bytes in a kibibyte.
pub const KIB: usize = 1024;
/// Bytes in a mebibyte.
pub const MIB: usize = 1024 * KIB;

/// Longest actor name, in characters (`decisions.md` 9).
pub const ACTOR_NAME_MAX_CHARS: usize = 64;
/// Longest serialised actor key, in bytes (`spec/gateway.md` 6.3).
pub const ACTOR_KEY_MAX_BYTES: usize = KIB;
/// Longest component of an actor key, in bytes (`spec/gateway.md` 6.3).
pub const ACTOR_KEY_COMPONENT_MAX_BYTES: usize = 128;
/// Largest actor input after base64 decoding, in bytes (`decisions.md` 8).
pub const ACTOR_INPUT_MAX_BYTES: usize = 4 * MIB;
/// Longest connection parameters of a client, in bytes of JSON text (requirements, WebSocket limits).
pub const CONNECTION_PARAMS_MAX_BYTES: usize = 4 * KIB;
/// Largest JSON body of the two actor creation routes, in bytes: an input of the maximum size as base64, and room for the rest.
pub const API_CREATE_BODY_MAX_BYTES: usize = 8 * MIB;
/// Largest JSON body of every other management route, in bytes (`spec/engine-api.md` 3.1).
pub const API_BODY_MAX_BYTES: usize = 2 * MIB;
/// Longest namespace name, in bytes (`spec/engine-api.md` 2.3).
pub const NAMESPACE_NAME_MAX_BYTES: usize = 64;
/// Longest namespace display name, in bytes (`spec/engine-api.md` 2.3).
pub const NAMESPACE_DISPLAY_NAME_MAX_BYTES: usize = 128;
/// Longest pool name, in bytes (`spec/envoy-protocol.md` 2.1).
pub const POOL_NAME_MAX_BYTES: usize = 128;
/// Shortest envoy key, in bytes (`spec/envoy-protocol.md` 2.1).
pub const ENVOY_KEY_MIN_BYTES: usize = 3;
/// Longest envoy key, in bytes (`spec/envoy-protocol.md` 2.1).
pub const ENVOY_KEY_MAX_BYTES: usize = 128;
/// Longest crash message of an actor that is kept, in bytes; a longer one is cut.
pub const CRASH_MESSAGE_MAX_BYTES: usize = 4 * KIB;
/// Bytes of actor inputs after which a message of commands to an envoy is sent, and another one begun.
pub const COMMANDS_INPUT_MAX_BYTES: usize = 8 * MIB;
/// Most actor ids in one list call (`spec/engine-api.md` 7.7).
pub const LIST_ACTOR_IDS_MAX: usize = 32;
/// Entries in a page of a list call when the caller gives no limit (`spec/engine-api.md` 7).
pub const LIST_DEFAULT_LIMIT: u64 = 100;
/// Most entries that one list call returns, whatever limit is given: bounds the answer's memory.
pub const LIST_MAX_LIMIT: u64 = 10_000;
/// Most headers in the headers option of a serverless pool (`spec/engine-api.md` 8.1).
pub const POOL_HEADERS_MAX: usize = 16;
/// Longest header name of a serverless pool, in bytes.
pub const POOL_HEADER_NAME_MAX_BYTES: usize = 128;
/// Longest header value of a serverless pool, in bytes.
pub const POOL_HEADER_VALUE_MAX_BYTES: usize = 4096;

/// Most requests from one client address to one actor in a window, the window in milliseconds, and most at once
/// (`spec/gateway.md` 10.1). Defaults of `guard.actor_rate_limit` and `guard.actor_max_in_flight`.
pub const ACTOR_RATE_LIMIT_REQUESTS: u64 = 1_200;
/// See [`ACTOR_RATE_LIMIT_REQUESTS`].
pub const ACTOR_RATE_LIMIT_PERIOD_MS: u64 = 60_000;
/// See [`ACTOR_RATE_LIMIT_REQUESTS`].
pub const ACTOR_IN_FLIGHT_MAX: u64 = 32;
/// Pairs of client address and actor without open requests whose use of these limits is remembered at most. Default of
/// `guard.admission_client_state_cache_capacity`.
pub const ADMISSION_REMEMBERED_MAX: u64 = 10_000;

/// Most request headers; one more is answered 431 (`spec/gateway.md` 2).
pub const HTTP_HEADERS_MAX: usize = 100;
/// Largest HTTP request body to an actor, in bytes (`spec/gateway.md` 18). Default of `guard.http_max_request_body_size`.
pub const HTTP_REQUEST_BODY_MAX_BYTES: u64 = 20 * MIB as u64;
/// Largest piece of a body in one tunnel message, in bytes (`spec/envoy-protocol.md` 13.2).
pub const HTTP_BODY_CHUNK_MAX_BYTES: usize = 64 * KIB;
/// Credit window of a streamed body in each direction, in bytes (`spec/envoy-protocol.md` 13.2).
pub const HTTP_BODY_WINDOW_BYTES: u64 = MIB as u64;
/// Response credit is returned to the actor each time this many bytes were handed to the client, in bytes.
pub const HTTP_WINDOW_UPDATE_STEP_BYTES: u64 = 256 * KIB as u64;
/// Largest unstreamed payload that an envoy may send, in bytes (`spec/envoy-protocol.md` 15).
/// Default of `pegboard.envoy_max_response_payload_size`.
pub const ENVOY_RESPONSE_PAYLOAD_MAX_BYTES: u64 = 20 * MIB as u64;
/// Largest WebSocket message from a client, in bytes (`spec/gateway.md` 16.2). Default of `guard.websocket_max_message_size`.
pub const WEBSOCKET_MESSAGE_MAX_BYTES: u64 = 32 * MIB as u64;
/// What a WebSocket client may send ahead, roughly, while its actor has not taken the socket yet, in bytes. The rest waits in
/// the socket.
pub const WEBSOCKET_EARLY_MAX_BYTES: u64 = 64 * KIB as u64;
/// A WebSocket client that has sent nothing for this long is pinged, after twice that at the latest. An idle socket carries
/// something every 50 s then, and proxies that drop what is idle for a minute leave it alone.
pub const WEBSOCKET_PING_INTERVAL: Duration = Duration::from_secs(20);
/// How long a WebSocket client may take to answer a ping (`spec/gateway.md` 18). Default of
/// `pegboard.gateway_tunnel_ping_timeout_ms`.
pub const WEBSOCKET_PING_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest message that an envoy may send on its connection, in bytes. Above the 32 MiB of a WebSocket message, so that
/// one actor's oversized message closes one client socket and not the connection of all actors (`spec/gateway.md` 16.2).
pub const ENVOY_FRAME_MAX_BYTES: usize = 64 * MIB;
/// Bytes that may wait to be written to one envoy connection; senders wait above it.
pub const ENVOY_OUTBOX_MAX_BYTES: usize = 64 * MIB;
/// Bytes from the actor that may wait for one slow WebSocket client before it is closed.
pub const WEBSOCKET_CLIENT_OUTBOX_MAX_BYTES: usize = 64 * MIB;
/// Client messages that wait for one sleeping actor per hibernating socket (`spec/gateway.md` 17.2).
pub const HIBERNATION_PENDING_MAX_MESSAGES: usize = 65_535;
/// Bytes of such messages (`spec/gateway.md` 17.2). Default of `pegboard.gateway_hws_max_pending_size`.
pub const HIBERNATION_PENDING_MAX_BYTES: u64 = 128 * MIB as u64;
/// Bytes that a request or socket may always let wait in the engine, in each direction; what it lets wait beyond that counts
/// towards the two limits below.
pub const WAITING_FREE_BYTES: u64 = 64 * KIB as u64;
/// Bytes of client messages that may wait for actors, over all sockets of the process; a socket that would exceed it is
/// closed. Default of `pegboard.gateway_waiting_for_actors_max_size`.
pub const WAITING_FOR_ACTORS_MAX_BYTES: u64 = 1024 * MIB as u64;
/// Bytes of actors' answers and messages that may wait for slow clients, over all requests and sockets of the process; one
/// that would exceed it is ended. Default of `pegboard.gateway_waiting_for_clients_max_size`.
pub const WAITING_FOR_CLIENTS_MAX_BYTES: u64 = 1024 * MIB as u64;
/// Bytes of storage requests that may wait on one envoy connection; it is read no further above that.
pub const STORAGE_QUEUE_MAX_BYTES: usize = 128 * MIB;
/// Times a waiting request wakes an actor that stops before it is ready (`spec/scheduling.md` 5).
pub const WAKE_RETRIES_MAX: u32 = 8;
/// Times a WebSocket open is tried again when the actor stopped or moved in between (`spec/gateway.md` 15).
pub const WEBSOCKET_OPEN_RETRIES_MAX: u32 = 8;
