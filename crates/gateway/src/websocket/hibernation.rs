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
use crate::link::SessionId;
use crate::tunnel::FromActor;

/// The actor runs again and has taken the socket back.
pub(super) struct Resumed {
    pub(super) generation: u32,
    /// Whether the connection to its host is up.
    pub(super) link_up: bool,
}

/// Why a sleeping actor is wanted.
enum WakeReason {
    /// A message waits, or the actor woke by itself.
    Messages,
    /// The client left: the actor is woken to be told.
    ClientLeft(End),
}

/// What the actor's side says while the socket hibernates.
enum Heard {
    /// A generation has restored the socket.
    Restored,
    /// A generation has ended.
    Ended,
    /// This connection has ended.
    LinkLost(SessionId),
    /// Nothing that matters here.
    Nothing,
}

/// Waits until the actor runs again, waking it when the client does something.
pub(super) async fn wait<D: Directory>(shared: &Shared<D>, session: &mut Session<'_>) -> Result<Resumed, End> {
    session.tunnel.accept_any_host();
    let mut restored = false;
    let reason = match session.pending.is_empty() {
        true => idle(session, &mut restored).await?,
        false => WakeReason::Messages,
    };
    let resumed = match (resume(shared, session, restored).await, reason) {
        (Ok(resumed), WakeReason::Messages) => resumed,
        // The actor runs, and is told of the leave; its connection state says how.
        (Ok(resumed), WakeReason::ClientLeft(end)) => {
            session.resumed(&resumed);
            session.resend_pending().await;
            return Err(end);
        }
        (Err(end), WakeReason::Messages) => return Err(end),
        (Err(end), WakeReason::ClientLeft(_)) => return Err(End { client: None, host: end.host }),
    };
    let link_up = resumed.link_up && session.resend_pending().await;
    Ok(Resumed { link_up, ..resumed })
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
                FromClient::Close { code, reason } => {
                    // The client does not wait for the actor to wake.
                    session.client.echo_close().await;
                    Ok(WakeReason::ClientLeft(End::by_client(code, &reason)))
                }
                FromClient::Gone => Ok(WakeReason::ClientLeft(End::client_vanished())),
            },
            told = session.tunnel.receive() => match hear(session, told).await? {
                Heard::Restored => *restored = true,
                Heard::Ended => *restored = false,
                Heard::LinkLost(_) | Heard::Nothing => {}
            },
            view = session.watched.next_view() => if view.is_none() {
                return Err(End::failed(&GatewayError::GoingAway, session.ray));
            },
        }
    }
}

/// Wakes the actor and waits until it has restored the socket.
async fn resume<D: Directory>(shared: &Shared<D>, session: &mut Session<'_>, mut restored: bool) -> Result<Resumed, End> {
    let ray = session.ray;
    let failed = |error: GatewayError| {
        let destroyed = matches!(error, GatewayError::DestroyedWhileWaiting);
        End::failed(if destroyed { &GatewayError::ActorNotFound } else { &error }, ray)
    };
    let deadline = Instant::now() + shared.config.hibernation_wake_timeout;
    'wake: loop {
        let route = session.watched.ready(&*shared.directory, deadline).await.map_err(failed)?;
        if route.generation <= session.generation {
            // The old generation has announced its sleep but still runs: it must end first. Waking it now makes the engine
            // start the next one right after.
            shared.directory.wake(session.watched.actor);
            session.watched.next_change(deadline).await.map_err(failed)?;
            continue;
        }
        let generation = route.generation;
        session.tunnel.rebind(route.link);
        // What ended before this generation became ready has been told already; it is heard first.
        while let Some(told) = session.tunnel.try_receive() {
            match hear(session, told).await? {
                Heard::Restored => restored = true,
                Heard::Ended => restored = false,
                Heard::LinkLost(lost) if lost == session.tunnel.link().session() => continue 'wake,
                Heard::LinkLost(_) | Heard::Nothing => {}
            }
        }
        let grace = Instant::now() + RESTORE_GRACE;
        while !restored {
            let Ok(told) = timeout_at(grace, session.tunnel.receive()).await else {
                // The actor does not know the socket any more; the client has to connect anew.
                tracing::warn!(actor_id = %session.watched.actor, "woken actor did not restore a hibernating WebSocket");
                return Err(End::failed(&GatewayError::WebSocketGarbageCollected, ray));
            };
            match hear(session, told).await? {
                Heard::Restored => restored = true,
                Heard::Ended => continue 'wake,
                // The host repeats its answer after it has reconnected.
                Heard::LinkLost(lost) if lost == session.tunnel.link().session() => continue 'wake,
                Heard::LinkLost(_) | Heard::Nothing => {}
            }
        }
        return Ok(Resumed { generation, link_up: true });
    }
}

/// Handles what the actor's side says while the socket hibernates.
async fn hear(session: &mut Session<'_>, told: FromActor) -> Result<Heard, End> {
    let kind = match told {
        FromActor::Frame { kind, .. } => kind,
        FromActor::LinkLost(lost) => return Ok(Heard::LinkLost(lost)),
        FromActor::Stopped => return Ok(Heard::Ended),
        FromActor::Overflow => return Err(End::failed(&GatewayError::WebSocketPendingLimitReached, session.ray)),
    };
    match kind {
        ToRivetTunnelMessageKind::WebSocketOpen { .. } => Ok(Heard::Restored),
        ToRivetTunnelMessageKind::WebSocketMessage { data, binary } => {
            session.client.feed(data, binary).await.map_err(|_| End::client_vanished())?;
            session.client.flush().await.map_err(|_| End::client_vanished())?;
            Ok(Heard::Nothing)
        }
        ToRivetTunnelMessageKind::WebSocketMessageAck { index } => {
            session.pending.acknowledge(index);
            Ok(Heard::Nothing)
        }
        ToRivetTunnelMessageKind::WebSocketClose { hibernate: true, .. } => Ok(Heard::Nothing),
        ToRivetTunnelMessageKind::WebSocketClose { code, reason, .. } => Err(End::by_actor(code, reason)),
        ToRivetTunnelMessageKind::ResponseStart(_)
        | ToRivetTunnelMessageKind::ResponseChunk(_)
        | ToRivetTunnelMessageKind::ResponseAbort(_)
        | ToRivetTunnelMessageKind::RequestBodyWindowUpdate { .. }
        | ToRivetTunnelMessageKind::RequestBodyCancel => Ok(Heard::Nothing),
    }
}
