//! Reading one host's connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actor_data::ActorData;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use gateway::{ClientStream, EnvoyLink, MessageRate, Outbox, Throttle, Tunnels};
use http::Request;
use hyper::body::Incoming;
use lifecycle::actor::EnvoyKey;
use lifecycle::envoy::{OwedPong, is_deaf, is_eligible, is_silent};
use protocol::envoy::{ProtocolMetadata, ToEnvoy, ToRivet, ToRivetMetadata};
use protocol::error::close_reason;
use protocol::id::NamespaceId;
use protocol::limits;
use serde_json::{Map, Value};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_websockets::{Message, WebSocketStream};

use super::access::{Access, AccessDenied};
use super::error::EnvoyClose;
use super::params::{self, ConnectParams};
use super::storage::{StorageLanes, StorageRequest};
use super::storage_metrics::StorageMetrics;
use super::{events, pump, writer};
use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::hosts::{Connected, Host, Hosts};
use crate::random::Randomness;
use crate::scheduler::Scheduler;
use crate::sql::{RemoteSql, SqlCaller, SqlRequest, SqlWork};

/// Random addition to the ping interval, so that many hosts do not ping in step.
const PING_JITTER_MS: u64 = 128;

/// What the connections of hosts need of the engine.
pub(crate) struct EnvoyContext {
    pub(crate) catalog: Catalog,
    pub(crate) hosts: Hosts,
    pub(crate) scheduler: Scheduler,
    pub(crate) tunnels: Tunnels,
    pub(crate) data: ActorData,
    pub(crate) sql: RemoteSql,
    pub(crate) storage_metrics: Arc<StorageMetrics>,
    pub(crate) access: Access,
    pub(crate) clock: Clock,
    pub(crate) randomness: Randomness,
    pub(crate) ping_interval: Duration,
    /// How fast a host may send. `None`: as fast as the engine can.
    pub(crate) message_rate: Option<MessageRate>,
    /// First message of every connection.
    pub(crate) init: ProtocolMetadata,
    pub(crate) shutdown: watch::Receiver<bool>,
    /// Dropped with the last connection, which tells the engine that all hosts have been told to go.
    pub(crate) _alive: mpsc::Sender<()>,
}

/// A host that may connect.
pub(super) struct Admitted {
    namespace_id: NamespaceId,
    params: ConnectParams,
}

/// A host whose connection is open.
pub(super) struct Arrived {
    host: Arc<Host>,
    params: ConnectParams,
}

/// Why somebody is not taken as a host.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(transparent)]
    Access(#[from] AccessDenied),
    #[error(transparent)]
    Params(#[from] EnvoyClose),
}

/// Takes over a connection that is about to be upgraded. Refusals reach the host as close frames.
pub(crate) fn accept(
    context: Arc<EnvoyContext>,
    mut request: Request<Incoming>,
    access: Result<(), AccessDenied>,
    ray: Arc<str>,
) {
    let admitted = access.map_err(Refusal::from).and_then(|()| Ok(admit(&context, request.uri().query().unwrap_or_default())?));
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let Some(socket) = gateway::websocket_stream(upgraded, limits::ENVOY_FRAME_MAX_BYTES) else { return };
        match admitted {
            Ok(admitted) => run(context, socket, admitted, &ray).await,
            Err(refusal) => {
                tracing::warn!(%refusal, "host refused");
                let reason = match &refusal {
                    Refusal::Access(denied) => close_reason(denied, &ray),
                    Refusal::Params(wrong) => close_reason(wrong, &ray),
                };
                writer::refuse(socket, &reason).await;
            }
        }
    });
}

/// Looks at what a host says of itself in the query of its address.
pub(super) fn admit(context: &EnvoyContext, query: &str) -> Result<Admitted, EnvoyClose> {
    let params = params::parse(query)?;
    let namespace = context.catalog.namespace(&params.namespace).ok_or(EnvoyClose::NamespaceNotFound)?;
    let namespace_id = namespace.namespace_id;
    context.catalog.pool(namespace_id, &params.pool_name).ok_or(EnvoyClose::NoRunnerConfig)?;
    Ok(Admitted { namespace_id, params })
}

/// What comes over a connection.
type Received = Result<Message, tokio_websockets::Error>;

struct Connection {
    context: Arc<EnvoyContext>,
    host: Arc<Host>,
    link: EnvoyLink,
    storage: StorageLanes,
    /// Nothing is read at the moment: a frame is being handled, or the host has sent too many.
    held_up: AtomicBool,
}

/// Why reading has ended.
pub(super) enum End {
    /// The host has closed, or its connection broke.
    ByHost,
    /// The engine closes.
    ByEngine(EnvoyClose),
}

impl Admitted {
    /// Its connection is open: only now is anything remembered of it.
    pub(super) fn arrive(self, context: &EnvoyContext) -> Arrived {
        let Self { namespace_id, params } = self;
        context.catalog.saw_protocol_version(namespace_id, &params.pool_name, params.protocol_version);
        let host = context.hosts.get_or_insert(namespace_id, &EnvoyKey::new(&params.envoy_key), &params.pool_name);
        Arrived { host, params }
    }
}

impl Arrived {
    /// Makes the queue of its connection.
    pub(super) fn link(&self, context: &EnvoyContext) -> (EnvoyLink, Outbox) {
        EnvoyLink::new(self.host.id, context.hosts.next_session(), self.params.protocol_version)
    }
}

async fn run(context: Arc<EnvoyContext>, socket: WebSocketStream<ClientStream>, admitted: Admitted, ray: &str) {
    let arrived = admitted.arrive(&context);
    let (link, outbox) = arrived.link(&context);
    let (sink, stream) = socket.split();
    let (close, closing) = mpsc::channel(1);
    let writer = tokio::spawn(writer::run(sink, outbox, link.protocol_version(), closing, ray.to_owned()));
    match serve(context, arrived, link, stream).await {
        // A writer that has ended by itself needs no order.
        End::ByEngine(why) => drop(close.send(why).await),
        End::ByHost => drop(close),
    }
    writer::finish(writer).await;
}

/// Serves a host from the beginning of its connection to the end, all but the writing of what is queued.
pub(super) async fn serve(
    context: Arc<EnvoyContext>,
    arrived: Arrived,
    link: EnvoyLink,
    stream: impl Stream<Item = Received> + Unpin,
) -> End {
    let Arrived { host, params } = arrived;
    let namespace = params.namespace.clone();
    // The init message is the first in the queue, before the connection is known to anybody else.
    let stop_threshold_ms = context.scheduler.pool_stop_threshold_ms(host.namespace_id, &params.pool_name);
    let init = ProtocolMetadata { actor_stop_threshold: stop_threshold_ms, ..context.init.clone() };
    let _ = link.send_now(ToEnvoy::Init(init));
    let connected = Connected { pool: params.pool_name, version: params.version, stop_threshold_ms, link: link.clone() };
    context.scheduler.host_connected(&host, connected);
    let pump = tokio::spawn(pump::run(context.clone(), host.clone(), link.clone()));
    tracing::info!(envoy_key = %host.key, version = params.version, "host connected");

    let storage = StorageLanes::new(&context, SqlCaller::new(host.clone(), link.clone(), namespace));
    let connection = Connection { context, host, link, storage, held_up: AtomicBool::new(false) };
    let end = connection.live(stream).await;
    match &end {
        End::ByHost => tracing::info!(envoy_key = %connection.host.key, "host disconnected"),
        End::ByEngine(why) => tracing::info!(envoy_key = %connection.host.key, %why, "host connection closed"),
    }
    pump.abort();
    connection.context.scheduler.host_disconnected(&connection.host, &connection.link);
    end
}

impl Connection {
    /// Reads until the connection is to end. Neither frames without end nor one whose handling takes long hold up pings or
    /// the end: a host that sends storage requests and does not read the answers would hold them up for ever.
    async fn live(&self, stream: impl Stream<Item = Received> + Unpin) -> End {
        let mut shutdown = self.context.shutdown.clone();
        tokio::select! {
            biased;
            () = self.link.replaced() => End::ByEngine(EnvoyClose::Eviction),
            () = crate::engine::stopping(&mut shutdown) => End::ByEngine(EnvoyClose::GoingAway),
            () = self.ping_until_deaf() => End::ByEngine(EnvoyClose::TimedOut),
            end = self.read(stream) => end,
        }
    }

    /// Pings the host, until it owes an answer for too long.
    async fn ping_until_deaf(&self) {
        let mut was_deaf = false;
        loop {
            let now = self.context.clock.now();
            self.host.pinged(now);
            let _ = self.link.ping(now);
            let jitter = Duration::from_millis(self.context.randomness.number() % PING_JITTER_MS);
            tokio::time::sleep(self.context.ping_interval + jitter).await;
            // Only the second time counts: if the engine itself has been stopped, the answer is here and not read yet.
            let is_deaf = self.link.oldest_ping().is_some_and(|ping| {
                let owed = OwedPong {
                    since_ms: i64::try_from(ping.since.elapsed().as_millis()).unwrap_or(i64::MAX),
                    behind_bytes: ping.behind_bytes as u64,
                    reading_held_up: self.held_up.load(Ordering::Relaxed),
                };
                is_deaf(owed, self.context.hosts.rules())
            });
            if is_deaf && was_deaf {
                return;
            }
            was_deaf = is_deaf;
        }
    }

    async fn read(&self, mut stream: impl Stream<Item = Received> + Unpin) -> End {
        let mut throttle = self.context.message_rate.map(|rate| Throttle::new(rate, Instant::now()));
        let mut next_check = Instant::now() + self.context.ping_interval;
        loop {
            if let Some(throttle) = &throttle {
                self.pause_until(throttle.free_at()).await;
            }
            tokio::select! {
                // A frame that is ready counts before silence is judged.
                biased;
                received = stream.next() => {
                    if let Some(throttle) = &mut throttle {
                        throttle.take(Instant::now());
                    }
                    if let Some(end) = self.take(received).await {
                        return end;
                    }
                }
                () = tokio::time::sleep_until(next_check) => {
                    if is_silent(self.host.link_state(), self.context.clock.uptime(), self.context.hosts.rules()) {
                        return End::ByEngine(EnvoyClose::TimedOut);
                    }
                    next_check = Instant::now() + self.context.ping_interval;
                }
            }
        }
    }

    /// Reads nothing until then, because the host has sent too much at once; or goes on if that time is past.
    async fn pause_until(&self, free_at: Instant) {
        if free_at > Instant::now() {
            self.held_up.store(true, Ordering::Relaxed);
            tokio::time::sleep_until(free_at).await;
            self.held_up.store(false, Ordering::Relaxed);
        }
    }

    /// Notes a sign of life.
    fn heard(&self) {
        let last = self.host.alive(self.link.session());
        let was_silent = last.is_some_and(|last| !is_eligible(last, self.context.clock.uptime(), self.context.hosts.rules()));
        if was_silent {
            self.context.scheduler.host_heard_again(&self.host);
        }
    }

    /// Takes what has come over the connection; says whether it ends it.
    async fn take(&self, received: Option<Received>) -> Option<End> {
        match received {
            Some(Ok(message)) if message.is_binary() => {
                self.held_up.store(true, Ordering::Relaxed);
                let handled = self.handle(Bytes::from(message.into_payload())).await;
                self.held_up.store(false, Ordering::Relaxed);
                self.heard();
                handled.err().map(End::ByEngine)
            }
            Some(Ok(message)) if message.is_close() => {
                self.host.took_leave(self.link.session());
                Some(End::ByHost)
            }
            // Text, pings and pongs carry nothing (`spec/envoy-protocol.md` 2.4).
            Some(Ok(_)) => {
                self.heard();
                None
            }
            Some(Err(error)) => {
                tracing::warn!(envoy_key = %self.host.key, %error, "host connection broke");
                let too_long = matches!(error, tokio_websockets::Error::PayloadTooLong { .. });
                Some(if too_long { End::ByEngine(EnvoyClose::Internal) } else { End::ByHost })
            }
            None => Some(End::ByHost),
        }
    }

    /// Hands a frame on. One that cannot be decoded is logged and skipped: the connection carries many actors.
    async fn handle(&self, frame: Bytes) -> Result<(), EnvoyClose> {
        let frame_bytes = frame.len();
        let message = match ToRivet::decode(frame, self.link.protocol_version()) {
            Ok(message) => message,
            Err(error) => {
                tracing::warn!(envoy_key = %self.host.key, %error, "frame ignored");
                return Ok(());
            }
        };
        match message {
            ToRivet::TunnelMessage(message) => self.context.tunnels.deliver(&self.link, message),
            ToRivet::Pong { ts } => {
                self.link.answered(ts);
                self.context.scheduler.host_ponged(&self.host, ts);
            }
            ToRivet::Events(list) => events::events(&self.context.scheduler, &self.host, list).await?,
            ToRivet::AckCommands(acks) => events::command_acks(&self.context.scheduler, &self.host, acks).await?,
            ToRivet::Stopping => self.context.scheduler.host_stopping(&self.host),
            ToRivet::Metadata(metadata) => self.metadata(metadata).await,
            ToRivet::KvRequest(request) => self.storage.push(StorageRequest::Kv(request), frame_bytes).await,
            ToRivet::SqliteGetPages { request_id, data } => {
                self.storage.push(StorageRequest::GetPages(request_id, data), frame_bytes).await;
            }
            ToRivet::SqliteCommit { request_id, data } => {
                self.storage.push(StorageRequest::Commit(request_id, data), frame_bytes).await;
            }
            ToRivet::SqliteCommitStageBegin { request_id, data } => {
                self.storage.push(StorageRequest::StageBegin(request_id, data), frame_bytes).await;
            }
            ToRivet::SqliteCommitStageSegment { request_id, data } => {
                self.storage.push(StorageRequest::StageSegment(request_id, data), frame_bytes).await;
            }
            ToRivet::SqliteCommitFinalize { request_id, data } => {
                self.storage.push(StorageRequest::Finalize(request_id, data), frame_bytes).await;
            }
            ToRivet::SqliteExec { request_id, data } => self.sql(request_id, SqlWork::Exec(data), frame_bytes).await,
            ToRivet::SqliteExecute { request_id, data } => self.sql(request_id, SqlWork::Execute(data), frame_bytes).await,
            ToRivet::SqliteExecuteBatch { request_id, data } => self.sql(request_id, SqlWork::Batch(data), frame_bytes).await,
        }
        Ok(())
    }

    async fn sql(&self, request_id: u32, work: SqlWork, frame_bytes: usize) {
        self.storage.push(StorageRequest::Sql(SqlRequest { request_id, work }), frame_bytes).await;
    }

    async fn metadata(&self, metadata: ToRivetMetadata) {
        if let Some(names) = metadata.prepopulate_actor_names {
            let names = names.iter().map(|(name, declared)| (name.to_owned(), declared.metadata.clone()));
            if let Err(error) = self.context.catalog.declare_actor_names(self.host.namespace_id, names).await {
                tracing::error!(envoy_key = %self.host.key, %error, "declared actor names cannot be stored");
            }
        }
        if let Some(text) = metadata.metadata {
            let object = serde_json::from_str::<Map<String, Value>>(&text).unwrap_or_default();
            self.host.set_metadata(Value::Object(object));
        }
    }
}
