//! Things that happen while a step of an actor is being stored. Each race is run often enough to be lost now and then by an
//! engine that has not thought of it.

use std::time::Duration;

use http::Method;
use protocol::envoy::ToRivet;
use serde_json::json;
use testkit::client;
use testkit::envoy::EnvoyParams;
use testkit::eventually;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::scene::{TestEngine, creation};

const ROUNDS: u64 = 40;

/// Creates an actor in the background; its id.
fn create(engine: &TestEngine) -> JoinHandle<String> {
    let address = engine.address();
    tokio::spawn(async move {
        let answer = client::call_with(address, Method::POST, "/actors?namespace=default", &creation("counter", None)).await;
        answer.json()["actor"]["actor_id"].as_str().unwrap().to_owned()
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_connects_during_a_creation_gets_the_actor() {
    // The first retry would come after this.
    let engine = TestEngine::start(json!({ "pegboard": { "base_retry_timeout": 60_000 } })).await;
    for round in 0..ROUNDS {
        let created = create(&engine);
        sleep(Duration::from_micros(round * 40)).await;
        let mut envoy = engine.host().await;
        let actor = created.await.unwrap();
        let connected = Instant::now();
        envoy.expect_start_of(&actor).await;
        assert!(connected.elapsed() < Duration::from_secs(1), "round {round}: {:?}", connected.elapsed());
        drop(envoy);
        eventually("no host", async || engine.listed_hosts().await.is_empty().then_some(())).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_begins_to_stop_during_a_creation_loses_the_actor() {
    let engine = TestEngine::start(json!({})).await;
    for round in 0..ROUNDS {
        let mut envoy = engine.host_with(&EnvoyParams::new().version(u32::try_from(round).unwrap() + 1)).await;
        let created = create(&engine);
        sleep(Duration::from_micros(round * 40)).await;
        envoy.send(&ToRivet::Stopping);
        let actor = created.await.unwrap();
        // Either it never came here, or it has to go again.
        if let Ok(run) = timeout(Duration::from_millis(20), envoy.expect_start_of(&actor)).await {
            envoy.running(&run);
            envoy.expect_stop(&run).await;
        }
    }
}
