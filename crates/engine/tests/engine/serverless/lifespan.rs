//! The end of a start request's time, and of the engine (`spec/scheduling.md` 9.5).

use std::time::Duration;

use protocol::envoy::StopActorReason;
use serde_json::json;
use tokio::time::Instant;

use super::{Scene, answer_and_run};

/// The engine counts in whole milliseconds.
const EARLY: Duration = Duration::from_millis(3);
/// What a busy machine may add.
const LATE: Duration = Duration::from_millis(300);

/// So much has passed since a start request was made: later than it was asked for, earlier than it came.
fn assert_after(time: Duration, asked_for: Instant, came: Instant) {
    let (longest, shortest) = (asked_for.elapsed(), came.elapsed());
    assert!(longest > time - EARLY, "{longest:?} instead of {time:?}");
    assert!(shortest < time + LATE, "{shortest:?} instead of {time:?}");
}

#[tokio::test]
async fn at_the_end_of_its_lifespan_an_actor_moves_to_another_request() {
    let mut scene = Scene::with(json!({}), json!({ "request_lifespan": 2, "drain_grace_period": 1 })).await;
    let mut host = scene.host().await;
    let asked_for = Instant::now();
    scene.engine.create("counter", None).await;
    let call = scene.endpoint.next_start().await;
    let came = call.came;
    let (run, stream) = answer_and_run(call, &mut host);
    assert_eq!(host.expect_stop(&run).await, (1, StopActorReason::GoingAway));
    assert_after(Duration::from_secs(1), asked_for, came);

    // The next request comes while this one is open.
    let asked_for = Instant::now();
    host.stopped(&run);
    let next = scene.endpoint.next_start().await;
    assert_eq!(next.run().generation, 2);
    assert!(!stream.is_closed());
    let came = next.came;
    let (next, next_stream) = answer_and_run(next, &mut host);
    scene.until_running(&next.actor_id).await;
    stream.stopping();

    // A host that does not stop its actor keeps it, but not its request.
    assert_eq!(host.expect_stop(&next).await, (1, StopActorReason::GoingAway));
    next_stream.closed().await;
    assert_after(Duration::from_secs(2), asked_for, came);
    assert!(scene.endpoint.waiting_starts().is_empty());
    host.stopped(&next);
    assert_eq!(scene.endpoint.next_start().await.run().generation, 3);
    assert!(scene.pool().await.get("runner_pool_error").is_none());
}

#[tokio::test]
async fn when_the_engine_stops_actors_move_to_the_next_process() {
    let settings = json!({ "runtime": { "guard_shutdown_duration": 10, "force_shutdown_duration": 10 } });
    let mut scene = Scene::with(settings, json!({})).await;
    let mut host = scene.host().await;
    let (run, stream) = scene.running_actor(&mut host).await;
    let params = host.params().clone();
    let began = Instant::now();
    let serving = async {
        assert_eq!(host.expect_stop(&run).await, (1, StopActorReason::GoingAway));
        host.stopped(&run);
        stream.stopping();
        host.expect_close().await
    };
    let (closed, engine) = tokio::join!(serving, scene.engine.restart());
    assert_eq!(closed.reason.split('#').next(), Some("ws.going_away"));
    assert!(began.elapsed() < Duration::from_secs(5), "nobody waits for more: {:?}", began.elapsed());

    scene.engine = engine;
    let mut host = scene.engine.host_with(&params).await;
    let (next, _stream) = answer_and_run(scene.endpoint.next_start().await, &mut host);
    assert_eq!((next.actor_id.as_str(), next.generation), (run.actor_id.as_str(), 2));
    scene.until_running(&run.actor_id).await;
}

#[tokio::test]
async fn an_actor_that_does_not_stop_holds_the_engine_up_no_longer_than_allowed() {
    let mut scene = Scene::start().await;
    let mut host = scene.host().await;
    let (run, stream) = scene.running_actor(&mut host).await;
    let began = Instant::now();
    scene.engine.shutdown().await;
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    assert_eq!(host.expect_stop(&run).await, (1, StopActorReason::GoingAway));
    stream.closed().await;
}

#[tokio::test]
async fn a_start_that_was_not_answered_is_repeated_by_the_next_process() {
    let settings = json!({ "runtime": { "guard_shutdown_duration": 10, "force_shutdown_duration": 10 } });
    let mut scene = Scene::with(settings, json!({})).await;
    scene.engine.create("counter", None).await;
    let call = scene.endpoint.next_start().await;
    let run = call.run();
    let began = Instant::now();
    scene.engine = scene.engine.restart().await;
    assert!(began.elapsed() < Duration::from_secs(5), "nothing is waited for: {:?}", began.elapsed());
    call.dropped().await;

    let mut host = scene.host().await;
    let (repeated, _stream) = answer_and_run(scene.endpoint.next_start().await, &mut host);
    assert_eq!(repeated, run);
    scene.until_running(&run.actor_id).await;
}
