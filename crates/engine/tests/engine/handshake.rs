//! How hosts connect, are refused, and take over (`spec/envoy-protocol.md` 2 and 7, checklist 6 to 14).

use std::time::Duration;

use protocol::envoy::{PROTOCOL_VERSION, StopActorReason, ToEnvoy, ToRivet, ToRivetMetadata};
use serde_json::{Value, json};
use testkit::envoy::{EnvoyParams, FakeEnvoy};
use testkit::eventually;

use crate::scene::TestEngine;

/// How the engine refuses a connection: the close frame's code and cause.
async fn refusal(engine: &TestEngine, params: EnvoyParams) -> (u16, String) {
    let mut envoy = FakeEnvoy::connect(engine.address(), &params).await.unwrap();
    let closed = envoy.expect_close().await;
    assert!(closed.reason.len() <= 123, "{}", closed.reason);
    let (code, cause) = closed.code_and_cause();
    let ray = closed.reason.split_once('#').map(|(_, ray)| ray.len());
    assert_eq!(ray, Some(30), "no ray id in {}", closed.reason);
    (code, cause.to_owned())
}

#[tokio::test]
async fn the_engine_speaks_first_and_pings() {
    let engine = TestEngine::start(json!({ "pegboard": { "actor_stop_threshold": 1_234 } })).await;
    let mut envoy = FakeEnvoy::connect(engine.address(), &EnvoyParams::new()).await.unwrap();
    envoy.leave_pings_alone();
    assert_eq!(envoy.upgrade().subprotocol(), Some("rivet"));
    let init = envoy.expect_init().await;
    assert_eq!(
        (init.envoy_lost_threshold, init.actor_stop_threshold, init.max_response_payload_size),
        (15_000, 1_234, 20_971_520)
    );
}

#[tokio::test]
async fn each_wrong_parameter_is_refused_by_a_close_frame() {
    let engine = TestEngine::start(json!({})).await;
    let refused = |params: EnvoyParams| refusal(&engine, params);
    let invalid = (1011, "ws.invalid_request".to_owned());
    for missing in ["protocol_version", "namespace", "envoy_key", "version", "pool_name"] {
        assert_eq!(refused(EnvoyParams::new().without(missing)).await, invalid, "without {missing}");
    }
    for version in ["0", "1", "5", "9", "-8", "eight", ""] {
        assert_eq!(refused(EnvoyParams::new().with("protocol_version", version)).await, invalid, "version {version}");
    }
    let long = "k".repeat(129);
    for key in ["", "ab", "-abc", "abc-", "a b", "schlüssel", &long] {
        assert_eq!(refused(EnvoyParams::new().with("envoy_key", key)).await, invalid, "key {key}");
    }
    for version in ["-1", "x", "4294967296"] {
        assert_eq!(refused(EnvoyParams::new().with("version", version)).await, invalid, "application version {version}");
    }
    assert_eq!(refused(EnvoyParams::new().pool(&long)).await, invalid);
    assert_eq!(refused(EnvoyParams::new().pool("nobody")).await, (1011, "ws.no_runner_config".to_owned()));
    let unknown = EnvoyParams::new().with("namespace", "nowhere");
    assert_eq!(refused(unknown).await, (1011, "namespace.not_found".to_owned()));
    assert_eq!(engine.listed_hosts().await, [""; 0]);
}

#[tokio::test]
async fn tokens_are_checked_if_one_is_configured() {
    let engine = TestEngine::fresh(json!({ "auth": { "admin_token": "sesame" } })).await;
    let put = http::Request::builder().method("PUT").uri("/runner-configs/default?namespace=default");
    let put = put.header("authorization", "Bearer sesame").header("content-type", "application/json");
    engine.send(put, json!({ "datacenters": { "default": { "normal": {} } } }).to_string()).await;

    assert_eq!(refusal(&engine, EnvoyParams::new()).await, (1011, "guard.missing_header".to_owned()));
    assert_eq!(refusal(&engine, EnvoyParams::new().token("open")).await, (1011, "api.forbidden".to_owned()));
    assert_eq!(refusal(&engine, EnvoyParams::new().token("sesam")).await, (1011, "api.forbidden".to_owned()));
    engine.host_with(&EnvoyParams::new().token("sesame")).await;
}

#[tokio::test]
async fn without_a_configured_token_any_will_do() {
    let engine = TestEngine::start(json!({})).await;
    engine.host_with(&EnvoyParams::new().token("whatever")).await;
}

#[tokio::test]
async fn a_plain_request_is_told_where_it_is() {
    let engine = TestEngine::start(json!({})).await;
    let answer = engine.get("/envoys/connect").await;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, "text/plain"));
    assert_eq!(engine.get("/runners/connect").await.status, 404);
    engine.host_with(&EnvoyParams::new().path("/envoys/connect/")).await;
}

#[tokio::test]
async fn older_protocol_versions_are_served() {
    let engine = TestEngine::start(json!({})).await;
    for version in [6, 7, PROTOCOL_VERSION] {
        let mut envoy = engine.host_with(&EnvoyParams::new().with("protocol_version", version)).await;
        let actor = engine.create("counter", None).await;
        let run = envoy.start_actor().await;
        engine.actor_when(&actor, "a running actor", |actor| !actor["connectable_ts"].is_null()).await;
        let deleted = engine.destroy_soon(&actor);
        assert_eq!(envoy.expect_stop(&run).await, (2, StopActorReason::Destroy));
        envoy.stopped(&run);
        assert_eq!(deleted.await.unwrap().status, 200);
        let pools = engine.get("/runner-configs?namespace=default").await.json();
        assert_eq!(pools["runner_configs"]["default"]["datacenters"]["default"]["protocol_version"], version);
    }
}

#[tokio::test]
async fn the_latest_connection_of_a_key_wins() {
    let engine = TestEngine::start(json!({})).await;
    let mut first = engine.host().await;
    let actor = engine.create("counter", None).await;
    let run = first.start_actor().await;
    engine.actor_when(&actor, "a running actor", |actor| !actor["connectable_ts"].is_null()).await;

    let mut second = engine.host_with(first.params()).await;
    let closed = first.expect_close().await;
    assert_eq!(closed.code_and_cause(), (1000, "ws.eviction"));
    // The actor stays where it is, and the host is still listed.
    second.expect_no_command(Duration::from_millis(50)).await;
    assert_eq!(engine.listed_hosts().await, [second.key()]);
    let answer = engine.request(&actor);
    let request = second.expect_request().await;
    assert_eq!(request.start.actor_generation, Some(run.generation));
    second.respond(&request, 200, &[], "here");
    assert_eq!(answer.await.unwrap().text(), "here");
}

#[tokio::test]
async fn of_many_connections_of_a_key_one_is_left() {
    let engine = TestEngine::start(json!({})).await;
    let params = EnvoyParams::new();
    let mut envoys = Vec::new();
    for _connection in 0..20 {
        envoys.push(FakeEnvoy::connect(engine.address(), &params).await.unwrap());
    }
    let actor = engine.create("counter", None).await;
    let mut last = envoys.pop().unwrap();
    assert_eq!(last.expect_start_of(&actor).await.generation, 1);
    for mut evicted in envoys {
        assert_eq!(evicted.expect_close().await.code_and_cause(), (1000, "ws.eviction"));
    }
    assert_eq!(engine.listed_hosts().await, [params.get("envoy_key").unwrap()]);
}

#[tokio::test]
async fn a_host_of_another_namespace_has_no_say() {
    let engine = TestEngine::start(json!({})).await;
    engine.post("/namespaces", &json!({ "name": "other", "display_name": "Other" })).await;
    let pool = json!({ "datacenters": { "default": { "normal": {} } } });
    engine.put("/runner-configs/default?namespace=other", &pool).await;
    let mut envoy = engine.host().await;
    let actor = engine.create("counter", None).await;
    let run = envoy.start_actor().await;
    engine.actor_when(&actor, "a running actor", |actor| !actor["connectable_ts"].is_null()).await;

    let twin = engine.host_with(&envoy.params().clone().with("namespace", "other")).await;
    twin.event_at(&run, 5, testkit::envoy::stopped());
    twin.acknowledge(&run, 1);
    twin.send(&ToRivet::Metadata(ToRivetMetadata { prepopulate_actor_names: None, metadata: Some("{}".to_owned()) }));
    eventually("what the twin has said last", async || {
        let listed = engine.get("/envoys?namespace=other").await.json()["envoys"][0].clone();
        listed["metadata"].is_object().then_some(())
    })
    .await;
    // What was said of the actor is behind us when this has reached it; and one that had stopped would be told nothing.
    engine.tell(&actor, "sleep").await;
    assert_eq!(envoy.expect_stop(&run).await.0, 2);
}

#[tokio::test]
async fn commands_are_repeated_until_they_are_acknowledged() {
    let engine = TestEngine::start(json!({})).await;
    let mut first = engine.host().await;
    let actor = engine.create("counter", None).await;
    let (run, _) = first.expect_start().await;
    // Neither acknowledged nor reported, then asked to sleep: both wait for the next connection.
    let params = first.params().clone();
    first.running(&run);
    engine.actor_when(&actor, "a running actor", |actor| !actor["connectable_ts"].is_null()).await;
    first.cut();
    eventually("a host that is no longer listed", async || engine.listed_hosts().await.is_empty().then_some(())).await;
    engine.tell(&actor, "sleep").await;

    let mut second = FakeEnvoy::join(engine.address(), &params).await;
    let first_command = second.expect_command("the start command again").await;
    assert_eq!((first_command.checkpoint.generation, first_command.checkpoint.index), (1, 1));
    assert_eq!(second.expect_stop(&run).await, (2, StopActorReason::SleepIntent));
    second.acknowledge(&run, 2);
    second.send(&ToRivet::Pong { ts: 0 });
    // The acknowledgement is behind us when the engine has answered something that came after it.
    second.stopped(&run);
    engine.asleep(&actor).await;

    let mut third = FakeEnvoy::join(engine.address(), &params).await;
    third.expect_no_command(Duration::from_millis(50)).await;
}

#[tokio::test]
async fn what_cannot_be_decoded_is_skipped() {
    let engine = TestEngine::start(json!({})).await;
    let mut envoy = engine.host().await;
    let mut vast_list = vec![1_u8];
    vast_list.extend([0xff; 9]);
    for garbage in [vec![], vec![0x63], vec![0xff; 64], vast_list] {
        envoy.send_raw(garbage);
    }
    envoy.send_text("ping");
    let actor = engine.create("counter", None).await;
    let run = envoy.start_actor().await;
    assert_eq!(run.actor_id, actor);
}

#[tokio::test]
async fn an_actor_id_that_is_none_ends_the_connection() {
    let engine = TestEngine::start(json!({})).await;
    let mut envoy = engine.host().await;
    let run = testkit::envoy::Run { actor_id: "nonsense".into(), generation: 1 };
    envoy.running(&run);
    assert_eq!(envoy.expect_close().await.code, Some(1011));
}

#[tokio::test]
async fn pings_come_at_their_interval_and_silence_ends_the_connection() {
    let settings = json!({ "pegboard": { "envoy_update_ping_interval": 50, "envoy_ping_timeout": 400 } });
    let engine = TestEngine::start(settings).await;
    let began = tokio::time::Instant::now();
    let mut envoy = FakeEnvoy::connect(engine.address(), &EnvoyParams::new()).await.unwrap();
    envoy.leave_pings_alone();
    envoy.expect_init().await;
    for _ping in 0..3 {
        let message = envoy.next("a ping").await;
        let ToEnvoy::Ping { ts } = message else { panic!("{message:?}") };
        envoy.send(&ToRivet::Pong { ts });
    }
    let answered_until = began.elapsed();
    assert_eq!(envoy.expect_close().await.code_and_cause(), (1011, "ws.timed_out"));
    assert!(began.elapsed() >= answered_until + Duration::from_millis(350), "too early: {:?}", began.elapsed());
}

#[tokio::test]
async fn a_host_that_talks_and_answers_no_ping_is_given_up() {
    let settings = json!({ "pegboard": { "envoy_update_ping_interval": 50, "envoy_ping_timeout": 400 } });
    let engine = TestEngine::start(settings).await;
    let began = tokio::time::Instant::now();
    let mut envoy = FakeEnvoy::connect(engine.address(), &EnvoyParams::new()).await.unwrap();
    envoy.leave_pings_alone();
    envoy.expect_init().await;
    let close = loop {
        envoy.send_text("still here");
        match tokio::time::timeout(Duration::from_millis(50), envoy.expect_close()).await {
            Ok(close) => break close,
            Err(_) => assert!(began.elapsed() < Duration::from_secs(5), "it is taken for a host"),
        }
    };
    assert_eq!(close.code_and_cause(), (1011, "ws.timed_out"));
    assert!(began.elapsed() > Duration::from_millis(400), "too early: {:?}", began.elapsed());
}

#[tokio::test]
async fn metadata_names_the_host_and_its_actors() {
    let engine = TestEngine::start(json!({})).await;
    let envoy = engine.host().await;
    let name = |metadata: &str| protocol::envoy::ActorName { metadata: metadata.to_owned() };
    let names = [("counter", name(r#"{"icon":"x"}"#)), ("odd", name("17")), ("odder", name("{"))];
    let names = names.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    envoy.send(&ToRivet::Metadata(ToRivetMetadata {
        prepopulate_actor_names: Some(names),
        metadata: Some(r#"{"rivetkit":{"version":"2.3.19"}}"#.to_owned()),
    }));
    let listed: Value = eventually("the host's metadata", async || {
        let envoy = engine.get("/envoys?namespace=default").await.json()["envoys"][0].clone();
        (!envoy["metadata"].is_null()).then_some(envoy)
    })
    .await;
    assert_eq!(listed["metadata"], json!({ "rivetkit": { "version": "2.3.19" } }));
    assert_eq!((listed["version"].as_u64(), listed["slots"].as_u64()), (Some(1), Some(0)));
    // What is no object counts as an empty one, and creating an actor adds no name.
    engine.create("undeclared", None).await;
    assert_eq!(
        engine.get("/actors/names?namespace=default").await.json(),
        json!({
            "names": {
                "counter": { "metadata": { "icon": "x" } },
                "odd": { "metadata": {} },
                "odder": { "metadata": {} },
            },
            "pagination": { "cursor": "odder" },
        })
    );
    // What is absent leaves things as they are.
    envoy.send(&ToRivet::Metadata(ToRivetMetadata { prepopulate_actor_names: None, metadata: None }));
    assert_eq!(engine.get("/actors/names?namespace=default&limit=1").await.json()["pagination"]["cursor"], "counter");
}

#[tokio::test]
async fn a_shutdown_sends_hosts_to_the_next_engine() {
    let engine = TestEngine::start(json!({})).await;
    let mut envoy = engine.host().await;
    engine.shutdown().await;
    assert_eq!(envoy.expect_close().await.code_and_cause(), (1011, "ws.going_away"));
}

#[tokio::test]
async fn a_shutdown_does_not_leave_requests_hanging() {
    let engine = TestEngine::start(json!({})).await;
    let actor = engine.create("counter", None).await;
    let path = format!("/gateway/{actor}/request/x");
    let request = testkit::client::empty(http::Method::GET, &path);
    let waiting = tokio::spawn(testkit::client::try_send(engine.address(), request));
    let arrived = async || (engine.metric("rivet_guard_proxy_request_pending").await == 1).then_some(());
    eventually("the request", arrived).await;
    // The time that requests have left is a second.
    engine.shutdown().await;
    let ended = tokio::time::timeout(Duration::from_secs(1), waiting).await.expect("the request hangs").unwrap();
    assert!(ended.is_err(), "{ended:?}");
}
