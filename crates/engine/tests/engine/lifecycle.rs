//! One actor from its first start to its end (`spec/scheduling.md` 3, checklist 10 to 20 and 22; alarms and deletion have
//! files of their own).

use protocol::envoy::{ActorIntent, Event, StopActorReason, ToEnvoy};
use serde_json::{Value, json};
use testkit::envoy::{FakeEnvoy, Run, crashed, running, stopped};

use crate::one_actor::{A_WHILE, fall_asleep, is_running, running_actor, wake};
use crate::scene::{TestEngine, creation, is_set};

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
async fn every_crash_policy_is_sleep() {
    let engine = TestEngine::start(json!({})).await;
    let mut envoy = engine.host().await;
    for policy in ["restart", "sleep", "destroy"] {
        let mut body = creation("counter", None);
        body["crash_policy"] = json!(policy);
        assert_eq!(engine.post("/actors?namespace=default", &body).await.status, 200);
        let run = envoy.start_actor().await;
        envoy.crashed(&run, policy);
        let crashed = |actor: &Value| actor["error"] == json!({ "crashed": { "message": policy } });
        let asleep = engine.actor_when(&run.actor_id, "a crashed actor", crashed).await;
        assert!(is_set(&asleep["sleep_ts"]) && asleep["destroy_ts"].is_null(), "{asleep}");
        assert_eq!(asleep["crash_policy"], "sleep", "{policy}");
    }
    envoy.expect_no_command(A_WHILE).await;
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
    let asleep = engine.actor_when(&run.actor_id, "the crash", crashed).await;
    assert!(is_set(&asleep["sleep_ts"]) && asleep["connectable_ts"].is_null(), "{asleep}");
    assert_eq!(wake(&engine, &mut envoy, &run.actor_id).await.generation, 2);
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
    expect_no_command_for(&mut envoy, &second).await;
}

#[tokio::test]
async fn a_host_may_repeat_its_whole_history_after_a_reconnect() {
    let (engine, mut envoy, first) = running_actor(json!({})).await;
    fall_asleep(&engine, &mut envoy, &first).await;
    let second = wake(&engine, &mut envoy, &first.actor_id).await;
    let before = engine.actor(&first.actor_id).await;
    let params = envoy.params().clone();
    envoy.cut();
    let mut envoy = engine.host_with(&params).await;
    for (run, events) in [(&first, vec![running(), wants_sleep(), stopped()]), (&second, vec![running()])] {
        for (index, event) in (0..).zip(events) {
            envoy.event_at(run, index, event);
        }
    }
    // What comes next in the same order counts.
    envoy.event_at(&second, 1, Event::ActorSetAlarm { alarm_ts: None });
    let answer = engine.request(&first.actor_id);
    let request = envoy.expect_request().await;
    assert_eq!(request.start.actor_generation, Some(2));
    envoy.respond(&request, 200, &[], "unmoved");
    assert_eq!(answer.await.unwrap().text(), "unmoved");
    assert_eq!(engine.actor(&first.actor_id).await, before);
    expect_no_command_for(&mut envoy, &second).await;
}

/// Watches that a run is left alone. (Of an older one that its host still speaks of, the host is told that it is over.)
async fn expect_no_command_for(envoy: &mut FakeEnvoy, run: &Run) {
    let is_for_it = |message: &ToEnvoy| {
        let ToEnvoy::Commands(commands) = message else { return false };
        commands.iter().any(|command| command.checkpoint == run.checkpoint(command.checkpoint.index))
    };
    envoy.expect_none(A_WHILE, "command for the present run", is_for_it).await;
}

fn wants_sleep() -> Event {
    Event::ActorIntent { intent: ActorIntent::Sleep }
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
    let covers_none = |message: &ToEnvoy| matches!(message, ToEnvoy::AckEvents(acks) if acks.last_event_checkpoints.is_empty());
    envoy.expect_none(2 * A_WHILE, "acknowledgement of nothing", covers_none).await;
}
