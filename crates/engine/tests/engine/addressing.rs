//! Finding and making actors through the gateway, with the engine behind it (`spec/gateway.md` 6 to 8 and 11, checklist 8 to
//! 24 and 62).

use std::collections::HashSet;
use std::time::Duration;

use http::{Method, Request};
use protocol::envoy::StopActorReason;
use serde_json::json;
use testkit::client::{self, Answer};
use testkit::envoy::{EnvoyParams, FakeEnvoy, Run};
use tokio::task::JoinHandle;

use crate::scene::{TestEngine, creation, escape};

const A_WHILE: Duration = Duration::from_millis(100);

/// A path that makes an actor of this name and with this raw value of `rvt-key`.
fn get_or_create(name: &str, raw_key: &str) -> String {
    let name = escape(name);
    format!("/gateway/{name}/request/x?rvt-namespace=default&rvt-method=getOrCreate&rvt-pool=default&rvt-key={raw_key}")
}

fn get(name: &str, raw_key: &str) -> String {
    format!("/gateway/{name}/request/x?rvt-namespace=default&rvt-method=get&rvt-key={raw_key}")
}

/// Sends a request, in the background.
fn ask(engine: &TestEngine, path: &str) -> JoinHandle<Answer> {
    tokio::spawn(client::send(engine.address(), client::empty(Method::GET, path)))
}

/// Answers the next request.
async fn serve(envoy: &mut FakeEnvoy) -> String {
    let request = envoy.expect_request().await;
    envoy.respond(&request, 200, &[], "served");
    request.start.actor_id
}

async fn start(envoy: &mut FakeEnvoy) -> (Run, Option<String>) {
    let (run, start) = envoy.expect_start().await;
    envoy.running(&run);
    (run, start.config.key)
}

#[tokio::test]
async fn keys_are_read_as_the_clients_write_them() {
    let engine = TestEngine::start(json!({})).await;
    let mut envoy = engine.host().await;
    for (raw, key) in [
        ("a", "a"),
        ("a,b", "a/b"),
        ("x%2Cy", "x/y"),
        ("a%2Fb", r"a\/b"),
        (",", r"\0/\0"),
        ("a,", r"a/\0"),
        ("", "/"),
        ("a%5Cb", r"a\\b"),
        ("%C3%BC+%zz", "ü %zz"),
    ] {
        let answer = ask(&engine, &get_or_create("counter", raw));
        let (run, started) = start(&mut envoy).await;
        assert_eq!(started.as_deref(), Some(key), "{raw}");
        assert_eq!(serve(&mut envoy).await, run.actor_id);
        assert_eq!(answer.await.unwrap().text(), "served", "{raw}");
        // The same actor is found again by what the API calls its key.
        let listed = engine.get(&format!("/actors?namespace=default&name=counter&key={}", escape(key))).await.json();
        assert_eq!(listed["actors"][0]["actor_id"], run.actor_id, "{raw}");
    }
    // No parameter is an empty key too.
    let answer = ask(&engine, "/gateway/counter/x?rvt-namespace=default&rvt-method=get");
    serve(&mut envoy).await;
    assert_eq!(answer.await.unwrap().text(), "served");
}

#[tokio::test]
async fn ten_at_once_get_one_new_actor() {
    let engine = TestEngine::start(json!({})).await;
    let mut envoy = engine.host().await;
    let answers: Vec<_> = (0..10).map(|_| ask(&engine, &get_or_create("counter", "k"))).collect();
    let (run, _) = start(&mut envoy).await;
    let mut reached = HashSet::new();
    for _answer in &answers {
        reached.insert(serve(&mut envoy).await);
    }
    for answer in answers {
        assert_eq!(answer.await.unwrap().status, 200);
    }
    assert_eq!(reached, HashSet::from([run.actor_id]));
    envoy.expect_no_command(A_WHILE).await;
}

#[tokio::test]
async fn what_a_query_names_must_exist() {
    let engine = TestEngine::start(json!({})).await;
    engine.create("counter", Some("k")).await;
    let path = get_or_create("counter", "k");
    let no_pool = engine.get(&path.replace("rvt-pool=default", "rvt-pool=nobody")).await;
    assert_eq!(no_pool.error(), (400, "actor.no_runner_config_configured".to_owned()));
    assert_eq!(no_pool.json()["metadata"], json!({ "namespace": "default", "pool_name": "nobody" }));
    assert_eq!(no_pool.header("x-rivet-error"), "actor.no_runner_config_configured");
    for path in [path.replace("rvt-namespace=default", "rvt-namespace=mars"), get("counter", "k").replace("=default", "=mars")] {
        assert_eq!(engine.get(&path).await.error(), (400, "namespace.not_found".to_owned()), "{path}");
    }
    let region = engine.get(&format!("{path}&rvt-region=mars")).await;
    assert_eq!(region.error(), (400, "datacenter.not_found".to_owned()));
}

#[tokio::test]
async fn an_id_of_another_datacenter_names_it_as_the_reason() {
    let engine = TestEngine::start(json!({})).await;
    let elsewhere = protocol::id::ActorId::from_parts([7; 16], 2);
    let nobody = protocol::id::ActorId::from_parts([7; 16], 1);
    let answer = async |id: protocol::id::ActorId| engine.get(&format!("/gateway/{id}/x")).await.error();
    assert_eq!(answer(elsewhere).await, (400, "datacenter.not_found".to_owned()));
    assert_eq!(answer(nobody).await, (404, "actor.not_found".to_owned()));
}

#[tokio::test]
async fn names_and_keys_of_new_actors_are_limited_on_every_path() {
    let engine = TestEngine::start(json!({ "guard": { "actor_ready_timeout_ms": 1 } })).await;
    let ok = |component: usize| "k".repeat(component);
    // Eight components and seven separators.
    let longest = [vec![ok(128); 7], vec![ok(121)]].concat();
    let too_long = [vec![ok(128); 7], vec![ok(122)]].concat();
    let key_error = |max_size: usize| (400, "actor.key_too_large".to_owned(), json!(max_size));
    let name_error = (400, "actor.name_too_long".to_owned(), json!(64));
    let cases = [
        ("counter".to_owned(), vec![ok(128)], None),
        ("counter".to_owned(), vec![ok(129)], Some(key_error(128))),
        ("counter".to_owned(), vec![ok(1), "ü".repeat(64)], None),
        ("counter".to_owned(), vec![ok(1), format!("{}k", "ü".repeat(64))], Some(key_error(128))),
        // What counts is the component, not its escaped form.
        ("counter".to_owned(), vec!["/".repeat(128)], None),
        ("counter".to_owned(), longest, None),
        ("counter".to_owned(), too_long, Some(key_error(1024))),
        ("ü".repeat(64), vec![ok(1)], None),
        ("ü".repeat(65), vec![ok(1)], Some(name_error)),
    ];
    for (name, key, refused) in cases {
        let serialised = protocol::key::serialize(&key);
        let raw_key: Vec<String> = key.iter().map(|component| escape(component)).collect();
        let by_query = engine.get(&get_or_create(&name, &raw_key.join(","))).await;
        let by_put = engine.put("/actors?namespace=default", &creation(&name, Some(&serialised))).await;
        // The one that was just made holds the key.
        let by_post = engine.try_create(&name, Some(&serialised)).await;
        let error = |answer: &Answer| {
            let (status, code) = answer.error();
            (status, code, answer.json()["metadata"]["max_size"].clone())
        };
        match refused {
            Some(refused) => {
                for answer in [&by_query, &by_put, &by_post] {
                    assert_eq!(error(answer), refused, "{name} {serialised}");
                }
            }
            None => {
                // There is no host, but there is an actor.
                assert_eq!(by_query.error(), (503, "guard.actor_ready_timeout".to_owned()), "{name} {serialised}");
                assert_eq!((by_put.status.as_u16(), &by_put.json()["created"]), (200, &json!(false)), "{name} {serialised}");
                assert_eq!(by_post.error(), (400, "actor.duplicate_key".to_owned()), "{name} {serialised}");
            }
        }
    }
    // To look for what cannot be is no fault.
    assert_eq!(engine.get(&get("counter", &ok(2000))).await.error(), (404, "actor.not_found".to_owned()));
}

#[tokio::test]
async fn a_destroyed_actor_leaves_its_key_to_the_next() {
    let engine = TestEngine::start(json!({})).await;
    let mut envoy = engine.host().await;
    let answer = ask(&engine, &get_or_create("counter", "k"));
    let (first, _) = start(&mut envoy).await;
    serve(&mut envoy).await;
    answer.await.unwrap();
    let destroyed = engine.destroy_soon(&first.actor_id);
    assert_eq!(envoy.expect_stop(&first).await.1, StopActorReason::Destroy);
    envoy.stopped(&first);
    assert_eq!(destroyed.await.unwrap().status, 200);
    for path in [format!("/gateway/{}/x", first.actor_id), get("counter", "k")] {
        assert_eq!(engine.get(&path).await.error(), (404, "actor.not_found".to_owned()), "{path}");
    }
    let answer = ask(&engine, &get_or_create("counter", "k"));
    let (second, _) = start(&mut envoy).await;
    assert_ne!(second.actor_id, first.actor_id);
    assert_eq!(serve(&mut envoy).await, second.actor_id);
    assert_eq!(answer.await.unwrap().status, 200);
}

#[tokio::test]
async fn a_request_may_skip_the_wait_at_the_start_and_during_the_way_to_sleep() {
    let engine = TestEngine::start(json!({})).await;
    let mut envoy = engine.host().await;
    let actor = engine.create("counter", Some("k")).await;
    let (run, _) = envoy.expect_start().await;
    let early = |engine: &TestEngine| ask(engine, &format!("{}&rvt-skip-ready-wait=true", get("counter", "k")));
    let patient = engine.request(&actor);
    let answer = early(&engine);
    let request = envoy.expect_request().await;
    assert_eq!((request.start.path.as_str(), request.start.actor_generation), ("/request/x", None));
    envoy.respond(&request, 200, &[], "starting");
    assert_eq!(answer.await.unwrap().text(), "starting");
    assert!(!patient.is_finished());
    envoy.running(&run);
    let request = envoy.expect_request().await;
    assert_eq!(request.start.actor_generation, Some(1));
    envoy.respond(&request, 200, &[], "running");
    assert_eq!(patient.await.unwrap().text(), "running");

    envoy.wants_sleep(&run);
    envoy.expect_stop(&run).await;
    let answer = early(&engine);
    let request = envoy.expect_request().await;
    assert_eq!(request.start.actor_generation, None);
    envoy.respond(&request, 200, &[], "stopping");
    assert_eq!(answer.await.unwrap().text(), "stopping");
}

#[tokio::test]
async fn a_usable_ray_id_is_kept_on_every_answer() {
    let engine = TestEngine::start(json!({})).await;
    let longest = "a".repeat(30);
    let with = async |path: &str, ray: &str| {
        let answer = engine.send(Request::builder().uri(path).header("x-rivet-ray-id", ray), "").await;
        answer.header("x-rivet-ray-id").to_owned()
    };
    for path in ["/health", "/nowhere", "/gateway/x/request/y", "/envoys/connect"] {
        for ray in ["a-B_9", &longest] {
            assert_eq!(with(path, ray).await, ray, "{path}");
        }
        for ray in ["a.b", &format!("{longest}a")] {
            assert_eq!(with(path, ray).await.len(), 30, "{path}");
        }
    }
}

#[tokio::test]
async fn hosts_must_use_the_names_of_their_datacenter() {
    let topology = json!({ "datacenter_label": 1, "datacenters": { "eu": {
        "datacenter_label": 1, "is_leader": true, "public_url": "http://127.0.0.1:1", "peer_url": "http://127.0.0.1:2",
        "valid_hosts": ["eu.example", "127.0.0.1"],
    } } });
    let settings = json!({ "topology": topology, "auth": { "admin_token": "sesame" }, "guard": { "host": "127.0.0.1" } });
    let engine = TestEngine::fresh(settings).await;
    let connect = async |host: &str, token: Option<&str>| {
        let request = Request::builder().uri("/envoys/connect").header("host", host);
        let request = match token {
            Some(token) => request.header("x-rivet-token", token),
            None => request,
        };
        engine.send(request, "").await
    };
    // The name comes first.
    let wrong = connect("us.example:6420", None).await;
    assert_eq!(wrong.error(), (400, "guard.must_use_regional_host".to_owned()));
    let metadata = json!({ "datacenter": "eu", "host": "us.example", "valid_hosts": "eu.example, 127.0.0.1" });
    assert_eq!(wrong.json()["metadata"], metadata);
    let message = "Invalid host us.example for datacenter eu. Please use one of the following hosts: eu.example, 127.0.0.1";
    assert_eq!(wrong.json()["message"], message);
    let missing = connect("eu.example", None).await;
    assert_eq!(missing.error(), (400, "guard.missing_header".to_owned()));
    assert_eq!(missing.json()["metadata"], json!({ "header": "x-rivet-token" }));
    let forbidden = connect("EU.example:1", Some("open")).await;
    assert_eq!(forbidden.error(), (403, "api.forbidden".to_owned()));
    assert_eq!(forbidden.json()["message"], "Access denied: Invalid token");
    assert_eq!(connect("eu.example", Some("sesame")).await.text(), "pegboard-envoy WebSocket endpoint");
    // Actors are reached by any name, and without a token.
    let elsewhere = Request::builder().uri("/gateway/x/y").header("host", "us.example");
    assert_eq!(engine.send(elsewhere, "").await.error(), (404, "actor.not_found".to_owned()));
    // A WebSocket hears of it in its close frame; this one asks for 127.0.0.1.
    let mut refused = FakeEnvoy::connect(engine.address(), &EnvoyParams::new()).await.unwrap();
    assert_eq!(refused.expect_close().await.code_and_cause(), (1011, "guard.missing_header"));
}

#[tokio::test]
async fn a_host_that_asks_for_the_wrong_name_is_told_in_the_close_frame() {
    let topology = json!({ "datacenter_label": 1, "datacenters": { "eu": {
        "datacenter_label": 1, "is_leader": true, "public_url": "http://127.0.0.1:1", "peer_url": "http://127.0.0.1:2",
        "valid_hosts": ["eu.example"],
    } } });
    let engine = TestEngine::fresh(json!({ "topology": topology })).await;
    let mut refused = FakeEnvoy::connect(engine.address(), &EnvoyParams::new()).await.unwrap();
    assert_eq!(refused.expect_close().await.code_and_cause(), (1011, "guard.must_use_regional_host"));
    let plain = engine.get("/envoys/connect").await;
    assert_eq!(plain.error(), (400, "guard.must_use_regional_host".to_owned()));
}
