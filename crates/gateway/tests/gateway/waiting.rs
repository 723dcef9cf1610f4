//! Waiting for an actor (`spec/gateway.md` 11, checklist 19 to 24). Times are exact: nothing here takes any.

use std::time::Duration;

use gateway::Readiness;
use http::Method;
use protocol::envoy::{HttpStreamAbortReasonKind, ToEnvoyTunnelMessageKind as ToActor, ToRivetTunnelMessageKind as FromActor};
use serde_json::json;
use tokio::time::Instant;

use crate::scene::{Host, RAY, Scene, ask, assert_took, get, ready_timeout, request, settle};

const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// The next request is delivered and answered.
async fn serve(host: &mut Host, generation: Option<u32>) {
    let (request, start) = host.expect_request().await;
    assert_eq!(start.actor_generation, generation);
    host.answer(&request, 200, "served");
}

#[tokio::test(start_paused = true)]
async fn a_sleeping_actor_is_woken_once_and_gets_what_waits_for_it() {
    let scene = Scene::new();
    let actor = scene.actor(1);
    let mut host = scene.host();
    let mut answers = Vec::new();
    for _client in 0..3 {
        answers.push(ask(&scene, get(&format!("/gateway/{actor}/x"))).await);
    }
    scene.directory.woken(actor, 3).await;
    scene.place(actor, 2, &host);
    settle().await;
    // It starts: nobody asks for that again, and nothing is delivered yet.
    assert_eq!(scene.directory.wakes(actor), 3);
    assert!(host.next_within(Duration::from_secs(1)).await.is_none());
    scene.run(actor, 2, &host);
    for _answer in &answers {
        serve(&mut host, Some(2)).await;
    }
    for answer in answers {
        assert_eq!(answer.await.unwrap().text(), "served");
    }
    scene.expect_no_leak().await;
}

#[tokio::test(start_paused = true)]
async fn the_wait_ends_at_one_time_whatever_happens_meanwhile() {
    let scene = Scene::new();
    let actor = scene.actor(1);
    let host = scene.host();
    for stops_every in [None, Some(Duration::from_secs(4))] {
        let began = Instant::now();
        let mut answer = ask(&scene, get(&format!("/gateway/{actor}/x"))).await;
        let answer = loop {
            let pause = stops_every.unwrap_or(2 * READY_TIMEOUT);
            match tokio::time::timeout(pause, &mut answer).await {
                Ok(answer) => break answer.unwrap(),
                Err(_) => {
                    scene.place(actor, 1, &host);
                    scene.stop(actor);
                }
            }
        };
        assert_took(began, READY_TIMEOUT);
        assert_eq!(answer.error(), (503, "guard.actor_ready_timeout".to_owned()));
    }
    let began = Instant::now();
    let mut socket = scene.websocket(&format!("/gateway/{actor}/websocket/")).await;
    socket.expect_failure(&ready_timeout(actor)).await;
    assert_took(began, READY_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn an_actor_that_is_ready_in_the_last_moment_gets_what_waits() {
    let scene = Scene::new();
    let actor = scene.actor(1);
    let mut host = scene.host();
    let answer = ask(&scene, get(&format!("/gateway/{actor}/x"))).await;
    tokio::time::sleep(READY_TIMEOUT - Duration::from_millis(100)).await;
    scene.run(actor, 1, &host);
    serve(&mut host, Some(1)).await;
    assert_eq!(answer.await.unwrap().text(), "served");
}

#[tokio::test(start_paused = true)]
async fn an_actor_that_stops_each_time_is_woken_eight_times_more() {
    let scene = Scene::new();
    let actor = scene.actor(1);
    let host = scene.host();
    let answer = ask(&scene, get(&format!("/gateway/{actor}/x"))).await;
    for start in 1..=9 {
        scene.directory.woken(actor, start).await;
        scene.place(actor, start as u32, &host);
        settle().await;
        scene.stop(actor);
    }
    let answer = answer.await.unwrap();
    assert_eq!(answer.error(), (503, "guard.actor_wake_retries_exceeded".to_owned()));
    assert_eq!(scene.directory.wakes(actor), 9);
}

#[tokio::test(start_paused = true)]
async fn a_destroyed_actor_is_told_at_once() {
    let scene = Scene::new();
    let began = Instant::now();
    let waited_for = scene.actor(1);
    let answer = ask(&scene, get(&format!("/gateway/{waited_for}/x"))).await;
    let mut socket = scene.websocket(&format!("/gateway/{waited_for}/websocket/")).await;
    scene.directory.woken(waited_for, 2).await;
    scene.destroy(waited_for);
    let answer = answer.await.unwrap();
    assert_eq!(answer.error(), (400, "actor.destroyed_while_waiting_for_ready".to_owned()));
    assert_eq!(answer.json()["message"], "Actor was destroyed while waiting for ready state.");
    assert_eq!(socket.expect_close().await, (1011, format!("actor.destroyed_while_waiting_for_ready#{RAY}")));

    let destroyed = scene.actor(2);
    scene.destroy(destroyed);
    let unknown = crate::scene::actor_id(3);
    for target in [destroyed.to_string(), unknown.to_string(), "nonsense".to_owned()] {
        let answer = ask(&scene, get(&format!("/gateway/{target}/x"))).await.await.unwrap();
        assert_eq!(answer.error(), (404, "actor.not_found".to_owned()), "{target}");
        let mut socket = scene.websocket(&format!("/gateway/{target}/websocket/")).await;
        assert_eq!(socket.expect_close().await, (1011, format!("actor.not_found#{RAY}")), "{target}");
    }
    assert_took(began, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_host_out_of_touch_is_waited_for() {
    let scene = Scene::new();
    let actor = scene.actor(1);
    let host = scene.host();
    scene.run(actor, 1, &host);
    scene.lose_link(actor, 1, &host);
    let answer = ask(&scene, get(&format!("/gateway/{actor}/x"))).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let mut back = scene.reconnect(&host);
    scene.run(actor, 1, &back);
    serve(&mut back, Some(1)).await;
    assert_eq!(answer.await.unwrap().text(), "served");
    assert_eq!(scene.directory.wakes(actor), 0);
}

#[tokio::test(start_paused = true)]
async fn a_query_is_resolved_in_time_or_not_at_all() {
    let scene = Scene::new();
    scene.directory.never_answer();
    let began = Instant::now();
    let path = "/gateway/n/x?rvt-namespace=default&rvt-method=get&rvt-key=a";
    let answer = ask(&scene, get(path)).await.await.unwrap();
    assert_took(began, Duration::from_secs(15));
    assert_eq!(answer.error(), (504, "pegboard.route_resolve_query_timeout".to_owned()));
    assert_eq!(answer.json()["metadata"], json!({ "elapsed_ms": 15_000, "timeout_ms": 15_000 }));
}

#[tokio::test(start_paused = true)]
async fn who_skips_the_wait_reaches_an_actor_that_starts_or_stops() {
    let scene = Scene::new();
    let actor = scene.actor(1);
    scene.directory.give_key(&["k"], actor);
    let mut host = scene.host();
    let query = "/gateway/n/x?rvt-namespace=default&rvt-method=get&rvt-key=k";
    let named = [("x-rivet-target", "actor"), ("x-rivet-actor", &actor.to_string()), ("x-rivet-skip-ready-wait", "true")];
    let skipping = [
        request(Method::GET, &format!("/gateway/{actor}/x"), &[("x-rivet-skip-ready-wait", "1")], ""),
        request(Method::GET, &format!("{query}&rvt-skip-ready-wait=true"), &[], ""),
        request(Method::GET, "/request/x", &named, ""),
    ];
    scene.place(actor, 1, &host);
    let patient = ask(&scene, get(&format!("/gateway/{actor}/patient"))).await;
    for request in skipping {
        let answer = ask(&scene, request).await;
        // No generation is named: a host refuses requests for exactly one that it was told to stop.
        serve(&mut host, None).await;
        assert_eq!(answer.await.unwrap().text(), "served");
    }
    let protocols = [("sec-websocket-protocol", "rivet, rivet_skip_ready_wait")];
    let mut socket = scene.websocket_with(&format!("/gateway/{actor}/websocket/"), &protocols).await;
    let open = host.accept(false).await;
    host.send(&open, 1, text("early"));
    assert_eq!(socket.expect_text().await, "early");
    let mut by_query = scene.websocket(&format!("{query}&rvt-skip-ready-wait=1")).await;
    let open = host.accept(false).await;
    host.send(&open, 1, text("early too"));
    assert_eq!(by_query.expect_text().await, "early too");
    // Whoever did not ask for that waits until the actor is ready.
    assert!(host.next_within(Duration::from_secs(10)).await.is_none());
    scene.run(actor, 1, &host);
    serve(&mut host, Some(1)).await;
    assert_eq!(patient.await.unwrap().text(), "served");
    // A ready actor is addressed as ever, by its generation.
    let answer = ask(&scene, request(Method::GET, &format!("/gateway/{actor}/x"), &skip_header(), "")).await;
    serve(&mut host, Some(1)).await;
    assert_eq!(answer.await.unwrap().text(), "served");
}

fn text(text: &'static str) -> FromActor {
    FromActor::WebSocketMessage { data: text.into(), binary: false }
}

/// The header that skips the wait.
fn skip_header() -> [(&'static str, &'static str); 1] {
    [("x-rivet-skip-ready-wait", "true")]
}

#[tokio::test(start_paused = true)]
async fn who_skips_the_wait_still_needs_a_host() {
    let scene = Scene::new();
    let actor = scene.actor(1);
    let skipping = || request(Method::GET, &format!("/gateway/{actor}/x"), &skip_header(), "");
    let began = Instant::now();
    let answer = ask(&scene, skipping()).await.await.unwrap();
    assert_took(began, READY_TIMEOUT);
    assert_eq!(answer.error(), (503, "guard.actor_ready_timeout".to_owned()));

    let answer = ask(&scene, skipping()).await;
    scene.directory.woken(actor, 2).await;
    // On a host that is out of touch.
    scene.directory.change(actor, |view| view.readiness = Readiness::Hosted { generation: 1, link: None });
    settle().await;
    let mut host = scene.host();
    scene.place(actor, 1, &host);
    // A host that has not heard of the actor yet says so, and is asked again.
    let (early, _) = host.expect_request().await;
    host.refuse(&early, "envoy.actor_not_found");
    serve(&mut host, None).await;
    assert_eq!(answer.await.unwrap().text(), "served");
}

#[tokio::test(start_paused = true)]
async fn an_early_request_is_aborted_without_naming_a_generation() {
    let scene = Scene::new();
    let actor = scene.actor(1);
    let mut host = scene.host();
    scene.place(actor, 1, &host);
    let answer = ask(&scene, request(Method::GET, &format!("/gateway/{actor}/x"), &skip_header(), "")).await;
    host.expect_request().await;
    answer.abort();
    let (id, kind) = host.next().await;
    let ToActor::RequestAbort(abort) = kind else { panic!("{kind:?}") };
    assert_eq!((id.message_index, abort.actor_id, abort.actor_generation), (1, None, None));
    assert_eq!(abort.reason.kind, HttpStreamAbortReasonKind::Cancelled);
    scene.expect_no_leak().await;
}
