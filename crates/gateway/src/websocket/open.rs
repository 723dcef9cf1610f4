//! Asking an actor to take a WebSocket (`spec/gateway.md` 15 and 16.1).

use protocol::envoy::{Headers, ToEnvoyTunnelMessageKind, ToRivetTunnelMessageKind, WebSocketOpen};
use protocol::id::ActorId;
use protocol::limits;
use tokio::time::timeout_at;

use super::close::{End, HostClose};
use crate::admission::Slot;
use crate::claim::ToActor;
use crate::directory::Directory;
use crate::error::GatewayError;
use crate::handler::Shared;
use crate::link::LinkClosed;
use crate::metrics::RequestKind;
use crate::ready::{Route, WaitFor, WaitTime, Watched};
use crate::resolve::Caller;
use crate::tunnel::{FromActor, Tunnel};

/// A socket that the actor has taken.
pub(super) struct Opened {
    pub(super) watched: Watched,
    pub(super) tunnel: Tunnel,
    pub(super) generation: u32,
    pub(super) can_hibernate: bool,
}

/// A WebSocket for which an actor is wanted. What a host was asked is kept here and not in the future that waits for the
/// answer, so that the wait can be given up at any moment.
pub(super) struct Opening<'a> {
    pub(super) headers: Headers,
    pub(super) ray: &'a str,
    asked: Option<Asked>,
}

/// An actor that was asked to take a socket and has not answered yet.
struct Asked {
    tunnel: Tunnel,
    generation: u32,
    /// Of the connection's queue, right after the question.
    mark: u64,
}

enum Answer {
    Taken {
        can_hibernate: bool,
    },
    /// The actor stopped or moved, or its host may never have seen the question.
    TryAgain,
    /// The actor does not want it.
    Refused(End),
}

impl<'a> Opening<'a> {
    pub(super) fn new(headers: Headers, ray: &'a str) -> Self {
        Self { headers, ray, asked: None }
    }

    /// Finds the actor, wakes it and asks it to take the socket. It is tried again only when the actor stopped or moved in
    /// between; a refusal of the actor is final and reaches the client at once.
    pub(super) async fn open<D: Directory>(
        &mut self,
        shared: &Shared<D>,
        to_actor: ToActor,
        caller: Caller,
        slot: &mut Slot,
    ) -> Result<Opened, End> {
        let ray = self.ray;
        let failed = |error: GatewayError| End::failed(&error, ray);
        let ToActor { actor, path, wait_for } = to_actor;
        let mut watched = shared.find(actor, &caller, slot).await.map_err(failed)?;
        let ready_time = shared.ready_time();
        for attempt in 0..=limits::WEBSOCKET_OPEN_RETRIES_MAX {
            if attempt > 0 {
                shared.metrics.retries.get(RequestKind::WebSocket).inc();
            }
            let route = watched.ready(shared, wait_for, ready_time).await.map_err(failed)?;
            let time = WaitTime::of(shared.config.websocket_open_timeout);
            // A host that is busy with other things takes no question either.
            let asked = timeout_at(time.deadline, self.ask(shared, watched.actor, route, &path)).await;
            if let Ok(asked) = asked.map_err(|_| failed(GatewayError::WebSocketOpenTimeout))? {
                match self.asked.insert(asked).answer(shared, &mut watched, wait_for, time).await {
                    Ok(Answer::Taken { can_hibernate }) => {
                        let Some(Asked { tunnel, generation, .. }) = self.asked.take() else { break };
                        return Ok(Opened { watched, tunnel, generation, can_hibernate });
                    }
                    Ok(Answer::Refused(end)) => {
                        self.asked = None;
                        return Err(end);
                    }
                    Ok(Answer::TryAgain) => self.give_up(HostClose::downstream_closed()),
                    Err(error) => {
                        self.give_up(HostClose::for_error(&error));
                        return Err(failed(error));
                    }
                }
            }
            watched.changed_soon().await;
        }
        Err(failed(GatewayError::StoppedWhileWaitingForWebSocketOpen))
    }

    async fn ask<D: Directory>(&self, shared: &Shared<D>, actor: ActorId, route: Route, path: &str) -> Result<Asked, LinkClosed> {
        let generation = route.generation;
        let mut tunnel = shared.tunnels.open_socket(actor, route);
        let open = WebSocketOpen {
            actor_id: actor.to_string(),
            // Left open on purpose: messages that arrive between two generations are then kept by the host, not dropped
            // (`spec/envoy-protocol.md` 12).
            actor_generation: None,
            path: path.to_owned(),
            headers: self.headers.clone(),
        };
        let head_bytes: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        tunnel.send(ToEnvoyTunnelMessageKind::WebSocketOpen(open), head_bytes + path.len()).await?;
        let mark = tunnel.link().queued();
        Ok(Asked { tunnel, generation, mark })
    }

    /// Tells the host that nobody waits for this open any more. One that is out of touch hears of it when it answers.
    pub(super) fn give_up(&mut self, close: HostClose) {
        if let Some(Asked { mut tunnel, .. }) = self.asked.take() {
            let _ = tunnel.send_now(close.message());
        }
    }
}

impl Asked {
    async fn answer<D: Directory>(
        &mut self,
        shared: &Shared<D>,
        watched: &mut Watched,
        wait_for: WaitFor,
        time: WaitTime,
    ) -> Result<Answer, GatewayError> {
        loop {
            let told = timeout_at(time.deadline, self.tunnel.receive()).await;
            let kind = match told.map_err(|_| GatewayError::WebSocketOpenTimeout)? {
                FromActor::Frame { kind, .. } => kind,
                FromActor::LinkLost(session) if session != self.tunnel.link().session() => continue,
                FromActor::LinkLost(_) => match self.host_came_back(shared, watched, wait_for, time).await? {
                    true => continue,
                    false => return Ok(Answer::TryAgain),
                },
                // A host keeps an open that arrives between two generations for the next one.
                FromActor::Stopped => return Ok(Answer::TryAgain),
                FromActor::Overflow => return Err(GatewayError::WebSocketPendingLimitReached),
            };
            match kind {
                ToRivetTunnelMessageKind::WebSocketOpen { can_hibernate } => {
                    if can_hibernate {
                        self.tunnel.set_hibernatable();
                    }
                    return Ok(Answer::Taken { can_hibernate });
                }
                ToRivetTunnelMessageKind::WebSocketClose { code, reason, .. } => {
                    let moved = reason.as_deref().is_some_and(|reason| {
                        reason.starts_with("envoy.actor_not_found") || reason.starts_with("envoy.actor_generation_mismatch")
                    });
                    return Ok(if moved { Answer::TryAgain } else { Answer::Refused(End::by_actor(code, reason)) });
                }
                ToRivetTunnelMessageKind::ResponseStart(_)
                | ToRivetTunnelMessageKind::ResponseChunk(_)
                | ToRivetTunnelMessageKind::ResponseAbort(_)
                | ToRivetTunnelMessageKind::RequestBodyWindowUpdate { .. }
                | ToRivetTunnelMessageKind::RequestBodyCancel => {
                    let request_id = self.tunnel.request_id();
                    tracing::error!(actor_id = %watched.actor, %request_id, "a host answered a WebSocket open as if it were HTTP");
                    return Err(GatewayError::Internal);
                }
                // Sent before the socket is open; the SDK does not do that.
                ToRivetTunnelMessageKind::WebSocketMessage { .. } | ToRivetTunnelMessageKind::WebSocketMessageAck { .. } => {}
            }
        }
    }

    /// Waits until the host is back after its connection has ended. False: it is not the same one, or not with the same
    /// generation, or it may never have seen the question. Otherwise it repeats its answer after it has reconnected.
    async fn host_came_back<D: Directory>(
        &mut self,
        shared: &Shared<D>,
        watched: &mut Watched,
        wait_for: WaitFor,
        time: WaitTime,
    ) -> Result<bool, GatewayError> {
        let has_arrived = self.tunnel.link().has_arrived(self.mark);
        loop {
            let route = watched.ready(shared, wait_for, time).await?;
            if route.generation != self.generation || route.link.host() != self.tunnel.link().host() {
                return Ok(false);
            }
            if self.tunnel.rebind(route.link, self.generation).is_ok() {
                return Ok(has_arrived);
            }
        }
    }
}
