//! One actor on one scripted host: the way there, and what happens to it often.

use std::time::Duration;

use protocol::envoy::{ActorCheckpoint, StopActorReason, ToEnvoy};
use serde_json::Value;
use testkit::envoy::{FakeEnvoy, Run};

use crate::scene::{TestEngine, is_set};

/// Time in which something would have happened if it were to happen.
pub(crate) const A_WHILE: Duration = Duration::from_millis(100);

pub(crate) fn now_ms() -> i64 {
    let since_epoch = std::time::UNIX_EPOCH.elapsed().unwrap();
    i64::try_from(since_epoch.as_millis()).unwrap()
}

/// A time after everything that has happened, and before everything that comes.
pub(crate) async fn later() -> i64 {
    let then = now_ms() + 1;
    while now_ms() <= then {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    then
}

/// An engine, a host, and an actor that runs on it.
pub(crate) async fn running_actor(settings: Value) -> (TestEngine, FakeEnvoy, Run) {
    let engine = TestEngine::start(settings).await;
    let mut envoy = engine.host().await;
    let actor = engine.create("counter", None).await;
    let run = envoy.start_actor().await;
    assert_eq!(run.actor_id, actor);
    engine.actor_when(&actor, "a running actor", is_running).await;
    (engine, envoy, run)
}

pub(crate) fn is_running(actor: &Value) -> bool {
    is_set(&actor["connectable_ts"])
}

pub(crate) fn is_destroyed(actor: &Value) -> bool {
    is_set(&actor["destroy_ts"])
}

/// Lets a request wake the actor; returns its new run.
pub(crate) async fn wake(engine: &TestEngine, envoy: &mut FakeEnvoy, actor: &str) -> Run {
    let answer = engine.request(actor);
    let run = envoy.start_actor().await;
    let request = envoy.expect_request().await;
    envoy.respond(&request, 200, &[], "awake");
    assert_eq!(answer.await.unwrap().text(), "awake");
    run
}

/// Puts a running actor to sleep at its own wish.
pub(crate) async fn fall_asleep(engine: &TestEngine, envoy: &mut FakeEnvoy, run: &Run) {
    envoy.wants_sleep(run);
    let (index, reason) = envoy.expect_stop(run).await;
    assert_eq!(reason, StopActorReason::SleepIntent);
    envoy.acknowledge(run, index);
    envoy.stopped(run);
    engine.asleep(&run.actor_id).await;
}

/// Waits until the engine has acknowledged an event. Whatever is acknowledged is durable.
pub(crate) async fn event_acknowledged(envoy: &mut FakeEnvoy, event: &ActorCheckpoint) {
    let covers_it = |message: &ToEnvoy| {
        let ToEnvoy::AckEvents(acks) = message else { return None };
        acks.last_event_checkpoints.contains(event).then_some(())
    };
    envoy.expect("an acknowledgement of the event", covers_it).await;
}
