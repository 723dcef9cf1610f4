//! Places in a serverless pool: none is lost, and nobody waits for one that is free.

use super::*;

#[tokio::test(start_paused = true)]
async fn whoever_waited_for_a_host_is_at_rest_when_the_pool_gets_an_endpoint_and_is_full() {
    let mut scene = Scene::start().await;
    scene.normal_pool().await;
    let (first, second) = (scene.create().await, scene.create().await);
    scene.serverless_pool(1).await;
    sleep(A_MOMENT).await;
    assert_eq!(scene.starts(), [(first, 1)]);
    let _host = scene.connect("host");
    scene.post(second, Input::Wake);
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    let cell = scene.scheduler().0.cells.lock().get(&second).cloned().unwrap();
    assert!(cell.take_work().is_none(), "there is always something to do for it");
    assert_eq!(scene.starts(), []);
}

#[tokio::test(start_paused = true)]
async fn what_comes_after_the_end_of_a_generation_takes_no_place() {
    let mut scene = Scene::start().await;
    scene.serverless_pool(1).await;
    let host = scene.connect("host");
    let first = scene.running(&host).await;
    let second = scene.create().await;
    assert_eq!(scene.starts(), [(first, 1)]);
    // In one breath, as when a host closes after its last word.
    scene.event(&host, first, 1, 1, crashed());
    scene.post(first, Input::HostLost { host: host.host.key.clone(), generation: 1 });
    sleep(A_MOMENT).await;
    assert_eq!(scene.starts(), [(second, 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_place_that_a_creation_held_in_vain_is_passed_on() {
    let mut scene = Scene::start().await;
    scene.serverless_pool(2).await;
    scene.mood.commit_ms.store(20, Ordering::Relaxed);
    let (winner, loser, other) = tokio::join!(scene.creation(Some("key")), scene.creation(Some("key")), scene.creation(None));
    assert_eq!(winner, loser);
    sleep(A_MOMENT).await;
    assert_eq!(scene.starts(), [(winner, 1), (other, 1)]);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_is_not_made_holds_up_nobody() {
    let mut scene = Scene::start().await;
    scene.serverless_pool(10).await;
    let holder = scene.creation(Some("key")).await;
    scene.fail_start(holder).await;
    scene.starts();
    scene.mood.commit_ms.store(20, Ordering::Relaxed);
    let (existing, other) = tokio::join!(scene.creation(Some("key")), scene.creation(None));
    assert_eq!(existing, holder);
    sleep(A_MOMENT).await;
    assert_eq!(scene.starts(), [(other, 1)]);
}
