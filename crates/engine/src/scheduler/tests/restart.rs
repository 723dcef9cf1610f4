//! Deadlines that pass while the engine is down, or the machine's clock stands still.

use lifecycle::actor::{ActorError, Phase};

use super::*;

#[tokio::test(start_paused = true)]
async fn nothing_that_happens_after_a_restart_shortens_the_time_to_reconnect() {
    let scene = Scene::start().await;
    scene.normal_pool().await;
    let host = scene.connect("host");
    let actor = scene.running(&host).await;
    scene.post(actor, Input::Sleep);
    sleep(A_MOMENT).await;
    let scene = scene.restart_after(Duration::from_secs(60)).await;
    for input in [Input::Wake, Input::CommandsAcked { host: host.host.key.clone(), generation: 1, index: 2 }] {
        scene.post(actor, input);
        sleep(A_MOMENT).await;
    }
    sleep(LOST - 4 * A_MOMENT).await;
    let record = scene.record(actor).await;
    assert!(matches!(record.phase, Phase::Stopping { .. }) && record.generation == 1, "{record:?}");
    // A host that is back in time may still save what it has.
    let host = scene.connect("host");
    scene.event(&host, actor, 1, 1, EventKind::Stopped { error: false, message: None });
    sleep(A_MOMENT).await;
    assert_eq!(scene.record(actor).await.generation, 2, "it was asked for meanwhile");
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_is_asked_again_after_a_restart_has_the_whole_time() {
    let mut scene = Scene::start().await;
    scene.serverless_pool(1).await;
    let actor = scene.create().await;
    assert_eq!(scene.starts(), [(actor, 1)]);
    let mut scene = scene.restart_after(START + A_MOMENT).await;
    assert_eq!(scene.starts(), [(actor, 1)]);
    sleep(START - A_MOMENT).await;
    assert!(matches!(scene.record(actor).await.phase, Phase::Starting { .. }));
    sleep(2 * A_MOMENT).await;
    let record = scene.record(actor).await;
    assert_eq!((record.phase, record.error), (Phase::Sleeping, Some(ActorError::EnvoyNoResponse { envoy_key: None })));
}

#[tokio::test(start_paused = true)]
async fn an_alarm_is_at_most_half_a_minute_late_after_a_step_of_the_clock() {
    let scene = Scene::start().await;
    scene.normal_pool().await;
    let host = scene.connect("host");
    let actor = scene.running(&host).await;
    let in_five_minutes = scene.scheduler().0.clock.now() + 300_000;
    scene.event(&host, actor, 1, 1, EventKind::SetAlarm(Some(in_five_minutes)));
    scene.post(actor, Input::Sleep);
    scene.event(&host, actor, 1, 2, crashed());
    sleep(A_MOMENT).await;
    assert_eq!(scene.record(actor).await.phase, Phase::Sleeping);
    // As when the machine was suspended.
    scene.time_of_day.fetch_add(300_000, Ordering::Relaxed);
    sleep(Duration::from_secs(31)).await;
    let record = scene.record(actor).await;
    assert!(!matches!(record.phase, Phase::Sleeping), "{record:?}");
}
