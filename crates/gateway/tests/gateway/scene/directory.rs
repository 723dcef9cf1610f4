//! What the gateway is told of actors.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use gateway::{ActorQuery, ActorView, Directory, Obstacle, Refusal};
use parking_lot::Mutex;
use protocol::id::ActorId;
use tokio::sync::watch;
use tokio::time::Instant;

/// Shows actors as a test says.
#[derive(Default)]
pub(crate) struct ScriptedDirectory {
    actors: Mutex<HashMap<ActorId, watch::Sender<ActorView>>>,
    keys: Mutex<HashMap<Vec<String>, ActorId>>,
    unborn: Mutex<HashMap<Vec<String>, ActorId>>,
    created: Mutex<Vec<ActorQuery>>,
    resolved: Mutex<Vec<ActorQuery>>,
    is_silent: AtomicBool,
    obstacles: Mutex<HashMap<ActorId, Obstacle>>,
    explained: Mutex<Vec<Instant>>,
    wakes: watch::Sender<Vec<ActorId>>,
}

impl ScriptedDirectory {
    /// An actor exists, in this state.
    pub(crate) fn show(&self, actor: ActorId, view: ActorView) {
        self.actors.lock().insert(actor, watch::Sender::new(view));
    }

    /// An actor changes, and everybody who watches it is told.
    pub(crate) fn change(&self, actor: ActorId, change: impl FnOnce(&mut ActorView)) {
        let actors = self.actors.lock();
        actors.get(&actor).expect("a known actor").send_modify(change);
    }

    /// How many requests watch an actor.
    pub(crate) fn watchers(&self, actor: ActorId) -> usize {
        self.actors.lock().get(&actor).expect("a known actor").receiver_count()
    }

    /// Queries with this key mean an actor.
    pub(crate) fn give_key(&self, key: &[&str], actor: ActorId) {
        let key = key.iter().map(ToString::to_string).collect();
        self.keys.lock().insert(key, actor);
    }

    /// Queries with this key mean no actor, or no longer, until one of them creates this one.
    pub(crate) fn reserve_key(&self, key: &[&str], actor: ActorId) {
        let key: Vec<String> = key.iter().map(ToString::to_string).collect();
        self.keys.lock().remove(&key);
        self.unborn.lock().insert(key, actor);
    }

    /// No query is answered any more.
    pub(crate) fn never_answer(&self) {
        self.is_silent.store(true, Ordering::Relaxed);
    }

    /// This is in the way of an actor from now on; `None`: nothing that is known of.
    pub(crate) fn block(&self, actor: ActorId, obstacle: Option<Obstacle>) {
        let mut obstacles = self.obstacles.lock();
        match obstacle {
            Some(obstacle) => drop(obstacles.insert(actor, obstacle)),
            None => drop(obstacles.remove(&actor)),
        }
    }

    /// When somebody asked what is in the way of an actor.
    pub(crate) fn explained(&self) -> Vec<Instant> {
        self.explained.lock().clone()
    }

    /// Queries that created an actor, in order.
    pub(crate) fn created(&self) -> Vec<ActorQuery> {
        self.created.lock().clone()
    }

    /// Queries that were asked, in order.
    pub(crate) fn resolved(&self) -> Vec<ActorQuery> {
        self.resolved.lock().clone()
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
    async fn find(&self, query: &ActorQuery) -> Result<Option<ActorId>, Refusal> {
        self.resolved.lock().push(query.clone());
        if self.is_silent.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        Ok(self.keys.lock().get(&query.key).copied())
    }

    async fn create(&self, query: ActorQuery) -> Result<ActorId, Refusal> {
        let actor = *self.unborn.lock().get(&query.key).expect("a key that the test has given out");
        self.keys.lock().insert(query.key.clone(), actor);
        self.created.lock().push(query);
        Ok(actor)
    }

    async fn watch(&self, actor: ActorId) -> Result<Option<watch::Receiver<ActorView>>, Refusal> {
        Ok(self.actors.lock().get(&actor).map(watch::Sender::subscribe))
    }

    fn wake(&self, actor: ActorId) {
        self.wakes.send_modify(|wakes| wakes.push(actor));
    }

    fn obstacle(&self, actor: ActorId) -> Option<Obstacle> {
        self.explained.lock().push(Instant::now());
        self.obstacles.lock().get(&actor).cloned()
    }
}
