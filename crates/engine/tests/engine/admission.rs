//! What the configuration says of limits per client reaches the gateway, and touches nothing else (`spec/gateway.md` 10;
//! the limits themselves are tested in the gateway).

use http::{Method, Request, StatusCode};
use serde_json::{Value, json};
use testkit::client::{self, Answer};
use testkit::envoy::FakeEnvoy;

use crate::scene::{TestEngine, is_set};

struct Scene {
    engine: TestEngine,
    envoy: FakeEnvoy,
    actor: String,
}

impl Scene {
    async fn new(guard: Value) -> Self {
        let engine = TestEngine::start(json!({ "guard": guard })).await;
        let mut envoy = engine.host().await;
        let actor = engine.create("counter", None).await;
        envoy.start_actor().await;
        engine.actor_when(&actor, "a running actor", |actor| is_set(&actor["connectable_ts"])).await;
        Self { engine, envoy, actor }
    }

    /// A request as a proxy on this machine would pass it on, or one of this machine.
    async fn ask(&mut self, forwarded_for: Option<&str>) -> Answer {
        let mut request = Request::get(format!("/gateway/{}/request/x", self.actor));
        if let Some(client) = forwarded_for {
            request = request.header("x-forwarded-for", client);
        }
        let mut answer = tokio::spawn(client::send(self.engine.address(), request.body(Default::default()).unwrap()));
        // A refused request gets its answer without the host.
        tokio::select! {
            answer = &mut answer => return answer.unwrap(),
            request = self.envoy.expect_request() => self.envoy.respond(&request, 200, &[], "served"),
        }
        answer.await.unwrap()
    }
}

#[tokio::test]
async fn clients_behind_a_proxy_are_limited_each_for_itself_and_this_machine_is_not() {
    let mut scene = Scene::new(json!({ "actor_rate_limit": { "requests": 2, "period_ms": 3_600_000 } })).await;
    for _ in 0..3 {
        assert_eq!(scene.ask(None).await.text(), "served");
    }
    for _ in 0..2 {
        assert_eq!(scene.ask(Some("198.51.100.1")).await.text(), "served");
    }
    let refused = scene.ask(Some("198.51.100.1")).await;
    assert_eq!(refused.error(), (429, "guard.rate_limit".to_owned()));
    assert_eq!(refused.json()["metadata"]["ip"], "198.51.100.1");
    assert_eq!(scene.ask(Some("198.51.100.2")).await.text(), "served");
}

#[tokio::test]
async fn the_operator_decides_whether_and_whom_to_limit() {
    let guard = json!({
        "actor_rate_limit": { "requests": 1, "period_ms": 3_600_000 },
        "enforce_documented_limits": false,
    });
    let mut scene = Scene::new(guard).await;
    for _ in 0..2 {
        assert_eq!(scene.ask(Some("198.51.100.1")).await.text(), "served");
    }
    let guard = json!({
        "actor_rate_limit": { "requests": 1, "period_ms": 3_600_000 },
        "exempt_loopback": false,
        "trusted_proxies": [],
    });
    let mut scene = Scene::new(guard).await;
    assert_eq!(scene.ask(Some("198.51.100.1")).await.text(), "served");
    let refused = scene.ask(Some("198.51.100.2")).await;
    assert_eq!(refused.error(), (429, "guard.rate_limit".to_owned()));
    assert_eq!(refused.json()["metadata"]["ip"], "127.0.0.1");
}

#[tokio::test]
async fn hosts_the_api_and_preflights_are_never_limited() {
    let guard = json!({ "rate_limit": { "requests": 1, "period_ms": 3_600_000 }, "max_in_flight": 1 });
    // Pool, host and actor have taken more than one request by now.
    let mut scene = Scene::new(guard).await;
    assert_eq!(scene.ask(None).await.text(), "served");
    assert_eq!(scene.ask(None).await.error(), (429, "guard.rate_limit".to_owned()));
    for _ in 0..3 {
        assert_eq!(scene.engine.get("/health").await.status, StatusCode::OK);
        assert!(is_set(&scene.engine.actor(&scene.actor).await["create_ts"]));
        let preflight = client::empty(Method::OPTIONS, &format!("/gateway/{}/x", scene.actor));
        assert_eq!(client::send(scene.engine.address(), preflight).await.status, StatusCode::NO_CONTENT);
    }
    let _another_host = scene.engine.host().await;
}
