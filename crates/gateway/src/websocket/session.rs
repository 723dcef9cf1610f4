//! Carries the messages of one WebSocket for as long as its actor runs.

use std::sync::Arc;

use bytes::Bytes;
use hyper::upgrade::OnUpgrade;
use protocol::envoy::{Headers, ToEnvoyTunnelMessageKind, ToRivetTunnelMessageKind};
use tokio::time::{Instant, sleep_until};

use super::client::{Client, FromClient};
use super::close::End;
use super::farewell::Farewell;
use super::hibernation::{self, Onset};
use super::open::{Opened, Opening};
use super::pending::{Pending, PendingMessage};
use super::upgraded_stream;
use crate::admission::Slot;
use crate::claim::ToActor;
use crate::directory::{Directory, Readiness};
use crate::error::GatewayError;
use crate::handler::Shared;
use crate::link::LinkClosed;
use crate::metrics::OpenSocket;
use crate::ready::Watched;
use crate::resolve::Caller;
use crate::tunnel::{FromActor, Sent, Tunnel};

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
    /// Mark in that connection's queue, right after the last message of this client.
    sent: u64,
    /// Whether the actor sleeps, so that nobody there knows this socket.
    asleep: bool,
    pub(super) ray: &'a str,
}

/// Why messages no longer flow.
enum Pause {
    /// The socket is over.
    Ended(End),
    /// The actor sleeps, or is about to, and the socket waits for it.
    Asleep(Onset),
}

/// What a client wants.
pub(super) struct Wanted {
    pub(super) target: Result<ToActor, GatewayError>,
    pub(super) caller: Caller,
    pub(super) headers: Headers,
}

/// Runs a socket to its end. The session and what is needed only at its beginning or its end have boxes of their own: most
/// sockets are idle, and the task of an idle one should be small.
pub(super) async fn run<D: Directory>(shared: &Shared<D>, upgrade: OnUpgrade, wanted: Wanted, open: OpenSocket, ray: &Arc<str>) {
    let Some(mut session) = Box::pin(begin(shared, upgrade, wanted, open, ray)).await else { return };
    let end = tokio::select! {
        end = session.live(shared) => end,
        () = shared.sockets.closing() => End::failed(&GatewayError::GoingAway, ray),
    };
    Box::pin(session.finish(shared, end)).await;
}

/// Takes the upgraded connection over and finds an actor for it. `None`: it is closed already.
async fn begin<'a, D: Directory>(
    shared: &Shared<D>,
    upgrade: OnUpgrade,
    wanted: Wanted,
    open: OpenSocket,
    ray: &'a Arc<str>,
) -> Option<Box<Session<'a>>> {
    let upgraded = match upgrade.await {
        Ok(upgraded) => upgraded,
        Err(error) => {
            tracing::debug!(%error, "client went away during the upgrade");
            return None;
        }
    };
    let mut client =
        Client::new(upgraded_stream(upgraded)?, &shared.config, shared.tunnels.for_actors().share(), ray.clone(), open);
    let mut slot = Slot::default();
    let opened = find_actor(shared, &mut client, wanted, &mut slot, ray).await;
    let mut client = client.holding(slot);
    let Opened { watched, tunnel, generation, can_hibernate } = match opened {
        Ok(opened) => opened,
        Err(end) => {
            client.open.ends(end.reason, end.result);
            client.close(end.client).await;
            return None;
        }
    };
    client.open.opened();
    let pending = Pending::new(shared.config.hibernation_pending_max_bytes, shared.tunnels.for_actors().share());
    let session =
        Session { client, watched, tunnel, generation, can_hibernate, pending, link_up: true, sent: 0, asleep: false, ray };
    Some(Box::new(session))
}

/// Asks for an actor that takes the socket, for as long as the client is there and the engine goes on.
async fn find_actor<D: Directory>(
    shared: &Shared<D>,
    client: &mut Client,
    wanted: Wanted,
    slot: &mut Slot,
    ray: &str,
) -> Result<Opened, End> {
    let Wanted { target, caller, headers } = wanted;
    let to_actor = target.map_err(|error| End::failed(&error, ray))?;
    let mut opening = Opening::new(headers, ray);
    let end = tokio::select! {
        opened = opening.open(shared, to_actor, caller, slot) => {
            client.is_taken();
            return opened;
        }
        end = client.left() => end,
        () = shared.sockets.closing() => End::failed(&GatewayError::GoingAway, ray),
    };
    if let Some(close) = end.host.clone() {
        opening.give_up(close);
    }
    Err(end)
}

impl Session<'_> {
    /// The generation that had the socket is over. It is with this one now, if with any.
    pub(super) fn moved_to(&mut self, generation: Option<u32>) {
        self.link_up = generation.is_some();
        self.generation = generation.unwrap_or(self.generation);
    }

    /// Goes on with a generation that has taken the socket back.
    pub(super) async fn resume(&mut self) {
        self.link_up = self.resend_pending().await;
    }

    /// Carries messages, and waits while the actor sleeps, to the end.
    async fn live<D: Directory>(&mut self, shared: &Shared<D>) -> End {
        loop {
            // In a box of its own, like the other one: while the actor sleeps it takes no room.
            let onset = match Box::pin(self.carry(shared)).await {
                Pause::Ended(end) => return end,
                Pause::Asleep(onset) => onset,
            };
            self.asleep = true;
            self.client.doze();
            self.client.open.sleeps();
            if let Err(end) = Box::pin(hibernation::wait(shared, self, onset)).await {
                return end;
            }
            self.asleep = false;
            self.client.open.wakes();
        }
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
                    Err(match self.tunnel.is_stopping() {
                        // Nothing is expected of this generation any more, and the next one gets its own time.
                        true => Pause::Asleep(Onset::Stopping),
                        false => Pause::Ended(End::failed(&GatewayError::WebSocketGarbageCollected, self.ray)),
                    })
                }
            };
            if let Err(pause) = step {
                return pause;
            }
        }
    }

    async fn client_did(&mut self, from_client: FromClient) -> Result<(), Pause> {
        if self.can_hibernate && self.tunnel.is_stopping() {
            return Err(Pause::Asleep(Onset::StoppingWith(from_client)));
        }
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
        if !self.link_up {
            return Ok(());
        }
        match self.send(index, data.clone(), binary).await {
            Ok(Sent::Queued) => self.sent = self.tunnel.link().queued(),
            Ok(Sent::HeldBack) => return Err(Pause::Asleep(Onset::Stopping)),
            Err(LinkClosed) => {
                self.out_of_touch()?;
                if !self.can_hibernate {
                    self.keep(index, data, binary).map_err(Pause::Ended)?;
                }
            }
        }
        Ok(())
    }

    /// Only what is kept for the next generation can be held back from this one.
    async fn send(&self, index: u16, data: Bytes, binary: bool) -> Result<Sent, LinkClosed> {
        let bytes = data.len();
        let message = ToEnvoyTunnelMessageKind::WebSocketMessage { data, binary };
        if self.can_hibernate {
            return self.tunnel.send_unless_stopping(index, message, bytes).await;
        }
        self.tunnel.send_at(index, message, bytes).await.map(|()| Sent::Queued)
    }

    /// Keeps a client message until it is acknowledged or can be sent.
    pub(super) fn keep(&mut self, index: u16, data: Bytes, binary: bool) -> Result<(), End> {
        self.client.has_handed_over(data.len());
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
                self.out_of_touch()?;
                // The host may have been back before this was read.
                let readiness = self.watched.view().readiness;
                return self.host_may_be_back(readiness).await;
            }
            FromActor::Stopped if self.can_hibernate => return Err(Pause::Asleep(Onset::Ended)),
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
            ToRivetTunnelMessageKind::WebSocketClose { hibernate: true, .. } if self.can_hibernate => {
                Err(Pause::Asleep(Onset::Stopping))
            }
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

    /// The host's connection has ended. What a hibernatable socket has sent is acknowledged or sent again. What any other one
    /// has sent last may have been lost with the connection or not, and hosts cannot tell it from a repetition; so a socket
    /// about which there is doubt ends with an error, rather than go on with a hole (`spec/gateway.md` 19.2).
    fn out_of_touch(&mut self) -> Result<(), Pause> {
        self.link_up = false;
        let in_doubt = !self.can_hibernate && !self.tunnel.link().has_arrived(self.sent);
        self.sent = 0;
        match in_doubt {
            true => Err(Pause::Ended(End::failed(&GatewayError::TunnelMessageTimeout, self.ray))),
            false => Ok(()),
        }
    }

    /// Goes on over the host's new connection, when there is one.
    async fn host_may_be_back(&mut self, readiness: Readiness) -> Result<(), Pause> {
        match readiness {
            Readiness::Ready { generation, link: Some(link) } | Readiness::Hosted { generation, link: Some(link) }
                if generation == self.generation && !link.is_closed() =>
            {
                if self.tunnel.rebind(link, generation).is_ok() && self.resend_pending().await {
                    self.link_up = true;
                    return Ok(());
                }
                self.out_of_touch()
            }
            // Still away; or the generation has ended, which the inbox says.
            Readiness::Ready { .. } | Readiness::Hosted { .. } | Readiness::NotReady | Readiness::Destroyed => Ok(()),
        }
    }

    /// Sends everything that is kept, under the indices it had. The host of a hibernatable socket drops what it knows
    /// already, and acknowledges; any other socket's messages are forgotten as soon as they are on their way. False: the
    /// connection has ended meanwhile.
    async fn resend_pending(&mut self) -> bool {
        self.pending.restart_clock(Instant::now());
        if self.can_hibernate {
            for message in self.pending.messages() {
                match self.send_kept(message).await {
                    Ok(Sent::Queued) => {}
                    // It is with the next generation that this goes on.
                    Ok(Sent::HeldBack) => break,
                    Err(LinkClosed) => return false,
                }
            }
            return true;
        }
        while let Some(message) = self.pending.oldest().cloned() {
            if self.send_kept(&message).await.is_err() {
                return false;
            }
            self.sent = self.tunnel.link().queued();
            self.pending.pop();
        }
        true
    }

    async fn send_kept(&self, message: &PendingMessage) -> Result<Sent, LinkClosed> {
        self.send(message.index, message.data.clone(), message.binary).await
    }

    async fn finish<D: Directory>(mut self: Box<Self>, shared: &Shared<D>, end: End) {
        self.client.open.ends(end.reason, end.result);
        // A sleeping actor is not woken to hear that the engine stops; it finds out at its next start.
        let close = end.host.filter(|_| !(self.asleep && shared.sockets.are_closing()));
        let message = close.map(|close| close.message());
        let untold = message.filter(|message| !(self.link_up && self.tunnel.send_now(message.clone()).is_ok()));
        let Self { client, watched, tunnel, generation, pending, can_hibernate, ray, .. } = *self;
        // Where there is nobody to be told, the tunnel ends here: the socket must not be listed any more if the actor starts
        // while its client is being told.
        let farewell = untold.map(move |message| (Farewell { watched, tunnel, generation, pending, can_hibernate }, message));
        client.close(end.client).await;
        if let Some((farewell, message)) = farewell {
            tokio::select! {
                () = farewell.deliver(message, shared.config.hibernation_wake_timeout, ray) => {}
                () = shared.sockets.closing() => {}
            }
        }
    }
}
