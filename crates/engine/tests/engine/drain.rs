//! Emptying hosts (`spec/scheduling.md` 8, checklist 35 to 38).

use std::collections::BTreeSet;
use std::time::Duration;

use http::StatusCode;
use protocol::envoy::{KvRequestData, StopActorReason, ToEnvoy, ToRivet, ToRivetKvRequest};
use serde_json::{Value, json};
use testkit::envoy::{EnvoyParams, FakeEnvoy, Run, stopped};
use testkit::eventually;
use tokio::time::Instant;

use crate::scene::{TestEngine, is_set};

const A_WHILE: Duration = Duration::from_millis(100);
/// The engine counts in whole milliseconds, from a moment that is not quite the test's.
const EARLY: Duration = Duration::from_millis(3);
/// What a busy machine may add.
const LATE: Duration = Duration::from_millis(300);

/// A host with actors that run on it.
async fn host_with_actors(engine: &TestEngine, params: &EnvoyParams, actors: usize) -> (FakeEnvoy, Vec<Run>) {
    let mut host = engine.host_with(params).await;
    let mut runs = Vec::new();
    for _actor in 0..actors {
        let actor = engine.create("counter", None).await;
        runs.push(host.start_actor().await);
        engine.actor_when(&actor, "a running actor", |actor| is_set(&actor["connectable_ts"])).await;
    }
    (host, runs)
}

async fn engine_with_pool(config: Value) -> TestEngine {
    let engine = TestEngine::fresh(json!({})).await;
    engine.put_pool("default", json!({ "normal": config })).await;
    engine
}

/// How long after `began` each of the actors is told to go, in the order in which they are.
async fn stop_times(host: &mut FakeEnvoy, began: Instant, actors: usize) -> Vec<Duration> {
    let mut times = Vec::new();
    for _actor in 0..actors {
        host.expect_command("a stop command").await;
        times.push(began.elapsed());
    }
    times
}

/// Nobody goes before its turn, and everybody soon after. (That the pace is exact is shown in virtual time, in `lifecycle`.)
fn assert_paced(times: &[Duration], expected_ms: &[u64]) {
    let in_turn = |(time, expected): (&Duration, &u64)| {
        let turn = Duration::from_millis(*expected);
        (turn.saturating_sub(EARLY)..turn + LATE).contains(time)
    };
    let is_paced = times.len() == expected_ms.len() && times.iter().zip(expected_ms).all(in_turn);
    assert!(is_paced, "{times:?} instead of {expected_ms:?} ms");
}

/// Waits until the engine has taken all that a host has sent so far, by asking it for something.
async fn heard(host: &mut FakeEnvoy) {
    let data = KvRequestData::Get { keys: Vec::new() };
    host.send(&ToRivet::KvRequest(ToRivetKvRequest { actor_id: "nobody".into(), request_id: 1, data }));
    host.expect("an answer", |message| matches!(message, ToEnvoy::KvResponse { .. }).then_some(())).await;
}

/// Cuts a host's connection, and waits until the engine knows.
async fn cut_and_missed(engine: &TestEngine, host: FakeEnvoy) {
    let key = host.key().to_owned();
    host.cut();
    eventually("the host to be missed", async || (!engine.listed_hosts().await.contains(&key)).then_some(())).await;
}

#[tokio::test]
async fn a_stopping_host_is_emptied_at_once_by_default() {
    let engine = TestEngine::start(json!({})).await;
    let (mut old, runs) = host_with_actors(&engine, &EnvoyParams::new(), 3).await;
    let mut new = engine.host().await;
    let began = Instant::now();
    old.send(&ToRivet::Stopping);
    old.send(&ToRivet::Stopping);
    for run in &runs {
        assert_eq!(old.expect_stop(run).await, (2, StopActorReason::GoingAway));
    }
    assert!(began.elapsed() < Duration::from_millis(200), "{:?}", began.elapsed());
    for run in &runs {
        old.stopped(run);
        assert_eq!(new.expect_start_of(&run.actor_id).await.generation, 2);
    }
    // Once is enough, and it gets nothing new.
    engine.create("counter", None).await;
    old.expect_no_command(A_WHILE).await;
}

#[tokio::test]
async fn the_pool_sets_the_pace() {
    let paces = [
        (json!({ "actor_eviction_delay": 1, "actor_eviction_period": 3, "actor_eviction_rate": 1.0 }), 1000, 500),
        (json!({ "actor_eviction_delay": 1, "actor_eviction_period": 60, "actor_eviction_rate": 4.0 }), 1000, 250),
        (json!({ "actor_eviction_period": 100, "actor_eviction_rate": 4.0 }), 0, 250),
        // A rate that the operator has set holds without a period too.
        (json!({ "actor_eviction_rate": 5.0 }), 0, 200),
    ];
    futures_util::future::join_all(paces.map(async |(config, first_ms, gap_ms)| {
        let engine = engine_with_pool(json!({})).await;
        let (mut host, _) = host_with_actors(&engine, &EnvoyParams::new(), 6).await;
        // What holds is the configuration at the time of the drain.
        engine.put_pool("default", json!({ "normal": config })).await;
        let began = Instant::now();
        host.send(&ToRivet::Stopping);
        heard(&mut host).await;
        engine.put_pool("default", json!({ "normal": {} })).await;
        let times = stop_times(&mut host, began, 6).await;
        let expected_ms: Vec<u64> = (0..6).map(|position| first_ms + position * gap_ms).collect();
        assert_paced(&times, &expected_ms);
    }))
    .await;
}

#[tokio::test]
async fn a_host_that_comes_back_is_not_emptied_from_the_beginning() {
    let engine = engine_with_pool(json!({ "actor_eviction_delay": 1, "actor_eviction_rate": 2.0 })).await;
    let (mut host, runs) = host_with_actors(&engine, &EnvoyParams::new(), 4).await;
    host.send(&ToRivet::Stopping);
    let first = host.expect_command("a stop command").await.checkpoint;
    let params = host.params().clone();
    cut_and_missed(&engine, host).await;
    // All the others would have been due by the time it is back.
    tokio::time::sleep(Duration::from_millis(1600)).await;
    let back = Instant::now();
    let mut host = engine.host_with(&params).await;
    host.send(&ToRivet::Stopping);
    let repeated = host.expect_stop(&Run { actor_id: first.actor_id.clone(), generation: 1 }).await;
    assert_eq!(repeated, (2, StopActorReason::GoingAway), "it was not acknowledged");
    let mut told = BTreeSet::from([first.actor_id]);
    let mut times = Vec::new();
    while told.len() < runs.len() {
        let stop = host.expect_command("a stop command").await.checkpoint;
        times.push(back.elapsed());
        assert!(told.insert(stop.actor_id), "an actor was told twice");
    }
    // Neither from the beginning, delay and all, nor everything at once.
    assert_paced(&times, &[0, 500, 1000]);
    host.expect_no_command(A_WHILE).await;
}

#[tokio::test]
async fn the_actors_of_a_host_that_has_taken_its_leave_move_at_once() {
    let engine = engine_with_pool(json!({ "actor_eviction_delay": 60 })).await;
    let (old, runs) = host_with_actors(&engine, &EnvoyParams::new(), 1).await;
    let mut new = engine.host().await;
    let waiting = engine.request(&runs[0].actor_id);
    old.send(&ToRivet::Stopping);
    old.close(1000, "envoy.shutdown");
    // Long before it counts as lost.
    let run = new.start_actor().await;
    assert_eq!((&run.actor_id, run.generation), (&runs[0].actor_id, 2));
    let request = new.expect_request().await;
    new.respond(&request, 200, &[], "");
    assert_eq!(waiting.await.unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn a_newer_version_drains_the_older_one_without_closing_it() {
    let engine = engine_with_pool(json!({})).await;
    let (mut old, runs) = host_with_actors(&engine, &EnvoyParams::new().version(1), 2).await;
    let mut new = engine.host_with(&EnvoyParams::new().version(2)).await;
    for run in &runs {
        assert_eq!(old.expect_stop(run).await.1, StopActorReason::GoingAway);
        old.stopped(run);
        assert_eq!(new.expect_start_of(&run.actor_id).await.generation, 2);
    }
    old.send(&ToRivet::Pong { ts: 0 });
    assert_eq!(engine.listed_hosts().await.len(), 2, "the older host was cut off");
}

#[tokio::test]
async fn a_newer_version_leaves_the_older_one_alone_if_told_so() {
    let engine = engine_with_pool(json!({ "drain_on_version_upgrade": false })).await;
    let (mut old, runs) = host_with_actors(&engine, &EnvoyParams::new().version(1), 1).await;
    let mut new = engine.host_with(&EnvoyParams::new().version(2)).await;
    old.expect_no_command(A_WHILE).await;
    // Until it is told otherwise.
    engine.put_pool("default", json!({ "normal": {} })).await;
    assert_eq!(old.expect_stop(&runs[0]).await, (2, StopActorReason::GoingAway));
    old.stopped(&runs[0]);
    assert_eq!(new.expect_start_of(&runs[0].actor_id).await.generation, 2);
}

#[tokio::test]
async fn an_actor_that_is_starting_moves_too() {
    let engine = TestEngine::start(json!({})).await;
    let mut old = engine.host().await;
    let actor = engine.create("counter", None).await;
    let (run, _) = old.expect_start().await;
    let mut new = engine.host().await;
    old.send(&ToRivet::Stopping);
    old.running(&run);
    assert_eq!(old.expect_stop(&run).await, (2, StopActorReason::GoingAway));
    old.stopped(&run);
    assert_eq!(new.expect_start_of(&actor).await.generation, 2);
}

#[tokio::test]
async fn actors_stay_when_the_newer_version_goes_again() {
    let engine = engine_with_pool(json!({ "actor_eviction_rate": 2.0 })).await;
    let (mut old, runs) = host_with_actors(&engine, &EnvoyParams::new().version(1), 3).await;
    let newer = EnvoyParams::new().version(2);
    let new = engine.host_with(&newer).await;
    let first = old.expect_command("a stop command").await.checkpoint;
    let first = Run { actor_id: first.actor_id, generation: first.generation };
    cut_and_missed(&engine, new).await;
    // It goes to the best host that there is.
    old.stopped(&first);
    let back = old.expect_start_of(&first.actor_id).await;
    assert_eq!(back.generation, 2);
    old.running(&back);
    old.expect_no_command(Duration::from_millis(700)).await;

    let began = Instant::now();
    let mut new = engine.host_with(&newer).await;
    let mut moved = BTreeSet::new();
    for _actor in &runs {
        let stop = old.expect_command("a stop command").await.checkpoint;
        let generation = if stop.actor_id == first.actor_id { 2 } else { 1 };
        assert_eq!(stop.generation, generation);
        old.event_at(&Run { actor_id: stop.actor_id.clone(), generation }, 10, stopped());
        assert_eq!(new.expect_start_of(&stop.actor_id).await.generation, generation + 1);
        moved.insert(stop.actor_id);
    }
    assert_eq!(moved.len(), runs.len());
    assert!(began.elapsed() > Duration::from_secs(1) - EARLY, "the pace was forgotten");
}

#[tokio::test]
async fn a_newer_version_that_shuts_down_gives_its_actors_to_the_older_one() {
    let engine = engine_with_pool(json!({ "actor_eviction_rate": 1.0 })).await;
    let (mut old, _) = host_with_actors(&engine, &EnvoyParams::new().version(1), 2).await;
    let mut new = engine.host_with(&EnvoyParams::new().version(2)).await;
    let moving = old.expect_command("a stop command").await.checkpoint;
    old.stopped(&Run { actor_id: moving.actor_id.clone(), generation: 1 });
    let run = new.start_actor().await;
    engine.actor_when(&run.actor_id, "a running actor", |actor| is_set(&actor["connectable_ts"])).await;
    new.send(&ToRivet::Stopping);
    assert_eq!(new.expect_stop(&run).await, (2, StopActorReason::GoingAway));
    new.stopped(&run);
    assert_eq!(old.expect_start_of(&moving.actor_id).await.generation, 3);
    old.expect_no_command(Duration::from_millis(1200)).await;
}

#[tokio::test]
async fn a_newer_version_that_falls_silent_holds_the_drain_up() {
    let settings = json!({ "pegboard": { "envoy_eligible_threshold": 300, "envoy_update_ping_interval": 100 } });
    let engine = TestEngine::start(settings).await;
    let (mut old, runs) = host_with_actors(&engine, &EnvoyParams::new().version(1), 1).await;
    engine.put_pool("default", json!({ "normal": { "actor_eviction_delay": 1 } })).await;
    let mut new = engine.host_with(&EnvoyParams::new().version(2)).await;
    new.leave_pings_alone();
    old.expect_no_command(Duration::from_millis(1200)).await;
    engine.put_pool("default", json!({ "normal": {} })).await;
    new.send(&ToRivet::Pong { ts: 0 });
    assert_eq!(old.expect_stop(&runs[0]).await, (2, StopActorReason::GoingAway));
    old.stopped(&runs[0]);
    assert_eq!(new.expect_start_of(&runs[0].actor_id).await.generation, 2);
}

#[tokio::test]
async fn a_silent_host_that_is_heard_again_gets_those_who_wait() {
    let settings = json!({ "pegboard": { "envoy_eligible_threshold": 200, "base_retry_timeout": 60_000 } });
    let engine = TestEngine::start(settings).await;
    let mut host = engine.host().await;
    host.leave_pings_alone();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let actor = engine.create("counter", None).await;
    engine.actor_when(&actor, "an actor without a host", |actor| actor["error"] == "no_envoys").await;
    host.send(&ToRivet::Pong { ts: 0 });
    assert_eq!(host.expect_start_of(&actor).await.generation, 1);
}

#[tokio::test]
async fn the_older_version_is_drained_after_a_restart_whoever_is_back_first() {
    for newer_first in [true, false] {
        let engine = engine_with_pool(json!({ "actor_eviction_delay": 60 })).await;
        let (old, runs) = host_with_actors(&engine, &EnvoyParams::new().version(1), 1).await;
        let new = engine.host_with(&EnvoyParams::new().version(2)).await;
        // The drain waits; that the engine knows of it does not outlive the engine.
        engine.put_pool("default", json!({ "normal": {} })).await;
        let engine = engine.restart().await;
        let (old_params, new_params) = (old.params().clone(), new.params().clone());
        let (mut old, mut new) = if newer_first {
            let new = engine.host_with(&new_params).await;
            (engine.host_with(&old_params).await, new)
        } else {
            (engine.host_with(&old_params).await, engine.host_with(&new_params).await)
        };
        assert_eq!(old.expect_stop(&runs[0]).await, (2, StopActorReason::GoingAway));
        old.event_at(&runs[0], 10, stopped());
        assert_eq!(new.expect_start_of(&runs[0].actor_id).await.generation, 2);
    }
}

#[tokio::test]
async fn shutting_down_amid_an_upgrade_changes_nothing() {
    let engine = engine_with_pool(json!({ "actor_eviction_rate": 5.0 })).await;
    let (mut old, _) = host_with_actors(&engine, &EnvoyParams::new().version(1), 4).await;
    let began = Instant::now();
    let _newer = engine.host_with(&EnvoyParams::new().version(2)).await;
    old.expect_command("a stop command").await;
    old.send(&ToRivet::Stopping);
    let times = stop_times(&mut old, began, 3).await;
    assert_paced(&times, &[200, 400, 600]);
    old.expect_no_command(A_WHILE).await;
}

#[tokio::test]
async fn what_a_host_was_told_about_stopping_is_what_counts() {
    let engine = TestEngine::start(json!({ "pegboard": { "actor_stop_threshold": 300 } })).await;
    let mut host = FakeEnvoy::connect(engine.address(), &EnvoyParams::new()).await.unwrap();
    assert_eq!(host.expect_init().await.actor_stop_threshold, 300);
    let actor = engine.create("counter", None).await;
    let run = host.start_actor().await;
    engine.actor_when(&actor, "a running actor", |actor| is_set(&actor["connectable_ts"])).await;
    let serverless = json!({ "url": "http://127.0.0.1:9", "request_lifespan": 900, "drain_grace_period": 60 });
    engine.put_pool("default", json!({ "serverless": serverless })).await;
    let mut other = FakeEnvoy::connect(engine.address(), &EnvoyParams::new()).await.unwrap();
    assert_eq!(other.expect_init().await.actor_stop_threshold, 60_000);
    engine.tell(&actor, "sleep").await;
    assert_eq!(host.expect_stop(&run).await, (2, StopActorReason::SleepIntent));
    assert_eq!(host.expect_stop(&run).await, (3, StopActorReason::Lost));
}
