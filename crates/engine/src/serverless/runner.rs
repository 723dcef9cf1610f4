//! The start requests: one for each generation that an endpoint is asked for, from the order to the end of the stream
//! (`spec/scheduling.md` 9.3 to 9.6).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use lifecycle::Ts;
use lifecycle::actor::{Identity, Input};
use lifecycle::pool::PoolError;
use protocol::envoy::PROTOCOL_VERSION;
use protocol::id::ActorId;
use protocol::limits;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::client::causes;
use super::sse::{Event, EventStream};
use super::start::{self, Failure, Sender, connection_error};
use super::{Endpoints, payload};
use crate::catalog::PoolKind;
use crate::scheduler::OutboundOrder;

/// There is no endpoint to be asked any more.
const GONE: Failure = Failure::Actor(PoolError::InternalError);

/// A generation of an actor.
type Run = (ActorId, u32);

/// Carries out orders until the engine stops. Then the actors of all requests that were answered move, and this ends with the
/// last request; whoever waits for it sets the deadline. Orders that are left over are repeated by the next process.
pub(crate) async fn run(
    endpoints: Endpoints,
    mut orders: mpsc::UnboundedReceiver<OutboundOrder>,
    mut stopping: watch::Receiver<bool>,
) {
    let mut requests = JoinSet::new();
    // Whom to tell that a generation is over. There are at most as many as actors have places in pools.
    let mut open: HashMap<Run, oneshot::Sender<()>> = HashMap::new();
    let mut is_stopping = false;
    while !is_stopping || !requests.is_empty() {
        tokio::select! {
            order = orders.recv() => match order {
                Some(OutboundOrder::Start { .. }) if is_stopping => {}
                Some(OutboundOrder::Start { identity, generation }) => {
                    let run = (identity.actor_id, generation);
                    let (over, is_over) = oneshot::channel();
                    let stopping = stopping.clone();
                    let request = Request { endpoints: endpoints.clone(), identity, generation, over: is_over, stopping };
                    open.insert(run, over);
                    requests.spawn(async move {
                        request.run().await;
                        run
                    });
                }
                Some(OutboundOrder::Over { actor, generation }) => {
                    if let Some(over) = open.remove(&(actor, generation)) {
                        // A request that has ended by itself need not be told.
                        let _ = over.send(());
                    }
                }
                None => return,
            },
            Some(ended) = requests.join_next() => match ended {
                Ok(run) => drop(open.remove(&run)),
                Err(error) => tracing::error!(%error, "a start request has ended in an unforeseen way"),
            },
            () = crate::engine::stopping(&mut stopping), if !is_stopping => {
                is_stopping = true;
                endpoints.0.scheduler.stop_asking_endpoints();
            }
        }
    }
}

/// One start request.
struct Request {
    endpoints: Endpoints,
    identity: Arc<Identity>,
    generation: u32,
    /// The generation is over.
    over: oneshot::Receiver<()>,
    /// So is the engine, soon.
    stopping: watch::Receiver<bool>,
}

/// A stream that has begun.
struct Opened {
    stream: Incoming,
    /// When the actor is told to move.
    evict_at: Instant,
    /// When the request is closed.
    close_at: Instant,
}

/// How far a stream has come.
struct Progress {
    close_at: Instant,
    /// The request has been open for so long that the endpoint seems to deal with the start.
    is_accepted: bool,
    is_evicted: bool,
    is_over: bool,
}

/// How a stream ended that the engine did not close.
enum StreamEnd {
    /// The endpoint said that the actor has stopped.
    Announced,
    Failed(PoolError),
}

impl Request {
    async fn run(mut self) {
        let began = self.endpoints.0.clock.uptime();
        // A request that is not needed before it is answered is dropped, and its connection with it. If it is the engine that
        // ends, the next process asks for the same generation again.
        let opened = tokio::select! {
            biased;
            _ = &mut self.over => return,
            () = crate::engine::stopping(&mut self.stopping) => return,
            opened = open(&self.endpoints, &self.identity, self.generation, began) => opened,
        };
        match opened {
            Ok(Some(opened)) => self.follow(opened, began).await,
            Ok(None) => {}
            Err(Failure::Endpoint(error)) => self.failed(began, error),
            Err(Failure::Actor(error)) => {
                let (actor_id, pool) = (self.identity.actor_id, &self.identity.pool);
                tracing::warn!(%actor_id, pool, generation = self.generation, ?error, "a start request was not made");
                self.endpoints.0.scheduler.outbound_not_asked(&self.identity, self.generation, began, error);
            }
        }
    }

    fn failed(&self, began: Ts, error: PoolError) {
        let (actor_id, pool) = (self.identity.actor_id, &self.identity.pool);
        tracing::warn!(%actor_id, pool, generation = self.generation, ?error, "a start request has failed");
        self.endpoints.0.scheduler.outbound_failed(&self.identity, self.generation, began, error);
    }

    /// Stays with a stream until it ends, or has to.
    async fn follow(&mut self, opened: Opened, began: Ts) {
        let Opened { mut stream, evict_at, close_at } = opened;
        let mut events = EventStream::default();
        let mut progress = Progress { close_at, is_accepted: false, is_evicted: false, is_over: false };
        let opened_at = Instant::now();
        let quiet_acceptance_at = opened_at + limits::SERVERLESS_ACCEPTANCE;
        let end = loop {
            tokio::select! {
                // The stream comes last: whatever an endpoint sends, it must not hold up the end of its request.
                biased;
                _ = &mut self.over, if !progress.is_over => {
                    progress.is_over = true;
                    progress.close_at = progress.close_at.min(Instant::now() + limits::SERVERLESS_FAREWELL);
                }
                () = tokio::time::sleep_until(progress.close_at) => {
                    tracing::debug!(actor_id = %self.identity.actor_id, generation = self.generation, "start request closed");
                    return;
                }
                () = moment_to_move(evict_at, &mut self.stopping), if !progress.is_evicted => {
                    progress.is_evicted = true;
                    let input = Input::Evict { generation: self.generation };
                    self.endpoints.0.scheduler.post(self.identity.actor_id, input);
                }
                () = tokio::time::sleep_until(quiet_acceptance_at), if !progress.is_accepted => {
                    progress.is_accepted = true;
                    self.endpoints.0.scheduler.outbound_accepted(&self.identity);
                }
                frame = stream.frame() => match frame {
                    Some(Ok(frame)) => {
                        let Some(data) = frame.data_ref() else { continue };
                        if self.is_announced_in(&events.read(data)) {
                            break StreamEnd::Announced;
                        }
                    }
                    Some(Err(error)) => {
                        let message = format!("error decoding response body\n{}", causes(&error));
                        break StreamEnd::Failed(connection_error(message));
                    }
                    None => break StreamEnd::Failed(PoolError::StreamEndedEarly),
                },
            }
        };
        match end {
            StreamEnd::Failed(error) if !progress.is_over => self.cut_short(opened_at, began, error).await,
            StreamEnd::Announced | StreamEnd::Failed(_) => {}
        }
    }

    /// A stream ended before its actor. An endpoint that cuts every stream short would keep its actors moving without a pause, so
    /// one that runs stays for a moment.
    async fn cut_short(&mut self, opened_at: Instant, began: Ts, error: PoolError) {
        if self.endpoints.0.scheduler.outbound_cut_short(&self.identity, self.generation, error.clone()) {
            tokio::select! {
                biased;
                _ = &mut self.over => return,
                () = moment_to_move(opened_at + limits::SERVERLESS_SHORTEST_STAY, &mut self.stopping) => {}
            }
        }
        self.failed(began, error);
    }

    fn is_announced_in(&self, events: &[Event]) -> bool {
        let mut announced = false;
        for event in events {
            match event {
                Event::Ping => {}
                Event::Stopping => announced = true,
                Event::Other(name) => {
                    tracing::debug!(actor_id = %self.identity.actor_id, event = name, "event of a start request ignored");
                }
            }
        }
        announced
    }
}

/// Waits until the time of a request is nearly up, or the engine's.
async fn moment_to_move(evict_at: Instant, stopping: &mut watch::Receiver<bool>) {
    tokio::select! {
        () = tokio::time::sleep_until(evict_at) => {}
        () = crate::engine::stopping(stopping) => {}
    }
}

/// Sends a start request when its turn has come, and waits for the stream that answers it; the caller sets a deadline. `began`:
/// when it was admitted, by the engine's uptime. `None`: the actor has moved on.
async fn open(endpoints: &Endpoints, identity: &Identity, generation: u32, began: Ts) -> Result<Option<Opened>, Failure> {
    let _turn = endpoints.0.turns.take(identity.namespace_id, &identity.pool).await;
    // Those whose turn comes after the first failure would hammer the endpoint otherwise.
    if let Some(error) = endpoints.0.scheduler.trouble_since(identity, began) {
        return Err(Failure::Actor(error));
    }
    let catalog = &endpoints.0.catalog;
    let namespace = catalog.namespace_by_id(identity.namespace_id).ok_or(GONE)?;
    let pool = catalog.pool(identity.namespace_id, &identity.pool).ok_or(GONE)?;
    let options = match &pool.config.kind {
        PoolKind::Serverless(options) => options,
        PoolKind::Normal => return Err(GONE),
    };
    let version = pool.protocol_version.unwrap_or(PROTOCOL_VERSION);
    let Some(body) = payload::gather(endpoints, identity.actor_id, generation, version).await? else { return Ok(None) };
    let sender = Sender {
        url: &options.url,
        headers: &options.headers,
        public_url: &endpoints.0.public_url,
        pool: &identity.pool,
        namespace: &namespace.name,
        admin_token: endpoints.0.admin_token.as_ref(),
    };
    let call = sender.request(body).map_err(|error| Failure::Endpoint(connection_error(error.to_string())))?;
    let sent = Instant::now();
    let response = endpoints.0.client.send(call).await?;
    let stream = start::event_stream(response).await.map_err(Failure::Endpoint)?;
    let lifespan = Duration::from_secs(u64::from(options.request_lifespan));
    let grace = Duration::from_secs(u64::from(options.drain_grace_period));
    Ok(Some(Opened { stream, evict_at: sent + lifespan.saturating_sub(grace), close_at: sent + lifespan }))
}
