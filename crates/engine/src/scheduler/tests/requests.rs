//! Start requests that end before their actor, or are not made at all (`spec/scheduling.md` 9.6).

use lifecycle::actor::{ActorError, Phase, StopWish};
use protocol::limits;

use super::*;

fn broken() -> PoolError {
    PoolError::ConnectionError { message: "reset".to_owned() }
}

impl Scene {
    /// The stream of a generation's request breaks, as the one who reads it tells it.
    async fn break_request(&self, actor: ActorId, generation: u32) {
        let identity = self.record(actor).await.identity;
        let began = self.scheduler().0.clock.uptime();
        self.scheduler().outbound_cut_short(&identity, generation, broken());
        self.scheduler().outbound_failed(&identity, generation, began, broken());
    }

    fn pool_error(&self) -> Option<PoolError> {
        self.scheduler().pool_error(self.namespace().namespace_id, POOL)
    }
}

async fn phase_of(scene: &Scene, actor: ActorId) -> (u32, Phase) {
    let record = scene.record(actor).await;
    (record.generation, record.phase)
}

#[tokio::test(start_paused = true)]
async fn a_host_that_came_forward_keeps_its_generation_before_that_is_durable() {
    let mut scene = Scene::start().await;
    scene.serverless_pool(10).await;
    let host = scene.connect("h");
    let actor = scene.create().await;
    sleep(A_MOMENT).await;
    scene.mood.commit_ms.store(50, Ordering::Relaxed);
    scene.event(&host, actor, 1, 0, EventKind::Running);
    scene.break_request(actor, 1).await;
    sleep(2 * A_MOMENT).await;
    let (generation, phase) = phase_of(&scene, actor).await;
    assert!(matches!((generation, &phase), (1, Phase::Stopping { wish: StopWish::Move, .. })), "{phase:?}");
    // That it was broken off is no reason to keep others waiting.
    scene.starts();
    let other = scene.create().await;
    assert_eq!(scene.starts(), [(other, 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_cannot_be_made_says_nothing_of_the_endpoint() {
    let mut scene = Scene::start().await;
    scene.serverless_pool(10).await;
    let actor = scene.create().await;
    let record = scene.record(actor).await;
    let too_large = PoolError::NotAsked { reason: "too large".to_owned() };
    let began = scene.scheduler().0.clock.uptime();
    scene.scheduler().outbound_not_asked(&record.identity, 1, began, too_large.clone());
    sleep(A_MOMENT).await;
    let record = scene.record(actor).await;
    assert_eq!((record.phase, record.error), (Phase::Sleeping, Some(ActorError::RunnerPoolError(too_large))));
    assert_eq!(scene.pool_error(), None);
    scene.starts();
    let other = scene.create().await;
    assert_eq!(scene.starts(), [(other, 1)]);
}

#[tokio::test(start_paused = true)]
async fn who_has_lost_request_and_connection_has_time_to_come_back() {
    for away in [limits::SERVERLESS_RECONNECT - A_MOMENT, limits::SERVERLESS_RECONNECT + A_MOMENT] {
        for request_breaks_first in [true, false] {
            let scene = Scene::start().await;
            scene.serverless_pool(10).await;
            let host = scene.connect("h");
            let actor = scene.running(&host).await;
            // It is on its way to sleep, so nothing is to be done about the request alone.
            scene.post(actor, Input::Sleep);
            sleep(A_MOMENT).await;
            if request_breaks_first {
                scene.break_request(actor, 1).await;
            }
            scene.cut(&host);
            if !request_breaks_first {
                scene.break_request(actor, 1).await;
            }
            sleep(away).await;
            let host = scene.connect("h");
            sleep(A_MOMENT).await;
            let (_, phase) = phase_of(&scene, actor).await;
            if away < limits::SERVERLESS_RECONNECT {
                let goes_to_sleep = matches!(&phase, Phase::Stopping { wish: StopWish::Sleep { rewake: false }, .. });
                assert!(goes_to_sleep, "{phase:?}");
                scene.event(&host, actor, 1, 1, EventKind::Stopped { error: false, message: None });
                sleep(A_MOMENT).await;
                assert_eq!(scene.record(actor).await.error, None);
            } else {
                assert_eq!(phase, Phase::Sleeping);
                let lost = ActorError::EnvoyConnectionLost { envoy_key: EnvoyKey::new("h") };
                assert_eq!(scene.record(actor).await.error, Some(lost));
            }
        }
    }
}
