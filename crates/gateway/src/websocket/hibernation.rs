//! Keeps a client's socket open while its actor sleeps (`spec/gateway.md` 17.4).
//!
//! The client is heard all the time: what it sends is kept under the next indices, and its leave is answered at once. The
//! first thing it does wakes the actor. When the next generation has restored the socket, everything that is kept is sent.

use std::pin::pin;

use protocol::envoy::ToRivetTunnelMessageKind;
use protocol::limits;
use tokio::time::{Instant, timeout_at};

use super::client::{Client, FromClient};
use super::close::End;
use super::pending::Pending;
use super::session::Session;
use crate::directory::{Directory, Readiness};
use crate::error::GatewayError;
use crate::handler::Shared;
use crate::link::SessionId;
use crate::ready::{Route, WaitFor, WaitTime, Watched};
use crate::tunnel::{FromActor, Tunnel};

/// Waits until the actor runs again and has what its client has said meanwhile, waking it when the client does something.
pub(super) async fn wait<D: Directory>(shared: &Shared<D>, session: &mut Session<'_>, onset: Onset) -> Result<(), End> {
    let Session { client, watched, tunnel, pending, generation, ray, .. } = session;
    let mut sleeper = Sleeper { client, tunnel, pending, ray, reached: None, restored: false, left: None };
    sleeper.fall_asleep(onset).await?;
    // What is needed only for the wake is boxed: it takes no room while the actor sleeps.
    let woken = match sleeper.sleep(watched, *generation).await {
        Ok(()) => Box::pin(sleeper.wake(shared, watched, *generation)).await,
        Err(end) => Err(end),
    };
    let Sleeper { reached, left, .. } = sleeper;
    // Whoever ends the socket from here on tells the new generation, or nobody: the old one has forgotten it.
    session.moved_to(reached);
    match (woken, left) {
        (Ok(()), left) => {
            Box::pin(session.resume()).await;
            // If the client has left, the actor is told of that behind what the client had said.
            left.map_or(Ok(()), Err)
        }
        (Err(end), None) => Err(end),
        (Err(end), Some(left)) => Err(End { host: end.host, ..left }),
    }
}

/// How the sleep begins.
pub(super) enum Onset {
    /// The generation is over.
    Ended,
    /// The generation has announced its sleep or has been told to stop.
    Stopping,
    /// The same, and the client has done something that is still to be handled.
    StoppingWith(FromClient),
}

/// A socket without its actor.
struct Sleeper<'s> {
    client: &'s mut Client,
    tunnel: &'s mut Tunnel,
    pending: &'s mut Pending,
    ray: &'s str,
    /// The generation that the tunnel leads to now, if it is a new one.
    reached: Option<u32>,
    /// The generation that was placed last has taken the socket back.
    restored: bool,
    /// The client has left, and the actor is woken to be told.
    left: Option<End>,
}

enum Event {
    Client(FromClient),
    Actor(FromActor),
}

/// What an event means for the wait.
enum Heard {
    /// A generation has ended.
    Ended,
    /// This connection has ended.
    LinkLost(SessionId),
    /// Nothing, beyond what the sleeper remembers.
    Noted,
}

/// How waiting for a generation to restore the socket ends.
enum Restore {
    Done,
    /// The generation or the connection has ended first.
    Interrupted,
}

impl Sleeper<'_> {
    /// Handles what led here, and waits for the end of a generation that has been told to stop: the time that a wake may take
    /// begins only then. The engine does not let a stop take longer than its threshold.
    async fn fall_asleep(&mut self, onset: Onset) -> Result<(), End> {
        match onset {
            Onset::Ended => return Ok(()),
            Onset::Stopping => {}
            Onset::StoppingWith(unheard) => self.client_did(unheard).await?,
        }
        while self.tunnel.is_stopping() {
            let event = self.next().await;
            if matches!(self.handle(event).await?, Heard::Ended) {
                break;
            }
        }
        Ok(())
    }

    /// Sleeps with the actor, until there is a reason to wake it or it has woken by itself.
    async fn sleep(&mut self, watched: &mut Watched, outlived: u32) -> Result<(), End> {
        while self.pending.is_empty() && self.left.is_none() {
            match watched.view().readiness {
                Readiness::Ready { generation, link: Some(_) } if generation > outlived => return Ok(()),
                Readiness::Destroyed => return Err(self.failed(&GatewayError::ActorNotFound)),
                Readiness::Ready { .. } | Readiness::Hosted { .. } | Readiness::NotReady => {}
            }
            tokio::select! {
                event = self.next() => { self.handle(event).await?; }
                view = watched.next_view() => if view.is_none() {
                    return Err(self.failed(&GatewayError::GoingAway));
                },
            }
        }
        Ok(())
    }

    /// Wakes the actor and waits until it has restored the socket.
    async fn wake<D: Directory>(&mut self, shared: &Shared<D>, watched: &mut Watched, outlived: u32) -> Result<(), End> {
        let time = WaitTime::of(shared.config.hibernation_wake_timeout);
        loop {
            let route = self.ready(shared, watched, outlived, time).await?;
            let generation = route.generation;
            if self.tunnel.rebind(route.link, generation).is_err() {
                continue;
            }
            self.reached = Some(generation);
            match self.restore().await? {
                Restore::Done => return Ok(()),
                Restore::Interrupted => {}
            }
        }
    }

    async fn ready<D: Directory>(
        &mut self,
        shared: &Shared<D>,
        watched: &mut Watched,
        outlived: u32,
        time: WaitTime,
    ) -> Result<Route, End> {
        let mut ready = pin!(watched.ready(shared, WaitFor::ReadyAfter(outlived), time));
        loop {
            tokio::select! {
                route = &mut ready => return route.map_err(|error| {
                    let is_gone = matches!(error, GatewayError::DestroyedWhileWaiting);
                    self.failed(if is_gone { &GatewayError::ActorNotFound } else { &error })
                }),
                event = self.next() => { self.handle(event).await?; }
            }
        }
    }

    /// Waits until the generation over the tunnel's present connection has taken the socket back.
    async fn restore(&mut self) -> Result<Restore, End> {
        let session = self.tunnel.link().session();
        let grace = Instant::now() + limits::HIBERNATION_RESTORE_GRACE;
        loop {
            // What ended before this generation became ready has been told already; it is heard first.
            let event = match self.tunnel.try_receive() {
                Some(told) => Event::Actor(told),
                None if self.restored => return Ok(Restore::Done),
                None => match timeout_at(grace, self.next()).await {
                    Ok(event) => event,
                    Err(_) => {
                        // The actor does not know the socket any more; the client has to connect anew.
                        let request_id = self.tunnel.request_id();
                        tracing::warn!(%request_id, ray = self.ray, "a woken actor did not restore a hibernating WebSocket");
                        return Err(self.failed(&GatewayError::WebSocketGarbageCollected));
                    }
                },
            };
            match self.handle(event).await? {
                Heard::Ended => return Ok(Restore::Interrupted),
                // The host repeats its answer after it has reconnected.
                Heard::LinkLost(lost) if lost == session => return Ok(Restore::Interrupted),
                Heard::LinkLost(_) | Heard::Noted => {}
            }
        }
    }

    /// What happens next. Cancel-safe.
    async fn next(&mut self) -> Event {
        tokio::select! {
            from_client = self.client.next(), if self.left.is_none() => Event::Client(from_client),
            told = self.tunnel.receive() => Event::Actor(told),
        }
    }

    async fn handle(&mut self, event: Event) -> Result<Heard, End> {
        match event {
            Event::Client(from_client) => self.client_did(from_client).await.map(|()| Heard::Noted),
            Event::Actor(FromActor::LinkLost(lost)) => Ok(Heard::LinkLost(lost)),
            Event::Actor(FromActor::Stopped) => {
                self.restored = false;
                Ok(Heard::Ended)
            }
            Event::Actor(FromActor::Overflow) => Err(self.failed(&GatewayError::WebSocketPendingLimitReached)),
            Event::Actor(FromActor::Frame { kind, .. }) => self.actor_said(kind).await.map(|()| Heard::Noted),
        }
    }

    async fn client_did(&mut self, from_client: FromClient) -> Result<(), End> {
        match from_client {
            FromClient::Message { data, binary } => {
                let index = self.tunnel.take_index();
                self.client.has_handed_over(data.len());
                let kept = self.pending.push(index, data, binary, Instant::now());
                kept.map_err(|_full| self.failed(&GatewayError::WebSocketPendingLimitReached))?;
            }
            FromClient::Close { code, reason } => {
                // The client does not wait for the actor to wake.
                self.client.echo_close().await;
                self.left = Some(End::by_client(code, &reason));
            }
            FromClient::Gone => self.left = Some(End::client_vanished()),
        }
        Ok(())
    }

    async fn actor_said(&mut self, kind: ToRivetTunnelMessageKind) -> Result<(), End> {
        match kind {
            ToRivetTunnelMessageKind::WebSocketOpen { .. } => self.restored = true,
            ToRivetTunnelMessageKind::WebSocketMessage { data, binary } if self.left.is_none() => {
                self.client.feed(data, binary).await.map_err(|_| End::client_vanished())?;
                self.client.flush().await.map_err(|_| End::client_vanished())?;
            }
            ToRivetTunnelMessageKind::WebSocketMessageAck { index } => self.pending.acknowledge(index),
            ToRivetTunnelMessageKind::WebSocketClose { hibernate: false, code, reason } => {
                // Its host knows.
                return Err(End { host: None, ..End::by_actor(code, reason) });
            }
            ToRivetTunnelMessageKind::WebSocketMessage { .. }
            | ToRivetTunnelMessageKind::WebSocketClose { hibernate: true, .. }
            | ToRivetTunnelMessageKind::ResponseStart(_)
            | ToRivetTunnelMessageKind::ResponseChunk(_)
            | ToRivetTunnelMessageKind::ResponseAbort(_)
            | ToRivetTunnelMessageKind::RequestBodyWindowUpdate { .. }
            | ToRivetTunnelMessageKind::RequestBodyCancel => {}
        }
        Ok(())
    }

    fn failed(&self, error: &GatewayError) -> End {
        End::failed(error, self.ray)
    }
}
