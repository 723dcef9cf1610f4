//! What the list of hosts says, and the times within which things happen to them (`spec/scheduling.md` 1.3, 6 and 7, checklist
//! 27 to 33; the default thresholds are tried in virtual time beside `envoy::connection`).

use std::collections::HashMap;
use std::time::Duration;

use protocol::envoy::StopActorReason;
use serde_json::{Value, json};
use testkit::envoy::{EnvoyParams, FakeEnvoy};
use testkit::eventually;
use tokio::time::Instant;

use crate::scene::{TestEngine, is_set};

const LOST_THRESHOLD: Duration = Duration::from_millis(300);
const SECOND: Duration = Duration::from_secs(1);

async fn engine_with_threshold() -> TestEngine {
    TestEngine::start(json!({ "pegboard": { "envoy_lost_threshold": LOST_THRESHOLD.as_millis() as u64 } })).await
}

fn is_running(actor: &Value) -> bool {
    is_set(&actor["connectable_ts"])
}

/// The hosts of a page, and where the next one begins.
async fn page(engine: &TestEngine, limit: usize, cursor: &str) -> (Vec<Value>, Option<String>) {
    let answer = engine.get(&format!("/envoys?namespace=default&limit={limit}{cursor}")).await.json();
    let envoys = answer["envoys"].as_array().unwrap().clone();
    (envoys, answer["pagination"]["cursor"].as_str().map(str::to_owned))
}

async fn slots(engine: &TestEngine) -> HashMap<String, u64> {
    let (envoys, _) = page(engine, 100, "").await;
    envoys.iter().map(|envoy| (envoy["envoy_key"].as_str().unwrap().to_owned(), envoy["slots"].as_u64().unwrap())).collect()
}

/// Item 27: what is offered does not matter. It is confirmed only if it was: strict clients give up otherwise.
#[tokio::test]
async fn a_host_that_does_not_offer_the_subprotocol_is_served_as_well() {
    let engine = TestEngine::start(json!({})).await;
    for (offered, answered) in
        [(&["rivet_token.x", "rivet"][..], Some("rivet")), (&["rivet_token.x"], None), (&["something"], None), (&[], None)]
    {
        let envoy = engine.host_with(&EnvoyParams::new().subprotocols(offered)).await;
        assert_eq!(envoy.upgrade().subprotocol(), answered, "{offered:?}");
    }
}

/// Item 29.
#[tokio::test]
async fn a_second_connection_gets_the_commands_that_the_first_has_not_acknowledged() {
    let engine = TestEngine::start(json!({})).await;
    let mut first = engine.host().await;
    let known = engine.create("counter", None).await;
    let known_run = first.start_actor().await;
    engine.actor_when(&known, "a running actor", is_running).await;
    // Of these, the host has said nothing.
    let actor = engine.create("counter", None).await;
    let (run, _) = first.expect_start().await;
    assert_eq!(run.actor_id, actor);
    engine.tell(&known, "sleep").await;
    first.expect_stop(&known_run).await;

    let mut second = FakeEnvoy::connect(engine.address(), first.params()).await.unwrap();
    second.expect_init().await;
    let mut repeated = HashMap::new();
    for _command in 0..2 {
        let command = second.expect_command("a command again").await;
        repeated.insert(command.checkpoint.actor_id, (command.checkpoint.generation, command.checkpoint.index));
    }
    assert_eq!(repeated, HashMap::from([(actor.clone(), (1, 1)), (known.clone(), (1, 2))]));
    assert_eq!(first.expect_close().await.code_and_cause(), (1000, "ws.eviction"));
    second.running(&run);
    engine.actor_when(&actor, "a running actor", is_running).await;
    assert_eq!(engine.actor(&known).await.get("error"), None);
}

/// Item 32. The last sign of life is at most as old as the cut.
#[tokio::test]
async fn a_killed_host_is_unlisted_at_once_and_its_requests_are_answered_elsewhere_in_time() {
    let engine = engine_with_threshold().await;
    let mut first = engine.host().await;
    let actor = engine.create("counter", None).await;
    let run = first.start_actor().await;
    engine.actor_when(&actor, "a running actor", is_running).await;
    let (mut second, params) = (engine.host().await, first.params().clone());
    let cut_at = Instant::now();
    first.cut();
    let answer = engine.request(&actor);
    eventually("one host that is left", async || (engine.listed_hosts().await == [second.key()]).then_some(())).await;
    assert!(cut_at.elapsed() < SECOND, "unlisted after {:?}", cut_at.elapsed());
    assert_eq!(second.start_actor().await.generation, 2);
    let request = second.expect_request().await;
    second.respond(&request, 200, &[], "elsewhere");
    assert_eq!(answer.await.unwrap().text(), "elsewhere");
    let took = cut_at.elapsed();
    assert!((LOST_THRESHOLD - Duration::from_millis(5)..LOST_THRESHOLD + SECOND).contains(&took), "answered after {took:?}");
    // The first host is told, and what it says of the old generation moves nothing.
    let mut back = engine.host_with(&params).await;
    assert_eq!(back.expect_stop(&run).await, (2, StopActorReason::Lost));
    back.stopped(&run);
    second.expect_no_command(Duration::from_millis(50)).await;
    assert!(is_running(&engine.actor(&actor).await));
}

/// Item 32: nobody asks for the actor, and no alarm is due.
#[tokio::test]
async fn without_requests_the_record_tells_of_the_loss_in_time() {
    let engine = engine_with_threshold().await;
    let mut envoy = engine.host().await;
    let actor = engine.create("counter", None).await;
    envoy.start_actor().await;
    engine.actor_when(&actor, "a running actor", is_running).await;
    let key = envoy.key().to_owned();
    let cut_at = Instant::now();
    envoy.cut();
    let lost = engine.actor_when(&actor, "a lost host's actor", |actor| actor.get("error").is_some()).await;
    assert!(cut_at.elapsed() < 2 * LOST_THRESHOLD, "lost after {:?}", cut_at.elapsed());
    assert_eq!(lost["error"], json!({ "envoy_connection_lost": { "envoy_key": key } }));
    assert!(is_set(&lost["sleep_ts"]) && lost["connectable_ts"].is_null());
}

/// Section 1.3.
#[tokio::test]
async fn slots_count_the_actors_that_have_come_up() {
    let engine = TestEngine::start(json!({})).await;
    let mut envoy = engine.host().await;
    let key = envoy.key().to_owned();
    let shown = async || slots(&engine).await[&key];
    let actor = engine.create("counter", None).await;
    let (run, _) = envoy.expect_start().await;
    assert_eq!(shown().await, 0, "it is only starting");
    envoy.running(&run);
    engine.actor_when(&actor, "a running actor", is_running).await;
    assert_eq!(shown().await, 1);
    envoy.wants_sleep(&run);
    envoy.expect_stop(&run).await;
    assert_eq!(shown().await, 1, "it has not stopped yet");
    envoy.stopped(&run);
    engine.asleep(&actor).await;
    eventually("no actor on the host", async || (shown().await == 0).then_some(())).await;
}

#[tokio::test]
async fn pages_of_hosts_name_each_of_them_once() {
    let engine = TestEngine::start(json!({})).await;
    let mut hosts = Vec::new();
    for _host in 0..7 {
        hosts.push(engine.host().await);
    }
    let (mut named, mut cursor) = (Vec::new(), String::new());
    loop {
        let (envoys, next) = page(&engine, 2, &cursor).await;
        named.extend(envoys.iter().map(|envoy| envoy["envoy_key"].as_str().unwrap().to_owned()));
        let Some(next) = next else { break };
        cursor = format!("&cursor={next}");
    }
    // The newest first.
    let expected: Vec<&str> = hosts.iter().rev().map(FakeEnvoy::key).collect();
    assert_eq!(named, expected);
}
