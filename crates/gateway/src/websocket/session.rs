//! Carries the messages of one WebSocket for as long as its actor runs.

use bytes::Bytes;
use protocol::envoy::{Headers, ToEnvoyTunnelMessageKind, ToRivetTunnelMessageKind};
use tokio::time::{Instant, sleep_until};

use super::client::{Client, FromClient};
use super::close::End;
use super::farewell::Farewell;
use super::hibernation::{self, Resumed};
use super::open::{Opened, open};
use super::pending::{Pending, PendingMessage};
use crate::directory::{Directory, Readiness};
use crate::error::GatewayError;
use crate::handler::{Shared, ToActor};
use crate::link::LinkClosed;
use crate::ready::Watched;
use crate::tunnel::{FromActor, Tunnel};

/// Frames of the actor that are handled before the client is looked at again.
const BATCH: usize = 64;

/// A socket between a client and an actor.
pub(super) struct Session<'a> {
    pub(super) client: Client,
    pub(super) watched: Watched,
    pub(super) tunnel: Tunnel,
    pub(super) generation: u32,
    pub(super) can_hibernate: bool,
    /// For a hibernatable socket, what the actor has not acknowledged; for any, what waits for the host to reconnect.
    pub(super) pending: Pending,
    /// Whether the host's connection is up.
    link_up: bool,
    pub(super) ray: &'a str,
}

/// Why messages no longer flow.
enum Pause {
    /// The socket is over.
    Ended(End),
    /// The actor sleeps, or is about to, and the socket waits for it.
    Asleep,
}

/// Runs a socket to its end.
pub(super) async fn run<D: Directory>(
    shared: &Shared<D>,
    client: Client,
    target: Result<ToActor, GatewayError>,
    headers: Headers,
    ray: &str,
) {
    let opened = match target {
        Ok(to_actor) => find_and_open(shared, to_actor, &headers, ray).await,
        Err(error) => Err(End::failed(&error, ray)),
    };
    let (watched, opened) = match opened {
        Ok(opened) => opened,
        Err(end) => return client.close(end.client).await,
    };
    let Opened { tunnel, generation, can_hibernate } = opened;
    let pending = Pending::new(shared.config.hibernation_pending_max_bytes);
    let mut session = Session { client, watched, tunnel, generation, can_hibernate, pending, link_up: true, ray };
    let end = loop {
        match session.carry(shared).await {
            Pause::Ended(end) => break end,
            Pause::Asleep => match hibernation::wait(shared, &mut session).await {
                Ok(resumed) => session.resumed(&resumed),
                Err(end) => break end,
            },
        }
    };
    session.finish(shared, end).await;
}

async fn find_and_open<D: Directory>(
    shared: &Shared<D>,
    to_actor: ToActor,
    headers: &Headers,
    ray: &str,
) -> Result<(Watched, Opened), End> {
    let mut watched = shared.find(to_actor.actor).await.map_err(|error| End::failed(&error, ray))?;
    let opened = open(shared, &mut watched, &to_actor.path, headers, ray).await?;
    Ok((watched, opened))
}

impl Session<'_> {
    /// Goes on with the generation that has taken the socket back.
    pub(super) fn resumed(&mut self, resumed: &Resumed) {
        self.generation = resumed.generation;
        self.link_up = resumed.link_up;
    }

    async fn carry<D: Directory>(&mut self, shared: &Shared<D>) -> Pause {
        loop {
            let unacknowledged = self.pending.oldest_since().filter(|_| self.can_hibernate && self.link_up);
            let ack_deadline = unacknowledged.map(|since| since + shared.config.websocket_ack_timeout);
            let step = tokio::select! {
                from_client = self.client.next() => self.client_did(from_client).await,
                told = self.tunnel.receive() => self.actor_said(shared, told).await,
                view = self.watched.next_view(), if !self.link_up => match view {
                    Some(view) => self.host_may_be_back(view.readiness).await,
                    None => Err(Pause::Ended(End::failed(&GatewayError::GoingAway, self.ray))),
                },
                () = sleep_until(ack_deadline.unwrap_or_else(Instant::now)), if ack_deadline.is_some() => {
                    Err(Pause::Ended(End::failed(&GatewayError::WebSocketGarbageCollected, self.ray)))
                }
            };
            if let Err(pause) = step {
                return pause;
            }
        }
    }

    async fn client_did(&mut self, from_client: FromClient) -> Result<(), Pause> {
        match from_client {
            FromClient::Message { data, binary } => self.forward(data, binary).await,
            FromClient::Close { code, reason } => Err(Pause::Ended(End::by_client(code, &reason))),
            FromClient::Gone => Err(Pause::Ended(End::client_vanished())),
        }
    }

    /// Sends a client message to the actor, and keeps it where it may be needed again.
    async fn forward(&mut self, data: Bytes, binary: bool) -> Result<(), Pause> {
        let index = self.tunnel.take_index();
        if self.can_hibernate || !self.link_up {
            self.keep(index, data.clone(), binary).map_err(Pause::Ended)?;
        }
        if self.link_up {
            let bytes = data.len();
            let message = ToEnvoyTunnelMessageKind::WebSocketMessage { data: data.clone(), binary };
            if self.tunnel.send_at(index, message, bytes).await.is_err() {
                self.link_up = false;
                if !self.can_hibernate {
                    self.keep(index, data, binary).map_err(Pause::Ended)?;
                }
            }
        }
        Ok(())
    }

    /// Keeps a client message until it is acknowledged or can be sent.
    pub(super) fn keep(&mut self, index: u16, data: Bytes, binary: bool) -> Result<(), End> {
        self.pending
            .push(index, data, binary, Instant::now())
            .map_err(|_full| End::failed(&GatewayError::WebSocketPendingLimitReached, self.ray))
    }

    async fn actor_said<D: Directory>(&mut self, shared: &Shared<D>, told: FromActor) -> Result<(), Pause> {
        let mut said = self.actor_said_one(shared, told).await;
        // What else has arrived is written to the client together, but not so much that the client is kept waiting.
        for _ in 1..BATCH {
            if said.is_err() {
                break;
            }
            let Some(more) = self.tunnel.try_receive() else { break };
            said = self.actor_said_one(shared, more).await;
        }
        self.client.flush().await.map_err(|_| Pause::Ended(End::client_vanished()))?;
        said
    }

    async fn actor_said_one<D: Directory>(&mut self, shared: &Shared<D>, told: FromActor) -> Result<(), Pause> {
        let kind = match told {
            FromActor::Frame { kind, .. } => kind,
            FromActor::LinkLost(session) if session != self.tunnel.link().session() => return Ok(()),
            FromActor::LinkLost(_) => {
                self.link_up = false;
                // The host may have been back before this was read.
                let readiness = self.watched.view().readiness;
                return self.host_may_be_back(readiness).await;
            }
            FromActor::Stopped if self.can_hibernate => return Err(Pause::Asleep),
            FromActor::Stopped => return Err(Pause::Ended(End::actor_stopped())),
            FromActor::Overflow => {
                return Err(Pause::Ended(End::failed(&GatewayError::WebSocketPendingLimitReached, self.ray)));
            }
        };
        match kind {
            ToRivetTunnelMessageKind::WebSocketMessage { data, binary } => {
                if data.len() as u64 > shared.config.websocket_message_max_bytes {
                    return Err(Pause::Ended(End::message_too_big()));
                }
                self.client.feed(data, binary).await.map_err(|_| Pause::Ended(End::client_vanished()))
            }
            ToRivetTunnelMessageKind::WebSocketMessageAck { index } => {
                self.pending.acknowledge(index);
                Ok(())
            }
            ToRivetTunnelMessageKind::WebSocketClose { hibernate: true, .. } if self.can_hibernate => Err(Pause::Asleep),
            ToRivetTunnelMessageKind::WebSocketClose { code, reason, .. } => {
                // What the actor sent before its close goes out first.
                let _ = self.client.flush().await;
                Err(Pause::Ended(End::by_actor(code, reason)))
            }
            // A repeated open follows each restore and means nothing while messages flow; the rest belongs to HTTP.
            ToRivetTunnelMessageKind::WebSocketOpen { .. }
            | ToRivetTunnelMessageKind::ResponseStart(_)
            | ToRivetTunnelMessageKind::ResponseChunk(_)
            | ToRivetTunnelMessageKind::ResponseAbort(_)
            | ToRivetTunnelMessageKind::RequestBodyWindowUpdate { .. }
            | ToRivetTunnelMessageKind::RequestBodyCancel => Ok(()),
        }
    }

    /// Goes on over the host's new connection, when there is one.
    async fn host_may_be_back(&mut self, readiness: Readiness) -> Result<(), Pause> {
        match readiness {
            Readiness::Ready { generation, link: Some(link) } if generation == self.generation && !link.is_closed() => {
                self.tunnel.rebind(link);
                self.link_up = self.resend_pending().await;
                Ok(())
            }
            // Still away; or the generation has ended, which the inbox says.
            Readiness::Ready { .. } | Readiness::NotReady | Readiness::Destroyed => Ok(()),
        }
    }

    /// Sends everything that is kept, under the indices it had. The host of a hibernatable socket drops what it knows
    /// already, and acknowledges; any other socket's messages are forgotten as soon as they are on their way. False: the
    /// connection has ended meanwhile.
    pub(super) async fn resend_pending(&mut self) -> bool {
        self.pending.restart_clock(Instant::now());
        if self.can_hibernate {
            for message in self.pending.messages() {
                if self.send_kept(message).await.is_err() {
                    return false;
                }
            }
            return true;
        }
        while let Some(message) = self.pending.oldest().cloned() {
            if self.send_kept(&message).await.is_err() {
                return false;
            }
            self.pending.pop();
        }
        true
    }

    async fn send_kept(&self, message: &PendingMessage) -> Result<(), LinkClosed> {
        let bytes = message.data.len();
        let kind = ToEnvoyTunnelMessageKind::WebSocketMessage { data: message.data.clone(), binary: message.binary };
        self.tunnel.send_at(message.index, kind, bytes).await
    }

    async fn finish<D: Directory>(mut self, shared: &Shared<D>, end: End) {
        let Some(close) = end.host else { return self.client.close(end.client).await };
        let kind = ToEnvoyTunnelMessageKind::WebSocketClose { code: close.code, reason: close.reason };
        let told = self.link_up && self.tunnel.send_now(kind.clone()).is_ok();
        let Self { client, watched, tunnel, generation, pending, can_hibernate, ray, .. } = self;
        client.close(end.client).await;
        if !told {
            let farewell = Farewell { watched, tunnel, generation, pending, can_hibernate };
            farewell.deliver(kind, shared.config.hibernation_wake_timeout, ray).await;
        }
    }
}
