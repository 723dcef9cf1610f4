//! Start requests that go well: what they carry, which host answers, how they end.

use std::time::Duration;

use http::{Method, StatusCode};
use protocol::envoy::StopActorReason;
use serde_json::{Value, json};
use testkit::envoy::{EnvoyParams, FakeEnvoy};

use super::endpoint::{Endpoint, StartCall};
use super::{Scene, answer_and_run, pool};
use crate::scene::{TestEngine, creation, is_set};

fn headers(call: &StartCall, wanted: impl Fn(&str) -> bool) -> Vec<(&str, &str)> {
    call.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).filter(|(name, _)| wanted(name)).collect()
}

#[tokio::test]
async fn a_start_request_is_as_hosts_expect_it() {
    let headers_of_pool = json!({ "x-mine": "abc", "x-other": "two", "X-Rivet-Endpoint": "http://elsewhere/" });
    let mut scene = Scene::with(json!({}), json!({ "headers": headers_of_pool })).await;
    let mut body = creation("counter", Some("a"));
    body["input"] = json!("aGVsbG8=");
    let created = scene.engine.post("/actors?namespace=default", &body).await.json();
    let call = scene.endpoint.next_start().await;
    assert_eq!((call.method.as_str(), call.path.as_str()), ("POST", "/api/rivet/start"));
    let engine = format!("http://{}/", scene.engine.address());
    let expected = [
        ("x-mine", "abc"),
        ("x-other", "two"),
        ("x-rivet-endpoint", engine.as_str()),
        ("x-rivet-pool-name", "default"),
        ("x-rivet-namespace-name", "default"),
        ("accept", "text/event-stream"),
        ("user-agent", "RivetEngine/2.3.19"),
    ];
    assert_eq!(headers(&call, |name| !["host", "content-length"].contains(&name)), expected);
    assert_eq!(headers(&call, |name| name == "content-length"), [("content-length", call.body.len().to_string().as_str())]);

    let (version, start) = call.content();
    assert_eq!((version, start.checkpoint.generation, start.checkpoint.index), (8, 1, 0));
    assert_eq!(Some(start.checkpoint.actor_id.as_str()), created["actor"]["actor_id"].as_str());
    let config = start.command.config;
    assert_eq!(
        (config.name.as_str(), config.key.as_deref(), config.input.as_deref()),
        ("counter", Some("a"), Some(&b"hello"[..]))
    );
    assert_eq!(Some(config.create_ts), created["actor"]["create_ts"].as_i64());
    assert!(start.command.hibernating_requests.is_empty() && start.command.preloaded_kv.is_none());
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(scene.endpoint.waiting_starts().is_empty(), "one request for each generation");
}

#[tokio::test]
async fn a_pools_own_token_goes_before_the_engines() {
    let mut endpoint = Endpoint::start().await;
    let engine = TestEngine::fresh(json!({ "auth": { "admin_token": "admin" } })).await;
    for (options, token) in [(json!({}), "admin"), (json!({ "headers": { "x-rivet-token": "own" } }), "own")] {
        let config = json!({ "datacenters": { "default": { "serverless": pool(&endpoint.url(), options) } } });
        as_admin(&engine, Method::PUT, "/runner-configs/default?namespace=default", &config).await;
        as_admin(&engine, Method::POST, "/actors?namespace=default", &creation("counter", None)).await;
        let call = endpoint.next_start().await;
        assert_eq!(headers(&call, |name| name == "x-rivet-token"), [("x-rivet-token", token)]);
    }
}

async fn as_admin(engine: &TestEngine, method: Method, path: &str, body: &Value) {
    let request = http::Request::builder().method(method).uri(path);
    let request = request.header("authorization", "Bearer admin").header("content-type", "application/json");
    let answer = engine.send(request, body.to_string()).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
}

async fn answer_request(host: &mut FakeEnvoy) {
    let request = host.expect_request().await;
    host.respond(&request, 200, &[], "here");
}

#[tokio::test]
async fn an_actor_runs_sleeps_and_wakes_by_another_request() {
    let mut scene = Scene::start().await;
    let mut host = scene.host().await;
    let (run, stream) = scene.running_actor(&mut host).await;
    let answer = scene.engine.request(&run.actor_id);
    answer_request(&mut host).await;
    assert_eq!(answer.await.unwrap().status, StatusCode::OK);

    host.wants_sleep(&run);
    assert_eq!(host.expect_stop(&run).await, (1, StopActorReason::SleepIntent));
    host.stopped(&run);
    stream.stopping();
    scene.engine.asleep(&run.actor_id).await;
    let woken = scene.engine.request(&run.actor_id);
    let (next, _stream) = answer_and_run(scene.endpoint.next_start().await, &mut host);
    assert_eq!(next.generation, 2);
    answer_request(&mut host).await;
    assert_eq!(woken.await.unwrap().status, StatusCode::OK);
    assert!(scene.pool().await.get("runner_pool_error").is_none());
    assert_eq!(scene.engine.actor(&run.actor_id).await["error"], Value::Null);
}

#[tokio::test]
async fn only_a_host_of_the_pool_can_claim_a_generation() {
    let mut scene = Scene::start().await;
    scene.engine.put_pool("other", json!({ "normal": {} })).await;
    let mut stranger = scene.engine.host_with(&EnvoyParams::new().pool("other")).await;
    let mut host = scene.host().await;
    let actor = scene.engine.create("counter", None).await;
    let call = scene.endpoint.next_start().await;
    stranger.running(&call.run());
    stranger.expect_another_ping().await;
    assert_eq!(scene.engine.actor(&actor).await["start_ts"], Value::Null);
    let _stream = answer_and_run(call, &mut host);
    scene.until_running(&actor).await;
}

#[tokio::test]
async fn a_request_whose_generation_is_over_is_closed() {
    let mut scene = Scene::start().await;
    let mut host = scene.host().await;
    // The published host keeps the stream of a start that failed open.
    let actor = scene.engine.create("counter", None).await;
    let call = scene.endpoint.next_start().await;
    let run = call.run();
    let stream = call.accept();
    host.acknowledge(&run, 0);
    host.crashed(&run, "no such actor");
    let shown = scene.engine.asleep(&actor).await;
    assert_eq!(shown["error"], json!({ "crashed": { "message": "no such actor" } }));
    stream.closed().await;
    assert!(scene.pool().await.get("runner_pool_error").is_none());
}

#[tokio::test]
async fn a_pool_takes_no_more_actors_than_it_may() {
    let mut scene = Scene::with(json!({}), json!({ "max_concurrent_actors": 2 })).await;
    let mut host = scene.host().await;
    let (first, _first_stream) = scene.running_actor(&mut host).await;
    let (_second, _second_stream) = scene.running_actor(&mut host).await;
    let third = scene.engine.create("counter", None).await;
    let shown = scene.engine.actor_when(&third, "an actor without a place", |actor| is_set(&actor["reschedule_ts"])).await;
    assert_eq!(shown["error"], json!("concurrent_actor_limit_reached"));
    assert!(scene.endpoint.waiting_starts().is_empty());

    host.wants_sleep(&first);
    host.expect_stop(&first).await;
    host.stopped(&first);
    let (run, _stream) = answer_and_run(scene.endpoint.next_start().await, &mut host);
    assert_eq!(run.actor_id, third);
    scene.until_running(&third).await;

    // More room makes room at once.
    let fourth = scene.engine.create("counter", None).await;
    scene.engine.actor_when(&fourth, "an actor without a place", |actor| is_set(&actor["reschedule_ts"])).await;
    scene.configure(json!({ "max_concurrent_actors": 3 })).await;
    assert_eq!(scene.endpoint.next_start().await.run().actor_id, fourth);
}
