//! Starting an actor while the host's connection fails at any point: the command is repeated until the host has
//! acknowledged it, the host repeats its event until the engine has, and neither counts twice (`spec/envoy-protocol.md` 7.4).

use std::collections::HashMap;

use testkit::client::{self, Answer, empty};
use testkit::envoy::Run;
use testkit::proxy::{Direction, Scope};
use tokio::task::JoinHandle;

use crate::faults::{CUTS, Scene};
use crate::scene::is_set;

/// A request to a new actor, which waits until that runs; and the actor's id.
async fn waiting_client(scene: &Scene) -> (String, JoinHandle<Answer>) {
    let actor = scene.engine.create("counter", None).await;
    let request = empty(http::Method::GET, &format!("/gateway/{actor}/request/hello"));
    (actor, tokio::spawn(client::send(scene.engine.address(), request)))
}

/// Bytes of a start: of the command, and of its acknowledgement with the event, as they are in these tests.
async fn start_bytes(scene: &mut Scene) -> (u64, u64) {
    let before = scene.host_bytes();
    let actor = scene.engine.create("counter", None).await;
    let (run, _) = scene.envoy.expect_start().await;
    assert_eq!(run.actor_id, actor);
    let commanded = scene.host_bytes();
    scene.envoy.acknowledge(&run, 1);
    scene.envoy.running(&run);
    scene.engine.actor_when(&actor, "a running actor", |actor| is_set(&actor["connectable_ts"])).await;
    let reported = scene.host_bytes();
    (commanded.1 - before.1, reported.0 - commanded.0)
}

#[tokio::test]
async fn a_start_that_is_cut_off_anywhere_happens_once() {
    let mut scene = Scene::new().await;
    let (length, _) = start_bytes(&mut scene).await;
    scene.calm().await;
    let mut started = HashMap::new();
    for fault in CUTS {
        for after_bytes in 0..=length {
            scene.to_host.set(Scope::Open, Direction::Down, fault(after_bytes));
            let (actor, answer) = waiting_client(&scene).await;
            scene.rejoin().await;
            let (run, _) = scene.envoy.expect_start().await;
            assert_eq!((&run.actor_id, run.generation), (&actor, 1), "{}", fault(after_bytes));
            scene.envoy.acknowledge(&run, 1);
            scene.exchange().await;
            started.insert(actor, (run, answer));
        }
    }
    // Only now, because the acknowledgements of events come at a time of their own.
    for (run, _) in started.values() {
        scene.envoy.running(run);
    }
    for _client in 0..started.len() {
        let request = scene.envoy.expect_request().await;
        scene.envoy.respond(&request, 200, &[], request.start.actor_id.clone());
    }
    for (actor, (_, answer)) in started {
        assert_eq!(answer.await.unwrap().text(), actor);
    }
    scene.nothing_is_open().await;
}

#[tokio::test]
async fn a_report_that_is_cut_off_anywhere_counts_once() {
    let mut scene = Scene::new().await;
    let (_, length) = start_bytes(&mut scene).await;
    scene.calm().await;
    for fault in CUTS {
        for after_bytes in 0..=length {
            let (actor, answer) = waiting_client(&scene).await;
            // Commands that were not acknowledged before a cut have come again.
            let run = scene.envoy.expect_start_of(&actor).await;
            scene.to_host.set(Scope::Open, Direction::Up, fault(after_bytes));
            scene.envoy.acknowledge(&run, 1);
            scene.envoy.running(&run);
            scene.rejoin().await;
            // Whether the engine has it the host does not know, and sends it again.
            scene.envoy.acknowledge(&run, 1);
            scene.envoy.running(&run);
            serve_or_see_lost(&mut scene, &run, answer).await;
            let shown = scene.engine.actor(&actor).await;
            assert!(is_set(&shown["connectable_ts"]) && shown.get("error").is_none(), "{shown}");
            scene.exchange().await;
        }
    }
    scene.nothing_is_open().await;
}

/// The request may have been on its way over the connection that was lost, when the engine had heard of the actor just
/// before.
async fn serve_or_see_lost(scene: &mut Scene, run: &Run, mut answer: JoinHandle<Answer>) {
    tokio::select! {
        answer = &mut answer => assert_eq!(answer.unwrap().error(), (503, "guard.tunnel_response_closed".to_owned())),
        request = scene.envoy.expect_request() => {
            assert_eq!(request.start.actor_generation, Some(run.generation));
            scene.envoy.respond(&request, 200, &[], "hello");
            assert_eq!(answer.await.unwrap().text(), "hello");
        }
    }
}
