//! Clients: they create, ask for, put to sleep, move and destroy actors, and hold the engine to its answers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gateway::{Directory, Readiness};
use protocol::id::ActorId;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::host::Mood;
use super::settings::{POOLS, SERVERLESS};
use super::world::{Due, News, World};

/// Keys that clients use in each pool.
const KEYS: usize = 8;
/// How long clients wait for an actor to be ready.
const PATIENCE: Duration = Duration::from_secs(8);

/// What a client hears.
#[derive(Debug)]
pub(super) enum Answer {
    /// Of a getOrCreate.
    Created(u16, Value),
    /// Of anything else through the management API.
    Api(Call, ActorId, u16),
    /// Of a request.
    Reached(ActorId, Reached),
}

/// A call about one actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Destroy,
    Sleep,
    Reschedule,
}

/// How a request went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reached {
    /// This generation takes it.
    Ready(u32),
    /// The actor is over, or never was.
    Gone,
    /// It was not ready in time.
    TimedOut,
}

/// What clients remember.
#[derive(Debug, Default)]
pub(super) struct Client {
    /// Actors that were answered, with their pool.
    known: BTreeMap<ActorId, &'static str>,
    /// Requests that must be answered well.
    owed: BTreeSet<ActorId>,
    /// Destructions that must be answered.
    owed_destructions: BTreeSet<ActorId>,
}

impl Client {
    /// Whoever waits for an answer gets none.
    pub(super) fn engine_died(&mut self) {
        self.owed.clear();
        self.owed_destructions.clear();
    }

    /// Requests and destructions that have not been answered.
    pub(super) fn owed(&self) -> impl Iterator<Item = ActorId> {
        self.owed.iter().chain(&self.owed_destructions).copied()
    }
}

impl World {
    /// A client does something, and plans the next.
    pub(super) fn client_acts(&mut self) {
        if self.mood == Mood::Calm {
            return;
        }
        let next_ms = self.chance.between(10, 500);
        self.plan(next_ms, Due::Client);
        if self.engine.is_none() {
            return;
        }
        // Now and then somebody asks for one that is over.
        let known: Vec<ActorId> = match self.chance.one_in(20) {
            true => self.clients.known.keys().copied().collect(),
            false => self.living().into_iter().map(|(actor, _)| actor).collect(),
        };
        let Some(actor) = self.chance.pick(&known).copied().filter(|_| !self.chance.one_in(5)) else {
            return self.create();
        };
        match self.chance.below(20) {
            0..13 => self.request(actor, false),
            13..16 => self.call(Call::Sleep, actor),
            16..18 => self.call(Call::Reschedule, actor),
            _ => self.call(Call::Destroy, actor),
        }
    }

    fn create(&mut self) {
        let pool = POOLS[self.chance.below(POOLS.len())];
        let key = format!("{pool}-{}", self.chance.below(KEYS));
        let ticket = self.ticket();
        let Some(engine) = &self.engine else { return };
        let body = json!({ "name": "actor", "key": key, "runner_name_selector": pool, "crash_policy": "sleep" });
        let answer = engine.call("PUT", "/actors?namespace=default", &body);
        let (news, epoch) = (self.news.clone(), self.epoch);
        tokio::spawn(async move {
            let (status, body) = answer.await;
            let _ = news.send(News::Answer(epoch, ticket, Answer::Created(status, body)));
        });
    }

    /// Asks for an actor, as the gateway does. `owed`: it has to be ready in time.
    pub(super) fn request(&mut self, actor: ActorId, owed: bool) {
        let ticket = self.ticket();
        let Some(engine) = &self.engine else { return };
        if owed {
            self.clients.owed.insert(actor);
        }
        let (directory, ledger) = (engine.directory(), self.ledger.clone());
        let (news, epoch) = (self.news.clone(), self.epoch);
        tokio::spawn(async move {
            let ask = |directory: &_, actor| {
                ledger.lock().asked_for(actor);
                Directory::wake(directory, actor);
            };
            let reached = match directory.watch(actor).await {
                Ok(Some(view)) => {
                    let ready = wait_until_ready(&directory, actor, view, ask);
                    tokio::time::timeout(PATIENCE, ready).await.unwrap_or(Reached::TimedOut)
                }
                Ok(None) | Err(_) => Reached::Gone,
            };
            let _ = news.send(News::Answer(epoch, ticket, Answer::Reached(actor, reached)));
        });
    }

    pub(super) fn call(&mut self, call: Call, actor: ActorId) {
        let ticket = self.ticket();
        let Some(engine) = &self.engine else { return };
        let answer = match call {
            Call::Destroy => {
                self.ledger.lock().destruction_wanted(actor);
                self.clients.owed_destructions.insert(actor);
                engine.call("DELETE", &format!("/actors/{actor}?namespace=default"), &Value::Null)
            }
            Call::Sleep => engine.call("POST", &format!("/actors/{actor}/sleep?namespace=default"), &json!({})),
            Call::Reschedule => {
                self.ledger.lock().rescheduled(actor);
                engine.call("POST", &format!("/actors/{actor}/reschedule?namespace=default"), &json!({}))
            }
        };
        let short = self.books().log.actor(actor);
        self.note(format_args!("client: {call:?} {short}"));
        let (news, epoch) = (self.news.clone(), self.epoch);
        tokio::spawn(async move {
            let (status, _) = answer.await;
            let _ = news.send(News::Answer(epoch, ticket, Answer::Api(call, actor, status)));
        });
    }

    pub(super) fn answered(&mut self, answer: Answer) {
        match answer {
            Answer::Created(200, body) => self.created(&body),
            Answer::Created(status, body) => self.books().violated(format!("a creation was answered {status}: {body}")),
            Answer::Api(call, actor, status) => {
                let short = self.books().log.actor(actor);
                self.note(format_args!("client: {call:?} {short} was answered {status}"));
                if call == Call::Destroy {
                    self.clients.owed_destructions.remove(&actor);
                    self.destruction_answered(actor, status);
                } else if status != 200 {
                    self.books().violated(format!("{short}: {call:?} was answered {status}"));
                }
            }
            Answer::Reached(actor, reached) => {
                let short = self.books().log.actor(actor);
                self.note(format_args!("client: {short} {reached:?}"));
                let was_owed = self.clients.owed.remove(&actor);
                let is_destroyed = self.books().actors.get(&actor).is_some_and(|known| known.record.is_destroyed());
                let is_right = match reached {
                    Reached::Ready(_) => true,
                    Reached::Gone => is_destroyed,
                    Reached::TimedOut => !was_owed,
                };
                if !is_right {
                    self.books().violated(format!("{short}: a request ended with {reached:?}"));
                }
            }
        }
    }

    fn created(&mut self, body: &Value) {
        let id = body["actor"]["actor_id"].as_str().and_then(|id| id.parse::<ActorId>().ok());
        let pool = POOLS.into_iter().find(|pool| body["actor"]["runner_name_selector"] == *pool);
        let (Some(actor), Some(pool)) = (id, pool) else {
            return self.books().violated(format!("a creation was answered with {body}"));
        };
        let short = self.books().log.actor(actor);
        self.note(format_args!("client: {short} of pool {pool} is there"));
        self.books().creation_acknowledged(actor);
        self.clients.known.insert(actor, pool);
    }

    fn destruction_answered(&mut self, actor: ActorId, status: u16) {
        let is_destroyed = self.books().actors.get(&actor).is_some_and(|known| known.record.is_destroyed());
        if status != 200 || !is_destroyed {
            let short = self.books().log.actor(actor);
            self.books().violated(format!("{short}: its destruction was answered {status}, and it is destroyed: {is_destroyed}"));
        }
    }

    /// Actors that clients know and that are not over, with their pools.
    pub(super) fn living(&self) -> Vec<(ActorId, &'static str)> {
        let books = self.books();
        let lives = |actor: &ActorId| books.actors.get(actor).is_some_and(|known| !known.record.is_destroyed());
        self.clients.known.iter().filter(|(actor, _)| lives(actor)).map(|(actor, pool)| (*actor, *pool)).collect()
    }

    /// Whether a pool can take any number of actors.
    pub(super) fn is_unlimited(pool: &str) -> bool {
        pool != SERVERLESS
    }
}

/// Waits as the gateway does: wakes again after each end.
async fn wait_until_ready<D: Directory>(
    directory: &D,
    actor: ActorId,
    mut view: watch::Receiver<gateway::ActorView>,
    ask: impl Fn(&D, ActorId),
) -> Reached {
    let mut ended_when_woken = None;
    loop {
        let now = view.borrow_and_update().clone();
        match now.readiness {
            Readiness::Ready { generation, link: Some(_) } => return Reached::Ready(generation),
            Readiness::Destroyed => return Reached::Gone,
            Readiness::NotReady | Readiness::Hosted { .. } | Readiness::Ready { link: None, .. } => {
                if ended_when_woken != Some(now.ended_generations) {
                    ended_when_woken = Some(now.ended_generations);
                    ask(directory, actor);
                }
            }
        }
        if view.changed().await.is_err() {
            return Reached::Gone;
        }
    }
}
