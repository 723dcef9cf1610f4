//! Clients that walk away.

use super::*;

#[tokio::test(start_paused = true)]
async fn before_the_answer() {
    let mut stage = Stage::new();
    let (_request, asked) = stage.get().await;
    asked.leave().await;
    stage.expect_abort(Kind::Cancelled, "client disconnected before the HTTP response started").await;
    stage.expect_the_end().await;
}

#[tokio::test(start_paused = true)]
async fn during_the_answer() {
    let mut stage = Stage::new();
    let (request, client, body) = stage.stream(&[]).await;
    stage.host.chunk(&request, 1, "x", false);
    drop((client, body));
    stage.expect_abort(Kind::Cancelled, "client dropped streaming response body").await;
    stage.expect_the_end().await;
}

#[tokio::test(start_paused = true)]
async fn during_the_upload() {
    let mut stage = Stage::new();
    let (pieces, body) = Dictated::new();
    let (_request, asked) = stage.upload(body).await;
    pieces.send("x".into()).unwrap();
    stage.expect_chunk().await;
    asked.leave().await;
    stage.expect_abort(Kind::Cancelled, "client disconnected during the request body").await;
    stage.expect_the_end().await;
}

#[tokio::test(start_paused = true)]
async fn while_the_actor_is_not_ready() {
    let stage = Stage::new();
    let sleeping = stage.scene.actor(2);
    let asked = stage.ask(request(Method::GET, &format!("/gateway/{sleeping}/x"), &[], "")).await;
    stage.scene.directory.woken(sleeping, 1).await;
    asked.leave().await;
    let mut host = stage.scene.host();
    crate::scene::settle().await;
    stage.scene.run(sleeping, 1, &host);
    assert!(host.next_within(Duration::from_secs(60)).await.is_none(), "nobody wants the answer");
    stage.scene.expect_no_leak().await;
}
