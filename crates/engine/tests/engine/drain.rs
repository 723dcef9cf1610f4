//! Emptying hosts (`spec/scheduling.md` 8, checklist 35 to 38).

use std::time::Duration;

use protocol::envoy::{StopActorReason, ToRivet};
use serde_json::{Value, json};
use testkit::envoy::{EnvoyParams, FakeEnvoy, Run};
use tokio::time::Instant;

use crate::scene::{TestEngine, is_set};

const A_WHILE: Duration = Duration::from_millis(100);

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

fn assert_about(times: &[Duration], expected_ms: &[u64]) {
    let about = |(time, expected): (&Duration, &u64)| time.as_millis().abs_diff(u128::from(*expected)) < 200;
    assert!(times.len() == expected_ms.len() && times.iter().zip(expected_ms).all(about), "{times:?} instead of {expected_ms:?}");
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
        old.stopped(run);
        assert_eq!(new.expect_start_of(&run.actor_id).await.generation, 2);
    }
    assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
    // Once is enough, and it gets nothing new.
    engine.create("counter", None).await;
    old.expect_no_command(A_WHILE).await;
}

#[tokio::test]
async fn the_pool_sets_the_pace() {
    let paces = [
        (json!({ "actor_eviction_delay": 1, "actor_eviction_period": 60, "actor_eviction_rate": 4.0 }), [1000, 1250, 1500]),
        (json!({ "actor_eviction_period": 1, "actor_eviction_rate": 1.0 }), [0, 333, 667]),
        // A rate that the operator has set holds without a period too.
        (json!({ "actor_eviction_rate": 5.0 }), [0, 200, 400]),
    ];
    for (config, expected_ms) in paces {
        let engine = engine_with_pool(json!({})).await;
        let (mut host, _) = host_with_actors(&engine, &EnvoyParams::new(), 3).await;
        // What holds is the configuration at the time of the drain.
        engine.put_pool("default", json!({ "normal": config })).await;
        host.send(&ToRivet::Stopping);
        let times = stop_times(&mut host, Instant::now(), 3).await;
        assert_about(&times, &expected_ms);
    }
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
    let (mut old, _) = host_with_actors(&engine, &EnvoyParams::new().version(1), 2).await;
    engine.host_with(&EnvoyParams::new().version(2)).await;
    old.expect_no_command(A_WHILE).await;
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
