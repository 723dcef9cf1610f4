//! What the list and a request that has waited in vain tell of an actor that nobody runs (`spec/scheduling.md` 1.5 and 5,
//! `spec/gateway.md` 11). Endpoints that fail are in `serverless`.

use std::time::Duration;

use protocol::envoy::ToRivet;
use serde_json::{Value, json};
use testkit::client::Answer;
use testkit::envoy::{EnvoyParams, FakeEnvoy};

use crate::scene::{TestEngine, is_set};

/// How long requests wait here, in milliseconds.
const PATIENCE_MS: u64 = 300;

const TIMED_OUT: &str = "Timed out waiting for actor to become ready. Ensure that the pool selector is accurate and there are \
                         envoys available in the namespace you created this actor.";

async fn impatient(pegboard: Value) -> TestEngine {
    TestEngine::start(json!({ "guard": { "actor_ready_timeout_ms": PATIENCE_MS }, "pegboard": pegboard })).await
}

/// What a request was told that has waited its time: the words behind what it is always told, and the metadata without the
/// two that are in all of them.
fn told(actor: &str, answer: &Answer) -> (String, Value) {
    let mut body = answer.json();
    assert_eq!(answer.error(), (503, "guard.actor_ready_timeout".to_owned()), "{body}");
    let message = body["message"].as_str().unwrap();
    let words = message.strip_prefix(TIMED_OUT).unwrap_or_else(|| panic!("{message}")).to_owned();
    let metadata = body["metadata"].as_object_mut().unwrap();
    assert_eq!(metadata.remove("actor_id"), Some(actor.into()));
    let waited_ms = metadata.remove("waited_ms").and_then(|waited| waited.as_u64()).unwrap();
    assert!(waited_ms >= PATIENCE_MS, "{waited_ms}");
    (words, body["metadata"].take())
}

/// A number that the metadata must have, and that depends on how busy the machine is.
fn take_millis(metadata: &mut Value, name: &str, at_least: u64) {
    let millis = metadata.as_object_mut().unwrap().remove(name).and_then(|millis| millis.as_u64()).unwrap();
    assert!((at_least..at_least + 20_000).contains(&millis), "{name}: {millis}");
}

/// A request in vain is told this, which the list shows as well.
async fn assert_told(engine: &TestEngine, actor: &str, words: &str, metadata: Value) {
    let (message, told) = told(actor, &engine.request(actor).await.unwrap());
    assert!(message.ends_with(&format!(": {words}.")), "{message}");
    assert_eq!(told, metadata);
    assert_eq!(engine.actor(actor).await["waiting_for"], words);
}

#[tokio::test]
async fn no_host_and_no_pool() {
    let engine = impatient(json!({})).await;
    let actor = engine.create("counter", None).await;
    let no_host = "no capacity, because no host of pool \"default\" is connected";
    assert_told(&engine, &actor, no_host, json!({ "waiting_for": "no_hosts", "pool": "default" })).await;
    assert_eq!(engine.actor(&actor).await["error"], "no_envoys");

    assert_eq!(engine.delete("/runner-configs/default?namespace=default").await.status, 200);
    let no_pool = "no pool \"default\" is configured";
    assert_told(&engine, &actor, no_pool, json!({ "waiting_for": "no_pool", "pool": "default" })).await;
    // Who would have to create it is refused at once, as ever.
    let refused = engine.try_create("counter", None).await;
    assert_eq!(refused.error(), (400, "actor.no_runner_config_configured".to_owned()));
}

#[tokio::test]
async fn hosts_that_take_no_actors() {
    let engine = impatient(json!({ "envoy_eligible_threshold": 100 })).await;
    let leaving = engine.host().await;
    leaving.send(&ToRivet::Stopping);
    let silent = engine.host_with(&EnvoyParams::new()).await;
    silent.leave_pings_alone();
    tokio::time::sleep(Duration::from_millis(150)).await;
    let actor = engine.create("counter", None).await;
    let (words, mut metadata) = told(&actor, &engine.request(&actor).await.unwrap());
    take_millis(&mut metadata, "silent_ms", 150);
    assert_eq!(metadata, json!({ "waiting_for": "host_silent", "envoy_key": silent.key(), "connected": true }));
    assert!(
        words.contains(&format!(": host {:?} silent for ", silent.key())) && words.ends_with(", still connected."),
        "{words}"
    );

    silent.cut();
    testkit::eventually("one host", async || (engine.listed_hosts().await == [leaving.key()]).then_some(())).await;
    let words = "no capacity, because all hosts of pool \"default\" (1) are shutting down or being replaced";
    assert_told(&engine, &actor, words, json!({ "waiting_for": "hosts_leaving", "pool": "default", "hosts": 1 })).await;
}

#[tokio::test]
async fn a_start_that_nobody_confirms() {
    let engine = impatient(json!({})).await;
    let mut host = engine.host().await;
    let actor = engine.create("counter", None).await;
    host.expect_start().await;
    let (words, mut metadata) = told(&actor, &engine.request(&actor).await.unwrap());
    take_millis(&mut metadata, "since_ms", PATIENCE_MS);
    assert_eq!(metadata, json!({ "waiting_for": "starting", "envoy_key": host.key() }));
    let told_to_start = format!("host {:?} was told to start it ", host.key());
    assert!(words.contains(&told_to_start) && words.ends_with(" ago and has not reported it running."), "{words}");
    let shown = engine.actor(&actor).await;
    assert!(shown["waiting_for"].as_str().unwrap().starts_with(&told_to_start), "{shown}");
    // One that has just been created has nothing to wait for that its creator could know.
    let created = engine.try_create("counter", None).await.json();
    assert!(created["actor"].get("waiting_for").is_none(), "{created}");

    let key = host.key().to_owned();
    host.cut();
    let (words, mut metadata) = told(&actor, &engine.request(&actor).await.unwrap());
    take_millis(&mut metadata, "silent_ms", 1);
    assert_eq!(metadata, json!({ "waiting_for": "host_silent", "envoy_key": key, "connected": false }));
    assert!(words.contains(&format!(": host {key:?} silent for ")) && words.ends_with(", not connected."), "{words}");
}

#[tokio::test]
async fn a_start_that_is_given_up_while_somebody_waits() {
    let engine = impatient(json!({ "actor_start_threshold": 100 })).await;
    let mut host = engine.host().await;
    let actor = engine.create("counter", None).await;
    host.expect_start().await;
    let (words, metadata) = told(&actor, &engine.request(&actor).await.unwrap());
    assert_eq!(metadata["last_end"], json!({ "reason": "start_unanswered", "envoy_key": host.key() }));
    assert!(words.ends_with(&format!(" Last end: host {:?} did not report it running in time.", host.key())), "{words}");
}

#[tokio::test]
async fn a_stop_that_nobody_confirms() {
    let engine = impatient(json!({})).await;
    let mut host = engine.host().await;
    let actor = engine.create("counter", None).await;
    let run = host.start_actor().await;
    engine.actor_when(&actor, "a running actor", |actor| is_set(&actor["connectable_ts"])).await;
    assert!(engine.actor(&actor).await.get("waiting_for").is_none());
    host.wants_sleep(&run);
    host.expect_stop(&run).await;
    let (words, mut metadata) = told(&actor, &engine.request(&actor).await.unwrap());
    take_millis(&mut metadata, "since_ms", PATIENCE_MS);
    assert_eq!(metadata, json!({ "waiting_for": "stopping", "envoy_key": host.key() }));
    assert!(words.contains(&format!(": host {:?} was told to stop it ", host.key())), "{words}");
    // The request that came while it stopped has woken it.
    host.stopped(&run);
    let run = host.start_actor().await;
    host.wants_sleep(&run);
    host.stopped(&run);
    // One that sleeps as it should waits for nothing.
    let asleep = engine.asleep(&actor).await;
    assert!(asleep.get("waiting_for").is_none(), "{asleep}");
}

#[tokio::test]
async fn the_host_of_a_running_actor_out_of_touch() {
    let engine = impatient(json!({})).await;
    let mut host = engine.host().await;
    let actor = engine.create("counter", None).await;
    host.start_actor().await;
    engine.actor_when(&actor, "a running actor", |actor| is_set(&actor["connectable_ts"])).await;
    let key = host.key().to_owned();
    host.cut();
    let (words, mut metadata) = told(&actor, &engine.request(&actor).await.unwrap());
    take_millis(&mut metadata, "silent_ms", 1);
    assert_eq!(metadata, json!({ "waiting_for": "host_silent", "envoy_key": key, "connected": false }));
    assert!(words.ends_with(", not connected."), "{words}");
}

#[tokio::test]
async fn a_host_that_is_lost_while_somebody_waits() {
    let settings = json!({ "guard": { "actor_ready_timeout_ms": 1_000 }, "pegboard": { "envoy_lost_threshold": 100 } });
    let engine = TestEngine::start(settings).await;
    let mut host = engine.host().await;
    let actor = engine.create("counter", None).await;
    host.expect_start().await;
    let answer = engine.request(&actor);
    let waiting = async || (engine.metric("rivet_guard_proxy_request_pending").await == 1).then_some(());
    testkit::eventually("a request that waits", waiting).await;
    let key = host.key().to_owned();
    host.cut();
    let (words, metadata) = told(&actor, &answer.await.unwrap());
    let last_end = json!({ "reason": "host_lost", "envoy_key": key });
    assert_eq!(metadata, json!({ "waiting_for": "no_hosts", "pool": "default", "last_end": last_end }));
    assert!(words.ends_with(&format!(" is connected. Last end: host {key:?} lost.")), "{words}");
}

/// Lets an actor fail each time that it is to start.
async fn fail_always(host: &mut FakeEnvoy, message: &str) {
    loop {
        let (run, _) = host.expect_start().await;
        host.crashed(&run, message);
    }
}

#[tokio::test]
async fn a_start_that_fails_each_time() {
    let engine = TestEngine::start(json!({})).await;
    let mut host = engine.host().await;
    let actor = engine.create("counter", None).await;
    // What an actor says may be long: its beginning is repeated.
    let message = format!("x{}", "\u{e4}".repeat(400));
    let beginning = format!("x{}", "\u{e4}".repeat(255));
    let answer = tokio::select! {
        () = fail_always(&mut host, &message) => unreachable!("it never ends"),
        answer = engine.request(&actor) => answer.unwrap(),
    };
    assert_eq!(answer.error(), (503, "guard.actor_wake_retries_exceeded".to_owned()));
    let expected = format!(
        "Actor {actor} stopped before becoming ready after 8 wake retries: actor_stopped_before_ready. Last end: start failed: \
         {beginning}."
    );
    assert_eq!(answer.json()["message"], expected);
    let metadata = json!({
        "actor_id": actor, "reason": "actor_stopped_before_ready", "wake_retries": 8,
        "last_end": { "reason": "start_failed", "message": beginning },
    });
    assert_eq!(answer.json()["metadata"], metadata);
    // The list has it as it was said.
    assert_eq!(engine.asleep(&actor).await["error"], json!({ "crashed": { "message": message } }));
}
