//! What the list and a request that has waited in vain tell of an actor that no endpoint runs (`spec/scheduling.md` 1.5, 5
//! and 9.7).

use serde_json::{Value, json};

use super::Scene;
use super::endpoint::Endpoint;
use crate::scene::is_set;

/// Engine settings with which requests wait for this long, in milliseconds.
fn patience(ms: u64) -> Value {
    json!({ "guard": { "actor_ready_timeout_ms": ms } })
}

async fn refuse_always(endpoint: &mut Endpoint) {
    loop {
        endpoint.next_start().await.refuse(502, "text/plain", "Bad Gateway");
    }
}

/// The metadata of an error, without numbers that depend on how busy the machine is.
fn steady(mut error: Value) -> Value {
    let metadata = error["metadata"].as_object_mut().unwrap();
    for name in ["waited_ms", "retry_in_ms", "since_ms"] {
        assert!(metadata.remove(name).is_none_or(|millis| millis.is_u64()), "{name} is no number");
    }
    error["metadata"].take()
}

#[tokio::test]
async fn an_endpoint_that_fails() {
    let Scene { engine, mut endpoint } = Scene::start().await;
    let actor = engine.create("counter", None).await;
    let began = tokio::time::Instant::now();
    let answer = tokio::select! {
        () = refuse_always(&mut endpoint) => unreachable!("it never ends"),
        answer = engine.request(&actor) => answer.unwrap(),
    };
    // Long before its time is over.
    assert!(began.elapsed() < std::time::Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(answer.error(), (400, "guard.actor_runner_failed".to_owned()), "{}", answer.text());
    let fails = "pool \"default\" fails: endpoint answered 502; next attempt in ";
    let body = answer.json();
    let message = body["message"].as_str().unwrap();
    assert!(message.starts_with("Actor's runner pool is experiencing errors. After ") && message.contains(fails), "{message}");
    // What the endpoint says is for operators only.
    let pool_error = json!({ "serverless_http_error": { "status_code": 502 } });
    let last_end = json!({ "reason": "endpoint_failed", "runner_pool_error": pool_error });
    let metadata = json!({
        "actor_id": actor, "waiting_for": "pool_failing", "pool": "default", "runner_pool_error": pool_error, "last_end": last_end,
    });
    assert_eq!(steady(body), metadata);
    let shown = engine.actor_when(&actor, "an actor that is to be tried again", |actor| is_set(&actor["reschedule_ts"])).await;
    let in_full = json!({ "serverless_http_error": { "status_code": 502, "body": "Bad Gateway" } });
    assert_eq!(shown["error"], json!({ "runner_pool_error": in_full }));
    assert!(shown["waiting_for"].as_str().unwrap().starts_with(fails), "{shown}");
}

#[tokio::test]
async fn a_pool_that_is_full() {
    let mut scene = Scene::with(patience(300), json!({ "max_concurrent_actors": 1 })).await;
    let mut host = scene.host().await;
    let (_run, _stream) = scene.running_actor(&mut host).await;
    let actor = scene.engine.create("counter", None).await;
    let answer = scene.engine.request(&actor).await.unwrap();
    assert_eq!(answer.error(), (503, "guard.actor_ready_timeout".to_owned()));
    let words = "no capacity, because pool \"default\" runs as many actors at once as it may, which is 1";
    let body = answer.json();
    assert!(body["message"].as_str().unwrap().ends_with(&format!(": {words}.")), "{body}");
    let metadata = json!({ "actor_id": actor, "waiting_for": "pool_full", "pool": "default", "max_concurrent_actors": 1 });
    assert_eq!(steady(body), metadata);
    let shown = scene.engine.actor(&actor).await;
    assert_eq!((&shown["error"], &shown["waiting_for"]), (&json!("concurrent_actor_limit_reached"), &json!(words)));
}

#[tokio::test]
async fn an_endpoint_that_never_answers() {
    let mut scene = Scene::with(patience(300), json!({})).await;
    let actor = scene.engine.create("counter", None).await;
    let _call = scene.endpoint.next_start().await;
    let answer = scene.engine.request(&actor).await.unwrap();
    assert_eq!(answer.error(), (503, "guard.actor_ready_timeout".to_owned()));
    let asked = "the endpoint of pool \"default\" was asked to start it ";
    let body = answer.json();
    assert!(body["message"].as_str().unwrap().contains(asked), "{body}");
    assert_eq!(steady(body), json!({ "actor_id": actor, "waiting_for": "starting", "pool": "default" }));
    let shown = scene.engine.actor(&actor).await;
    assert!(shown["waiting_for"].as_str().unwrap().starts_with(asked) && shown.get("error").is_none(), "{shown}");
}
