//! Serverless pools (`spec/scheduling.md` 9, checklist 39 to 47), with a scripted endpoint and scripted hosts.

mod endpoint;
mod failures;
mod lifespan;
mod metadata;
mod preload;
mod starting;
mod upgrade;
mod words;

use http::StatusCode;
use serde_json::{Value, json};
use testkit::envoy::{EnvoyParams, FakeEnvoy, Run};
use testkit::eventually;

use crate::scene::{TestEngine, is_set};
use endpoint::{Endpoint, StartCall, Stream};

/// An engine whose pool `default` is served by an endpoint.
struct Scene {
    engine: TestEngine,
    endpoint: Endpoint,
}

impl Scene {
    async fn start() -> Self {
        Self::with(json!({}), json!({})).await
    }

    /// With settings of the engine and options of the pool.
    async fn with(settings: Value, options: Value) -> Self {
        let endpoint = Endpoint::start().await;
        let engine = TestEngine::fresh(settings).await;
        let scene = Self { engine, endpoint };
        scene.configure(options).await;
        scene
    }

    /// Sets the pool's options; what is needed and not given has a value.
    async fn configure(&self, options: Value) {
        self.engine.put_pool("default", json!({ "serverless": pool(&self.endpoint.url(), options) })).await;
    }

    /// The host that the endpoint's process opens, connected.
    async fn host(&self) -> FakeEnvoy {
        self.engine.host_with(&EnvoyParams::new()).await
    }

    /// The pool as the API shows it.
    async fn pool(&self) -> Value {
        let answer = self.engine.get("/runner-configs?namespace=default").await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        answer.json()["runner_configs"]["default"]["datacenters"]["default"].clone()
    }

    /// Waits until the pool shows an error, and returns it.
    async fn pool_error(&self) -> Value {
        eventually("a pool error", async || self.pool().await.get("runner_pool_error").cloned()).await
    }

    /// An actor that runs on a host, and the stream of its start request.
    async fn running_actor(&mut self, host: &mut FakeEnvoy) -> (Run, Stream) {
        let actor = self.engine.create("counter", None).await;
        let call = self.endpoint.next_start().await;
        let (run, stream) = answer_and_run(call, host);
        assert_eq!(run.actor_id, actor);
        self.until_running(&actor).await;
        (run, stream)
    }

    async fn until_running(&self, actor: &str) {
        self.engine.actor_when(actor, "a running actor", |actor| is_set(&actor["connectable_ts"])).await;
    }
}

/// Does what the published host does with a start request.
fn answer_and_run(call: StartCall, host: &mut FakeEnvoy) -> (Run, Stream) {
    let run = call.run();
    let stream = call.accept();
    host.acknowledge(&run, 0);
    host.running(&run);
    (run, stream)
}

/// Options of a serverless pool.
fn pool(url: &str, options: Value) -> Value {
    let mut pool = json!({ "url": url, "request_lifespan": 900 });
    if let Value::Object(options) = options {
        for (name, value) in options {
            pool[name] = value;
        }
    }
    pool
}
