//! Keeps a client's socket open while its actor sleeps (`spec/gateway.md` 17.4).

use protocol::envoy::ToRivetTunnelMessageKind;
use tokio::time::{Instant, timeout_at};

use super::client::FromClient;
use super::close::End;
use super::session::Session;
use crate::config::RESTORE_GRACE;
use crate::directory::{Directory, Readiness};
use crate::error::GatewayError;
use crate::handler::Shared;
use crate::tunnel::FromActor;

/// The actor runs again and has taken the socket back.
pub(super) struct Resumed {
    pub(super) generation: u32,
}

/// Why a sleeping actor is wanted.
enum WakeReason {
    /// A message waits, or the actor woke by itself.
    Messages,
    /// The client left: the actor is woken to be told.
    ClientLeft(End),
}

/// Waits until the actor runs again, waking it when the client does something.
pub(super) async fn wait<D: Directory>(shared: &Shared<D>, session: &mut Session<'_>) -> Result<Resumed, End> {
    session.tunnel.accept_any_host();
    let mut restored = false;
    let reason = match session.pending.is_empty() {
        true => idle(session, &mut restored).await?,
        false => WakeReason::Messages,
    };
    let resumed = match resume(shared, session, restored).await {
        Ok(resumed) => resumed,
        // The client has left anyway.
        Err(end) => {
            return Err(match reason {
                WakeReason::Messages => end,
                WakeReason::ClientLeft(_) => End { client: None, host: end.host },
            });
        }
    };
    if !session.resend_pending().await {
        return Err(End::failed(&GatewayError::TunnelMessageTimeout, session.ray));
    }
    match reason {
        WakeReason::Messages => Ok(resumed),
        WakeReason::ClientLeft(end) => Err(end),
    }
}

/// Sleeps with the actor.
async fn idle(session: &mut Session<'_>, restored: &mut bool) -> Result<WakeReason, End> {
    loop {
        match session.watched.view().readiness {
            Readiness::Ready { generation, link: Some(_) } if generation > session.generation => {
                return Ok(WakeReason::Messages);
            }
            Readiness::Destroyed => return Err(End::failed(&GatewayError::ActorNotFound, session.ray)),
            Readiness::Ready { .. } | Readiness::NotReady => {}
        }
        tokio::select! {
            from_client = session.client.next() => return match from_client {
                FromClient::Message { data, binary } => {
                    let index = session.tunnel.take_index();
                    session.keep(index, data, binary)?;
                    Ok(WakeReason::Messages)
                }
                FromClient::Close { code, reason } => Ok(WakeReason::ClientLeft(End::by_client(code, &reason))),
                FromClient::Gone => Ok(WakeReason::ClientLeft(End::client_vanished())),
            },
            told = session.tunnel.receive() => *restored |= told_while_asleep(session, told).await?,
            view = session.watched.next_view() => if view.is_none() {
                return Err(End::failed(&GatewayError::GoingAway, session.ray));
            },
        }
    }
}

/// Wakes the actor and waits until it has restored the socket.
async fn resume<D: Directory>(shared: &Shared<D>, session: &mut Session<'_>, mut restored: bool) -> Result<Resumed, End> {
    let failed = |error: GatewayError, ray: &str| {
        let destroyed = matches!(error, GatewayError::DestroyedWhileWaiting);
        End::failed(if destroyed { &GatewayError::ActorNotFound } else { &error }, ray)
    };
    let deadline = Instant::now() + shared.config.hibernation_wake_timeout;
    let route = loop {
        let ray = session.ray;
        let route = session.watched.ready(&*shared.directory, deadline).await.map_err(|error| failed(error, ray))?;
        if route.generation > session.generation {
            break route;
        }
        // The old generation has announced its sleep but still runs: it must end first. Waking it now makes the engine
        // start the next one right after.
        shared.directory.wake(session.watched.actor);
        session.watched.next_change(deadline).await.map_err(|error| failed(error, ray))?;
    };
    session.tunnel.rebind(route.link);
    let grace = Instant::now() + RESTORE_GRACE;
    while !restored {
        let Ok(told) = timeout_at(grace, session.tunnel.receive()).await else {
            // The actor does not know the socket any more; the client has to connect anew.
            tracing::warn!(actor_id = %session.watched.actor, "woken actor did not restore a hibernating WebSocket");
            return Err(End::failed(&GatewayError::WebSocketGarbageCollected, session.ray));
        };
        restored |= told_while_asleep(session, told).await?;
    }
    Ok(Resumed { generation: route.generation })
}

/// Handles what the actor says while its socket hibernates. True: it has restored the socket.
async fn told_while_asleep(session: &mut Session<'_>, told: FromActor) -> Result<bool, End> {
    let kind = match told {
        FromActor::Frame { kind, .. } => kind,
        // Both are expected here: the old generation ends.
        FromActor::LinkLost | FromActor::Stopped => return Ok(false),
        FromActor::Overflow => return Err(End::failed(&GatewayError::WebSocketPendingLimitReached, session.ray)),
    };
    match kind {
        ToRivetTunnelMessageKind::WebSocketOpen { .. } => Ok(true),
        ToRivetTunnelMessageKind::WebSocketMessage { data, binary } => {
            session.client.feed(data, binary).await.map_err(|_| End::client_vanished())?;
            session.client.flush().await.map_err(|_| End::client_vanished())?;
            Ok(false)
        }
        ToRivetTunnelMessageKind::WebSocketMessageAck { index } => {
            session.pending.acknowledge(index);
            Ok(false)
        }
        ToRivetTunnelMessageKind::WebSocketClose { hibernate: true, .. } => Ok(false),
        ToRivetTunnelMessageKind::WebSocketClose { code, reason, .. } => Err(End::by_actor(code, reason)),
        ToRivetTunnelMessageKind::ResponseStart(_)
        | ToRivetTunnelMessageKind::ResponseChunk(_)
        | ToRivetTunnelMessageKind::ResponseAbort(_)
        | ToRivetTunnelMessageKind::RequestBodyWindowUpdate { .. }
        | ToRivetTunnelMessageKind::RequestBodyCancel => Ok(false),
    }
}
