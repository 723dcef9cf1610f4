//! Creating actors and their keys (`spec/scheduling.md` 2, checklist 3 to 10; `spec/engine-api.md`, checklist 27 to 32).

use std::collections::HashSet;
use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use serde_json::{Value, json};
use testkit::client::{self, Answer};
use testkit::envoy::FakeEnvoy;
use tokio::task::JoinHandle;

use crate::one_actor::A_WHILE;
use crate::scene::{TestEngine, creation, is_set, post};

#[tokio::test]
async fn a_new_actor_has_no_history() {
    let engine = TestEngine::start(json!({})).await;
    let answer = engine.try_create("counter", Some("a/b")).await;
    let actor = answer.json()["actor"].clone();
    let shown: Vec<&str> = actor.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        shown,
        [
            "actor_id",
            "name",
            "key",
            "namespace_id",
            "datacenter",
            "runner_name_selector",
            "crash_policy",
            "create_ts",
            "start_ts",
            "pending_allocation_ts",
            "connectable_ts",
            "sleep_ts",
            "reschedule_ts",
            "destroy_ts",
        ]
    );
    for unset in ["start_ts", "pending_allocation_ts", "connectable_ts", "sleep_ts", "reschedule_ts", "destroy_ts"] {
        assert_eq!(actor[unset], Value::Null, "{unset}");
    }
    assert_eq!((&actor["name"], &actor["key"], &actor["datacenter"]), (&json!("counter"), &json!("a/b"), &json!("default")));
    assert!(actor["actor_id"].as_str().unwrap().ends_with("l00"));
    // Without a host it then waits for one.
    let waiting =
        engine.actor_when(actor["actor_id"].as_str().unwrap(), "a waiting actor", |actor| is_set(&actor["reschedule_ts"])).await;
    assert!(waiting["reschedule_ts"].as_i64() > actor["create_ts"].as_i64());
    assert_eq!((&waiting["error"], is_set(&waiting["sleep_ts"])), (&json!("no_envoys"), true));
}

#[tokio::test]
async fn limits_hold_at_their_edges() {
    let engine = TestEngine::start(json!({})).await;
    let create = async |name: &str, key: Option<&str>| engine.try_create(name, key).await;
    // Eight components; the first seven are as long as one may be.
    let key_1024 = format!("{}{}k", format!("{}/", "ü".repeat(64)).repeat(7), "ü".repeat(60));
    assert_eq!(create("counter", Some(&key_1024)).await.status, 200);
    let too_long = create("counter", Some(&format!("{key_1024}k"))).await;
    assert_eq!(too_long.error(), (400, "actor.key_too_large".to_owned()));
    assert_eq!(too_long.json()["metadata"], json!({ "max_size": 1024, "key_preview": key_1024 }));
    assert_eq!(create("counter", Some("")).await.error(), (400, "actor.empty_key".to_owned()));
    assert_eq!(create(&"ü".repeat(64), None).await.status, 200);
    assert_eq!(create(&"ü".repeat(65), None).await.error(), (400, "actor.name_too_long".to_owned()));
    assert_eq!(create("", None).await.error(), (400, "actor.empty_name".to_owned()));
}

#[tokio::test]
async fn what_does_not_exist_is_named() {
    let engine = TestEngine::start(json!({})).await;
    let with = |member: &str, value: Value| {
        let mut body = creation("counter", Some("k"));
        body[member] = value;
        body
    };
    let elsewhere = engine.post("/actors?namespace=default", &with("runner_name_selector", json!("nobody"))).await;
    assert_eq!(elsewhere.error(), (400, "actor.no_runner_config_configured".to_owned()));
    assert_eq!(elsewhere.json()["metadata"], json!({ "namespace": "default", "pool_name": "nobody" }));
    let nowhere = engine.post("/actors?namespace=nowhere", &creation("counter", None)).await;
    assert_eq!(nowhere.error(), (400, "namespace.not_found".to_owned()));
    let datacenter = engine.post("/actors?namespace=default", &with("datacenter", json!("mars"))).await;
    assert_eq!(datacenter.error(), (400, "datacenter.not_found".to_owned()));
    for (member, value) in
        [("crash_policy", json!("explode")), ("surplus", json!(1)), ("name", Value::Null), ("input", json!("%"))]
    {
        let answer = engine.post("/actors?namespace=default", &with(member, value)).await;
        assert_eq!(answer.error(), (400, "api.bad_request".to_owned()), "{member}");
    }
    for policy in ["restart", "sleep", "destroy"] {
        let mut body = with("crash_policy", json!(policy));
        body["key"] = Value::Null;
        let answer = engine.post("/actors?namespace=default", &body).await.json();
        assert_eq!(answer["actor"]["crash_policy"], "sleep", "{policy}");
    }
    // The pool is checked first, also for an actor that exists.
    engine.create("counter", Some("k")).await;
    let put = engine.put("/actors?namespace=default", &with("runner_name_selector", json!("nobody"))).await;
    assert_eq!(put.error(), (400, "actor.no_runner_config_configured".to_owned()));
    let keyless = engine.put("/actors?namespace=default", &with("key", Value::Null)).await;
    assert_eq!(keyless.error(), (400, "api.bad_request".to_owned()));
}

#[tokio::test]
async fn the_input_arrives_with_every_start() {
    let engine = TestEngine::start(json!({})).await;
    let mut envoy = engine.host().await;
    let params = envoy.params().clone();
    let input = large_input();
    assert_eq!(create_with_input(&engine, &input).await.status, 200);
    let starts = async |envoy: &mut FakeEnvoy| {
        let (run, start) = envoy.expect_start().await;
        assert!(start.config.input.as_deref() == Some(input.as_slice()), "the input of {run:?} differs");
        assert_eq!((start.config.name.as_str(), start.config.key, start.hibernating_requests.len()), ("counter", None, 0));
        run
    };
    // A start that is not acknowledged is sent again: to the next connection, and by the next engine.
    let mut run = starts(&mut envoy).await;
    envoy.cut();
    let mut envoy = engine.host_with(&params).await;
    assert_eq!(starts(&mut envoy).await, run);
    let engine = engine.restart().await;
    let mut envoy = engine.host_with(&params).await;
    assert_eq!(starts(&mut envoy).await, run);
    for ending in ["moves", "sleeps", "crashes"] {
        envoy.running(&run);
        engine.actor_when(&run.actor_id, "a running actor", |actor| is_set(&actor["connectable_ts"])).await;
        let mut woken_by = None;
        if ending == "crashes" {
            envoy.crashed(&run, "boom");
        } else {
            engine.tell(&run.actor_id, if ending == "moves" { "reschedule" } else { "sleep" }).await;
            envoy.expect_stop(&run).await;
            envoy.stopped(&run);
        }
        if ending != "moves" {
            engine.asleep(&run.actor_id).await;
            woken_by = Some(engine.request(&run.actor_id));
        }
        let next = starts(&mut envoy).await;
        assert_eq!(next.generation, run.generation + 1, "{ending}");
        run = next;
        woken_by.inspect(JoinHandle::abort);
    }
}

fn large_input() -> Vec<u8> {
    (0..4 * 1024 * 1024).map(|position: u32| (position * 31 / 7) as u8).collect()
}

async fn create_with_input(engine: &TestEngine, input: &[u8]) -> Answer {
    let mut body = creation("counter", None);
    body["input"] = json!(STANDARD.encode(input));
    engine.post("/actors?namespace=default", &body).await
}

#[tokio::test]
async fn an_input_that_is_too_large_is_refused() {
    let engine = TestEngine::start(json!({})).await;
    let too_large = create_with_input(&engine, &[large_input().as_slice(), b"!"].concat()).await;
    assert_eq!(too_large.error(), (400, "actor.input_too_large".to_owned()));
    assert_eq!(too_large.json()["metadata"], json!({ "max_size": 4_194_304 }));
    // Above what any route takes.
    let body = json!({ "name": "x".repeat(9 * 1024 * 1024) }).to_string();
    let answer = engine.send(post("/actors?namespace=default").header("content-type", "application/json"), body).await;
    assert_eq!(answer.error(), (400, "api.bad_request".to_owned()));
}

#[tokio::test]
async fn a_key_is_held_by_one_actor_whatever_the_pool() {
    let engine = TestEngine::start(json!({})).await;
    engine.put_pool("other", json!({ "normal": {} })).await;
    let holder = engine.create("counter", Some("k")).await;
    let refused = |answer: &Answer| {
        assert_eq!(answer.error(), (400, "actor.duplicate_key".to_owned()));
        assert_eq!(answer.json()["metadata"], json!({ "existing_actor_id": holder, "key": "k" }));
    };
    for attempt in 0..100 {
        refused(&create_in_pool(engine.address(), if attempt % 2 == 0 { "default" } else { "other" }, "k").await);
    }
    // Another name is another key.
    engine.create("timer", Some("k")).await;

    assert_eq!(engine.destroy(&holder).await.status, 200);
    let next = engine.create("counter", Some("k")).await;
    assert_ne!(next, holder);
    let lookup = async |query: &str| {
        let answer = engine.get(&format!("/actors?namespace=default&name=counter&key=k{query}")).await.json();
        let ids = answer["actors"].as_array().unwrap().iter().map(|actor| actor["actor_id"].as_str().unwrap().to_owned());
        ids.collect::<Vec<String>>()
    };
    assert_eq!(lookup("").await, std::slice::from_ref(&next));
    assert_eq!(lookup("&include_destroyed=true").await, [next, holder.clone()]);
    assert!(is_set(&engine.actor(&holder).await["destroy_ts"]));
}

/// Creates the actor with this key in a pool.
async fn create_in_pool(address: SocketAddr, pool: &str, key: &str) -> Answer {
    let mut body = creation("counter", Some(key));
    body["runner_name_selector"] = json!(pool);
    client::call_with(address, Method::POST, "/actors?namespace=default", &body).await
}

#[tokio::test]
async fn of_many_creations_at_once_one_wins() {
    let engine = TestEngine::start(json!({})).await;
    engine.put_pool("other", json!({ "normal": {} })).await;
    let (address, mut winners, mut holders) = (engine.address(), Vec::new(), Vec::new());
    let calls: Vec<_> = (0..50)
        .map(|number| tokio::spawn(create_in_pool(address, if number % 2 == 0 { "default" } else { "other" }, "k")))
        .collect();
    for call in calls {
        let answer = call.await.unwrap();
        if answer.status == 200 {
            winners.push(answer.json()["actor"]["actor_id"].clone());
        } else {
            assert_eq!(answer.error(), (400, "actor.duplicate_key".to_owned()));
            holders.push(answer.json()["metadata"]["existing_actor_id"].clone());
        }
    }
    assert_eq!(winners.len(), 1);
    assert_eq!(holders, vec![winners[0].clone(); 49]);
}

#[tokio::test]
async fn many_at_once_get_one_actor() {
    let engine = TestEngine::start(json!({})).await;
    let mut envoy = engine.host().await;
    let address = engine.address();
    let calls: Vec<_> = (0..50)
        .map(|_| {
            tokio::spawn(async move {
                let path = "/actors?namespace=default";
                client::call_with(address, Method::PUT, path, &creation("counter", Some("k"))).await.json()
            })
        })
        .collect();
    let (mut ids, mut created) = (HashSet::new(), 0);
    for call in calls {
        let answer = call.await.unwrap();
        ids.insert(answer["actor"]["actor_id"].as_str().unwrap().to_owned());
        created += usize::from(answer["created"] == true);
    }
    assert_eq!((ids.len(), created), (1, 1));
    let run = envoy.start_actor().await;
    assert!(ids.contains(&run.actor_id));
    envoy.expect_no_command(A_WHILE).await;
}

#[tokio::test]
async fn too_many_creations_are_refused_but_getting_is_free() {
    let settings =
        json!({ "pegboard": { "actor_create_rate_limit_requests": 6, "actor_create_rate_limit_drip_rate_ms": 60_000 } });
    let engine = TestEngine::start(settings).await;
    for number in 0..5 {
        engine.create("counter", Some(&number.to_string())).await;
    }
    // One that fails counts too.
    assert_eq!(engine.try_create("counter", Some("0")).await.error(), (400, "actor.duplicate_key".to_owned()));
    assert_eq!(engine.try_create("counter", Some("7")).await.error(), (400, "actor.creation_rate_limit".to_owned()));
    let through_gateway =
        engine.get("/gateway/counter/request/x?rvt-namespace=default&rvt-method=getOrCreate&rvt-key=7&rvt-pool=default").await;
    assert_eq!(through_gateway.error(), (429, "actor.creation_rate_limit".to_owned()));
    let existing = engine.put("/actors?namespace=default", &creation("counter", Some("0"))).await;
    assert_eq!(existing.json()["created"], false);
}
