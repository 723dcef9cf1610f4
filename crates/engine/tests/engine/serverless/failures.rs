//! Start requests that go wrong (`spec/scheduling.md` 9.6).

use std::time::Duration;

use protocol::envoy::StopActorReason;
use protocol::limits;
use serde_json::{Value, json};
use testkit::envoy::FakeEnvoy;
use testkit::eventually;
use tokio::time::Instant;

use super::endpoint::StartCall;
use super::{Scene, answer_and_run};
use crate::scene::is_set;

/// Creates an actor, lets its start request end in some way, and returns what the actor and its pool show.
async fn failed_start(scene: &mut Scene, end: impl AsyncFnOnce(StartCall)) -> (Value, Value) {
    let actor = scene.engine.create("counter", None).await;
    end(scene.endpoint.next_start().await).await;
    let shown = scene.engine.actor_when(&actor, "an actor with an error", |actor| actor.get("error").is_some()).await;
    assert!(is_set(&shown["sleep_ts"]) && shown["connectable_ts"].is_null(), "{shown}");
    (shown["error"].clone(), scene.pool_error().await)
}

async fn answer(host: &mut FakeEnvoy) {
    let request = host.expect_request().await;
    host.respond(&request, 200, &[], "here");
}

#[tokio::test]
async fn a_failing_endpoint_is_not_hammered_and_recovers() {
    let mut scene = Scene::start().await;
    let actor = scene.engine.create("counter", None).await;
    let request = scene.engine.request(&actor);
    let body = format!("x{}", "\u{e4}".repeat(400));
    let mut attempts = 0;
    let two_seconds = tokio::time::sleep(Duration::from_secs(2));
    tokio::pin!(two_seconds);
    loop {
        tokio::select! {
            () = &mut two_seconds => break,
            call = scene.endpoint.next_start() => {
                attempts += 1;
                call.refuse(500, "text/plain", &body);
            }
        }
    }
    assert!((1..=5).contains(&attempts), "{attempts} attempts in 2 s");
    let error = json!({ "serverless_http_error": { "status_code": 500, "body": format!("x{}", "\u{e4}".repeat(255)) } });
    assert_eq!(scene.pool_error().await, error);
    let refused = request.await.unwrap();
    assert_eq!(refused.error(), (400, "guard.actor_runner_failed".to_owned()), "{}", refused.text());

    // While the endpoint is left alone, requests are refused; but they are remembered. Three good outcomes clear the error: a host
    // that connects, and two actors that run.
    let mut host = scene.host().await;
    let refused = scene.engine.request(&actor);
    let _stream = answer_and_run(scene.endpoint.next_start().await, &mut host);
    scene.until_running(&actor).await;
    assert_eq!(refused.await.unwrap().error(), (400, "guard.actor_runner_failed".to_owned()));
    let served = scene.engine.request(&actor);
    answer(&mut host).await;
    assert_eq!(served.await.unwrap().status, 200);
    assert_eq!(scene.pool().await["runner_pool_error"], error);
    let _second = scene.running_actor(&mut host).await;
    eventually("a pool without error", async || scene.pool().await.get("runner_pool_error").is_none().then_some(())).await;
}

#[tokio::test]
async fn what_is_no_event_stream_is_no_start() {
    let mut scene = Scene::start().await;
    let (actor, pool) = failed_start(&mut scene, async |call| call.refuse(200, "application/json", "{}")).await;
    let text = "expected Content-Type header to be text/event-stream, received \"application/json\"";
    assert_eq!(pool, json!({ "serverless_connection_error": { "message": text } }));
    assert_eq!(actor, json!({ "runner_pool_error": pool }));
}

#[tokio::test]
async fn a_broken_connection_says_why() {
    let mut scene = Scene::start().await;
    let (_, pool) = failed_start(&mut scene, async |call| drop(call)).await;
    let message = pool["serverless_connection_error"]["message"].as_str().unwrap().to_owned();
    let url = format!("error sending request for url ({}/start)\n", scene.endpoint.url());
    assert!(message.starts_with(&url), "{message}");
}

#[tokio::test]
async fn a_refused_connection_says_why() {
    let mut scene = Scene::start().await;
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    scene.engine.put_pool("default", json!({ "serverless": super::pool(&format!("http://{nobody}/x"), json!({})) })).await;
    scene.engine.create("counter", None).await;
    let error = scene.pool_error().await;
    let message = error["serverless_connection_error"]["message"].as_str().unwrap();
    let expected = format!(
        "error sending request for url (http://{nobody}/x/start)\nclient error (Connect)\ntcp connect error\nConnection refused (os \
         error 111)"
    );
    assert_eq!(message, expected);
    assert!(scene.endpoint.waiting_starts().is_empty());
}

#[tokio::test]
async fn a_stream_that_ends_before_anything_happened_is_a_failed_start() {
    let mut scene = Scene::start().await;
    let (actor, pool) = failed_start(&mut scene, async |call| drop(call.accept_silently())).await;
    assert_eq!(pool, json!("serverless_stream_ended_early"));
    assert_eq!(actor, json!({ "runner_pool_error": "serverless_stream_ended_early" }));
}

#[tokio::test]
async fn an_actor_whose_request_is_cut_short_stays_a_moment_and_moves() {
    let mut scene = Scene::start().await;
    let mut host = scene.host().await;
    scene.engine.create("counter", None).await;
    let call = scene.endpoint.next_start().await;
    let began = call.came;
    let (run, stream) = answer_and_run(call, &mut host);
    scene.until_running(&run.actor_id).await;
    drop(stream);
    assert_eq!(scene.pool_error().await, json!("serverless_stream_ended_early"));
    let request = scene.engine.request(&run.actor_id);
    answer(&mut host).await;
    assert_eq!(request.await.unwrap().status, 200);
    assert_eq!(host.expect_stop(&run).await, (1, StopActorReason::GoingAway));
    assert!(began.elapsed() >= limits::SERVERLESS_SHORTEST_STAY, "{:?}", began.elapsed());

    host.stopped(&run);
    let (next, stream) = answer_and_run(scene.endpoint.next_start().await, &mut host);
    assert_eq!(next.generation, 2);
    scene.until_running(&run.actor_id).await;
    stream.break_off();
    let shows_the_break =
        async || scene.pool().await["runner_pool_error"]["serverless_connection_error"]["message"].as_str().map(str::to_owned);
    let message = eventually("what broke", shows_the_break).await;
    assert!(message.starts_with("error decoding response body\n"), "{message}");
    assert_eq!(host.expect_stop(&next).await, (1, StopActorReason::GoingAway));
}

/// Long before the host would be given up for its silence alone, but not before a living one would be back.
#[tokio::test]
async fn an_instance_of_which_nothing_is_left_is_replaced_soon() {
    let replaced = [false, true].map(async |connection_goes_first| {
        let mut scene = Scene::start().await;
        let mut host = scene.host().await;
        let (run, stream) = scene.running_actor(&mut host).await;
        if connection_goes_first {
            host.cut();
            eventually("no host", async || scene.engine.listed_hosts().await.is_empty().then_some(())).await;
            stream.break_off();
        } else {
            stream.break_off();
            scene.pool_error().await;
            host.cut();
        }
        let gone_at = Instant::now();
        scene.engine.request(&run.actor_id);
        let next = scene.endpoint.next_start().await.run();
        assert_eq!((next.actor_id, next.generation), (run.actor_id, 2));
        let after = gone_at.elapsed();
        // The host is seen to be gone a little before that is noted here.
        let (earliest, latest) = (limits::SERVERLESS_RECONNECT - Duration::from_millis(500), limits::ENVOY_LOST_THRESHOLD / 2);
        assert!((earliest..latest).contains(&after), "after {after:?}");
    });
    futures_util::future::join_all(replaced).await;
}

#[tokio::test]
async fn a_host_that_is_back_after_a_breakdown_of_the_network_keeps_its_actors_until_they_have_moved() {
    let mut scene = Scene::start().await;
    let mut host = scene.host().await;
    let (run, stream) = scene.running_actor(&mut host).await;
    let params = host.params().clone();
    host.cut();
    eventually("no host", async || scene.engine.listed_hosts().await.is_empty().then_some(())).await;
    stream.break_off();
    scene.pool_error().await;
    let mut host = scene.engine.host_with(&params).await;
    // Nothing sees to the end of its lifespan any more.
    assert_eq!(host.expect_stop(&run).await, (1, StopActorReason::GoingAway));
    // It repeats all its events.
    host.running(&run);
    host.stopped(&run);
    let (next, _stream) = answer_and_run(scene.endpoint.next_start().await, &mut host);
    assert_eq!((next.actor_id, next.generation), (run.actor_id, 2));
}

#[tokio::test]
async fn a_request_that_is_never_answered_ends_with_the_start_threshold() {
    let mut scene = Scene::with(json!({ "pegboard": { "actor_start_threshold": 300 } }), json!({})).await;
    let actor = scene.engine.create("counter", None).await;
    let call = scene.endpoint.next_start().await;
    let shown = scene.engine.asleep(&actor).await;
    assert_eq!(shown["error"], json!({ "envoy_no_response": { "envoy_key": null } }));
    call.dropped().await;
    assert!(scene.pool().await.get("runner_pool_error").is_none());

    // The same when the stream has begun, and the actor never reports running.
    scene.engine.request(&actor);
    let stream = scene.endpoint.next_start().await.accept();
    stream.closed().await;
}

#[tokio::test]
async fn redirects_are_followed_within_the_rules() {
    let mut scene = Scene::start().await;
    let target = format!("http://{}/elsewhere/start", scene.endpoint.address());
    scene.endpoint.redirect("/api/rivet/start", 307, &target);
    scene.engine.create("counter", None).await;
    let call = scene.endpoint.next_start().await;
    assert_eq!((call.method.as_str(), call.path.as_str()), ("POST", "/elsewhere/start"));
    assert_eq!(call.content().1.checkpoint.generation, 1);
    let referer = format!("{}/start", scene.endpoint.url());
    assert!(call.headers.contains(&("referer".to_owned(), referer)), "{:?}", call.headers);

    let blocked = async |scene: &Scene, location: &str| {
        scene.endpoint.redirect("/api/rivet/start", 307, location);
        // Another endpoint, so that an earlier error is not taken for this one's.
        scene.configure(json!({ "headers": { "x-location": location } })).await;
        scene.engine.create("counter", None).await;
        scene.pool_error().await
    };
    let reason = "address 169.254.169.254 is not an allowed destination (link-local)";
    let error = json!({ "serverless_destination_blocked": { "reason": reason } });
    assert_eq!(blocked(&scene, "http://169.254.169.254/latest").await, error);
    let error = json!({ "serverless_destination_blocked": { "reason": "exceeded the maximum of 4 redirects" } });
    assert_eq!(blocked(&scene, "/api/rivet/start").await, error);
}

#[tokio::test]
async fn a_name_is_checked_when_it_is_resolved() {
    let settings = json!({ "outbound": { "deny_cidrs": ["127.0.0.0/8", "::1"] } });
    let scene = Scene::with(settings, json!({ "url": "http://localhost:1/" })).await;
    scene.engine.create("counter", None).await;
    let reason = "host localhost resolved to no allowed addresses";
    assert_eq!(scene.pool_error().await, json!({ "serverless_destination_blocked": { "reason": reason } }));
}
