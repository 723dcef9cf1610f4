//! The engine stops: every socket gets a close frame, whatever state it is in.

use std::time::Duration;

use futures_util::StreamExt;
use gateway::GatewayError;
use tokio::time::Instant;

use super::{A_MOMENT, downstream_closed, running, target, told_host};
use crate::scene::{Scene, settle};

#[tokio::test(start_paused = true)]
async fn sockets_in_every_state_are_closed_at_once_and_their_hosts_are_told() {
    let scene = Scene::new();
    let (actor, mut host) = running(&scene);
    let mut open = scene.websocket(&target(actor)).await;
    host.accept(false).await;
    let mut opening = scene.websocket(&target(actor)).await;
    host.expect_open().await;
    let sleeper = scene.actor(2);
    scene.run(sleeper, 1, &host);
    let mut hibernating = scene.websocket(&target(sleeper)).await;
    host.accept(true).await;
    scene.stop(sleeper);
    let waking = scene.actor(3);
    let mut waiting = scene.websocket(&target(waking)).await;
    settle().await;

    let begun = Instant::now();
    let closed = scene.gateway.close_websockets();
    let heard = async {
        for socket in [&mut open, &mut opening, &mut hibernating, &mut waiting] {
            socket.expect_failure(&GatewayError::GoingAway).await;
            assert!(socket.stream.next().await.is_none());
        }
    };
    tokio::join!(closed, heard);
    assert!(begun.elapsed() < A_MOMENT);
    assert_eq!(told_host(&mut host).await, downstream_closed());
    assert_eq!(told_host(&mut host).await, downstream_closed());
    assert!(host.next_within(A_MOMENT).await.is_none(), "nobody there knows the socket of the sleeping actor");
    assert_eq!(scene.directory.wakes(sleeper), 0);
    scene.expect_no_leak().await;

    let mut late = scene.websocket(&target(actor)).await;
    late.expect_failure(&GatewayError::GoingAway).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_answer_holds_it_up_for_a_second_at_most() {
    let scene = Scene::new();
    let (actor, mut host) = running(&scene);
    let _silent = scene.websocket(&target(actor)).await;
    host.accept(false).await;
    let begun = Instant::now();
    scene.gateway.close_websockets().await;
    assert!(begun.elapsed() <= Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_host_that_is_out_of_touch_holds_nothing_up() {
    let scene = Scene::new();
    let (actor, mut host) = running(&scene);
    let socket = scene.websocket(&target(actor)).await;
    host.accept(false).await;
    scene.lose_link(actor, 1, &host);
    settle().await;
    // The client has gone, and the host is waited for in order to be told.
    drop(socket);
    settle().await;
    let begun = Instant::now();
    scene.gateway.close_websockets().await;
    assert!(begun.elapsed() < A_MOMENT);
    scene.expect_no_leak().await;
}
