//! Wake-up times (`spec/scheduling.md` 4, checklist 24 to 26).

use std::time::Duration;

use protocol::envoy::StopActorReason;
use serde_json::json;
use testkit::envoy::{EnvoyParams, FakeEnvoy, Run, stopped};

use crate::one_actor::{A_WHILE, event_acknowledged, fall_asleep, is_running, now_ms, running_actor, wake};
use crate::process;
use crate::scene::is_set;

const HOUR_MS: i64 = 60 * 60 * 1000;

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
async fn the_latest_alarm_counts() {
    let (engine, mut envoy, first) = running_actor(json!({})).await;
    // A later one replaces an earlier one ...
    envoy.set_alarm(&first, Some(now_ms() + 100));
    envoy.set_alarm(&first, Some(now_ms() + HOUR_MS));
    fall_asleep(&engine, &mut envoy, &first).await;
    envoy.expect_no_command(Duration::from_millis(200)).await;
    // ... and an earlier one a later one, also after the stop command, and over several generations.
    let second = wake(&engine, &mut envoy, &first.actor_id).await;
    envoy.wants_sleep(&second);
    envoy.expect_stop(&second).await;
    let alarm = now_ms() + 200;
    envoy.set_alarm(&second, Some(alarm));
    envoy.stopped(&second);
    assert_eq!(envoy.start_actor().await.generation, 3);
    assert!(now_ms() >= alarm, "woken too early");
}

#[tokio::test]
async fn an_alarm_does_not_touch_a_running_actor() {
    // It has a timer of its own.
    let (engine, mut envoy, run) = running_actor(json!({})).await;
    envoy.set_alarm(&run, Some(now_ms() + 20));
    envoy.expect_no_command(A_WHILE).await;
    assert!(is_running(&engine.actor(&run.actor_id).await));
}

#[tokio::test]
async fn an_alarm_may_be_any_number() {
    for (alarm, is_due) in [(i64::MIN, true), (-1, true), (0, true), (i64::MAX, false)] {
        let (engine, mut envoy, first) = running_actor(json!({})).await;
        envoy.set_alarm(&first, Some(alarm));
        envoy.wants_sleep(&first);
        envoy.expect_stop(&first).await;
        envoy.stopped(&first);
        if is_due {
            assert_eq!(envoy.start_actor().await.generation, 2, "{alarm}");
        } else {
            assert!(is_set(&engine.asleep(&first.actor_id).await["sleep_ts"]));
            envoy.expect_no_command(A_WHILE).await;
            assert_eq!(wake(&engine, &mut envoy, &first.actor_id).await.generation, 2);
        }
    }
}

#[tokio::test]
async fn alarms_survive_a_sudden_death_of_the_engine() {
    let folder = tempfile::tempdir().unwrap();
    let (process, address) = process::on(folder.path());
    process::put_pool(address).await;
    let mut envoy = FakeEnvoy::join(address, &EnvoyParams::new()).await;
    let mut runs = Vec::new();
    for _story in 0..6 {
        process::create(address, None).await;
        runs.push(envoy.start_actor().await);
    }
    let began = now_ms();
    let (during, after, far) = (began + 500, began + 1_200, began + HOUR_MS);
    // What each actor says of alarms before it sleeps, and when it is woken.
    let stories: [(&[Option<i64>], Option<i64>); 6] = [
        (&[Some(during)], Some(during)),
        (&[Some(after)], Some(after)),
        (&[Some(far), Some(after)], Some(after)),
        (&[Some(during), Some(far)], None),
        (&[Some(during), None], None),
        (&[], None),
    ];
    for (run, (alarms, _)) in runs.iter().zip(stories) {
        alarms.iter().for_each(|alarm| envoy.set_alarm(run, *alarm));
        envoy.wants_sleep(run);
        assert_eq!(envoy.expect_stop(run).await, (2, StopActorReason::SleepIntent));
        envoy.acknowledge(run, 2);
        let last = run.checkpoint(envoy.event(run, stopped()));
        event_acknowledged(&mut envoy, &last).await;
    }
    process.kill();
    let still_down = u64::try_from(during - now_ms()).unwrap_or_default();
    tokio::time::sleep(Duration::from_millis(still_down)).await;

    let (_process, address) = process::on(folder.path());
    let mut envoy = FakeEnvoy::join(address, envoy.params()).await;
    for (run, (_, woken_at)) in runs.iter().zip(stories) {
        let Some(woken_at) = woken_at else { continue };
        assert_eq!(envoy.expect_start_of(&run.actor_id).await.generation, 2);
        assert!(now_ms() >= woken_at, "woken too early");
    }
    envoy.expect_no_command(A_WHILE).await;
}

#[tokio::test]
async fn an_alarm_outlives_a_host_that_is_silently_dead() {
    let settings = json!({ "pegboard": { "actor_start_threshold": 100, "base_retry_timeout": 50 } });
    let (engine, mut dead, first) = running_actor(settings).await;
    dead.set_alarm(&first, Some(now_ms() + 50));
    fall_asleep(&engine, &mut dead, &first).await;
    // It gets the start, and is not heard of again. That it is lost is noticed much later than that the start is overdue.
    let (second, _) = dead.expect_start().await;
    assert_eq!(dead.expect_stop(&second).await, (2, StopActorReason::Lost));
    let mut alive = engine.host().await;
    dead.cut();
    let run = alive.expect_start_of(&first.actor_id).await;
    alive.running(&run);
    let shown = engine.actor_when(&first.actor_id, "a running actor", is_running).await;
    assert_eq!(shown.get("error"), None);
    // It is spent when its host has spoken of alarms.
    alive.set_alarm(&run, None);
    fall_asleep(&engine, &mut alive, &run).await;
    alive.expect_no_command(A_WHILE).await;
}
