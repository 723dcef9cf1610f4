//! One actor from its first start to its end (`spec/scheduling.md` 3 and 4, checklist 11 to 26).

use std::time::Duration;

use protocol::envoy::{StopActorReason, ToEnvoy};
use serde_json::{Value, json};
use testkit::envoy::{FakeEnvoy, Run, crashed, running, stopped};
use testkit::eventually;
use tokio::task::JoinHandle;

use crate::scene::{TestEngine, is_set};

/// Time in which something would have happened if it were to happen.
const A_WHILE: Duration = Duration::from_millis(100);

fn now_ms() -> i64 {
    let since_epoch = std::time::UNIX_EPOCH.elapsed().unwrap();
    i64::try_from(since_epoch.as_millis()).unwrap()
}

/// An engine, a host, and an actor that runs on it.
async fn running_actor(settings: Value) -> (TestEngine, FakeEnvoy, Run) {
    let engine = TestEngine::start(settings).await;
    let mut envoy = engine.host().await;
    let actor = engine.create("counter", None).await;
    let run = envoy.start_actor().await;
    assert_eq!(run.actor_id, actor);
    engine.actor_when(&actor, "a running actor", is_running).await;
    (engine, envoy, run)
}

fn is_running(actor: &Value) -> bool {
    is_set(&actor["connectable_ts"])
}

/// Lets a request wake the actor; returns its new run.
async fn wake(engine: &TestEngine, envoy: &mut FakeEnvoy, actor: &str) -> Run {
    let answer = engine.request(actor);
    let run = envoy.start_actor().await;
    let request = envoy.expect_request().await;
    envoy.respond(&request, 200, &[], "awake");
    assert_eq!(answer.await.unwrap().text(), "awake");
    run
}

/// Puts a running actor to sleep at its own wish.
async fn fall_asleep(engine: &TestEngine, envoy: &mut FakeEnvoy, run: &Run) {
    envoy.wants_sleep(run);
    let (_, reason) = envoy.expect_stop(run).await;
    assert_eq!(reason, StopActorReason::SleepIntent);
    envoy.stopped(run);
    engine.asleep(&run.actor_id).await;
}

#[tokio::test]
async fn generations_and_indices_count_on() {
    let (engine, mut envoy, first) = running_actor(json!({})).await;
    assert_eq!(first.generation, 1);
    let before = engine.actor(&first.actor_id).await;
    envoy.wants_sleep(&first);
    assert_eq!(envoy.expect_stop(&first).await, (2, StopActorReason::SleepIntent));
    envoy.stopped(&first);
    engine.asleep(&first.actor_id).await;
    // `start_actor` checks that the start command has index 1 again.
    let second = wake(&engine, &mut envoy, &first.actor_id).await;
    assert_eq!(second.generation, 2);
    let after = engine.actor(&first.actor_id).await;
    assert_eq!(after["start_ts"], before["start_ts"]);
    assert!(after["connectable_ts"].as_i64() > before["connectable_ts"].as_i64());
    assert_eq!(after["sleep_ts"], Value::Null);
}

#[tokio::test]
async fn a_request_during_the_way_to_sleep_is_held_for_the_next_generation() {
    let (engine, mut envoy, first) = running_actor(json!({})).await;
    envoy.wants_sleep(&first);
    envoy.expect_stop(&first).await;
    let shown = engine.actor(&first.actor_id).await;
    assert!(is_set(&shown["sleep_ts"]) && shown["connectable_ts"].is_null(), "{shown}");

    let answer = engine.request(&first.actor_id);
    envoy.expect_no_command(A_WHILE).await;
    envoy.stopped(&first);
    let second = envoy.start_actor().await;
    assert_eq!(second.generation, 2);
    let request = envoy.expect_request().await;
    assert_eq!(request.start.actor_generation, Some(2));
    envoy.respond(&request, 200, &[], "second");
    assert_eq!(answer.await.unwrap().text(), "second");
}

#[tokio::test]
async fn an_actor_that_ends_by_itself_is_destroyed() {
    for reports_running in [true, false] {
        let engine = TestEngine::start(json!({})).await;
        let mut envoy = engine.host().await;
        let actor = engine.create("counter", Some("key")).await;
        let (run, _) = envoy.expect_start().await;
        if reports_running {
            envoy.running(&run);
        }
        envoy.stopped(&run);
        engine.actor_when(&actor, "a destroyed actor", |actor| is_set(&actor["destroy_ts"])).await;
        assert_eq!(engine.request(&actor).await.unwrap().error(), (404, "actor.not_found".to_owned()));
        assert_ne!(engine.create("counter", Some("key")).await, actor);
    }
}

#[tokio::test]
async fn a_crashed_actor_sleeps_until_somebody_asks() {
    for reports_running in [true, false] {
        let engine = TestEngine::start(json!({})).await;
        let mut envoy = engine.host().await;
        let actor = engine.create("counter", None).await;
        let (run, _) = envoy.expect_start().await;
        if reports_running {
            envoy.running(&run);
        }
        envoy.crashed(&run, "boom");
        let asleep = engine.asleep(&actor).await;
        assert_eq!(asleep["error"], json!({ "crashed": { "message": "boom" } }));
        envoy.expect_no_command(A_WHILE).await;
        wake(&engine, &mut envoy, &actor).await;
        assert_eq!(engine.actor(&actor).await.get("error"), None);
    }
}

#[tokio::test]
async fn destruction_at_the_actors_own_wish() {
    let (engine, mut envoy, run) = running_actor(json!({})).await;
    envoy.wants_destruction(&run);
    assert_eq!(envoy.expect_stop(&run).await, (2, StopActorReason::StopIntent));
    envoy.stopped(&run);
    engine.actor_when(&run.actor_id, "a destroyed actor", |actor| is_set(&actor["destroy_ts"])).await;

    // A crash on the way is a crash.
    let (engine, mut envoy, run) = running_actor(json!({})).await;
    envoy.wants_destruction(&run);
    envoy.expect_stop(&run).await;
    envoy.crashed(&run, "on the way");
    let asleep = engine.asleep(&run.actor_id).await;
    assert_eq!(asleep["error"], json!({ "crashed": { "message": "on the way" } }));
}

#[tokio::test]
async fn a_crash_on_the_way_to_sleep_is_shown() {
    let (engine, mut envoy, run) = running_actor(json!({})).await;
    envoy.wants_sleep(&run);
    envoy.expect_stop(&run).await;
    envoy.crashed(&run, "drowsy");
    let crashed = |actor: &Value| actor["error"] == json!({ "crashed": { "message": "drowsy" } });
    engine.actor_when(&run.actor_id, "the crash", crashed).await;
}

#[tokio::test]
async fn a_start_that_is_not_confirmed_ends_in_sleep() {
    let engine = TestEngine::start(json!({ "pegboard": { "actor_start_threshold": 100 } })).await;
    let mut envoy = engine.host().await;
    let actor = engine.create("counter", None).await;
    let (run, _) = envoy.expect_start().await;
    // The late copy is told to end; its late report has no effect.
    assert_eq!(envoy.expect_stop(&run).await, (2, StopActorReason::Lost));
    envoy.running(&run);
    let asleep = engine.asleep(&actor).await;
    assert_eq!(asleep["error"], json!({ "envoy_no_response": { "envoy_key": null } }));
    assert_eq!(asleep["start_ts"], Value::Null);
}

#[tokio::test]
async fn a_stop_that_is_not_confirmed_ends_by_itself() {
    let settings = json!({ "pegboard": { "actor_stop_threshold": 100 } });
    let (engine, mut envoy, run) = running_actor(settings.clone()).await;
    engine.tell(&run.actor_id, "sleep").await;
    assert_eq!(envoy.expect_stop(&run).await, (2, StopActorReason::SleepIntent));
    assert_eq!(envoy.expect_stop(&run).await, (3, StopActorReason::Lost));
    let asleep = engine.asleep(&run.actor_id).await;
    assert_eq!(asleep["error"], json!({ "envoy_no_response": { "envoy_key": envoy.key() } }));

    let (engine, mut envoy, run) = running_actor(settings.clone()).await;
    engine.tell(&run.actor_id, "reschedule").await;
    assert_eq!(envoy.expect_stop(&run).await, (2, StopActorReason::GoingAway));
    assert_eq!(envoy.expect_stop(&run).await, (3, StopActorReason::Lost));
    assert_eq!(envoy.start_actor().await.generation, 2);
    drop(engine);

    let (engine, mut envoy, run) = running_actor(settings).await;
    // The call waits until it is over.
    assert_eq!(engine.destroy(&run.actor_id).await.status, 200);
    assert!(is_set(&engine.actor(&run.actor_id).await["destroy_ts"]));
    assert_eq!(envoy.expect_stop(&run).await, (2, StopActorReason::Destroy));
    assert_eq!(envoy.expect_stop(&run).await, (3, StopActorReason::Lost));
}

#[tokio::test]
async fn what_was_seen_or_is_of_the_past_has_no_effect() {
    let (engine, mut envoy, first) = running_actor(json!({})).await;
    fall_asleep(&engine, &mut envoy, &first).await;
    let second = wake(&engine, &mut envoy, &first.actor_id).await;
    let other = engine.host().await;
    // The whole history once more, the present generation's events once more, and somebody else's.
    for (run, events) in [(&first, [running(), crashed("again"), stopped()]), (&second, [running(), running(), running()])] {
        for (index, event) in (0..).zip(events) {
            envoy.event_at(run, index.min(if run == &second { 0 } else { 2 }), event);
        }
    }
    other.event_at(&second, 9, stopped());
    // A request shows that all of that is behind us.
    let answer = engine.request(&first.actor_id);
    let request = envoy.expect_request().await;
    envoy.respond(&request, 200, &[], "still here");
    assert_eq!(answer.await.unwrap().text(), "still here");
    let shown = engine.actor(&first.actor_id).await;
    assert!(is_running(&shown) && shown.get("error").is_none(), "{shown}");
    envoy.expect_no_command(A_WHILE).await;
}

#[tokio::test]
async fn delete_waits_for_the_stop_and_can_be_repeated() {
    let (engine, mut envoy, run) = running_actor(json!({})).await;
    let calls = [engine.destroy_soon(&run.actor_id), engine.destroy_soon(&run.actor_id)];
    assert_eq!(envoy.expect_stop(&run).await, (2, StopActorReason::Destroy));
    // A call that comes later is answered before them.
    assert!(!is_set(&engine.actor(&run.actor_id).await["destroy_ts"]));
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
    assert!(is_set(&engine.actor(&run.actor_id).await["destroy_ts"]));
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
        let routed = engine.metric("rivet_guard_route_total").await;
        let deleted = engine.destroy_soon(&actor);
        let arrived = async || (engine.metric("rivet_guard_route_total").await > routed).then_some(());
        eventually("the call", arrived).await;
        ending(&mut envoy, &run);
        assert_eq!(deleted.await.unwrap().status, 200, "{what}");
        assert!(is_set(&engine.actor(&actor).await["destroy_ts"]), "{what}");
    }
}

#[tokio::test]
async fn the_api_can_put_to_sleep_and_move() {
    let (engine, mut envoy, first) = running_actor(json!({})).await;
    engine.tell(&first.actor_id, "reschedule").await;
    assert_eq!(envoy.expect_stop(&first).await, (2, StopActorReason::GoingAway));
    // It takes requests until it has stopped.
    assert!(is_running(&engine.actor(&first.actor_id).await));
    envoy.stopped(&first);
    let second = envoy.start_actor().await;
    assert_eq!(second.generation, 2);
    engine.actor_when(&first.actor_id, "a running actor", is_running).await;

    engine.tell(&first.actor_id, "sleep").await;
    assert_eq!(envoy.expect_stop(&second).await, (2, StopActorReason::SleepIntent));
    envoy.stopped(&second);
    engine.asleep(&first.actor_id).await;
    // One that sleeps is neither moved nor put to sleep.
    engine.tell(&first.actor_id, "reschedule").await;
    engine.tell(&first.actor_id, "sleep").await;
    envoy.expect_no_command(A_WHILE).await;

    engine.destroy(&first.actor_id).await;
    engine.tell(&first.actor_id, "sleep").await;
    engine.tell(&first.actor_id, "reschedule").await;
}

#[tokio::test]
async fn sleep_asked_for_during_the_start_is_not_forgotten() {
    let engine = TestEngine::start(json!({})).await;
    let mut envoy = engine.host().await;
    let actor = engine.create("counter", None).await;
    let (run, _) = envoy.expect_start().await;
    engine.tell(&actor, "sleep").await;
    envoy.running(&run);
    assert_eq!(envoy.expect_stop(&run).await, (2, StopActorReason::SleepIntent));
}

#[tokio::test]
async fn alarms_wake_in_time() {
    let (engine, mut envoy, first) = running_actor(json!({})).await;
    let alarm = now_ms() + 400;
    envoy.set_alarm(&first, Some(alarm));
    fall_asleep(&engine, &mut envoy, &first).await;
    let second = envoy.start_actor().await;
    let late_ms = now_ms() - alarm;
    assert!((0..=200).contains(&late_ms), "{late_ms} ms late");

    // It was spent; one that is due already starts the actor again at once.
    fall_asleep(&engine, &mut envoy, &second).await;
    envoy.expect_no_command(A_WHILE).await;
    let third = wake(&engine, &mut envoy, &first.actor_id).await;
    envoy.wants_sleep(&third);
    envoy.expect_stop(&third).await;
    envoy.set_alarm(&third, Some(now_ms() - 1));
    envoy.stopped(&third);
    assert_eq!(envoy.start_actor().await.generation, 4);
}

#[tokio::test]
async fn a_cleared_alarm_is_silent_and_a_kept_one_needs_no_repetition() {
    let (engine, mut envoy, first) = running_actor(json!({})).await;
    let alarm = now_ms() + 500;
    envoy.set_alarm(&first, Some(alarm));
    fall_asleep(&engine, &mut envoy, &first).await;
    let second = wake(&engine, &mut envoy, &first.actor_id).await;
    fall_asleep(&engine, &mut envoy, &second).await;
    let third = envoy.start_actor().await;
    assert!(now_ms() >= alarm, "woken too early");

    engine.actor_when(&first.actor_id, "a running actor", is_running).await;
    envoy.set_alarm(&third, Some(now_ms() + 200));
    envoy.set_alarm(&third, None);
    fall_asleep(&engine, &mut envoy, &third).await;
    envoy.expect_no_command(Duration::from_millis(300)).await;
}

#[tokio::test]
async fn a_crash_does_not_cancel_the_alarm() {
    let (engine, mut envoy, first) = running_actor(json!({})).await;
    envoy.set_alarm(&first, Some(now_ms() + 200));
    envoy.crashed(&first, "boom");
    engine.asleep(&first.actor_id).await;
    assert_eq!(envoy.start_actor().await.generation, 2);
}

#[tokio::test]
async fn alarms_survive_a_restart_of_the_engine() {
    let (engine, mut envoy, first) = running_actor(json!({})).await;
    let params = envoy.params().clone();
    let actor = first.actor_id.clone();
    envoy.set_alarm(&first, Some(now_ms() + 300));
    fall_asleep(&engine, &mut envoy, &first).await;
    let engine = engine.restart().await;
    let mut envoy = engine.host_with(&params).await;
    assert_eq!(envoy.start_actor().await, Run { actor_id: actor, generation: 2 });
}

#[tokio::test]
async fn an_alarm_that_fell_due_while_the_engine_was_down_fires_at_once() {
    let (engine, mut envoy, first) = running_actor(json!({})).await;
    let params = envoy.params().clone();
    envoy.set_alarm(&first, Some(now_ms() + 50));
    envoy.wants_sleep(&first);
    envoy.expect_stop(&first).await;
    // The host's last word does not reach the engine before it goes down.
    tokio::time::sleep(Duration::from_millis(60)).await;
    let engine = engine.restart().await;
    let mut envoy = engine.host_with(&params).await;
    envoy.event_at(&first, 9, stopped());
    assert_eq!(envoy.expect_start_of(&first.actor_id).await.generation, 2);
}

#[tokio::test]
async fn a_restart_of_the_engine_leaves_running_actors_alone() {
    let (engine, mut envoy, run) = running_actor(json!({})).await;
    let engine = engine.restart().await;
    assert_eq!(envoy.expect_close().await.code_and_cause(), (1011, "ws.going_away"));
    let mut envoy = engine.host_with(envoy.params()).await;
    let answer = engine.request(&run.actor_id);
    let request = envoy.expect_request().await;
    assert_eq!(request.start.actor_generation, Some(1));
    envoy.respond(&request, 200, &[], "as before");
    assert_eq!(answer.await.unwrap().text(), "as before");
    // Events that the host repeats after a reconnect change nothing.
    envoy.event_at(&run, 0, running());
    envoy.expect_no_command(A_WHILE).await;
}

#[tokio::test]
async fn events_are_acknowledged_soon() {
    let (_engine, mut envoy, run) = running_actor(json!({})).await;
    envoy.set_alarm(&run, None);
    let covers_both = |message: &ToEnvoy| {
        let ToEnvoy::AckEvents(acks) = message else { return None };
        (acks.last_event_checkpoints == [run.checkpoint(1)]).then_some(())
    };
    envoy.expect("an acknowledgement of both events", covers_both).await;
}

#[tokio::test]
async fn a_destroyed_actor_is_gone_for_the_gateway() {
    let (engine, mut envoy, run) = running_actor(json!({})).await;
    envoy.stopped(&run);
    engine.actor_when(&run.actor_id, "a destroyed actor", |actor| is_set(&actor["destroy_ts"])).await;
    assert_eq!(engine.request(&run.actor_id).await.unwrap().error(), (404, "actor.not_found".to_owned()));
}
