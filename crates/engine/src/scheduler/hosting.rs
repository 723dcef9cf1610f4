//! What the coming and going of hosts means for actors (`spec/scheduling.md` 6 and 8).

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gateway::{EnvoyLink, SocketId};
use lifecycle::actor::{Identity, Input};
use lifecycle::envoy::{Link, lost_at};
use protocol::envoy::{ActorConfig, CommandStartActor, HibernatingRequest, PreloadedKv};
use protocol::id::{ActorId, NamespaceId};

use super::Scheduler;
use crate::hosts::{Connected, Host};
use crate::records::actor;

/// Hosts that are gone are remembered this long, so that one that comes back is told which of its actors were given up.
const LOST_HOST_RETENTION_MS: i64 = 10 * 60 * 1000;

/// What a start command says of an actor.
pub(crate) struct StartConfig {
    pub(crate) identity: Arc<Identity>,
    pub(crate) input: Option<Bytes>,
    pub(crate) hibernating_requests: Vec<HibernatingRequest>,
}

impl StartConfig {
    /// The command itself.
    pub(crate) fn into_command(self, preloaded_kv: Option<PreloadedKv>) -> CommandStartActor {
        let config = ActorConfig {
            name: self.identity.name.clone(),
            key: self.identity.key.clone(),
            create_ts: self.identity.create_ts,
            input: self.input,
        };
        CommandStartActor { config, hibernating_requests: self.hibernating_requests, preloaded_kv }
    }
}

impl Scheduler {
    /// A host has connected: its actors can be reached over the new connection, and those that wait for a host get one.
    pub(crate) fn host_connected(&self, host: &Arc<Host>, connected: Connected) {
        let (pool, link) = (connected.pool.clone(), connected.link.clone());
        let replaced = self.0.hosts.connect(host, connected);
        self.republish(host);
        self.0.sockets.host_connected(&link);
        if let Some(replaced) = replaced {
            self.0.tunnels.link_lost(&replaced);
            replaced.replace();
        }
        self.review_versions(host.namespace_id, &pool);
        self.0.pools.succeeded(host.namespace_id, &pool);
        self.renew_requests(host, &pool);
        self.offer_capacity(host.namespace_id, &pool);
    }

    /// A host that had been silent for so long that it got no actors is heard again.
    pub(crate) fn host_heard_again(&self, host: &Host) {
        let pool = host.pool();
        self.review_versions(host.namespace_id, &pool);
        self.offer_capacity(host.namespace_id, &pool);
    }

    fn offer_capacity(&self, namespace: NamespaceId, pool: &str) {
        // Where an endpoint is asked for each start, whoever waits does not wait for a host.
        if self.0.pools.is_serverless(namespace, pool) {
            return;
        }
        for actor in self.0.pools.waiting(namespace, pool) {
            self.post(actor, Input::CapacityArrived);
        }
    }

    /// A connection has ended. Its actors stay assigned until the host counts as lost.
    pub(crate) fn host_disconnected(&self, host: &Arc<Host>, link: &EnvoyLink) {
        link.close();
        if self.0.hosts.disconnect(host, link.session()) {
            self.republish(host);
            if host.is_finished() {
                self.give_up(host);
            } else {
                self.give_up_cut_short(host);
                self.watch_for_loss(host.clone());
            }
            self.review_versions(host.namespace_id, &host.pool());
        }
        // Last: whoever is told of the loss looks for the actor again, and must not find this link.
        self.0.tunnels.link_lost(link);
    }

    /// Gives a host's actors up when it stays out of touch for too long.
    pub(super) fn watch_for_loss(&self, host: Arc<Host>) {
        // Hears of every connection from here on, also before it is waited for.
        let connected = host.connected.clone().notified_owned();
        let link = host.link_state();
        let Some(lost_at) = lost_at(link, self.0.hosts.rules()) else { return };
        let scheduler = self.clone();
        tokio::spawn(async move {
            let wait_ms = (lost_at - scheduler.0.clock.uptime()).max(0);
            tokio::select! {
                biased;
                // A host that comes and goes would gather watches otherwise.
                () = connected => return,
                () = tokio::time::sleep(Duration::from_millis(wait_ms as u64)) => {}
            }
            // A reconnect at the last moment, even if it was lost again, has its own watch.
            if host.link_state() == link {
                scheduler.give_up(&host);
            }
        });
    }

    /// Takes away all that runs on a host: nobody will hear of it again.
    fn give_up(&self, host: &Host) {
        host.forget_drain();
        self.0.sockets.host_lost(host.id, |actor| host.generation_of(actor).is_some());
        self.give_up_actors(host);
    }

    fn give_up_actors(&self, host: &Host) {
        for (actor, generation) in host.assigned() {
            self.post(actor, Input::HostLost { host: host.key.clone(), generation });
        }
    }

    /// A host has answered a ping that was sent at a time.
    pub(crate) fn host_ponged(&self, host: &Host, pinged_ts: lifecycle::Ts) {
        host.ponged(pinged_ts);
        self.0.sockets.host_ponged(host.id, pinged_ts);
    }

    fn republish(&self, host: &Host) {
        for (actor, _generation) in host.assigned() {
            let cell = self.0.cells.lock().get(&actor).cloned();
            if let Some(cell) = cell {
                cell.refresh_link(|stored| self.link_to(stored));
            }
        }
    }

    /// Forgets hosts that have been gone for long and run nothing. Those that are lost and still have actors are given up once
    /// more: what an actor was told is dropped when it cannot be read at that moment.
    pub(super) fn forget_lost_hosts(&self) {
        let now = self.0.clock.uptime();
        for host in self.0.hosts.all() {
            let link = host.link_state();
            if lost_at(link, self.0.hosts.rules()).is_some_and(|lost_at| lost_at < now) {
                self.give_up_actors(&host);
            }
            match link {
                Link::Down { since_ts } if now - since_ts > LOST_HOST_RETENTION_MS => {
                    self.0.hosts.forget_if_unused(&host);
                    self.0.sockets.host_lost(host.id, |actor| host.generation_of(actor).is_some());
                }
                Link::Up { .. } | Link::Down { .. } => {}
            }
        }
    }

    /// What to tell a host with a start command; `None` when the actor has moved on to another generation.
    pub(crate) async fn start_config(&self, actor: ActorId, generation: u32) -> Result<Option<StartConfig>, store::StoreError> {
        let cell = self.0.cells.lock().get(&actor).cloned();
        let stored = cell.and_then(|cell| cell.stored()).filter(|stored| stored.record.generation == generation);
        let Some(stored) = stored else { return Ok(None) };
        let input = match stored.has_input {
            true => self.0.store.get(vec![actor::input_key(actor)]).await?.pop().flatten(),
            false => None,
        };
        let mut hibernating_requests = self.0.tunnels.hibernating_requests(actor);
        let socket_of =
            |request: &HibernatingRequest| SocketId { gateway_id: request.gateway_id, request_id: request.request_id };
        let open: HashSet<SocketId> = hibernating_requests.iter().map(socket_of).collect();
        // One that is ending right now is in both lists.
        for SocketId { gateway_id, request_id } in
            self.0.sockets.remembered(actor).into_iter().filter(|over| !open.contains(over))
        {
            hibernating_requests.push(HibernatingRequest { gateway_id, request_id });
        }
        Ok(Some(StartConfig { identity: stored.record.identity.clone(), input, hibernating_requests }))
    }
}
