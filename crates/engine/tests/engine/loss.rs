//! Hosts that vanish, come back, and come late (`spec/scheduling.md` 6 and 7, checklist 29 to 33).

use std::collections::HashMap;
use std::time::Duration;

use protocol::envoy::StopActorReason;
use serde_json::{Value, json};
use testkit::envoy::{EnvoyParams, FakeEnvoy};
use testkit::eventually;

use crate::scene::{TestEngine, is_set};

const A_WHILE: Duration = Duration::from_millis(100);

fn is_running(actor: &Value) -> bool {
    is_set(&actor["connectable_ts"])
}

async fn unlisted(engine: &TestEngine) {
    eventually("a host that is no longer listed", async || engine.listed_hosts().await.is_empty().then_some(())).await;
}

#[tokio::test]
async fn a_reconnect_in_time_changes_nothing() {
    let engine = TestEngine::start(json!({ "pegboard": { "envoy_lost_threshold": 600 } })).await;
    let mut envoy = engine.host().await;
    let actor = engine.create("counter", None).await;
    let run = envoy.start_actor().await;
    let before = engine.actor_when(&actor, "a running actor", is_running).await;
    let params = envoy.params().clone();
    envoy.cut();
    unlisted(&engine).await;
    // Waits for the host to come back.
    let answer = engine.request(&actor);
    let mut envoy = engine.host_with(&params).await;
    let request = envoy.expect_request().await;
    assert_eq!(request.start.actor_generation, Some(1));
    envoy.respond(&request, 200, &[], "back");
    assert_eq!(answer.await.unwrap().text(), "back");
    // Also after the time at which it would have been lost.
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(engine.actor(&actor).await, before);
    envoy.stopped(&run);
}

#[tokio::test]
async fn stops_issued_meanwhile_are_delivered_on_return() {
    let engine = TestEngine::start(json!({})).await;
    let mut envoy = engine.host().await;
    let actor = engine.create("counter", None).await;
    let run = envoy.start_actor().await;
    engine.actor_when(&actor, "a running actor", is_running).await;
    let params = envoy.params().clone();
    envoy.cut();
    unlisted(&engine).await;
    engine.tell(&actor, "sleep").await;
    let mut envoy = engine.host_with(&params).await;
    assert_eq!(envoy.expect_stop(&run).await, (2, StopActorReason::SleepIntent));
}

#[tokio::test]
async fn a_lost_host_loses_its_actors() {
    let engine = TestEngine::start(json!({ "pegboard": { "envoy_lost_threshold": 300 } })).await;
    let mut envoy = engine.host().await;
    let actor = engine.create("counter", None).await;
    let run = envoy.start_actor().await;
    engine.actor_when(&actor, "a running actor", is_running).await;
    let (params, key) = (envoy.params().clone(), envoy.key().to_owned());
    let cut_at = tokio::time::Instant::now();
    envoy.cut();
    let asleep = engine.asleep(&actor).await;
    let took = cut_at.elapsed();
    assert!((Duration::from_millis(295)..Duration::from_millis(900)).contains(&took), "given up after {took:?}");
    assert_eq!(asleep["error"], json!({ "envoy_connection_lost": { "envoy_key": key } }));
    // If it comes back after all, it is told.
    let mut envoy = engine.host_with(&params).await;
    assert_eq!(envoy.expect_stop(&run).await, (2, StopActorReason::Lost));
}

#[tokio::test]
async fn whoever_waits_is_served_by_another_host() {
    let engine = TestEngine::start(json!({ "pegboard": { "envoy_lost_threshold": 300 } })).await;
    let mut first = engine.host().await;
    let actor = engine.create("counter", None).await;
    first.start_actor().await;
    engine.actor_when(&actor, "a running actor", is_running).await;
    let mut second = engine.host().await;
    first.cut();
    eventually("one host that is left", async || (engine.listed_hosts().await == [second.key()]).then_some(())).await;
    let answer = engine.request(&actor);
    let run = second.start_actor().await;
    assert_eq!((run.actor_id.as_str(), run.generation), (actor.as_str(), 2));
    let request = second.expect_request().await;
    second.respond(&request, 200, &[], "elsewhere");
    assert_eq!(answer.await.unwrap().text(), "elsewhere");
}

#[tokio::test]
async fn a_due_alarm_moves_the_actor_of_a_lost_host() {
    let engine = TestEngine::start(json!({ "pegboard": { "envoy_lost_threshold": 200 } })).await;
    let mut first = engine.host().await;
    let actor = engine.create("counter", None).await;
    let run = first.start_actor().await;
    first.set_alarm(&run, Some(1));
    engine.actor_when(&actor, "a running actor", is_running).await;
    let mut second = engine.host().await;
    first.cut();
    assert_eq!(second.expect_start_of(&actor).await.generation, 2);
}

#[tokio::test]
async fn a_lost_host_ends_destruction_too() {
    let engine = TestEngine::start(json!({ "pegboard": { "envoy_lost_threshold": 200 } })).await;
    let mut envoy = engine.host().await;
    let actor = engine.create("counter", None).await;
    envoy.start_actor().await;
    engine.actor_when(&actor, "a running actor", is_running).await;
    envoy.cut();
    assert_eq!(engine.destroy(&actor).await.status, 200);
    assert!(is_set(&engine.actor(&actor).await["destroy_ts"]));
}

#[tokio::test]
async fn a_waiting_actor_starts_when_a_host_appears() {
    let engine = TestEngine::start(json!({})).await;
    let actor = engine.create("counter", None).await;
    let waiting = engine.actor_when(&actor, "a waiting actor", |actor| is_set(&actor["reschedule_ts"])).await;
    assert_eq!((&waiting["error"], is_set(&waiting["sleep_ts"])), (&json!("no_envoys"), true));
    // However many requests were made before.
    let requests: Vec<_> = (0..20).map(|_| engine.request(&actor)).collect();
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(engine.actor(&actor).await["reschedule_ts"], waiting["reschedule_ts"]);

    let mut envoy = engine.host().await;
    let appeared = tokio::time::Instant::now();
    let run = envoy.start_actor().await;
    assert!(appeared.elapsed() < A_WHILE, "started after {:?}", appeared.elapsed());
    assert_eq!(run.generation, 1);
    for _request in 0..20 {
        let request = envoy.expect_request().await;
        envoy.respond(&request, 200, &[], "at last");
    }
    for answer in requests {
        assert_eq!(answer.await.unwrap().text(), "at last");
    }
    let running = engine.actor(&actor).await;
    assert_eq!((running.get("error"), &running["reschedule_ts"]), (None, &Value::Null));
}

#[tokio::test]
async fn a_request_outlives_the_search_for_a_host() {
    let engine = TestEngine::start(json!({})).await;
    let actor = engine.create("counter", None).await;
    engine.actor_when(&actor, "a waiting actor", |actor| is_set(&actor["reschedule_ts"])).await;
    let answer = engine.request(&actor);
    tokio::time::sleep(A_WHILE).await;
    // The search is called off, but there is still somebody who waits.
    engine.tell(&actor, "sleep").await;
    tokio::time::sleep(A_WHILE).await;
    let mut envoy = engine.host().await;
    envoy.start_actor().await;
    let request = envoy.expect_request().await;
    envoy.respond(&request, 200, &[], "after all");
    assert_eq!(answer.await.unwrap().text(), "after all");
}

#[tokio::test]
async fn attempts_without_a_host_slow_down_and_end() {
    let settings = json!({ "pegboard": { "base_retry_timeout": 20, "actor_retry_duration_threshold": 200 } });
    let engine = TestEngine::start(settings).await;
    let actor = engine.create("counter", None).await;
    let given_up = engine.actor_when(&actor, "the end of the attempts", |actor| actor["reschedule_ts"].is_null()).await;
    assert_eq!((&given_up["error"], is_set(&given_up["sleep_ts"])), (&json!("no_envoys"), true));
    // Nobody waits for a host any more, but whoever asks starts it.
    let mut envoy = engine.host().await;
    envoy.expect_no_command(A_WHILE).await;
    let answer = engine.request(&actor);
    envoy.start_actor().await;
    let request = envoy.expect_request().await;
    envoy.respond(&request, 200, &[], "hello");
    assert_eq!(answer.await.unwrap().status, 200);
}

#[tokio::test]
async fn only_the_newest_version_gets_new_actors_and_none_that_stops() {
    let engine = TestEngine::fresh(json!({})).await;
    engine.put_pool("default", json!({ "normal": { "drain_on_version_upgrade": false } })).await;
    let mut old = engine.host_with(&EnvoyParams::new().version(1)).await;
    let mut new = engine.host_with(&EnvoyParams::new().version(2)).await;
    for _actor in 0..5 {
        engine.create("counter", None).await;
        new.start_actor().await;
    }
    old.expect_no_command(A_WHILE).await;
    // An older one that still works is better than none.
    new.send(&protocol::envoy::ToRivet::Stopping);
    eventually("an actor on the older host", async || {
        engine.create("counter", None).await;
        tokio::time::timeout(A_WHILE, old.start_actor()).await.ok()
    })
    .await;
}

#[tokio::test]
async fn actors_spread_over_the_hosts() {
    let engine = TestEngine::start(json!({})).await;
    let mut hosts: Vec<FakeEnvoy> = Vec::new();
    for _host in 0..4 {
        hosts.push(engine.host().await);
    }
    for _actor in 0..40 {
        engine.create("counter", None).await;
    }
    let mut load = HashMap::new();
    for host in &mut hosts {
        let (key, mut runs) = (host.key().to_owned(), 0);
        // Each has been sent its starts: none of them waits for anything.
        while tokio::time::timeout(A_WHILE, host.start_actor()).await.is_ok() {
            runs += 1;
        }
        load.insert(key, runs);
    }
    assert_eq!(load.values().sum::<u64>(), 40);
    assert!(load.values().all(|actors| (5..=15).contains(actors)), "{load:?}");
    eventually("the same numbers in the list of hosts", async || {
        let listed = engine.get("/envoys?namespace=default").await.json()["envoys"].as_array().unwrap().clone();
        let pair = |envoy: &Value| (envoy["envoy_key"].as_str().unwrap().to_owned(), envoy["slots"].as_u64().unwrap());
        (listed.iter().map(pair).collect::<HashMap<_, _>>() == load).then_some(())
    })
    .await;
}
