use std::time::Duration;
use serde_json::json;
use testkit::client;
use testkit::envoy::{EnvoyParams, FakeEnvoy, Run, stopped};
use crate::scene::{TestEngine, creation, is_set};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn create_races_with_connect() {
    let engine = TestEngine::start(json!({})).await;
    let mut late = 0;
    for i in 0..60 {
        let address = engine.address();
        let params = EnvoyParams::new();
        let delay = Duration::from_micros(i * 37);
        let create = tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            client::call_with(address, http::Method::POST, "/actors?namespace=default", &creation("c", None)).await.json()["actor"]["actor_id"].as_str().unwrap().to_owned()
        });
        let mut envoy = FakeEnvoy::join(address, &params).await;
        let actor = create.await.unwrap();
        let began = tokio::time::Instant::now();
        let run = envoy.expect_start_of(&actor).await;
        if began.elapsed() > Duration::from_millis(500) { late += 1; println!("{i}: {:?}", began.elapsed()); }
        envoy.running(&run);
        envoy.stopped(&run);
        engine.actor_when(&actor, "x", |a| is_set(&a["destroy_ts"])).await;
        envoy.cut();
        testkit::eventually("gone", async || engine.listed_hosts().await.is_empty().then_some(())).await;
    }
    assert_eq!(late, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn create_races_with_stopping() {
    let mut missed = 0;
    for i in 0..40 {
        let engine = TestEngine::start(json!({})).await;
        let address = engine.address();
        let mut old = engine.host().await;
        let delay = Duration::from_micros(i * 53);
        let create = tokio::spawn(async move {
            client::call_with(address, http::Method::POST, "/actors?namespace=default", &creation("c", None)).await.json()["actor"]["actor_id"].as_str().unwrap().to_owned()
        });
        tokio::time::sleep(delay).await;
        old.send(&protocol::envoy::ToRivet::Stopping);
        let actor = create.await.unwrap();
        let Ok(run) = tokio::time::timeout(Duration::from_millis(100), old.expect_start_of(&actor)).await else { continue };
        old.running(&run);
        if tokio::time::timeout(Duration::from_millis(300), old.expect_stop(&run)).await.is_err() { missed += 1; println!("{i} missed"); }
    }
    assert_eq!(missed, 0);
}

#[tokio::test]
async fn same_key_in_another_namespace() {
    let engine = TestEngine::start(json!({})).await;
    engine.post("/namespaces", &json!({"name":"other","display_name":"O"})).await;
    engine.put("/runner-configs/default?namespace=other", &json!({"datacenters":{"default":{"normal":{}}}})).await;
    let mut envoy = engine.host().await;
    let actor = engine.create("c", None).await;
    let run = envoy.start_actor().await;
    engine.actor_when(&actor, "x", |a| is_set(&a["connectable_ts"])).await;
    let twin = engine.host_with(&envoy.params().clone().with("namespace", "other")).await;
    twin.event_at(&run, 5, stopped());
    tokio::time::sleep(Duration::from_millis(200)).await;
    let shown = engine.actor(&actor).await;
    assert!(shown["destroy_ts"].is_null(), "{shown}");
}

#[tokio::test]
async fn reconnect_storm() {
    // connect the same key many times quickly; every command must arrive on the last
    let engine = TestEngine::start(json!({})).await;
    let params = EnvoyParams::new();
    let mut envoys = vec![];
    for _ in 0..20 { envoys.push(FakeEnvoy::connect(engine.address(), &params).await.unwrap()); }
    let actor = engine.create("c", None).await;
    let mut last = envoys.pop().unwrap();
    assert_eq!(last.expect_start_of(&actor).await, Run { actor_id: actor, generation: 1 });
    for mut e in envoys { assert_eq!(e.expect_close().await.code_and_cause(), (1000, "ws.eviction")); }
    assert_eq!(engine.listed_hosts().await.len(), 1);
}

#[tokio::test]
async fn two_deletes_at_once() {
    let engine = TestEngine::start(json!({})).await;
    let mut envoy = engine.host().await;
    let actor = engine.create("c", None).await;
    let run = envoy.start_actor().await;
    engine.actor_when(&actor, "x", |a| is_set(&a["connectable_ts"])).await;
    let path = format!("/actors/{actor}?namespace=default");
    let address = engine.address();
    let calls: Vec<_> = (0..5).map(|_| { let path = path.clone(); tokio::spawn(async move { client::call(address, http::Method::DELETE, &path).await.status }) }).collect();
    envoy.expect_stop(&run).await;
    envoy.stopped(&run);
    for c in calls { assert_eq!(c.await.unwrap(), 200); }
}
