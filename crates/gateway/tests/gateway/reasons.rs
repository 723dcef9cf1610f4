//! What a request is told that has waited for its actor in vain (`spec/gateway.md` 11, `spec/scheduling.md` 5). Times are
//! exact: nothing here takes any.

use std::time::Duration;

use gateway::{GenerationEnd, Obstacle, PoolFault};
use protocol::id::ActorId;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::scene::{Answer, RAY, Scene, ask, assert_took, get, settle};

const TIMED_OUT: &str = "Timed out waiting for actor to become ready. Ensure that the pool selector is accurate and there are \
                         envoys available in the namespace you created this actor.";

fn path(actor: ActorId) -> String {
    format!("/gateway/{actor}/x")
}

fn no_hosts() -> Obstacle {
    Obstacle::NoHosts { pool: "p".to_owned() }
}

fn fault() -> PoolFault {
    let details = json!({ "serverless_http_error": { "status_code": 502, "body": "Bad Gateway" } });
    PoolFault { words: "endpoint answered 502: Bad Gateway".to_owned(), details }
}

fn pool_failing() -> Obstacle {
    Obstacle::PoolFailing { pool: "p".to_owned(), fault: fault(), retry_in: Some(Duration::from_millis(1_600)) }
}

fn start_failed() -> GenerationEnd {
    GenerationEnd::StartFailed { message: Some("boom".to_owned()) }
}

/// Message and metadata, less how long the request has waited, which is within a few milliseconds of `waited`.
fn told(answer: &Answer, waited: Duration) -> (String, Value) {
    let mut body = answer.json();
    let waited_ms = body["metadata"].as_object_mut().unwrap().remove("waited_ms").unwrap().as_u64().unwrap();
    let expected = waited.as_millis() as u64;
    assert!((expected..expected + 50).contains(&waited_ms), "{waited_ms}");
    (body["message"].as_str().unwrap().to_owned(), body["metadata"].take())
}

async fn passes(seconds: f64) {
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn a_timeout_tells_what_is_in_the_way_at_the_end() {
    let scene = Scene::new();
    let actor = scene.actor(1);
    scene.directory.block(actor, Some(no_hosts()));
    let answer = ask(&scene, get(&path(actor))).await;
    passes(29.5).await;
    let silent = Obstacle::HostSilent { host: "h".to_owned(), silent_for: Duration::from_secs(12), connected: false };
    scene.directory.block(actor, Some(silent));
    let answer = answer.await.unwrap();
    assert_eq!(answer.error(), (503, "guard.actor_ready_timeout".to_owned()));
    let message = format!("{TIMED_OUT} After 30 s: host \"h\" silent for 12 s, not connected.");
    let metadata = json!({
        "actor_id": actor.to_string(), "waiting_for": "host_silent", "envoy_key": "h", "silent_ms": 12_000, "connected": false,
    });
    assert_eq!(told(&answer, Duration::from_secs(30)), (message, metadata));
}

#[tokio::test(start_paused = true)]
async fn a_timeout_admits_that_the_reason_is_unknown() {
    let scene = Scene::new();
    let actor = scene.actor(1);
    let answer = ask(&scene, get(&path(actor))).await.await.unwrap();
    let message = format!("{TIMED_OUT} After 30 s: nothing that the engine knows of was in the way.");
    let metadata = json!({ "actor_id": actor.to_string(), "waiting_for": "unknown" });
    assert_eq!(told(&answer, Duration::from_secs(30)), (message, metadata));
}

#[tokio::test(start_paused = true)]
async fn a_timeout_tells_of_an_end_during_the_wait_but_not_of_earlier_ones() {
    let scene = Scene::new();
    let actor = scene.actor(1);
    let host = scene.host();
    scene.directory.block(actor, Some(no_hosts()));
    scene.place(actor, 1, &host);
    scene.fail(actor, GenerationEnd::HostLost { host: "old".to_owned() });
    let unlucky = ask(&scene, get(&path(actor))).await;
    let in_the_way = "no capacity, because no host of pool \"p\" is connected";
    let unlucky = unlucky.await.unwrap();
    let without_end = json!({ "actor_id": actor.to_string(), "waiting_for": "no_hosts", "pool": "p" });
    let expected = (format!("{TIMED_OUT} After 30 s: {in_the_way}."), without_end);
    assert_eq!(told(&unlucky, Duration::from_secs(30)), expected);

    let unlucky = ask(&scene, get(&path(actor))).await;
    settle().await;
    scene.place(actor, 2, &host);
    scene.fail(actor, start_failed());
    let with_end = json!({
        "actor_id": actor.to_string(), "waiting_for": "no_hosts", "pool": "p",
        "last_end": { "reason": "start_failed", "message": "boom" },
    });
    let expected = (format!("{TIMED_OUT} After 30 s: {in_the_way}. Last end: start failed: boom."), with_end);
    assert_eq!(told(&unlucky.await.unwrap(), Duration::from_secs(30)), expected);
}

#[tokio::test(start_paused = true)]
async fn an_actor_that_never_starts_is_given_up_with_its_own_words() {
    let scene = Scene::new();
    let actor = scene.actor(1);
    let host = scene.host();
    let answer = ask(&scene, get(&path(actor))).await;
    for start in 1..=9 {
        scene.directory.woken(actor, start).await;
        scene.place(actor, start as u32, &host);
        settle().await;
        scene.fail(actor, start_failed());
    }
    let answer = answer.await.unwrap();
    assert_eq!(answer.error(), (503, "guard.actor_wake_retries_exceeded".to_owned()));
    let message = format!(
        "Actor {actor} stopped before becoming ready after 8 wake retries: actor_stopped_before_ready. Last end: start failed: boom."
    );
    let metadata = json!({
        "actor_id": actor.to_string(), "reason": "actor_stopped_before_ready", "wake_retries": 8,
        "last_end": { "reason": "start_failed", "message": "boom" },
    });
    assert_eq!((answer.json()["message"].as_str(), &answer.json()["metadata"]), (Some(message.as_str()), &metadata));
}

#[tokio::test(start_paused = true)]
async fn whether_the_pool_fails_is_looked_at_after_one_second_and_then_every_two() {
    let scene = Scene::new();
    let actor = scene.actor(1);
    scene.directory.block(actor, Some(no_hosts()));
    let mut host = scene.host();
    let began = Instant::now();
    let answer = ask(&scene, get(&path(actor))).await;
    // News of the actor do not shift the looks.
    for generation in 1..=5 {
        passes(0.7).await;
        scene.place(actor, generation, &host);
        passes(0.7).await;
        scene.stop(actor);
    }
    answer.await.unwrap();
    let looks: Vec<u64> = scene.directory.explained().iter().map(|at| (*at - began).as_secs()).collect();
    let expected: Vec<u64> = (1..30).step_by(2).chain([30]).collect();
    assert_eq!(looks, expected);

    // Who finds the actor ready asks for nothing.
    scene.run(actor, 6, &host);
    let answer = ask(&scene, get(&path(actor))).await;
    let (request, _start) = host.expect_request().await;
    passes(5.0).await;
    host.answer(&request, 200, "served");
    assert_eq!(answer.await.unwrap().text(), "served");
    assert_eq!(scene.directory.explained().len(), expected.len());
}

#[tokio::test(start_paused = true)]
async fn a_request_fails_with_its_pool_when_that_is_looked_at() {
    // When the pool begins to fail, and when a request that began at 0 is told.
    for (fails_at, told_at) in [(0.0, 1), (0.9, 1), (1.1, 3), (2.9, 3), (27.5, 29)] {
        let scene = Scene::new();
        let actor = scene.actor(1);
        scene.directory.block(actor, Some(no_hosts()));
        let began = Instant::now();
        let answer = ask(&scene, get(&path(actor))).await;
        let mut socket = scene.websocket(&format!("/gateway/{actor}/websocket/")).await;
        passes(fails_at).await;
        scene.directory.block(actor, Some(pool_failing()));
        let answer = answer.await.unwrap();
        let waited = Duration::from_secs(told_at);
        assert_took(began, waited);
        assert_eq!(answer.error(), (400, "guard.actor_runner_failed".to_owned()));
        let message = format!(
            "Actor's runner pool is experiencing errors. After {told_at} s: pool \"p\" fails: endpoint answered 502: Bad \
             Gateway; next attempt in 1.6 s."
        );
        let metadata = json!({
            "actor_id": actor.to_string(), "waiting_for": "pool_failing", "pool": "p", "runner_pool_error": fault().details,
            "retry_in_ms": 1_600,
        });
        assert_eq!(told(&answer, waited), (message, metadata));
        assert_eq!(socket.expect_close().await, (1011, format!("guard.actor_runner_failed#{RAY}")));
        assert_took(began, waited);
        drop(socket);
        scene.expect_no_leak().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_fails_between_two_looks_costs_nobody_anything() {
    let scene = Scene::new();
    let actor = scene.actor(1);
    let mut host = scene.host();
    let answer = ask(&scene, get(&path(actor))).await;
    passes(1.2).await;
    scene.directory.block(actor, Some(pool_failing()));
    passes(1.6).await;
    scene.directory.block(actor, None);
    passes(0.4).await;
    scene.run(actor, 1, &host);
    let (request, _start) = host.expect_request().await;
    host.answer(&request, 200, "served");
    assert_eq!(answer.await.unwrap().text(), "served");
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_fails_says_so_even_when_the_time_is_over() {
    let scene = Scene::with(|config| config.actor_ready_timeout = Duration::from_secs(3));
    let actor = scene.actor(1);
    let began = Instant::now();
    let answer = ask(&scene, get(&path(actor))).await;
    passes(2.0).await;
    scene.directory.block(actor, Some(pool_failing()));
    assert_eq!(answer.await.unwrap().error(), (400, "guard.actor_runner_failed".to_owned()));
    assert_took(began, Duration::from_secs(3));
    // A limit below the first look leaves no look.
    let scene = Scene::with(|config| config.actor_ready_timeout = Duration::from_millis(900));
    let actor = scene.actor(1);
    scene.directory.block(actor, Some(pool_failing()));
    let answer = ask(&scene, get(&path(actor))).await.await.unwrap();
    assert_eq!(answer.error(), (503, "guard.actor_ready_timeout".to_owned()));
    let (message, _metadata) = told(&answer, Duration::from_millis(900));
    assert!(message.contains("After 900 ms: pool \"p\" fails: endpoint answered 502"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn one_time_holds_for_all_attempts_to_deliver_a_request() {
    let scene = Scene::new();
    let actor = scene.actor(1);
    let mut host = scene.host();
    scene.run(actor, 1, &host);
    let began = Instant::now();
    let answer = ask(&scene, get(&path(actor))).await;
    let (request, _start) = host.expect_request().await;
    passes(0.8).await;
    host.refuse(&request, "envoy.actor_not_found");
    settle().await;
    scene.stop(actor);
    scene.directory.block(actor, Some(pool_failing()));
    assert_eq!(answer.await.unwrap().error(), (400, "guard.actor_runner_failed".to_owned()));
    assert_took(began, Duration::from_secs(1));

    // A host that refuses it for ever does not make it wait longer either.
    let scene = Scene::new();
    let actor = scene.actor(1);
    let mut host = scene.host();
    scene.run(actor, 1, &host);
    scene.directory.block(actor, None);
    let began = Instant::now();
    let mut answer = ask(&scene, get(&path(actor))).await;
    let answer = loop {
        tokio::select! {
            answer = &mut answer => break answer.unwrap(),
            (request, _start) = host.expect_request() => host.refuse(&request, "envoy.actor_not_found"),
        }
    };
    assert_took(began, Duration::from_secs(30));
    assert_eq!(answer.error(), (503, "guard.actor_ready_timeout".to_owned()));
    told(&answer, Duration::from_secs(30));
}
