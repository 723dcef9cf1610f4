//! An engine in a temporary folder, and short words for what tests do with it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use engine::Engine;
use engine::commands::{self, Done};
use engine::config::{Config, DataTask, Sources, load};
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::client::{self, Answer};
use testkit::envoy::{EnvoyParams, FakeEnvoy};
use testkit::eventually;
use tokio::task::JoinHandle;

/// A running engine.
pub(crate) struct TestEngine {
    engine: Engine,
    settings: Value,
    folder: TempDir,
}

impl TestEngine {
    /// An engine with these settings, in the form of a configuration file, and the pool `default`.
    pub(crate) async fn start(settings: Value) -> Self {
        let engine = Self::fresh(settings).await;
        engine.put_pool("default", json!({ "normal": {} })).await;
        engine
    }

    /// An engine without any pool.
    pub(crate) async fn fresh(settings: Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let engine = run(&settings, folder.path()).await;
        Self { engine, settings, folder }
    }

    /// Stops the engine and starts another one on the same data.
    pub(crate) async fn restart(self) -> Self {
        let Self { engine, settings, folder } = self;
        engine.shutdown().await;
        assert_whole(folder.path());
        let engine = run(&settings, folder.path()).await;
        Self { engine, settings, folder }
    }

    /// Tells hosts to go and stops.
    pub(crate) async fn shutdown(self) {
        self.engine.shutdown().await;
        assert_whole(self.folder.path());
    }

    /// Its data folder.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.engine.address()
    }

    /// A host of the pool `default`, connected.
    pub(crate) async fn host(&self) -> FakeEnvoy {
        FakeEnvoy::join(self.address(), &EnvoyParams::new()).await
    }

    /// A host with these parameters, connected.
    pub(crate) async fn host_with(&self, params: &EnvoyParams) -> FakeEnvoy {
        FakeEnvoy::join(self.address(), params).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        client::call(self.address(), Method::GET, path).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        client::call(self.address(), Method::DELETE, path).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        client::call_with(self.address(), Method::POST, path, body).await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Answer {
        client::call_with(self.address(), Method::PUT, path, body).await
    }

    /// Sends any request.
    pub(crate) async fn send(&self, request: http::request::Builder, body: impl Into<Full<bytes::Bytes>>) -> Answer {
        client::send(self.address(), request.body(body.into()).unwrap()).await
    }

    /// Configures a pool, in the only datacenter.
    pub(crate) async fn put_pool(&self, pool: &str, config: Value) -> Answer {
        let path = format!("/runner-configs/{}?namespace=default", escape(pool));
        let answer = self.put(&path, &json!({ "datacenters": { "default": config } })).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        answer
    }

    /// Asks for an actor of the pool `default`.
    pub(crate) async fn try_create(&self, name: &str, key: Option<&str>) -> Answer {
        self.post("/actors?namespace=default", &creation(name, key)).await
    }

    /// Creates an actor of the pool `default`; returns its id.
    pub(crate) async fn create(&self, name: &str, key: Option<&str>) -> String {
        let answer = self.try_create(name, key).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        answer.json()["actor"]["actor_id"].as_str().unwrap().to_owned()
    }

    /// An actor as the API shows it.
    pub(crate) async fn actor(&self, actor_id: &str) -> Value {
        let answer = self.get(&format!("/actors?namespace=default&actor_id={actor_id}")).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        answer.json()["actors"][0].clone()
    }

    /// Waits until the API shows an actor as wanted, and returns that.
    pub(crate) async fn actor_when(&self, actor_id: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually(what, async || Some(self.actor(actor_id).await).filter(&wanted)).await
    }

    /// Waits until an actor sleeps.
    pub(crate) async fn asleep(&self, actor_id: &str) -> Value {
        // It shows the time from the moment it is told to sleep; it sleeps when nothing is left to stop.
        self.actor_when(actor_id, "a sleeping actor", |actor| is_set(&actor["sleep_ts"]) && actor["connectable_ts"].is_null())
            .await
    }

    /// Asks the API to do something with an actor.
    pub(crate) async fn tell(&self, actor_id: &str, what: &str) {
        let answer = self.post(&format!("/actors/{actor_id}/{what}?namespace=default"), &json!({})).await;
        assert_eq!((answer.status, answer.json()), (StatusCode::OK, json!({})));
    }

    /// Destroys an actor through the API.
    pub(crate) async fn destroy(&self, actor_id: &str) -> Answer {
        self.destroy_soon(actor_id).await.unwrap()
    }

    /// As [`Self::destroy`], in the background: the call waits for the actor's end.
    pub(crate) fn destroy_soon(&self, actor_id: &str) -> JoinHandle<Answer> {
        let request = client::empty(Method::DELETE, &format!("/actors/{actor_id}?namespace=default"));
        tokio::spawn(client::send(self.address(), request))
    }

    /// Sends a request to an actor, in the background, and returns the answer when awaited.
    pub(crate) fn request(&self, actor_id: &str) -> JoinHandle<Answer> {
        let request = client::empty(Method::GET, &format!("/gateway/{actor_id}/request/hello"));
        tokio::spawn(client::send(self.address(), request))
    }

    /// What the metrics port answers, to a caller with this token.
    pub(crate) async fn scrape(&self, token: Option<&str>) -> Answer {
        let mut request = Request::builder().uri("/metrics");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        client::send(self.engine.metrics_address(), request.body(Full::default()).unwrap()).await
    }

    /// A metric's value, summed over its labels.
    ///
    /// # Panics
    /// When there is none of that name: a misspelt one would always be zero.
    pub(crate) async fn metric(&self, name: &str) -> i64 {
        metric_in(&self.scrape(None).await.text(), name)
    }

    /// Keys of the hosts that the API lists.
    pub(crate) async fn listed_hosts(&self) -> Vec<String> {
        let answer = self.get("/envoys?namespace=default").await;
        let envoys = answer.json()["envoys"].as_array().unwrap().clone();
        envoys.iter().map(|envoy| envoy["envoy_key"].as_str().unwrap().to_owned()).collect()
    }
}

/// A metric's value in a scrape, summed over its labels.
///
/// # Panics
/// As [`TestEngine::metric`].
pub(crate) fn metric_in(scrape: &str, name: &str) -> i64 {
    let is_it = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']));
    let values: Vec<i64> = scrape.lines().filter(is_it).map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect();
    assert!(!values.is_empty(), "no metric is called {name}: {scrape}");
    values.iter().sum()
}

/// Whatever a test does, the engine leaves nothing in its store that does not fit together.
pub(crate) fn assert_whole(folder: &Path) {
    let mut said = Vec::new();
    let check = DataTask::Check { folder: Some(folder.to_owned()), here: true, json: false };
    let done = commands::run(&Config::default(), check, &mut said).unwrap();
    assert_eq!(done, Done::Well, "{}", String::from_utf8(said).unwrap());
}

async fn run(settings: &Value, folder: &Path) -> Engine {
    let base = json!({
        "guard": { "port": 0 },
        "api_peer": { "port": 0 },
        "metrics": { "port": 0 },
        "file_system": { "path": folder },
        // What these tests prove does not depend on the disk.
        "storage": { "durability": "os" },
        "runtime": { "worker_shutdown_duration": 1, "guard_shutdown_duration": 1, "force_shutdown_duration": 1 },
    });
    let file = |name: &str, content: &Value| (PathBuf::from(name), content.to_string());
    let sources = Sources { files: vec![file("base.json", &base), file("test.json", settings)], ..Sources::default() };
    Engine::start(load(&sources).unwrap().config).await.unwrap()
}

/// The body that creates an actor of the pool `default`.
pub(crate) fn creation(name: &str, key: Option<&str>) -> Value {
    json!({ "name": name, "key": key, "runner_name_selector": "default", "crash_policy": "sleep" })
}

pub(crate) fn escape(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// Whether a timestamp is there.
pub(crate) fn is_set(value: &Value) -> bool {
    value.is_i64()
}

/// A POST request to start from.
pub(crate) fn post(path: &str) -> http::request::Builder {
    Request::builder().method(Method::POST).uri(path)
}
