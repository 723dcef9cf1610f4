//! What the gateway notes for the time after a crash.

use parking_lot::Mutex;
use std::collections::BTreeSet;

use gateway::{HostId, SocketId, SocketJournal};
use protocol::id::ActorId;

/// Remembers which sockets are open.
#[derive(Default)]
pub(crate) struct ScriptedJournal {
    open: Mutex<BTreeSet<SocketId>>,
    told: Mutex<BTreeSet<SocketId>>,
}

impl ScriptedJournal {
    /// The sockets that hosts may believe to be open.
    pub(crate) fn open(&self) -> Vec<SocketId> {
        self.open.lock().iter().copied().collect()
    }

    /// Whether a socket is over and its host has been told.
    pub(crate) fn is_told(&self, socket: SocketId) -> bool {
        self.told.lock().contains(&socket)
    }
}

impl SocketJournal for ScriptedJournal {
    fn opened(&self, _actor: ActorId, socket: SocketId) {
        assert!(self.open.lock().insert(socket), "each socket is opened once");
    }

    fn closed(&self, _actor: ActorId, socket: SocketId, told: Option<HostId>) {
        if told.is_some() {
            self.told.lock().insert(socket);
        }
        assert!(self.open.lock().remove(&socket), "each socket is closed once");
    }
}
