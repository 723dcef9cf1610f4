//! What happens to an actor while a step of it is being stored, and when it cannot be stored.

use actor_data::Caller;
use gateway::Readiness;
use lifecycle::actor::{ActorError, Phase, StopWish};
use protocol::envoy::{SqliteCommitRequest, SqliteGetPagesRequest};

use super::super::cell::ActorCell;
use super::*;
use crate::records::actor_index;

fn lost(host: &TestHost) -> ActorError {
    ActorError::EnvoyConnectionLost { envoy_key: host.host.key.clone() }
}

/// An actor is given to a host that goes while that is being stored, and is lost with it after a while.
async fn lost_with_a_host_that_goes(go: impl FnOnce(&Scene, &TestHost), lost_after: Duration) {
    let scene = Scene::start().await;
    scene.normal_pool().await;
    let host = scene.connect("host");
    scene.mood.commit_ms.store(20, Ordering::Relaxed);
    let created = tokio::spawn(scene.creation(None));
    sleep(Duration::from_millis(10)).await;
    go(&scene, &host);
    let actor = created.await.unwrap();
    assert_eq!(scene.record(actor).await.host(), Some(&host.host.key), "it was given to the host before");
    sleep(lost_after + A_MOMENT).await;
    let record = scene.record(actor).await;
    assert_eq!((record.phase, record.error), (Phase::Sleeping, Some(lost(&host))));
}

#[tokio::test(start_paused = true)]
async fn an_actor_is_not_left_with_a_host_that_took_its_leave_during_the_commit() {
    lost_with_a_host_that_goes(Scene::leave, Duration::ZERO).await;
}

#[tokio::test(start_paused = true)]
async fn an_actor_is_not_left_with_a_host_that_was_cut_off_during_the_commit() {
    lost_with_a_host_that_goes(Scene::cut, LOST).await;
}

#[tokio::test(start_paused = true)]
async fn a_host_that_is_lost_while_nothing_can_be_stored_is_lost_all_the_same() {
    let scene = Scene::start().await;
    scene.normal_pool().await;
    let host = scene.connect("host");
    let actor = scene.running(&host).await;
    scene.mood.is_full.store(true, Ordering::Relaxed);
    scene.cut(&host);
    sleep(LOST + A_MOMENT).await;
    assert!(matches!(scene.record(actor).await.phase, Phase::Running { .. }));
    scene.mood.is_full.store(false, Ordering::Relaxed);
    sleep(super::super::lane::STORE_PAUSE).await;
    let record = scene.record(actor).await;
    assert_eq!((record.phase, record.error), (Phase::Sleeping, Some(lost(&host))));
}

#[tokio::test(start_paused = true)]
async fn a_start_that_was_shown_and_not_stored_is_shown_again_when_it_is() {
    let scene = Scene::start().await;
    scene.normal_pool().await;
    let host = scene.connect("host");
    let actor = scene.create().await;
    let view = scene.scheduler().watch(actor).await.unwrap().unwrap();
    let is_ready = || matches!(view.borrow().readiness, Readiness::Ready { generation: 1, .. });
    scene.mood.is_full.store(true, Ordering::Relaxed);
    scene.event(&host, actor, 1, 0, EventKind::Running);
    sleep(A_MOMENT).await;
    assert!(!is_ready(), "the engine goes by what is on the disk");
    let acks = |host: &TestHost| host.host.take_event_acks_for(host.link.session()).unwrap();
    assert!(acks(&host).is_empty());
    scene.mood.is_full.store(false, Ordering::Relaxed);
    sleep(super::super::lane::STORE_PAUSE).await;
    assert!(is_ready() && matches!(scene.record(actor).await.phase, Phase::Running { .. }));
    assert_eq!(acks(&host), [((actor, 1), 0)].into());
    // Its deadline is over with that.
    sleep(START).await;
    assert!(is_ready());
}

#[tokio::test(start_paused = true)]
async fn what_a_destroyed_actor_owned_is_deleted_when_that_can_be_stored_again() {
    let scene = Scene::start().await;
    scene.normal_pool().await;
    let actor = scene.create().await;
    let waits = async || {
        let row = scene.scheduler().0.store.get(vec![actor_index::reclaim(actor)]).await.unwrap();
        row[0].is_some()
    };
    scene.mood.commit_ms.store(20, Ordering::Relaxed);
    scene.post(actor, Input::Destroy);
    // The end of the actor is stored, and the deletion has begun.
    sleep(Duration::from_millis(30)).await;
    scene.mood.is_full.store(true, Ordering::Relaxed);
    sleep(super::super::lane::STORE_PAUSE).await;
    assert!(scene.record(actor).await.is_destroyed() && waits().await);
    scene.mood.is_full.store(false, Ordering::Relaxed);
    sleep(super::super::lane::STORE_PAUSE + A_MOMENT).await;
    assert!(!waits().await);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_cannot_be_stored_holds_up_nobody() {
    let mut scene = Scene::start().await;
    scene.serverless_pool(1).await;
    let sleeper = scene.create().await;
    scene.fail_start(sleeper).await;
    scene.starts();
    // The one that goes ahead of the others, in the only place.
    scene.mood.is_full.store(true, Ordering::Relaxed);
    scene.post(sleeper, Input::Wake);
    sleep(A_MOMENT).await;
    scene.mood.is_full.store(false, Ordering::Relaxed);
    let other = scene.create().await;
    assert_eq!(scene.starts(), [(other, 1)]);
}

#[tokio::test(start_paused = true)]
async fn every_generation_that_ends_in_one_breath_is_told_of() {
    let scene = Scene::start().await;
    scene.normal_pool().await;
    let host = scene.connect("host");
    let actor = scene.running(&host).await;
    let view = scene.scheduler().watch(actor).await.unwrap().unwrap();
    scene.post(actor, Input::Reschedule);
    sleep(A_MOMENT).await;
    scene.event(&host, actor, 1, 1, crashed());
    scene.post(actor, Input::HostLost { host: host.host.key.clone(), generation: 2 });
    sleep(A_MOMENT).await;
    assert_eq!(scene.record(actor).await.generation, 2);
    assert_eq!(view.borrow().ended_generations, 2);
}

/// What its last commit overwrote takes memory, and nobody asks for it any more.
#[tokio::test(start_paused = true)]
async fn a_commit_stays_when_its_generation_has_ended() {
    let scene = Scene::start().await;
    scene.normal_pool().await;
    let host = scene.connect("host");
    let actor = scene.running(&host).await;
    let data = scene.scheduler().0.data.clone();
    let commit = SqliteCommitRequest {
        actor_id: String::new(),
        dirty_pages: Vec::new(),
        db_size_pages: 1,
        now_ms: 0,
        expected_generation: Some(1),
        expected_head_txid: Some(0),
    };
    data.commit(actor, Caller::Host(1), commit).await.unwrap();
    scene.cut(&host);
    sleep(LOST + A_MOMENT).await;
    assert_eq!(scene.record(actor).await.phase, Phase::Sleeping);
    // As a host asks that has not seen the answer.
    let read = SqliteGetPagesRequest {
        actor_id: String::new(),
        pgnos: Vec::new(),
        expected_generation: Some(1),
        expected_head_txid: Some(0),
    };
    let refused = data.get_pages(actor, Caller::Host(2), read).await.unwrap_err();
    assert_eq!(refused.code, "head_fence_mismatch");
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_for_an_actor_after_it_was_sent_to_sleep_is_heard() {
    let scene = Scene::start().await;
    scene.normal_pool().await;
    let host = scene.connect("host");
    let actor = scene.running(&host).await;
    for input in [Input::Wake, Input::Sleep, Input::Wake] {
        scene.post(actor, input);
    }
    sleep(A_MOMENT).await;
    let record = scene.record(actor).await;
    let wakes_again = StopWish::Sleep { rewake: true };
    assert!(matches!(&record.phase, Phase::Stopping { wish, .. } if *wish == wakes_again), "{record:?}");
}

#[test]
fn what_is_put_back_again_and_again_does_not_pile_up() {
    let cell = ActorCell::new(ActorId::from_parts([1; 16], 1));
    cell.push(Input::DeadlineReached).unwrap();
    for _round in 0..3 {
        let (work, _known) = cell.take_work().unwrap();
        assert_eq!(work.len(), 1);
        // The deadline is still past.
        cell.push(Input::DeadlineReached).unwrap();
        cell.put_back(vec![Input::DeadlineReached]);
    }
}
