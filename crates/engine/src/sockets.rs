//! What hosts believe of their clients' sockets.
//!
//! A host keeps a socket until it hears that the client has gone. It would never hear of it when its connection breaks just
//! then, or when the engine is killed: so each end is repeated over the next connection until the host has certainly got it,
//! and a row tells the next engine process which sockets were open. An actor that sleeps at that moment remembers its
//! sockets; it is not woken for this, but told when it starts.
//!
//! Rows are written lazily: a socket that was opened within the last 50 ms or so before a kill may be missing. Its host hears
//! of the end as soon as it sends something over the socket (`gateway::Tunnels::deliver`).

use std::collections::HashMap;
use std::sync::Arc;

use gateway::{EnvoyLink, HostId, SocketId, SocketJournal, downstream_closed};
use lifecycle::Ts;
use parking_lot::Mutex;
use protocol::id::ActorId;
use store::{Batch, Store, StoreError};

use crate::clock::Clock;
use crate::error::StartError;
use crate::pages::Pages;
use crate::records::open_socket;

/// The journal of sockets; clone freely.
#[derive(Clone)]
pub(crate) struct OpenSockets(Arc<Shared>);

struct Shared {
    store: Store,
    clock: Clock,
    /// Sockets that are over, by the host that may not know it yet.
    departed: Mutex<HashMap<HostId, Vec<Departed>>>,
    /// Sockets that are over, by the sleeping actor that remembers them. Its next start lists them as if they were open, so
    /// that the host restores them: only then can the actor's code be told.
    remembered: Mutex<HashMap<ActorId, Vec<SocketId>>>,
}

struct Departed {
    actor: ActorId,
    socket: SocketId,
    /// When the host was told last. It has got that when it answers a ping of a later time.
    told_ts: Ts,
}

impl OpenSockets {
    pub(crate) fn new(store: Store, clock: Clock) -> Self {
        Self(Arc::new(Shared { store, clock, departed: Mutex::default(), remembered: Mutex::default() }))
    }

    /// Takes over from an engine process that has ended: all its sockets are over. `host_of` says where an actor runs, if it
    /// runs.
    pub(crate) async fn load(&self, host_of: impl Fn(ActorId) -> Option<HostId>) -> Result<(), StartError> {
        let mut pages = Pages::new(&self.0.store, open_socket::all());
        while let Some(rows) = pages.next().await? {
            for (key, _) in rows {
                let (actor, socket) = open_socket::parse(&key)?;
                self.closed(actor, socket, host_of(actor));
            }
        }
        Ok(())
    }

    /// Actors that sleep and have to be told of the end of sockets.
    pub(crate) fn sleepers(&self) -> Vec<ActorId> {
        self.0.remembered.lock().keys().copied().collect()
    }

    /// The sockets whose end an actor hears of at its next start.
    pub(crate) fn remembered(&self, actor: ActorId) -> Vec<SocketId> {
        self.0.remembered.lock().get(&actor).cloned().unwrap_or_default()
    }

    /// An actor has been started on a host, which has restored the sockets that it knows. It has been told as soon as it said
    /// so; once more is needed if that got lost with its connection.
    pub(crate) fn actor_runs(&self, actor: ActorId, host: HostId, link: Option<&EnvoyLink>) {
        let remembered = self.0.remembered.lock().remove(&actor).unwrap_or_default();
        for socket in remembered {
            self.closed(actor, socket, Some(host));
            if let Some(link) = link {
                // If this gets lost, too, the next connection brings it.
                let _ = link.send_now(downstream_closed(socket));
            }
        }
    }

    /// An actor is gone for good.
    pub(crate) fn actor_destroyed(&self, actor: ActorId) {
        let remembered = self.0.remembered.lock().remove(&actor).unwrap_or_default();
        let mut rows = Batch::new();
        for socket in remembered {
            rows.delete(open_socket::key(actor, socket));
        }
        self.write_lazily(rows);
    }

    /// Tells a host over its new connection which sockets are over.
    pub(crate) fn host_connected(&self, link: &EnvoyLink) {
        let now = self.0.clock.now();
        for departed in self.0.departed.lock().get_mut(&link.host()).into_iter().flatten() {
            departed.told_ts = now;
            // Should this connection end, too, the next one brings it again.
            let _ = link.send_now(downstream_closed(departed.socket));
        }
    }

    /// A host has answered a ping: it has got everything that was sent to it before.
    pub(crate) fn host_ponged(&self, host: HostId, pinged_ts: Ts) {
        let mut of_all = self.0.departed.lock();
        let Some(of_host) = of_all.get_mut(&host) else { return };
        let mut known = Batch::new();
        of_host.retain(|departed| {
            let is_known = departed.told_ts < pinged_ts;
            if is_known {
                known.delete(open_socket::key(departed.actor, departed.socket));
            }
            !is_known
        });
        if of_host.is_empty() {
            of_all.remove(&host);
        }
        drop(of_all);
        self.write_lazily(known);
    }

    /// A host is not expected back: those actors that it still had hear of what they may have missed when they start
    /// elsewhere.
    pub(crate) fn host_lost(&self, host: HostId, had: impl Fn(ActorId) -> bool) {
        let departed = self.0.departed.lock().remove(&host).unwrap_or_default();
        let mut rows = Batch::new();
        for Departed { actor, socket, .. } in departed {
            match had(actor) {
                true => self.closed(actor, socket, None),
                false => rows.delete(open_socket::key(actor, socket)),
            }
        }
        self.write_lazily(rows);
    }

    fn write_lazily(&self, batch: Batch) {
        if batch.is_empty() {
            return;
        }
        match self.0.store.write_lazy(batch.clone()) {
            Ok(()) => {}
            Err(StoreError::Busy) => {
                let store = self.0.store.clone();
                tokio::spawn(async move { note(store.write(batch).await) });
            }
            Err(error) => note(Err(error)),
        }
    }
}

/// A row too few costs a host one repetition, a row too many one message at the next start of the engine.
fn note(written: Result<(), StoreError>) {
    // The store has told the operator of the lack of room.
    if let Err(error) = written
        && !error.may_pass()
    {
        tracing::warn!(%error, "the list of open sockets is not up to date");
    }
}

impl SocketJournal for OpenSockets {
    fn opened(&self, actor: ActorId, socket: SocketId) {
        let mut row = Batch::new();
        row.put(open_socket::key(actor, socket), bytes::Bytes::new());
        self.write_lazily(row);
    }

    fn closed(&self, actor: ActorId, socket: SocketId, told: Option<HostId>) {
        match told {
            Some(host) => {
                let departed = Departed { actor, socket, told_ts: self.0.clock.now() };
                self.0.departed.lock().entry(host).or_default().push(departed);
            }
            None => self.0.remembered.lock().entry(actor).or_default().push(socket),
        }
    }
}

#[cfg(test)]
mod tests {
    use gateway::{Content, Outbox, Outgoing, SessionId};
    use protocol::envoy::{GatewayId, RequestId, ToEnvoy};
    use store::Scan;

    use super::*;

    const HOST: HostId = HostId(1);

    struct Play {
        store: Store,
        sockets: OpenSockets,
        actor: ActorId,
    }

    impl Play {
        fn begin() -> Self {
            let store = Store::memory();
            Self { sockets: OpenSockets::new(store.clone(), Clock::system()), store, actor: ActorId::from_parts([1; 16], 1) }
        }

        /// The same store under another engine process.
        fn after_a_kill(self) -> Self {
            Self { sockets: OpenSockets::new(self.store.clone(), Clock::system()), ..self }
        }

        fn open(&self, number: u8) -> SocketId {
            let socket = SocketId { gateway_id: GatewayId(*b"gate"), request_id: RequestId([number; 4]) };
            self.sockets.opened(self.actor, socket);
            socket
        }

        async fn rows(&self) -> usize {
            let (start, end) = open_socket::all();
            self.store.scan(Scan::range(start, end)).await.unwrap().len()
        }

        /// What the host is told over a new connection.
        fn told(&self) -> Vec<ToEnvoy> {
            let (link, mut outbox): (EnvoyLink, Outbox) = EnvoyLink::new(HOST, SessionId(1), 8);
            self.sockets.host_connected(&link);
            std::iter::from_fn(|| outbox.messages.try_recv().ok()).map(message).collect()
        }
    }

    fn message(outgoing: Outgoing) -> ToEnvoy {
        let Content::Message(message) = outgoing.content else { panic!("{outgoing:?} is encoded") };
        message
    }

    fn later() -> Ts {
        Clock::system().now() + 1
    }

    #[tokio::test]
    async fn the_end_of_a_socket_is_repeated_until_the_host_has_it() {
        let play = Play::begin();
        let socket = play.open(1);
        assert!(play.told().is_empty(), "it is open");
        play.sockets.closed(play.actor, socket, Some(HOST));
        assert_eq!(play.told(), [downstream_closed(socket)]);
        play.sockets.host_ponged(HOST, Clock::system().now() - 1000);
        play.sockets.host_ponged(HostId(2), later());
        assert_eq!((play.told(), play.rows().await), (vec![downstream_closed(socket)], 1));
        play.sockets.host_ponged(HOST, later());
        assert_eq!((play.told(), play.rows().await), (vec![], 0));
    }

    #[tokio::test]
    async fn after_a_kill_hosts_and_sleeping_actors_are_told() {
        let play = Play::begin();
        let socket = play.open(1);
        let play = play.after_a_kill();
        play.sockets.load(|_actor| Some(HOST)).await.unwrap();
        assert_eq!(play.told(), [downstream_closed(socket)]);
        assert!(play.sockets.sleepers().is_empty());

        let play = play.after_a_kill();
        play.sockets.load(|_actor| None).await.unwrap();
        assert_eq!(play.sockets.sleepers(), [play.actor]);
        assert_eq!(play.sockets.remembered(play.actor), [socket]);
        assert_eq!(play.sockets.remembered(play.actor), [socket], "a start may be sent twice");
        assert_eq!(play.rows().await, 1);
        let (link, mut outbox) = EnvoyLink::new(HOST, SessionId(1), 8);
        play.sockets.actor_runs(play.actor, HOST, Some(&link));
        assert!(play.sockets.remembered(play.actor).is_empty());
        assert_eq!(message(outbox.messages.try_recv().unwrap()), downstream_closed(socket));
        assert_eq!(play.told(), [downstream_closed(socket)]);
        play.sockets.host_ponged(HOST, later());
        assert_eq!(play.rows().await, 0);
    }

    #[tokio::test]
    async fn what_a_lost_host_may_have_missed_is_kept_for_those_that_move_on() {
        for moves_on in [true, false] {
            let play = Play::begin();
            let socket = play.open(1);
            play.sockets.closed(play.actor, socket, Some(HOST));
            play.sockets.host_lost(HOST, |_actor| moves_on);
            assert!(play.told().is_empty());
            assert_eq!(
                (play.sockets.remembered(play.actor).len(), play.rows().await),
                (usize::from(moves_on), usize::from(moves_on))
            );
            play.sockets.actor_destroyed(play.actor);
            assert_eq!((play.sockets.sleepers().len(), play.rows().await), (0, 0));
        }
    }
}
