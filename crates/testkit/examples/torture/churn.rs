//! Actors that are created and destroyed: one that exists goes on existing, and one that was destroyed never comes back.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{Method, StatusCode};
use protocol::envoy::{KvRequestData, ToRivet, ToRivetKvRequest};
use serde_json::{Value, json};
use testkit::client::{self, Answer};
use tokio::sync::watch;

use crate::host::{Actors, until_running};
use crate::ledger::{Checked, Counts, Violation};

const NAME: &str = "churn";
/// Actors that live at the same time.
const ALIVE: usize = 3;

/// What is known of an actor, by its key.
#[derive(Debug, Clone)]
enum Known {
    /// Asked for.
    Perhaps,
    Created(String),
    /// Asked to be destroyed.
    PerhapsDestroyed(String),
    Destroyed,
}

/// Creates and destroys actors, one step after another.
pub(crate) struct Churn {
    actors: Actors,
    pool: String,
    known: BTreeMap<String, Known>,
    next: u64,
    counts: Counts,
}

impl Churn {
    pub(crate) fn new(actors: &Actors, pool: &str) -> Self {
        Self { actors: actors.clone(), pool: pool.to_owned(), known: BTreeMap::new(), next: 0, counts: Counts::default() }
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// Looks every actor up; those that were destroyed for certain are then forgotten.
    pub(crate) async fn audit(&mut self, address: SocketAddr) -> Checked {
        for (key, known) in std::mem::take(&mut self.known) {
            let alive = holder(address, &key).await;
            let known = match known {
                Known::Perhaps => {
                    self.counts.indeterminate += 1;
                    self.counts.done_unanswered += u64::from(alive.is_some());
                    alive.map(Known::Created)
                }
                Known::Created(id) if alive.as_ref() == Some(&id) => Some(Known::Created(id)),
                Known::Destroyed if alive.is_none() => None,
                Known::PerhapsDestroyed(_) if alive.is_none() => {
                    self.counts.indeterminate += 1;
                    self.counts.done_unanswered += 1;
                    None
                }
                // It may still be destroyed: that waits until its host has stopped it, or is given up.
                Known::PerhapsDestroyed(id) if alive.as_ref() == Some(&id) => Some(Known::PerhapsDestroyed(id)),
                Known::Created(_) | Known::Destroyed | Known::PerhapsDestroyed(_) => {
                    return Err(Violation(format!("the key {key} is held by {alive:?}, although {known:?}")));
                }
            };
            if let Some(known) = known {
                self.known.insert(key, known);
            }
            self.counts.audits += 1;
        }
        Ok(())
    }

    /// Goes on until the engine does not answer.
    pub(crate) async fn load(&mut self, address: SocketAddr, mut down: watch::Receiver<bool>) {
        loop {
            let step = async {
                match self.oldest() {
                    Some((key, id)) => self.destroy(address, key, id).await,
                    None => self.create(address).await,
                }
            };
            let goes_on = tokio::select! {
                goes_on = step => goes_on,
                _ = down.wait_for(|down| *down) => false,
            };
            if !goes_on {
                return;
            }
        }
    }

    /// The actor whose turn it is to be destroyed, perhaps once more, when there are enough.
    fn oldest(&self) -> Option<(String, String)> {
        let mut alive = self.known.iter().filter_map(|(key, known)| match known {
            Known::Created(id) | Known::PerhapsDestroyed(id) => Some((key.clone(), id.clone())),
            Known::Perhaps | Known::Destroyed => None,
        });
        let oldest = alive.next();
        if alive.count() + 1 >= ALIVE { oldest } else { None }
    }

    /// Whether the engine has answered.
    async fn create(&mut self, address: SocketAddr) -> bool {
        let key = format!("{:08}", self.next);
        self.next += 1;
        self.known.insert(key.clone(), Known::Perhaps);
        let Some(answer) = post(address, "/actors?namespace=default", &creation(NAME, &self.pool, Some(&key))).await else {
            return false;
        };
        let id = answer["actor"]["actor_id"].as_str().unwrap_or_else(|| panic!("no actor in {answer}")).to_owned();
        self.known.insert(key, Known::Created(id.clone()));
        self.counts.acknowledged += 1;
        self.leave_something_behind(&id).await
    }

    /// Has the actor own something, which must go with it.
    async fn leave_something_behind(&self, actor_id: &str) -> bool {
        let running = until_running(&mut self.actors.watch(actor_id)).await;
        let (keys, values) = (vec![Bytes::from_static(b"a")], vec![Bytes::from_static(b"b")]);
        let data = KvRequestData::Put { keys, values };
        let actor_id = actor_id.to_owned();
        let answer = running.host.ask(|request_id| ToRivet::KvRequest(ToRivetKvRequest { actor_id, request_id, data }));
        answer.await.is_ok()
    }

    /// Whether the engine has answered.
    async fn destroy(&mut self, address: SocketAddr, key: String, id: String) -> bool {
        self.known.insert(key.clone(), Known::PerhapsDestroyed(id.clone()));
        let request = client::empty(Method::DELETE, &format!("/actors/{id}?namespace=default"));
        let Ok(answer) = client::try_send(address, request).await else { return false };
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        self.known.insert(key, Known::Destroyed);
        self.counts.acknowledged += 1;
        true
    }
}

/// The body that creates an actor.
pub(crate) fn creation(name: &str, pool: &str, key: Option<&str>) -> Value {
    json!({ "name": name, "key": key, "runner_name_selector": pool, "crash_policy": "sleep" })
}

/// A request to the API; nothing when it got no answer.
///
/// # Panics
/// When the engine refuses.
pub(crate) async fn post(address: SocketAddr, path: &str, body: &Value) -> Option<Value> {
    let answer = try_post(address, path, body).await?;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    Some(answer.json())
}

/// The same, for those who may be refused.
pub(crate) async fn try_post(address: SocketAddr, path: &str, body: &Value) -> Option<Answer> {
    let request = http::Request::builder().method(Method::POST).uri(path).header("content-type", "application/json");
    let request = request.body(Bytes::from(body.to_string()).into()).expect("a request");
    client::try_send(address, request).await.ok()
}

/// The actor that holds a key.
async fn holder(address: SocketAddr, key: &str) -> Option<String> {
    let path = format!("/actors?namespace=default&name={NAME}&key={key}");
    let answer = client::call(address, Method::GET, &path).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let answer = answer.json();
    let alive = answer["actors"].as_array()?.iter().find(|actor| actor["destroy_ts"].is_null())?;
    alive["actor_id"].as_str().map(str::to_owned)
}
