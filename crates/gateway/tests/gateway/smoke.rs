//! The plain ways through.

use protocol::envoy::{ToEnvoyTunnelMessageKind, ToRivetTunnelMessageKind};

use crate::scene::{Scene, get};

#[tokio::test(start_paused = true)]
async fn a_request_goes_to_the_host_and_its_answer_comes_back() {
    let scene = Scene::new();
    let actor = scene.actor(1);
    let mut host = scene.host();
    scene.run(actor, 1, &host);
    let mut client = scene.connect().await;
    let served = async {
        let (request, start) = host.expect_request().await;
        assert_eq!((start.method.as_str(), start.path.as_str(), start.actor_generation), ("GET", "/x?y=1", Some(1)));
        host.answer(&request, 200, "hello");
    };
    let (answer, ()) = tokio::join!(client.send(get(&format!("/gateway/{actor}/x?y=1"))), served);
    assert_eq!((answer.status.as_u16(), answer.text()), (200, "hello"));
    scene.expect_no_leak().await;
}

#[tokio::test(start_paused = true)]
async fn a_message_goes_to_the_actor_and_one_comes_back() {
    let scene = Scene::new();
    let actor = scene.actor(1);
    let mut host = scene.host();
    scene.run(actor, 1, &host);
    let mut socket = scene.websocket(&format!("/gateway/{actor}/websocket/")).await;
    let request = host.accept(false).await;
    socket.send_text("ping").await;
    let (id, kind) = host.next().await;
    assert_eq!((id.request_id, id.message_index), (request.id.request_id, 1));
    let ToEnvoyTunnelMessageKind::WebSocketMessage { data, binary: false } = kind else { panic!("{kind:?}") };
    host.send(&request, 1, ToRivetTunnelMessageKind::WebSocketMessage { data, binary: false });
    assert_eq!(socket.expect_text().await, "ping");
    drop(socket);
    let (_, kind) = host.next().await;
    assert!(matches!(kind, ToEnvoyTunnelMessageKind::WebSocketClose { code: Some(1011), .. }), "{kind:?}");
    scene.expect_no_leak().await;
}
