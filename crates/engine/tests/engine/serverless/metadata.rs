//! What endpoints say of themselves: polling, health checks, and which URLs are asked at all (`spec/scheduling.md` 9.2, 9.9).

use std::time::Duration;

use http::StatusCode;
use protocol::envoy::StopActorReason;
use serde_json::{Value, json};
use testkit::eventually;

use super::endpoint::document;
use super::{Endpoint, Scene, pool};
use crate::scene::TestEngine;

const HEALTH_CHECK: &str = "/runner-configs/serverless-health-check?namespace=default";
const REFRESH: &str = "/runner-configs/default/refresh-metadata?namespace=default";

async fn names(engine: &TestEngine) -> Value {
    engine.get("/actors/names?namespace=default").await.json()["names"].clone()
}

#[tokio::test]
async fn saving_a_pool_reads_its_metadata_first() {
    let scene = Scene::start().await;
    assert_eq!(scene.pool().await["protocol_version"], 8);
    assert_eq!(names(&scene.engine).await, json!({ "counter": { "metadata": { "icon": "c" } } }));

    // The same endpoint again is not asked at once; a poller does that.
    let asked = scene.endpoint.polls(1).await.len();
    let again = scene.engine.put_pool("default", json!({ "serverless": pool(&scene.endpoint.url(), json!({})) })).await;
    assert_eq!(again.json(), json!({ "endpoint_config_changed": false }));
    assert!(scene.endpoint.polls(1).await.len() <= asked + 1);

    // One that cannot be asked can be saved all the same.
    scene.endpoint.set_metadata(500, json!("down"));
    let other = scene.engine.put_pool("other", json!({ "serverless": pool(&scene.endpoint.url(), json!({})) })).await;
    assert_eq!(other.json(), json!({ "endpoint_config_changed": true }));
}

#[tokio::test]
async fn metadata_are_polled_and_failures_slow_that_down() {
    let settings = json!({ "pegboard": { "min_metadata_poll_interval": 300 } });
    let scene = Scene::with(settings, json!({ "metadata_poll_interval": 1 })).await;
    // One when the pool was saved, then those of the poller: 300 ms and up to half a second of chance apart.
    let polls = scene.endpoint.polls(4).await;
    for pair in polls[1..].windows(2) {
        let gap = pair[1] - pair[0];
        assert!(gap > Duration::from_millis(200) && gap < Duration::from_secs(3), "{gap:?}");
    }
    scene.endpoint.set_metadata(503, json!("down"));
    let before = scene.endpoint.polls(1).await.len();
    let polls = scene.endpoint.polls(before + 3).await;
    let gap = polls[before + 2] - polls[before + 1];
    assert!(gap > Duration::from_millis(1_000), "after the second failure the interval is four times as long: {gap:?}");

    // A pool that is deleted is not asked any more.
    scene.engine.delete("/runner-configs/default?namespace=default").await;
    let asked = scene.endpoint.polls(1).await.len();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(scene.endpoint.polls(1).await.len(), asked);
}

#[tokio::test]
async fn a_newer_version_drains_older_hosts_and_a_missing_protocol_is_an_error() {
    let mut scene = Scene::start().await;
    let mut host = scene.host().await;
    let (run, _stream) = scene.running_actor(&mut host).await;
    scene.endpoint.set_metadata(200, document(2));
    assert_eq!(scene.engine.post(REFRESH, &json!({})).await.json(), json!({}));
    assert_eq!(host.expect_stop(&run).await, (1, StopActorReason::GoingAway));

    scene.endpoint.set_metadata(200, json!({ "runtime": "rivetkit", "version": "2.0.0" }));
    assert_eq!(scene.engine.post(REFRESH, &json!({})).await.status, StatusCode::OK);
    assert_eq!(scene.pool().await["runner_pool_error"], "downgrade");
}

#[tokio::test]
async fn an_endpoint_can_be_asked_how_it_is() {
    let endpoint = Endpoint::start().await;
    let engine = TestEngine::fresh(json!({})).await;
    let check = async |url: &str| engine.post(HEALTH_CHECK, &json!({ "url": url, "headers": {} })).await.json();
    let kind = async |url: &str| check(url).await["failure"]["error"]["metadata"]["kind"].clone();
    assert_eq!(check(&endpoint.url()).await, json!({ "success": { "version": "2.3.19" } }));

    endpoint.set_metadata(500, json!("down"));
    let metadata = json!({ "kind": "non_success_status", "status_code": 500, "body": "\"down\"" });
    let error = json!({ "message": "serverless metadata request returned status 500", "metadata": metadata });
    assert_eq!(check(&endpoint.url()).await, json!({ "failure": { "error": error } }));
    endpoint.set_metadata(200, json!("x".repeat(2 << 20)));
    assert_eq!(kind(&endpoint.url()).await, "request_failed");
    assert_eq!(kind("http://169.254.169.254/").await, "destination_blocked");
    assert_eq!(kind("nonsense").await, "invalid_request");
    assert_eq!(kind("http://127.0.0.1:1/").await, "request_failed");
    let wrong = engine.post(HEALTH_CHECK, &json!({ "url": endpoint.url(), "headers": { "a b": "c" } })).await.json();
    assert_eq!(wrong["failure"]["error"]["metadata"]["kind"], "invalid_request");
    assert_eq!(engine.post(HEALTH_CHECK, &json!({ "headers": {} })).await.error(), (400, "api.bad_request".to_owned()));
}

#[tokio::test]
async fn metadata_can_be_refreshed() {
    let scene = Scene::start().await;
    let mut with_another = document(1);
    with_another["actorNames"]["chat"] = json!({ "metadata": {} });
    scene.endpoint.set_metadata(200, with_another);
    assert_eq!(scene.engine.post(REFRESH, &json!({})).await.json(), json!({}));
    assert_eq!(names(&scene.engine).await["chat"], json!({ "metadata": {} }));

    scene.endpoint.set_metadata(200, json!([]));
    let failed = scene.engine.post(REFRESH, &json!({})).await;
    assert_eq!(failed.error(), (400, "serverless_runner_pool.failed_to_fetch_metadata".to_owned()));
    let body = failed.json();
    assert_eq!(body["message"], "Failed to fetch serverless metadata: serverless metadata response is not valid JSON.");
    assert_eq!(body["metadata"]["reason"]["metadata"]["kind"], "invalid_response_json");

    scene.engine.put_pool("plain", json!({ "normal": {} })).await;
    let refresh = async |pool: &str| {
        scene.engine.post(&format!("/runner-configs/{pool}/refresh-metadata?namespace=default"), &json!({})).await.error()
    };
    assert_eq!(refresh("plain").await, (400, "serverless_runner_pool.not_found".to_owned()));
    assert_eq!(refresh("none").await, (400, "runner_config.not_found".to_owned()));
}

#[tokio::test]
async fn forbidden_urls_are_refused_when_a_pool_is_saved() {
    let put = async |engine: &TestEngine, name: &str, url: &str| {
        let body = json!({ "datacenters": { "default": { "serverless": pool(url, json!({})) } } });
        let answer = engine.put(&format!("/runner-configs/{name}?namespace=default"), &body).await;
        (answer.status.as_u16(), answer.json()["metadata"]["reason"].clone())
    };
    let lenient = TestEngine::fresh(json!({})).await;
    for (url, reason) in [
        ("nope", "relative URL without a base"),
        ("http://", "empty host"),
        ("ftp://h/", "scheme \"ftp\" is not allowed, expected http or https"),
        ("http://me@h/", "url must not contain embedded credentials"),
        ("http://169.254.169.254/", "address 169.254.169.254 is not an allowed destination (link-local)"),
    ] {
        assert_eq!(put(&lenient, "p", url).await, (400, json!(format!("invalid serverless url: {reason}"))));
    }
    let unreachable_name = put(&lenient, "p%C3%A4", "http://127.0.0.1:1/").await;
    assert_eq!(unreachable_name, (400, json!("the name of a serverless pool must be printable ASCII")));

    let strict = TestEngine::fresh(json!({ "outbound": { "strict": true } })).await;
    for (url, reason) in [
        ("https://10.0.0.1/", "address 10.0.0.1 is not an allowed destination (private)"),
        ("http://example.com/", "plaintext http is not allowed, use https"),
    ] {
        assert_eq!(put(&strict, "p", url).await, (400, json!(format!("invalid serverless url: {reason}"))));
    }
}

#[tokio::test]
async fn another_endpoint_starts_with_a_clean_slate() {
    let mut scene = Scene::with(json!({}), json!({ "url": "http://127.0.0.1:1/" })).await;
    let actor = scene.engine.create("counter", None).await;
    scene.pool_error().await;
    let request = scene.engine.request(&actor);
    scene.configure(json!({})).await;
    assert!(scene.pool().await.get("runner_pool_error").is_none());
    assert_eq!(scene.endpoint.next_start().await.run().actor_id, actor);
    drop(request);
    eventually("the error's absence", async || scene.pool().await.get("runner_pool_error").is_none().then_some(())).await;
}
