//! Telling an actor that a client has left, when the actor's host is out of touch at that moment: hosts keep their sockets
//! across a reconnect, so one that is never told would keep a connection that does not exist (`spec/envoy-protocol.md` 14.7).

use std::time::Duration;

use protocol::envoy::ToEnvoyTunnelMessageKind;
use tokio::time::timeout;

use super::pending::Pending;
use crate::directory::Readiness;
use crate::ready::Watched;
use crate::tunnel::{FromActor, Tunnel};

/// What is left of a session whose client has gone.
pub(super) struct Farewell {
    pub(super) watched: Watched,
    pub(super) tunnel: Tunnel,
    pub(super) generation: u32,
    /// What the client had said before it left.
    pub(super) pending: Pending,
    pub(super) can_hibernate: bool,
}

impl Farewell {
    /// Waits for the host to come back and tells it. Ends without that when the generation ends, as it does at the latest
    /// when the host counts as lost; `limit` bounds the wait in any case.
    pub(super) async fn deliver(mut self, close: ToEnvoyTunnelMessageKind, limit: Duration, ray: &str) {
        if timeout(limit, self.wait_and_tell(close)).await.is_err() {
            let request_id = self.tunnel.request_id();
            tracing::warn!(actor_id = %self.watched.actor, %request_id, ray, "an actor could not be told that a client has left");
        }
    }

    async fn wait_and_tell(&mut self, close: ToEnvoyTunnelMessageKind) {
        loop {
            match self.watched.view().readiness {
                Readiness::Ready { generation, link: Some(link) } | Readiness::Hosted { generation, link: Some(link) }
                    if generation == self.generation && !link.is_closed() =>
                {
                    if self.tunnel.rebind(link, generation).is_ok() && self.tell(&close).await {
                        return;
                    }
                }
                Readiness::Ready { generation, .. } | Readiness::Hosted { generation, .. } if generation == self.generation => {}
                Readiness::Ready { .. } | Readiness::Hosted { .. } | Readiness::NotReady | Readiness::Destroyed => return,
            }
            tokio::select! {
                view = self.watched.next_view() => if view.is_none() { return },
                told = self.tunnel.receive() => if matches!(told, FromActor::Stopped) { return },
            }
        }
    }

    async fn tell(&mut self, close: &ToEnvoyTunnelMessageKind) -> bool {
        for message in self.pending.messages() {
            let kind = ToEnvoyTunnelMessageKind::WebSocketMessage { data: message.data.clone(), binary: message.binary };
            if self.tunnel.send_at(message.index, kind, message.data.len()).await.is_err() {
                return false;
            }
        }
        if !self.can_hibernate {
            while !self.pending.is_empty() {
                self.pending.pop();
            }
        }
        self.tunnel.send_now(close.clone()).is_ok()
    }
}
