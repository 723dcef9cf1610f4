//! Destroying actors, whatever they are about (`spec/scheduling.md` 2.4, checklist 21 and 23).

use protocol::envoy::StopActorReason;
use serde_json::json;
use testkit::client::Answer;
use testkit::envoy::{FakeEnvoy, Run};
use testkit::eventually;
use tokio::task::JoinHandle;

use crate::one_actor::{A_WHILE, fall_asleep, is_destroyed, running_actor};
use crate::scene::{TestEngine, is_set};

/// Asks for an actor's destruction; returns when the engine has the call.
async fn delete_has_arrived(engine: &TestEngine, actor: &str) -> JoinHandle<Answer> {
    let routed = engine.metric("rivet_guard_route_total").await;
    let deleted = engine.destroy_soon(actor);
    let arrived = async || (engine.metric("rivet_guard_route_total").await > routed).then_some(());
    eventually("the call", arrived).await;
    deleted
}

#[tokio::test]
async fn delete_waits_for_the_stop_and_can_be_repeated() {
    let (engine, mut envoy, run) = running_actor(json!({})).await;
    let calls = [engine.destroy_soon(&run.actor_id), engine.destroy_soon(&run.actor_id)];
    assert_eq!(envoy.expect_stop(&run).await, (2, StopActorReason::Destroy));
    // A call that comes later is answered before them.
    assert!(!is_destroyed(&engine.actor(&run.actor_id).await));
    assert!(!calls.iter().any(JoinHandle::is_finished), "answered before the actor had stopped");
    envoy.stopped(&run);
    for call in calls {
        assert_eq!(call.await.unwrap().json(), json!({}));
    }
    assert_eq!(engine.destroy(&run.actor_id).await.json(), json!({}));

    // One that sleeps goes at once.
    let (engine, mut envoy, run) = running_actor(json!({})).await;
    fall_asleep(&engine, &mut envoy, &run).await;
    assert_eq!(engine.destroy(&run.actor_id).await.json(), json!({}));
    assert!(is_destroyed(&engine.actor(&run.actor_id).await));
}

#[tokio::test]
async fn delete_during_the_start_is_not_forgotten() {
    type Ending = fn(&mut FakeEnvoy, &Run);
    let endings: [(&str, Ending); 3] = [
        ("it crashes", |envoy, run| envoy.crashed(run, "boom")),
        ("it is never heard of", |_envoy, _run| {}),
        ("it starts", |envoy, run| {
            envoy.running(run);
            envoy.stopped(run);
        }),
    ];
    for (what, ending) in endings {
        let engine = TestEngine::start(json!({ "pegboard": { "actor_start_threshold": 300 } })).await;
        let mut envoy = engine.host().await;
        let actor = engine.create("counter", None).await;
        let (run, _) = envoy.expect_start().await;
        let deleted = delete_has_arrived(&engine, &actor).await;
        ending(&mut envoy, &run);
        assert_eq!(deleted.await.unwrap().status, 200, "{what}");
        assert!(is_destroyed(&engine.actor(&actor).await), "{what}");
    }
}

#[tokio::test]
async fn a_destroyed_actor_is_gone_for_the_gateway() {
    let (engine, mut envoy, run) = running_actor(json!({})).await;
    envoy.stopped(&run);
    engine.actor_when(&run.actor_id, "a destroyed actor", is_destroyed).await;
    assert_eq!(engine.request(&run.actor_id).await.unwrap().error(), (404, "actor.not_found".to_owned()));
}

#[tokio::test]
async fn delete_overrides_what_the_actor_is_stopping_for() {
    type Ending = fn(&mut FakeEnvoy, &Run);
    let endings: [Ending; 2] = [|envoy, run| envoy.stopped(run), |envoy, run| envoy.crashed(run, "on the way")];
    for (number, ending) in endings.into_iter().cycle().take(6).enumerate() {
        let (engine, mut envoy, run) = running_actor(json!({})).await;
        let why = match number / 2 {
            0 => {
                envoy.wants_sleep(&run);
                StopActorReason::SleepIntent
            }
            1 => {
                envoy.wants_destruction(&run);
                StopActorReason::StopIntent
            }
            _ => {
                engine.tell(&run.actor_id, "reschedule").await;
                StopActorReason::GoingAway
            }
        };
        assert_eq!(envoy.expect_stop(&run).await, (2, why));
        let deleted = delete_has_arrived(&engine, &run.actor_id).await;
        ending(&mut envoy, &run);
        assert_eq!(deleted.await.unwrap().json(), json!({}), "{why:?}");
        assert!(is_destroyed(&engine.actor(&run.actor_id).await), "{why:?}");
        // Neither another stop nor another start.
        envoy.expect_no_command(A_WHILE).await;
    }
}

#[tokio::test]
async fn delete_of_an_actor_that_waits_for_a_host_is_immediate() {
    let engine = TestEngine::start(json!({})).await;
    let actor = engine.create("counter", None).await;
    engine.actor_when(&actor, "a waiting actor", |actor| is_set(&actor["reschedule_ts"])).await;
    let waiting = engine.request(&actor);
    assert_eq!(engine.destroy(&actor).await.json(), json!({}));
    let shown = engine.actor(&actor).await;
    assert!(is_destroyed(&shown) && shown["reschedule_ts"].is_null(), "{shown}");
    // Whoever waited for it is told, and a host that comes later gets nothing.
    let told = waiting.await.unwrap().error().1;
    assert!(["actor.destroyed_while_waiting_for_ready", "actor.not_found"].contains(&told.as_str()), "{told}");
    let mut envoy = engine.host().await;
    envoy.expect_no_command(A_WHILE).await;
}
