use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};

use super::*;

/// Notes what a start command would list at the moment when a socket's end is noted.
#[derive(Default)]
struct Onlooker {
    tunnels: OnceLock<Tunnels>,
    listed: Mutex<Option<usize>>,
}

impl SocketJournal for Onlooker {
    fn opened(&self, _actor: ActorId, _socket: SocketId) {}

    fn closed(&self, actor: ActorId, _socket: SocketId, told: Option<HostId>) {
        assert_eq!(told, None);
        *self.listed.lock() = self.tunnels.get().map(|tunnels| tunnels.hibernating_requests(actor).len());
    }
}

#[test]
fn a_start_finds_a_socket_in_the_table_until_its_end_is_noted() {
    let onlooker = Arc::new(Onlooker::default());
    let limits = WaitingLimits { for_actors_max_bytes: 0, for_clients_max_bytes: 0 };
    let tunnels = Tunnels::new(GatewayId(*b"gate"), onlooker.clone(), limits);
    assert!(onlooker.tunnels.set(tunnels.clone()).is_ok());
    let (link, _outbox) = EnvoyLink::new(HostId(1), SessionId(1), 8);
    let actor = ActorId::from_parts([1; 16], 1);
    let tunnel = tunnels.open_socket(actor, Route { link, generation: 1, is_ready: true });
    tunnel.set_hibernatable();
    drop(tunnel);
    assert_eq!(*onlooker.listed.lock(), Some(1));
    assert_eq!(tunnels.hibernating_requests(actor), []);
}

/// A task that counts how often it is woken, and how often the table is locked then.
struct Sleeper {
    tunnels: Tunnels,
    woken: AtomicUsize,
    blocked: AtomicUsize,
}

impl Wake for Sleeper {
    fn wake(self: Arc<Self>) {
        self.woken.fetch_add(1, Ordering::Relaxed);
        if self.tunnels.0.table.try_lock().is_none() {
            self.blocked.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[test]
fn nobody_is_woken_while_the_table_is_locked() {
    let limits = WaitingLimits { for_actors_max_bytes: 0, for_clients_max_bytes: 0 };
    let tunnels = Tunnels::new(GatewayId(*b"gate"), Arc::new(Onlooker::default()), limits);
    let (link, _outbox) = EnvoyLink::new(HostId(1), SessionId(1), 8);
    let actor = ActorId::from_parts([1; 16], 1);
    let route = Route { link: link.clone(), generation: 1, is_ready: true };
    let mut tunnel = tunnels.open_request(actor, route, 0);
    let sleeper = Arc::new(Sleeper { tunnels: tunnels.clone(), woken: AtomicUsize::new(0), blocked: AtomicUsize::new(0) });
    let waker = Waker::from(sleeper.clone());
    for news in [&|| tunnels.generation_ended(actor, 1), &|| tunnels.link_lost(&link)] as [&dyn Fn(); 2] {
        assert!(tunnel.poll_receive(&mut Context::from_waker(&waker)).is_pending());
        news();
        assert!(tunnel.try_receive().is_some());
    }
    assert_eq!((sleeper.woken.load(Ordering::Relaxed), sleeper.blocked.load(Ordering::Relaxed)), (2, 0));
}
