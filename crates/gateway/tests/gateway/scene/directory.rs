//! What the gateway is told of actors.

use std::collections::HashMap;
use std::sync::Mutex;

use gateway::{ActorQuery, ActorView, Directory, Refusal};
use protocol::id::ActorId;
use tokio::sync::watch;

/// Shows actors as a test says.
#[derive(Default)]
pub(crate) struct ScriptedDirectory {
    actors: Mutex<HashMap<ActorId, watch::Sender<ActorView>>>,
    keys: Mutex<HashMap<Vec<String>, ActorId>>,
    resolved: Mutex<Vec<ActorQuery>>,
    wakes: watch::Sender<Vec<ActorId>>,
}

impl ScriptedDirectory {
    /// An actor exists, in this state.
    pub(crate) fn show(&self, actor: ActorId, view: ActorView) {
        self.actors.lock().unwrap().insert(actor, watch::Sender::new(view));
    }

    /// An actor changes, and everybody who watches it is told.
    pub(crate) fn change(&self, actor: ActorId, change: impl FnOnce(&mut ActorView)) {
        let actors = self.actors.lock().unwrap();
        actors.get(&actor).expect("a known actor").send_modify(change);
    }

    /// Queries with this key mean an actor.
    pub(crate) fn give_key(&self, key: &[&str], actor: ActorId) {
        let key = key.iter().map(ToString::to_string).collect();
        self.keys.lock().unwrap().insert(key, actor);
    }

    /// Queries that were asked, in order.
    pub(crate) fn resolved(&self) -> Vec<ActorQuery> {
        self.resolved.lock().unwrap().clone()
    }

    /// How often an actor was woken.
    pub(crate) fn wakes(&self, actor: ActorId) -> usize {
        count(&self.wakes.borrow(), actor)
    }

    /// Waits until an actor was woken so often, counted from the beginning.
    pub(crate) async fn woken(&self, actor: ActorId, times: usize) {
        let mut wakes = self.wakes.subscribe();
        let woken = wakes.wait_for(|wakes| count(wakes, actor) >= times);
        tokio::time::timeout(super::host::PATIENCE, woken).await.expect("the actor is woken in time").unwrap();
    }
}

fn count(wakes: &[ActorId], actor: ActorId) -> usize {
    wakes.iter().filter(|woken| **woken == actor).count()
}

impl Directory for ScriptedDirectory {
    async fn resolve(&self, query: ActorQuery) -> Result<ActorId, Refusal> {
        self.resolved.lock().unwrap().push(query.clone());
        Ok(*self.keys.lock().unwrap().get(&query.key).expect("a key that the test has given out"))
    }

    async fn watch(&self, actor: ActorId) -> Result<Option<watch::Receiver<ActorView>>, Refusal> {
        Ok(self.actors.lock().unwrap().get(&actor).map(watch::Sender::subscribe))
    }

    fn wake(&self, actor: ActorId) {
        self.wakes.send_modify(|wakes| wakes.push(actor));
    }
}
