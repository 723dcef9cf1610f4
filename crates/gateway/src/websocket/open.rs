//! Asking an actor to take a WebSocket (`spec/gateway.md` 15 and 16.1).

use protocol::envoy::{Headers, ToEnvoyTunnelMessageKind, ToRivetTunnelMessageKind, WebSocketOpen};
use protocol::limits;
use tokio::time::{Instant, timeout_at};

use super::close::{End, INTERNAL};
use crate::directory::Directory;
use crate::error::GatewayError;
use crate::handler::Shared;
use crate::ready::{Route, Watched};
use crate::tunnel::{Accepts, FromActor, Tunnel};

/// A socket that the actor has taken.
pub(super) struct Opened {
    pub(super) tunnel: Tunnel,
    pub(super) generation: u32,
    pub(super) can_hibernate: bool,
}

enum Attempt {
    Opened(Opened),
    /// The actor stopped or moved; a close for this attempt is on its way to where the open went.
    TryAgain,
    /// The actor does not want it.
    Refused(End),
}

/// Opens the socket at the actor. It is tried again only when the actor stopped or moved in between; a refusal of the actor
/// is final and reaches the client at once.
pub(super) async fn open<D: Directory>(
    shared: &Shared<D>,
    watched: &mut Watched,
    path: &str,
    headers: &Headers,
    ray: &str,
) -> Result<Opened, End> {
    let failed = |error: GatewayError| End::failed(&error, ray);
    let deadline = shared.ready_deadline();
    for _attempt in 0..=limits::WEBSOCKET_OPEN_RETRIES_MAX {
        let route = watched.ready(&*shared.directory, deadline).await.map_err(failed)?;
        match attempt(shared, watched, route, path, headers).await.map_err(failed)? {
            Attempt::Opened(opened) => return Ok(opened),
            Attempt::Refused(end) => return Err(end),
            Attempt::TryAgain => watched.changed_soon().await,
        }
    }
    Err(failed(GatewayError::StoppedWhileWaitingForWebSocketOpen))
}

async fn attempt<D: Directory>(
    shared: &Shared<D>,
    watched: &mut Watched,
    route: Route,
    path: &str,
    headers: &Headers,
) -> Result<Attempt, GatewayError> {
    let generation = route.generation;
    let accepts = Accepts::Host(route.link.host());
    let mut tunnel = shared.tunnels.open(watched.actor, route.link, accepts, limits::WEBSOCKET_CLIENT_OUTBOX_MAX_BYTES);
    let open = WebSocketOpen {
        actor_id: watched.actor.to_string(),
        // Left open on purpose: messages that arrive between two generations are then kept by the host, not dropped
        // (`spec/envoy-protocol.md` 12).
        actor_generation: None,
        path: path.to_owned(),
        headers: headers.clone(),
    };
    let head_bytes: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    if tunnel.send(ToEnvoyTunnelMessageKind::WebSocketOpen(open), head_bytes + path.len()).await.is_err() {
        return Ok(Attempt::TryAgain);
    }
    let deadline = Instant::now() + shared.config.websocket_open_timeout;
    loop {
        let Ok(told) = timeout_at(deadline, tunnel.receive()).await else {
            abandon(&mut tunnel, "guard.websocket_open_timeout");
            return Err(GatewayError::WebSocketOpenTimeout);
        };
        let kind = match told {
            FromActor::Frame { kind, .. } => kind,
            FromActor::LinkLost(session) if session != tunnel.link().session() => continue,
            // The host may be opening the socket all the same; it repeats its answer after it has reconnected.
            FromActor::LinkLost(_) => {
                let route = watched.ready(&*shared.directory, deadline).await?;
                if route.generation != generation || route.link.host() != tunnel.link().host() {
                    return Ok(Attempt::TryAgain);
                }
                tunnel.rebind(route.link);
                continue;
            }
            FromActor::Stopped => {
                // A host keeps an open that arrives between two generations for the next one.
                abandon(&mut tunnel, "ws.downstream_closed");
                return Ok(Attempt::TryAgain);
            }
            FromActor::Overflow => {
                abandon(&mut tunnel, "guard.websocket_pending_limit_reached");
                return Err(GatewayError::WebSocketPendingLimitReached);
            }
        };
        match kind {
            ToRivetTunnelMessageKind::WebSocketOpen { can_hibernate } => {
                if can_hibernate {
                    tunnel.set_hibernatable();
                }
                return Ok(Attempt::Opened(Opened { tunnel, generation, can_hibernate }));
            }
            ToRivetTunnelMessageKind::WebSocketClose { code, reason, .. } => {
                let moved = reason.as_deref().is_some_and(|reason| {
                    reason.starts_with("envoy.actor_not_found") || reason.starts_with("envoy.actor_generation_mismatch")
                });
                return Ok(if moved { Attempt::TryAgain } else { Attempt::Refused(End::by_actor(code, reason)) });
            }
            ToRivetTunnelMessageKind::ResponseStart(_)
            | ToRivetTunnelMessageKind::ResponseChunk(_)
            | ToRivetTunnelMessageKind::ResponseAbort(_)
            | ToRivetTunnelMessageKind::RequestBodyWindowUpdate { .. }
            | ToRivetTunnelMessageKind::RequestBodyCancel => {
                abandon(&mut tunnel, "core.internal_error");
                return Err(GatewayError::Internal);
            }
            // Sent before the socket is open; the SDK does not do that.
            ToRivetTunnelMessageKind::WebSocketMessage { .. } | ToRivetTunnelMessageKind::WebSocketMessageAck { .. } => {}
        }
    }
}

/// Tells the host that nobody waits for this open any more.
fn abandon(tunnel: &mut Tunnel, reason: &str) {
    let close = ToEnvoyTunnelMessageKind::WebSocketClose { code: Some(INTERNAL), reason: Some(reason.to_owned()) };
    // A connection that has just ended cannot be told; its host closes what it opened when the actor stops.
    let _ = tunnel.send_now(close);
}
