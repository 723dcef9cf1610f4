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
    /// Waits for the host to come back and tells it, or that of a newer generation which runs already and has taken the
    /// socket over. Ends without that when there is none of them, as there is at the latest when the host counts as lost: then
    /// the actor hears of it at its next start. `limit` bounds the wait in any case.
    pub(super) async fn deliver(mut self, close: ToEnvoyTunnelMessageKind, limit: Duration, ray: &str) {
        if timeout(limit, self.wait_and_tell(close)).await.is_err() {
            let request_id = self.tunnel.request_id();
            tracing::warn!(actor_id = %self.watched.actor, %request_id, ray, "an actor could not be told that a client has left");
        }
    }

    async fn wait_and_tell(&mut self, close: ToEnvoyTunnelMessageKind) {
        loop {
            let (generation, link) = match self.watched.view().readiness {
                Readiness::Ready { generation, link } if self.may_know(generation) => (generation, link),
                // What starts now is told as soon as it runs.
                Readiness::Hosted { generation, link } if generation == self.generation => (generation, link),
                Readiness::Ready { .. } | Readiness::Hosted { .. } | Readiness::NotReady | Readiness::Destroyed => return,
            };
            self.generation = generation;
            if let Some(link) = link.filter(|link| !link.is_closed())
                && self.tunnel.rebind(link, generation).is_ok()
                && self.tell(&close).await
            {
                return;
            }
            tokio::select! {
                view = self.watched.next_view() => if view.is_none() { return },
                told = self.tunnel.receive() => if matches!(told, FromActor::Stopped) { return },
            }
        }
    }

    fn may_know(&self, generation: u32) -> bool {
        generation == self.generation || (self.can_hibernate && generation > self.generation)
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
