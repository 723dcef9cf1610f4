//! Every limit of this engine that a client, an actor's host or an operator can notice, in one table: sizes, counts and
//! times, each with its unit and the section that demands it.
//!
//! What an operator may change has its *default* here and its key in the engine's configuration. Not here are the limits of
//! an actor's own data, which have a table of their own beside the code that keeps it (`actor_data::limits`), the defaults
//! of settings that have no effect yet, and tuning that nobody notices but in speed: batch sizes, first capacities of
//! buffers, pauses before a retry within the process.

use std::time::Duration;

/// Bytes in a kibibyte.
pub const KIB: usize = 1024;
/// Bytes in a mebibyte.
pub const MIB: usize = 1024 * KIB;

// ---- Names, and the management API

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
/// Longest ray id that a client may bring, in bytes; a longer one is replaced (`spec/gateway.md` 12).
pub const RAY_ID_MAX_BYTES: usize = 30;
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
/// Most actor ids in one list call (`spec/engine-api.md` 7.7).
pub const LIST_ACTOR_IDS_MAX: usize = 32;
/// Entries in a page of a list call when the caller gives no limit (`spec/engine-api.md` 7).
pub const LIST_DEFAULT_LIMIT: u64 = 100;
/// The same for namespaces (`spec/engine-api.md` 7).
pub const LIST_NAMESPACES_DEFAULT_LIMIT: u64 = 1_000;
/// Most entries that one list call returns, whatever limit is given: bounds the answer's memory.
pub const LIST_MAX_LIMIT: u64 = 10_000;
/// Most bytes of index rows that one list call reads.
pub const LIST_SCAN_MAX_BYTES: usize = 16 * MIB;
/// Most bytes of declared actor names, with their metadata, that one list call reads.
pub const LIST_NAMES_SCAN_MAX_BYTES: usize = 64 * MIB;
/// Most headers in the headers option of a serverless pool (`spec/engine-api.md` 8.1).
pub const POOL_HEADERS_MAX: usize = 16;
/// Longest header name of a serverless pool, in bytes.
pub const POOL_HEADER_NAME_MAX_BYTES: usize = 128;
/// Longest header value of a serverless pool, in bytes.
pub const POOL_HEADER_VALUE_MAX_BYTES: usize = 4096;
/// A call that destroys an actor answers after this even if the actor's host has not confirmed yet: the destruction is
/// recorded and will happen.
pub const DESTROY_ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

// ---- What one client may ask for

/// Most requests from one client address to one actor in [`ACTOR_RATE_LIMIT_PERIOD`] (`spec/gateway.md` 10.1). Default of
/// `guard.actor_rate_limit.requests`.
pub const ACTOR_RATE_LIMIT_REQUESTS: u64 = 1_200;
/// The window of that limit. Default of `guard.actor_rate_limit.period_ms`.
pub const ACTOR_RATE_LIMIT_PERIOD: Duration = Duration::from_secs(60);
/// Most requests from one client address to one actor at once (`spec/gateway.md` 10.1). Default of
/// `guard.actor_max_in_flight`.
pub const ACTOR_IN_FLIGHT_MAX: u64 = 32;
/// Pairs of client address and actor without open requests whose use of these limits is remembered at most. Default of
/// `guard.admission_client_state_cache_capacity`.
pub const ADMISSION_REMEMBERED_MAX: u64 = 10_000;
/// How long such a pair is remembered. Default of `guard.admission_client_state_cache_idle_timeout_ms`.
pub const ADMISSION_REMEMBERED_FOR: Duration = Duration::from_secs(3_600);
/// Actors that one namespace may create in a burst. Default of `pegboard.actor_create_rate_limit_requests`.
pub const ACTOR_CREATIONS_BURST: u64 = 500;
/// After such a burst, one more may be created every so often. Default of `pegboard.actor_create_rate_limit_drip_rate_ms`.
pub const ACTOR_CREATIONS_DRIP: Duration = Duration::from_millis(10);

// ---- Clients' connections

/// A client has this long to send the head of an HTTP/1 request.
pub const HTTP_HEAD_READ_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest head of a request, in bytes, by the count of its HTTP version; a larger one is answered 431.
pub const HTTP_HEAD_MAX_BYTES: usize = 408 * KIB;
/// Most request headers; one more is answered 431 (`spec/gateway.md` 2).
pub const HTTP_HEADERS_MAX: usize = 100;
/// Requests that one HTTP/2 connection may have open at once; a client keeps the next one to itself until one has ended.
pub const HTTP2_STREAMS_MAX: u32 = 200;
/// A silent HTTP/2 connection is pinged this often.
pub const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(20);
/// How long such a ping may stay unanswered (`spec/gateway.md` 18, connection ping timeout).
pub const HTTP2_PING_TIMEOUT: Duration = Duration::from_secs(30);
/// A silent TCP connection is probed after this long, then every [`TCP_PROBE_INTERVAL`], and ended when none of
/// [`TCP_PROBES`] is answered: 30 s in all (`spec/gateway.md` 18, connection ping timeout). There is no such limit while
/// bytes of ours are unacknowledged: the kernel's option for that, `TCP_USER_TIMEOUT`, also cuts off clients that are there
/// and only pause to read.
pub const TCP_PROBE_AFTER: Duration = Duration::from_secs(15);
/// See [`TCP_PROBE_AFTER`].
pub const TCP_PROBE_INTERVAL: Duration = Duration::from_secs(5);
/// See [`TCP_PROBE_AFTER`].
pub const TCP_PROBES: u32 = 3;

// ---- Requests to actors

/// How long the look-up or creation that a query path names may take (`spec/gateway.md` 18). Default of
/// `guard.route_pegboard_resolve_query_timeout_ms`.
pub const RESOLVE_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a request waits for its actor to become ready (`spec/gateway.md` 18). Default of `guard.actor_ready_timeout_ms`.
pub const ACTOR_READY_TIMEOUT: Duration = Duration::from_secs(30);
/// Times a waiting request wakes an actor that stops before it is ready (`spec/scheduling.md` 5).
pub const WAKE_RETRIES_MAX: u32 = 8;
/// A request that has waited this long for its actor fails if the actor's pool is failing then (`spec/scheduling.md` 5).
pub const POOL_ERROR_FIRST_LOOK: Duration = Duration::from_secs(1);
/// How often that is looked at afterwards.
pub const POOL_ERROR_LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// Largest part of an actor's own words that an error of a request repeats, in bytes.
pub const FOREIGN_WORDS_MAX_BYTES: usize = 512;
/// Answers of a generation that ended may arrive a little after the news of its end, because a host sends both through
/// queues of their own; a request waits this long for them.
pub const ACTOR_STOPPED_GRACE: Duration = Duration::from_millis(250);
/// Largest HTTP request body, in bytes (`spec/gateway.md` 18). Default of `guard.http_max_request_body_size`, of every
/// request, and of `pegboard.gateway_http_max_request_body_size`, of those to actors.
pub const HTTP_REQUEST_BODY_MAX_BYTES: u64 = 20 * MIB as u64;
/// Largest piece of a body in one tunnel message, in bytes (`spec/envoy-protocol.md` 13.2).
pub const HTTP_BODY_CHUNK_MAX_BYTES: usize = 64 * KIB;
/// Credit window of a streamed body in each direction, in bytes (`spec/envoy-protocol.md` 13.2).
pub const HTTP_BODY_WINDOW_BYTES: u64 = MIB as u64;
/// Response credit is returned to the actor each time this many bytes were handed to the client, in bytes.
pub const HTTP_WINDOW_UPDATE_STEP_BYTES: u64 = 256 * KIB as u64;
/// From the moment the actor has the whole request to the head of its answer (`spec/gateway.md` 18). Default of
/// `pegboard.gateway_response_start_timeout_ms`.
pub const RESPONSE_START_TIMEOUT: Duration = Duration::from_secs(300);
/// Longest silence in a streamed answer (`decisions.md` 4). Default of `pegboard.gateway_response_chunk_idle_timeout_ms`.
pub const RESPONSE_CHUNK_IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest unstreamed payload that an envoy may send, in bytes (`spec/envoy-protocol.md` 15).
/// Default of `pegboard.envoy_max_response_payload_size`.
pub const ENVOY_RESPONSE_PAYLOAD_MAX_BYTES: u64 = 20 * MIB as u64;
/// A client that gets its answer before it has sent its whole request is read on, and what it sends thrown away, up to as
/// many bytes as a body may have and until it is silent for this long after the answer was written. Many clients send
/// everything before they look at the answer, and a connection that is closed meanwhile takes the answer with it. The
/// 256 KiB of `spec/gateway.md` 14.2 are too few for that: `curl` goes on sending.
pub const EARLY_ANSWER_SILENCE: Duration = Duration::from_secs(2);
/// And for this long in all.
pub const EARLY_ANSWER_LINGER: Duration = Duration::from_secs(30);

// ---- WebSockets

/// How long an actor may take to accept a WebSocket (`spec/gateway.md` 18). Default of
/// `pegboard.gateway_websocket_open_timeout_ms`.
pub const WEBSOCKET_OPEN_TIMEOUT: Duration = Duration::from_secs(15);
/// Times a WebSocket open is tried again when the actor stopped or moved in between (`spec/gateway.md` 15).
pub const WEBSOCKET_OPEN_RETRIES_MAX: u32 = 8;
/// Largest WebSocket message from a client, in bytes (`spec/gateway.md` 16.2). Default of `guard.websocket_max_message_size`.
pub const WEBSOCKET_MESSAGE_MAX_BYTES: u64 = 32 * MIB as u64;
/// Largest message that `/health/ws` reads, in bytes; there is one that means something, and it has four.
pub const HEALTH_MESSAGE_MAX_BYTES: usize = KIB;
/// What a WebSocket client may send ahead, roughly, while its actor has not taken the socket yet, in bytes. The rest waits in
/// the socket.
pub const WEBSOCKET_EARLY_MAX_BYTES: u64 = 64 * KIB as u64;
/// A WebSocket client that has sent nothing for this long is pinged, after twice that at the latest. An idle socket carries
/// something every 50 s then, and proxies that drop what is idle for a minute leave it alone.
pub const WEBSOCKET_PING_INTERVAL: Duration = Duration::from_secs(20);
/// How long a WebSocket client may take to answer a ping (`spec/gateway.md` 18). Default of
/// `pegboard.gateway_tunnel_ping_timeout_ms`.
pub const WEBSOCKET_PING_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a WebSocket client may take to accept what is sent to it (`spec/gateway.md` 18). Default of
/// `guard.websocket_send_timeout_ms`.
pub const WEBSOCKET_SEND_TIMEOUT: Duration = Duration::from_secs(5);
/// A client that takes fewer bytes than this in each span of the send timeout counts as gone, in bytes. About what the
/// slowest mobile connection does in a second.
pub const WEBSOCKET_SEND_PROGRESS_MIN_BYTES: u64 = 4 * KIB as u64;
/// Bytes from the actor that may wait for one slow WebSocket client before it is closed.
pub const WEBSOCKET_CLIENT_OUTBOX_MAX_BYTES: usize = 64 * MIB;
/// After a close frame was sent, the other side's own close is awaited for this long.
pub const WEBSOCKET_CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// After a burst, one message more from a WebSocket client is allowed every so often, where bursts are limited. Default of
/// `pegboard.gateway_websocket_rate_limit_drip_rate_ms`.
pub const WEBSOCKET_MESSAGES_DRIP: Duration = Duration::from_millis(10);

// ---- Hibernating WebSockets

/// How long a client's message may stay unacknowledged while its actor runs (`spec/gateway.md` 18). Default of
/// `pegboard.gateway_hws_message_ack_timeout_ms`.
pub const WEBSOCKET_ACK_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a client that has said something waits for its sleeping actor to wake (`spec/gateway.md` 18). Default of
/// `pegboard.hibernating_request_eligible_threshold`.
pub const HIBERNATION_WAKE_TIMEOUT: Duration = Duration::from_secs(90);
/// A woken actor restores its hibernating sockets before or shortly after it reports running. A busy host with thousands of
/// them gets this long (`spec/envoy-protocol.md` 14.6).
pub const HIBERNATION_RESTORE_GRACE: Duration = Duration::from_secs(5);
/// Client messages that wait for one sleeping actor per hibernating socket (`spec/gateway.md` 17.2).
pub const HIBERNATION_PENDING_MAX_MESSAGES: usize = 65_535;
/// Bytes of such messages (`spec/gateway.md` 17.2). Default of `pegboard.gateway_hws_max_pending_size`.
pub const HIBERNATION_PENDING_MAX_BYTES: u64 = 128 * MIB as u64;

// ---- What may wait in the engine, over all requests

/// Bytes that a request or socket may always let wait in the engine, in each direction; what it lets wait beyond that counts
/// towards the two limits below.
pub const WAITING_FREE_BYTES: u64 = 64 * KIB as u64;
/// Bytes of client messages that may wait for actors, over all sockets of the process; a socket that would exceed it is
/// closed. Default of `pegboard.gateway_waiting_for_actors_max_size`.
pub const WAITING_FOR_ACTORS_MAX_BYTES: u64 = 1024 * MIB as u64;
/// Bytes of actors' answers and messages that may wait for slow clients, over all requests and sockets of the process; one
/// that would exceed it is ended. Default of `pegboard.gateway_waiting_for_clients_max_size`.
pub const WAITING_FOR_CLIENTS_MAX_BYTES: u64 = 1024 * MIB as u64;

// ---- Hosts and the actors on them

/// Largest message that an envoy may send on its connection, in bytes. Above the 32 MiB of a WebSocket message, so that
/// one actor's oversized message closes one client socket and not the connection of all actors (`spec/gateway.md` 16.2).
pub const ENVOY_FRAME_MAX_BYTES: usize = 64 * MIB;
/// Bytes that may wait to be written to one envoy connection; senders wait above it.
pub const ENVOY_OUTBOX_MAX_BYTES: usize = 64 * MIB;
/// Bytes of storage requests that may wait on one envoy connection; it is read no further above that.
pub const STORAGE_QUEUE_MAX_BYTES: usize = 128 * MIB;
/// Bytes of actor inputs after which a message of commands to an envoy is sent, and another one begun.
pub const COMMANDS_INPUT_MAX_BYTES: usize = 8 * MIB;
/// Longest crash message of an actor that is kept, in bytes; a longer one is cut.
pub const CRASH_MESSAGE_MAX_BYTES: usize = 4 * KIB;
/// How often an envoy is pinged. Default of `pegboard.envoy_update_ping_interval`.
pub const ENVOY_PING_INTERVAL: Duration = Duration::from_secs(3);
/// How long an envoy may take to answer a ping. Default of `pegboard.envoy_ping_timeout`.
pub const ENVOY_PING_TIMEOUT: Duration = Duration::from_secs(15);
/// An envoy on a slow line gets more time: what waits to be written to it before the ping may take as long as at this rate,
/// in bytes per second.
pub const ENVOY_LINE_MIN_BYTES_PER_SECOND: u64 = 512 * KIB as u64;
/// And so much more while the engine itself does not read on, because it has too many of the envoy's storage requests.
pub const ENVOY_UNREAD_GRACE: Duration = Duration::from_secs(60);
/// Silence after which an envoy gets no new actors. Default of `pegboard.envoy_eligible_threshold`.
pub const ENVOY_ELIGIBLE_THRESHOLD: Duration = Duration::from_secs(10);
/// Silence after which an envoy counts as lost. Default of `pegboard.envoy_lost_threshold`.
pub const ENVOY_LOST_THRESHOLD: Duration = Duration::from_secs(15);
/// After a burst, one message more from an envoy is taken every so often, where bursts are limited. Default of
/// `pegboard.envoy_websocket_rate_limit_drip_rate_us` (`spec/scheduling.md` 6.4).
pub const ENVOY_MESSAGES_DRIP: Duration = Duration::from_micros(200);
/// A connection to an envoy that is being ended has this long to write what it still has to say.
pub const ENVOY_FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a start may take until the envoy confirms it (requirements, actor lifecycle). Default of
/// `pegboard.actor_start_threshold`.
pub const ACTOR_START_THRESHOLD: Duration = Duration::from_secs(30);
/// The same for a stop. Default of `pegboard.actor_stop_threshold`.
pub const ACTOR_STOP_THRESHOLD: Duration = Duration::from_secs(30);
/// First delay before a crashed actor is started again. Default of `pegboard.base_retry_timeout`.
pub const ACTOR_RETRY_BASE: Duration = Duration::from_secs(2);
/// How often that delay doubles at most. Default of `pegboard.reschedule_backoff_max_exponent`.
pub const ACTOR_RETRY_MAX_EXPONENT: u32 = 8;
/// Quiet time after which the delay starts from its base again. Default of `pegboard.retry_reset_duration`.
pub const ACTOR_RETRY_RESET: Duration = Duration::from_secs(600);
/// How long a host is looked for before the actor goes to sleep. Default of `pegboard.actor_retry_duration_threshold`.
pub const ACTOR_RETRY_GIVE_UP: Duration = Duration::from_secs(300);
/// How long the requests of clients may go on when the engine is told to stop. Default of `runtime.guard_shutdown_duration`.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(600);
/// When the process ends whatever still runs. Default of `runtime.force_shutdown_duration`.
pub const SHUTDOWN_FORCED_AFTER: Duration = Duration::from_secs(600);
/// Even when clients have used up all the time, hosts have this long to hear that the engine stops.
pub const SHUTDOWN_HOSTS_FAREWELL: Duration = Duration::from_secs(1);
/// Bytes of key-value data that are sent along with such a start; the default of `pegboard.preload_max_total_bytes`
/// (requirements, KV preloading).
pub const PRELOAD_MAX_BYTES: u64 = MIB as u64;
/// Largest metadata of an actor name that is searched for what to preload, in bytes: that happens at each such start.
pub const PRELOAD_METADATA_MAX_BYTES: usize = 256 * KIB;
/// And actors of serverless pools have this long to stop then.
pub const SHUTDOWN_ENDPOINTS_FAREWELL: Duration = Duration::from_secs(1);
/// Time kept free at the end of a serverless request for its actors to stop (requirements, serverless shutdown). Default of
/// `pegboard.serverless_drain_grace_period`.
pub const SERVERLESS_DRAIN_GRACE: Duration = Duration::from_secs(10);
/// The longest such time that a pool may ask for, unless any stop may take longer (`spec/scheduling.md` 1.2).
pub const SERVERLESS_DRAIN_GRACE_MAX: Duration = Duration::from_secs(1_800);
/// Pause after a start request that the endpoint of a serverless pool refused; doubles with each failure in a row
/// (`spec/scheduling.md` 9.6).
pub const SERVERLESS_RETRY_BASE: Duration = Duration::from_millis(100);
/// Longest such pause.
pub const SERVERLESS_RETRY_MAX: Duration = Duration::from_secs(5);

// ---- SQL that the engine executes for hosts

/// Databases in which the engine executes SQL that may be open at once (`spec/storage.md` 16.5). Default of
/// `sqlite.remote_max_sessions`.
pub const REMOTE_SQL_SESSIONS_MAX: u64 = 1_000;
/// Statements that the engine executes at once; each has a thread, most of which wait for the disk. Default of
/// `sqlite.remote_threads`.
pub const REMOTE_SQL_THREADS: u64 = 128;
/// Statements of one connection between their beginning and the moment in which there is room for their answer. Half of
/// the threads, so that no host can have all of them.
pub const REMOTE_SQL_STATEMENTS_PER_HOST_MAX: usize = 64;
/// From the arrival of a statement to its end (`spec/storage.md` 2.3: hosts wait about this long for the answer). Default of
/// `sqlite.remote_statement_timeout_ms`.
pub const REMOTE_SQL_STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);
/// A database without open transaction is closed after this time without a statement. Default of
/// `sqlite.remote_idle_timeout_ms`.
pub const REMOTE_SQL_IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// One with an open transaction, whose instance must then end: twice the time that an SDK gives its transactions
/// (`spec/storage.md` 11.2). Default of `sqlite.remote_transaction_idle_timeout_ms`.
pub const REMOTE_SQL_TRANSACTION_IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// Bytes of memory for SQL that the engine executes: for SQLite itself; as much again for what open transactions have
/// changed, temporary tables and sorts, which go to the disk beyond that; and again for results that are not sent yet. Default
/// of `sqlite.remote_memory_max_size`.
pub const REMOTE_SQL_MEMORY_MAX_BYTES: u64 = 1024 * MIB as u64;
/// What transactions, temporary tables and sorts put aside in files for lack of memory, in bytes; one database half of it.
/// Default of `sqlite.remote_disk_max_size`.
pub const REMOTE_SQL_ASIDE_MAX_BYTES: u64 = 32 * 1024 * MIB as u64;
/// Memory for one transaction, temporary tables and sorts together, in bytes.
pub const REMOTE_SQL_TRANSACTION_MEMORY_BYTES: u64 = 64 * MIB as u64;
/// Pages that one open database keeps, in bytes.
pub const REMOTE_SQL_CACHE_BYTES: usize = 4 * MIB;
/// Longest text, blob or row in an actor's database, in bytes, where the engine executes its SQL.
pub const REMOTE_SQL_VALUE_MAX_BYTES: usize = 256 * MIB;
/// Parameters of one statement, in bytes (`spec/storage.md` 8.2).
pub const REMOTE_SQL_PARAMS_MAX_BYTES: usize = 128 * KIB;
/// Rows of one answer, in bytes (`decisions.md` 19).
pub const REMOTE_SQL_RESULT_MAX_BYTES: usize = 64 * MIB;
/// An answer above this size, in bytes, is encoded by the thread that executed the statement, because it would keep others
/// waiting who share the connection's thread.
pub const REMOTE_SQL_INLINE_ANSWER_MAX_BYTES: usize = 64 * KIB;

// ---- History of actors' databases (`docs/operations.md`)

/// How often history that is older than its window is looked for, of actors that do not write.
pub const PRUNE_HISTORY_INTERVAL: Duration = Duration::from_secs(10 * 60);
/// A call that restores an actor answers after this even if the actor's end could not be stored yet, so that its old instance
/// still takes requests; `restore_answer_timeout`.
pub const RESTORE_ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// What a restored or copied database remembers of its alarm is to be forgotten within this time; otherwise it stays, and a
/// schedule in it may be late.
pub const FORGET_ALARM_TIMEOUT: Duration = Duration::from_secs(10);
/// Within this time an engine must have answered a command of `rivet-engine` that it is asked to carry out, as
/// `remote_command_timeout`; restoring or copying a large database takes a while.
pub const REMOTE_COMMAND_TIMEOUT: Duration = Duration::from_secs(15 * 60);

// ---- Endpoints of serverless pools

/// How long connecting to an endpoint may take; over all its addresses.
pub const OUTBOUND_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long reading an endpoint's metadata may take in all (`spec/scheduling.md` 9.2).
pub const METADATA_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the metadata of a pool are read. Default of `pegboard.default_metadata_poll_interval`.
pub const METADATA_POLL_INTERVAL: Duration = Duration::from_secs(10);
/// However often a pool wishes it. Default of `pegboard.min_metadata_poll_interval`.
pub const METADATA_POLL_MIN_INTERVAL: Duration = Duration::from_secs(5);
/// How often the interval doubles at most while metadata cannot be read (`spec/scheduling.md` 9.2).
pub const METADATA_POLL_BACKOFF_MAX_EXPONENT: u32 = 8;
/// Time without a failure after which it is not doubled any more.
pub const METADATA_POLL_BACKOFF_RESET: Duration = Duration::from_secs(600);
/// Largest metadata document, in bytes.
pub const METADATA_MAX_BYTES: usize = MIB;
/// What is shown of an answer that is no metadata document, in characters (`spec/engine-api.md` 8.6).
pub const METADATA_EXCERPT_MAX_CHARS: usize = 1024;
/// Largest body of a start request that hosts accept, in bytes (`decisions.md` 11).
pub const SERVERLESS_START_BODY_MAX_BYTES: usize = 16 * MIB;
/// Start requests that wait for an endpoint's answer at once; the next ones wait for their turn. Each of them holds a connection
/// and a body.
pub const SERVERLESS_STARTS_MAX: usize = 512;
/// As many of them may be of one pool, so that an endpoint that never answers does not hold up the others.
pub const SERVERLESS_STARTS_OF_POOL_MAX: usize = 256;
/// A host of a serverless pool that has lost its connection as well as the request of an actor has this long to connect again
/// before that actor is started elsewhere. The published host tries after 1.0 to 1.25 s.
pub const SERVERLESS_RECONNECT: Duration = Duration::from_secs(2);
/// What an error shows of an endpoint's URL, in bytes.
pub const ENDPOINT_URL_SHOWN_MAX_BYTES: usize = 256;
/// What is kept of an endpoint's answer to a start that it refuses, and of any other words for a pool's error, in bytes
/// (`spec/scheduling.md` 1.5).
pub const POOL_ERROR_BODY_MAX_BYTES: usize = 512;
/// How long that part of the answer is waited for.
pub const POOL_ERROR_BODY_TIMEOUT: Duration = Duration::from_secs(2);
/// Generations that a host speaks for without a right to them and has not been told so; it hears of more when it speaks again.
pub const HOST_DISMISSALS_MAX: usize = 1_024;
/// Generations without a right to them of which a host has sent events that wait to be acknowledged. It sends those of more
/// again when it has reconnected.
pub const HOST_STRAY_ACKS_MAX: usize = 1_024;
/// A start request that has been open for this long is no failure of its endpoint, even if no host has come forward yet.
pub const SERVERLESS_ACCEPTANCE: Duration = Duration::from_secs(1);
/// An actor whose start request is cut short moves no earlier than this after the request was answered.
pub const SERVERLESS_SHORTEST_STAY: Duration = Duration::from_secs(2);
/// When an actor's generation is over, its start request has this long to end by itself: some hosts keep the requests of
/// starts that failed open.
pub const SERVERLESS_FAREWELL: Duration = Duration::from_secs(2);
