//! The management API: form, strictness, tokens, lists (`spec/engine-api.md`, checklist 1 to 22 and 33 to 39).

use std::time::Duration;

use http::{Method, Request};
use protocol::envoy::{KvRequestData, KvResponseData, ToEnvoy, ToRivet, ToRivetKvRequest};
use serde_json::{Value, json};
use testkit::client::{self, Answer};
use testkit::eventually;

use crate::scene::{TestEngine, creation, escape, is_set, post};

fn reason(answer: &Answer) -> String {
    assert_eq!(answer.error(), (400, "api.bad_request".to_owned()), "{}", answer.text());
    let body = answer.json();
    let reason = body["metadata"]["reason"].as_str().unwrap().to_owned();
    assert_eq!(body["message"], format!("Request is invalid: {reason}"));
    reason
}

#[tokio::test]
async fn a_running_engine_is_recognised() {
    let engine = TestEngine::fresh(json!({ "auth": { "admin_token": "sesame" } })).await;
    for path in ["/health", "/metadata?namespace=x", "/metadata"] {
        let answer = engine.get(path).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["runtime"]), (200, &json!("engine")), "{path}");
        assert_eq!(answer.json()["version"], "2.3.19");
    }
    assert_eq!(engine.get("/health").await.json()["status"], "ok");
    assert_eq!(engine.get("/metadata").await.json()["envoy_protocol_version"], 8);
    let root = engine.get("/").await;
    assert_eq!((root.status.as_u16(), root.header("location")), (308, "/ui/"));
    assert_eq!(engine.get("/ui/any/page").await.status, 200);
}

#[tokio::test]
async fn every_answer_has_a_ray_id() {
    let engine = TestEngine::start(json!({})).await;
    for path in ["/health", "/nowhere", "/actors", "/gateway/x/request/y", "/envoys/connect"] {
        let answer = engine.get(path).await;
        let ray = answer.header("x-rivet-ray-id");
        let is_id = ray.len() == 30 && ray.ends_with("l00") && ray.parse::<protocol::id::Id>().is_ok();
        assert!(is_id, "{path}: {ray}");
    }
}

#[tokio::test]
async fn what_is_unknown_or_malformed_is_refused_with_its_name() {
    let engine = TestEngine::start(json!({})).await;
    assert_eq!(engine.get("/nowhere").await.error(), (404, "api.not_found".to_owned()));
    assert_eq!(engine.get("/namespaces/").await.error(), (404, "api.not_found".to_owned()));
    let wrong_method = engine.get("/actors/x").await;
    assert_eq!((wrong_method.status.as_u16(), wrong_method.header("allow"), wrong_method.body.len()), (405, "DELETE", 0));
    assert_eq!(engine.get("/datacenters?zzz=1&namespace=x").await.status, 200);

    assert_eq!(reason(&engine.get("/actors").await), "Failed to deserialize query string: missing field `namespace`");
    let unknown = reason(&engine.get("/actors?namespace=default&zzz=1").await);
    assert!(unknown.starts_with("Failed to deserialize query string: zzz: unknown field `zzz`, expected one of "), "{unknown}");
    let repeated = reason(&engine.get("/actors?namespace=default&namespace=default").await);
    assert_eq!(repeated, "Failed to deserialize query string: namespace: unsupported value");
    for path in [
        "/actors?namespace=default&name=x&cursor=new",
        "/actors?namespace=default&name=x&limit=-1",
        "/actors?namespace=default&name=x&include_destroyed=yes",
        "/actors?namespace=default&actor_id=nonsense",
        "/envoys?namespace=default&cursor=new",
        "/runners?namespace=default&cursor=new",
    ] {
        reason(&engine.get(path).await);
    }
    let bad_id = reason(&engine.delete("/actors/nonsense?namespace=default").await);
    assert_eq!(bad_id, "Invalid URL: unsupported ID version: 231");

    let without_type = engine.send(post("/actors?namespace=default"), creation("counter", None).to_string()).await;
    assert_eq!(reason(&without_type), "Expected request with `Content-Type: application/json`");
    let json_post = || post("/actors?namespace=default").header("content-type", "application/vnd.x+json; charset=utf-8");
    let broken = reason(&engine.send(json_post(), "{").await);
    assert!(broken.starts_with("Failed to parse the request body as JSON: "), "{broken}");
    let incomplete = reason(&engine.send(json_post(), "{}").await);
    assert!(incomplete.starts_with("Failed to deserialize the JSON body into the target type: missing field `"), "{incomplete}");
    let actor = engine.create("counter", None).await;
    reason(&engine.send(post(&format!("/actors/{actor}/sleep?namespace=default")), "").await);
    let surplus = engine.post(&format!("/actors/{actor}/sleep?namespace=default"), &json!({ "a": 1 })).await;
    reason(&surplus);
}

#[tokio::test]
async fn bodies_are_limited() {
    let engine = TestEngine::start(json!({})).await;
    let upsert = |padding: usize| {
        let body = json!({ "datacenters": {}, "padding": "x".repeat(padding) }).to_string();
        Request::builder()
            .method(Method::PUT)
            .uri("/runner-configs/p?namespace=default")
            .header("content-type", "application/json")
            .body(http_body_util::Full::from(body))
            .unwrap()
    };
    let large = client::send(engine.address(), upsert(2 * 1024 * 1024)).await;
    assert_eq!(reason(&large), "Failed to buffer the request body: length limit exceeded");
    // Below the limit the surplus field is the fault.
    let small = reason(&client::send(engine.address(), upsert(1024 * 1024)).await);
    assert!(small.contains("unknown field `padding`"), "{small}");
    let huge = client::send(engine.address(), upsert(21 * 1024 * 1024)).await;
    assert_eq!(huge.error(), (413, "guard.invalid_request_body".to_owned()));
}

#[tokio::test]
async fn browsers_may_ask_first() {
    let engine = TestEngine::fresh(json!({ "auth": { "admin_token": "sesame" } })).await;
    let preflight = |path: &str| {
        Request::builder()
            .method(Method::OPTIONS)
            .uri(path)
            .header("origin", "https://page.example")
            .header("access-control-request-method", "PUT")
            .header("access-control-request-headers", "x-thing, authorization")
    };
    let answer = engine.send(preflight("/actors"), "").await;
    assert_eq!(answer.status, 200);
    let expected = [
        ("access-control-allow-origin", "https://page.example"),
        ("access-control-allow-credentials", "true"),
        ("access-control-allow-methods", "PUT"),
        ("access-control-allow-headers", "x-thing, authorization"),
        ("vary", "origin, access-control-request-method, access-control-request-headers"),
    ];
    for (name, value) in expected {
        assert_eq!(answer.header(name), value, "{name}");
    }
    let refused = engine.send(Request::builder().uri("/actors?namespace=default&name=x").header("origin", "https://a"), "").await;
    assert_eq!((refused.status.as_u16(), refused.header("access-control-allow-origin")), (403, "https://a"));
    assert_eq!(engine.send(preflight("/nowhere"), "").await.header("access-control-allow-origin"), "*");
}

#[tokio::test]
async fn tokens_guard_all_but_the_open_routes() {
    let engine = TestEngine::fresh(json!({ "auth": { "admin_token": "sesame" } })).await;
    let with = async |header: &str, value: &str| {
        let request = Request::builder().uri("/actors?namespace=default&name=x").header(header, value);
        engine.send(request, "").await
    };
    let missing = "Token not provided";
    for (header, value) in [("x-other", "sesame"), ("authorization", "Basic c2VzYW1l"), ("authorization", "Bearer ")] {
        let answer = with(header, value).await;
        assert_eq!(answer.error(), (403, "api.forbidden".to_owned()), "{header}: {value}");
        assert_eq!(answer.json()["metadata"], json!({ "reason": missing }));
        assert_eq!(answer.json()["message"], "Access denied: Token not provided");
    }
    assert_eq!(with("authorization", "Bearer open").await.json()["metadata"], json!({ "reason": "Invalid token" }));
    for (header, value) in [("authorization", "Bearer sesame"), ("authorization", "bearer sesame"), ("x-rivet-token", "sesame")] {
        assert_eq!(with(header, value).await.status, 200, "{header}: {value}");
    }
    let id = "l7vkd1jx7umf0v9vgriff88ipmal00";
    let guarded = [
        (Method::GET, "/datacenters".to_owned()),
        (Method::GET, "/namespaces".to_owned()),
        (Method::GET, "/runner-configs?namespace=default".to_owned()),
        (Method::DELETE, "/runner-configs/p?namespace=default".to_owned()),
        (Method::GET, "/actors/names?namespace=default".to_owned()),
        (Method::DELETE, format!("/actors/{id}?namespace=default")),
        (Method::GET, format!("/actors/{id}/kv/keys/Aw==?namespace=default")),
        (Method::GET, "/envoys?namespace=default".to_owned()),
        (Method::GET, "/runners?namespace=default".to_owned()),
        (Method::GET, "/runners/names?namespace=default".to_owned()),
    ];
    for (method, path) in guarded {
        let answer = client::call(engine.address(), method.clone(), &path).await;
        assert_eq!(answer.error(), (403, "api.forbidden".to_owned()), "{method} {path}");
    }
    // What is malformed is reported first, and what does not exist needs no token.
    reason(&engine.get("/actors").await);
    reason(&engine.post("/namespaces", &json!({})).await);
    assert_eq!(engine.get("/nowhere").await.status, 404);
    assert_eq!(engine.get("/actors/x").await.status, 405);
}

#[tokio::test]
async fn namespaces_have_rules() {
    let engine = TestEngine::fresh(json!({})).await;
    let listed = engine.get("/namespaces").await.json();
    let names: Vec<(&str, &str)> = listed["namespaces"]
        .as_array()
        .unwrap()
        .iter()
        .map(|namespace| (namespace["name"].as_str().unwrap(), namespace["display_name"].as_str().unwrap()))
        .collect();
    assert_eq!(names, [("default", "Default")]);

    let create = async |name: &str, display_name: &str| {
        engine.post("/namespaces", &json!({ "name": name, "display_name": display_name })).await
    };
    let refusals = [
        ("", "D", "name too short"),
        (&"n".repeat(65), "D", "name too long"),
        ("A", "D", "invalid name"),
        ("a--b", "D", "invalid name"),
        ("a", "", "display name too short"),
        ("a", &"D".repeat(129), "display name too long"),
        ("a", " D", "invalid display name"),
    ];
    for (name, display_name, why) in refusals {
        let answer = create(name, display_name).await;
        assert_eq!(answer.error(), (400, "namespace.failed_to_create".to_owned()), "{name} {display_name}");
        assert_eq!(answer.json()["metadata"], json!({ "reason": why }));
    }
    let made = create("prod-1", "Production 1").await.json();
    assert_eq!(create("prod-1", "Again").await.error(), (400, "namespace.name_not_unique".to_owned()));
    let by_name = engine.get("/namespaces?name=prod-1").await.json();
    assert_eq!(by_name["namespaces"], json!([made["namespace"]]));
    let by_id = format!("/namespaces?namespace_id={}", made["namespace"]["namespace_id"].as_str().unwrap());
    assert_eq!(engine.get(&by_id).await.json()["namespaces"], json!([made["namespace"]]));
    // It survives a restart.
    let engine = engine.restart().await;
    assert_eq!(engine.get("/namespaces?name=prod-1").await.json(), by_name);
}

async fn pool(engine: &TestEngine, name: &str) -> Value {
    let listed = engine.get(&format!("/runner-configs?namespace=default&runner_name={name}")).await.json();
    listed["runner_configs"][name]["datacenters"]["default"].clone()
}

#[tokio::test]
async fn pools_are_shown_as_they_work() {
    let engine = TestEngine::fresh(json!({})).await;
    for _time in 0..2 {
        let answer = engine.put_pool("p", json!({ "normal": {} })).await;
        assert_eq!(answer.json(), json!({ "endpoint_config_changed": true }));
    }
    let defaults = json!({ "drain_on_version_upgrade": true, "actor_eviction_delay": 0, "actor_eviction_period": 0, "actor_eviction_rate": 1.0 });
    assert_eq!(pool(&engine, "p").await, json!({ "normal": defaults, "protocol_version": null }));
    engine.host_with(&testkit::envoy::EnvoyParams::new().pool("p")).await;
    assert_eq!(pool(&engine, "p").await["protocol_version"], 8);

    let serverless = |change: &dyn Fn(&mut Value)| {
        let mut config = json!({ "url": "http://127.0.0.1:9/api/rivet", "headers": { "x-a": "b" }, "request_lifespan": 3600 });
        change(&mut config);
        json!({ "serverless": config })
    };
    let changed = async |config: Value| engine.put_pool("s", config).await.json()["endpoint_config_changed"].clone();
    assert_eq!(changed(serverless(&|_| {})).await, true);
    assert_eq!(changed(serverless(&|config| config["max_runners"] = json!(7))).await, false);
    let shown = pool(&engine, "s").await;
    assert_eq!(shown["serverless"]["max_concurrent_actors"], 7);
    assert_eq!(shown["serverless"]["drain_grace_period"], 1800);
    assert_eq!(shown["serverless"].get("metadata_poll_interval"), None);
    assert_eq!(changed(serverless(&|config| config["headers"] = json!({ "x-a": "c" }))).await, true);
    // The place beside the variant wins; what is unknown inside is ignored; names are in snake case.
    let mut beside = serverless(&|config| config["drain_on_version_upgrade"] = json!(true));
    beside["drain_on_version_upgrade"] = json!(false);
    beside["metadata"] = json!([1, "two"]);
    beside["whatever"] = json!({});
    changed(beside).await;
    let shown = pool(&engine, "s").await;
    assert_eq!((&shown["serverless"]["drain_on_version_upgrade"], &shown["metadata"]), (&json!(false), &json!([1, "two"])));
    let camel = json!({ "datacenters": { "default": { "serverless": { "url": "http://h", "requestLifespan": 900 } } } });
    let answer = engine.put("/runner-configs/s?namespace=default", &camel).await;
    assert!(reason(&answer).contains("datacenters.default: missing field `request_lifespan`"), "{}", answer.text());
    let answer = engine.put("/runner-configs/s?namespace=default", &json!({ "datacenters": { "default": {} } })).await;
    let text = "Failed to deserialize the JSON body into the target type: datacenters.default: no variant of enum RunnerConfigKind \
                found in flattened data";
    assert!(reason(&answer).starts_with(text), "{}", answer.text());
}

#[tokio::test]
async fn pools_come_and_go_at_once() {
    let engine = TestEngine::fresh(json!({})).await;
    engine.put_pool("p", json!({ "normal": {} })).await;
    let unknown = json!({ "datacenters": { "default": { "normal": { "actor_eviction_delay": 9 } }, "mars": { "normal": {} } } });
    let answer = engine.put("/runner-configs/p?namespace=default", &unknown).await;
    assert_eq!(answer.error(), (400, "datacenter.not_found".to_owned()));
    assert_eq!(pool(&engine, "p").await["normal"]["actor_eviction_delay"], 0);

    let answer = engine.put("/runner-configs/p?namespace=default", &json!({ "datacenters": {} })).await;
    assert_eq!(answer.json(), json!({ "endpoint_config_changed": false }));
    assert_eq!(pool(&engine, "p").await, Value::Null);
    engine.put_pool("p/q", json!({ "normal": {} })).await;
    for _time in 0..2 {
        assert_eq!(engine.delete("/runner-configs/p%2Fq?namespace=default").await.json(), json!({}));
    }
    assert_eq!(engine.get("/runner-configs?namespace=default").await.json()["runner_configs"], json!({}));
}

#[tokio::test]
async fn actors_are_listed_in_six_ways() {
    let engine = TestEngine::start(json!({})).await;
    let first = engine.create("counter", Some("a")).await;
    let second = engine.create("counter", Some("b")).await;
    let timer = engine.create("timer", None).await;
    let found = async |query: &str| {
        let answer = engine.get(&format!("/actors?namespace=default&{query}")).await.json();
        let ids: Vec<String> =
            answer["actors"].as_array().unwrap().iter().map(|actor| actor["actor_id"].as_str().unwrap().to_owned()).collect();
        ids
    };
    assert_eq!(found(&format!("actor_id={first}&actor_id={second}")).await, [second.clone(), first.clone()]);
    assert_eq!(found(&format!("actor_ids={timer},nonsense,{first}")).await, [timer.clone(), first.clone()]);
    assert_eq!(found(&format!("actor_ids={first},{timer}&name=timer")).await, std::slice::from_ref(&timer));
    assert_eq!(found("name=counter&key=a").await, std::slice::from_ref(&first));
    assert_eq!(found("name=counter&key=").await, [second.clone(), first.clone()]);
    assert_eq!(found("name=nobody").await, [""; 0]);
    assert_eq!(found("name=counter&limit=0").await, [""; 0]);
    let upper = first.to_uppercase();
    assert_eq!(found(&format!("actor_id={upper}")).await, std::slice::from_ref(&first));

    let invalid = async |query: &str, message: &str| {
        let answer = engine.get(&format!("/actors?namespace=default&{query}")).await;
        assert_eq!(answer.error(), (400, "validation.invalid_input".to_owned()), "{query}");
        assert_eq!(answer.json()["metadata"], json!({ "message": message }));
    };
    let both = "Cannot provide both actor_id and (name + key). Use either actor_id or (name + key).";
    invalid(&format!("actor_id={first}&name=counter&key=a"), both).await;
    invalid("key=a", "Name is required when key is provided.").await;
    invalid("name=", "Name is required when not using actor_ids.").await;
    invalid("actor_ids=nonsense", "Name is required when not using actor_ids.").await;
    let ids: Vec<String> = (0..33).map(|_| format!("actor_id={first}")).collect();
    let many = engine.get(&format!("/actors?namespace=default&{}", ids.join("&"))).await;
    assert_eq!(many.error(), (400, "validation.too_many_actor_ids".to_owned()));
    assert_eq!(many.json()["metadata"], json!({ "count": 33, "max": 32 }));
}

#[tokio::test]
async fn pages_show_each_actor_once() {
    let engine = TestEngine::start(json!({})).await;
    let mut newest_first = Vec::new();
    for _actor in 0..10 {
        newest_first.insert(0, engine.create("counter", None).await);
    }
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    for page_size in [3, 3, 3, 1, 0] {
        let page = engine.get(&format!("/actors?namespace=default&name=counter&limit=3&cursor={cursor}")).await.json();
        let actors = page["actors"].as_array().unwrap();
        assert_eq!(actors.len(), page_size);
        seen.extend(actors.iter().map(|actor| actor["actor_id"].as_str().unwrap().to_owned()));
        assert_eq!(page["pagination"]["cursor"].is_null(), page_size == 0);
        cursor = page["pagination"]["cursor"].as_str().unwrap_or_default().to_owned();
    }
    assert_eq!(seen, newest_first);
}

#[tokio::test]
async fn destroyed_actors_stay_on_record() {
    let engine = TestEngine::start(json!({})).await;
    engine.post("/namespaces", &json!({ "name": "other", "display_name": "Other" })).await;
    let actor = engine.create("counter", Some("k")).await;
    let elsewhere = engine.delete(&format!("/actors/{actor}?namespace=other")).await;
    assert_eq!(elsewhere.error(), (400, "actor.not_found".to_owned()));
    for _time in 0..2 {
        assert_eq!(engine.destroy(&actor).await.json(), json!({}));
    }
    let listed = async |query: &str| engine.get(&format!("/actors?namespace=default&{query}")).await.json()["actors"].clone();
    assert_eq!(listed("name=counter&key=k").await, json!([]));
    assert_eq!(listed("name=counter").await, json!([]));
    for query in [
        format!("actor_id={actor}"),
        "name=counter&include_destroyed=true".into(),
        "name=counter&key=k&include_destroyed=true".into(),
    ] {
        let found = listed(&query).await;
        assert!(found[0]["actor_id"] == actor.as_str() && is_set(&found[0]["destroy_ts"]), "{query}: {found}");
    }
    let unknown = "l7vkd1jx7umf0v9vgriff88ipmal00";
    assert_eq!(engine.destroy(unknown).await.error(), (400, "actor.not_found".to_owned()));
    let of_another_datacenter = "lnfjssf3qq219luo196b6x00mln610";
    assert_eq!(engine.destroy(of_another_datacenter).await.error(), (400, "datacenter.not_found".to_owned()));
}

#[tokio::test]
async fn stored_values_can_be_read() {
    let engine = TestEngine::start(json!({})).await;
    let mut envoy = engine.host().await;
    let actor = engine.create("counter", None).await;
    let run = envoy.start_actor().await;
    let put = KvRequestData::Put { keys: vec![vec![3].into(), vec![0xfb, 0xff].into()], values: vec!["token".into(), "".into()] };
    envoy.send(&ToRivet::KvRequest(ToRivetKvRequest { actor_id: run.actor_id.clone(), request_id: 5, data: put }));
    let answer = envoy
        .expect("the answer to a put", |message| {
            let ToEnvoy::KvResponse { request_id, data } = message else { return None };
            Some((*request_id, data.clone()))
        })
        .await;
    assert_eq!(answer, (5, KvResponseData::Put));

    let read = async |key: &str| engine.get(&format!("/actors/{actor}/kv/keys/{}?namespace=default", escape(key))).await;
    let found = read("Aw==").await.json();
    assert!(found["value"] == "dG9rZW4=" && is_set(&found["update_ts"]), "{found}");
    assert_eq!(read("+/8=").await.json()["value"], "");
    assert_eq!(read("BA==").await.error(), (400, "actor.kv_key_not_found".to_owned()));
    for bad in ["Aw", "A", "-_8=", "A w="] {
        reason(&read(bad).await);
    }
    let without_namespace = reason(&engine.get(&format!("/actors/{actor}/kv/keys/Aw==")).await);
    assert_eq!(without_namespace, "Failed to deserialize query string: missing field `namespace`");
    let not_found = (400, "actor.not_found".to_owned());
    let unknown = engine.get("/actors/l7vkd1jx7umf0v9vgriff88ipmal00/kv/keys/Aw==?namespace=default").await;
    assert_eq!(unknown.error(), not_found);
    let destroyed = engine.destroy_soon(&actor);
    envoy.expect_stop(&run).await;
    envoy.stopped(&run);
    assert_eq!(destroyed.await.unwrap().json(), json!({}));
    assert_eq!(read("Aw==").await.error(), not_found);
}

#[tokio::test]
async fn hosts_are_listed_while_they_are_there() {
    let engine = TestEngine::start(json!({})).await;
    engine.put_pool("other", json!({ "normal": {} })).await;
    let envoy = engine.host().await;
    let _other = engine.host_with(&testkit::envoy::EnvoyParams::new().pool("other")).await;
    let listed = async |query: &str| engine.get(&format!("/envoys?namespace=default{query}")).await.json()["envoys"].clone();
    assert_eq!(listed("").await.as_array().unwrap().len(), 2);
    let found = listed("&name=default").await;
    assert_eq!((found.as_array().unwrap().len(), &found[0]["envoy_key"]), (1, &json!(envoy.key())));
    let fields: Vec<&str> = found[0].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        fields,
        [
            "envoy_key",
            "namespace_id",
            "datacenter",
            "pool_name",
            "version",
            "slots",
            "create_ts",
            "stop_ts",
            "last_ping_ts",
            "last_connected_ts",
            "last_rtt",
            "metadata",
        ]
    );
    let by_key = format!("&envoy_key={}", envoy.key());
    envoy.close(1000, "envoy.shutdown");
    let left = async || (listed("").await.as_array()?.len() == 1).then_some(());
    tokio::time::timeout(Duration::from_secs(1), eventually("one host that is left", left)).await.unwrap();
    assert_eq!(listed(&by_key).await.as_array().unwrap().len(), 1, "asked for by its key it is shown all the same");
    assert_eq!(engine.get("/runners?namespace=default&include_stopped=true").await.json()["runners"], json!([]));
    assert_eq!(engine.get("/runners/names?namespace=default").await.json()["names"], json!([]));
}
