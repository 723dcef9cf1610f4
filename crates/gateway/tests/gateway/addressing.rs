//! Every way to address an actor, and what the actor gets (`spec/gateway.md` 3 to 5 and 12, checklist 3 to 16).

use std::net::{IpAddr, Ipv4Addr};

use gateway::{AdminToken, QueryMethod};
use http::Method;
use protocol::id::ActorId;
use protocol::limits;
use serde_json::json;

use crate::scene::{Answer, Host, RAY, Scene, get, request};

const QUERY: &str = "rvt-namespace=default&rvt-method=get&rvt-key=a,b";

/// A running actor, also found under the key `a,b`.
fn scene() -> (Scene, ActorId, Host) {
    let scene = Scene::with(|config| config.admin_token = Some(AdminToken::new("sesame")));
    let actor = scene.actor(1);
    let host = scene.host();
    scene.run(actor, 1, &host);
    scene.directory.give_key(&["a", "b"], actor);
    (scene, actor, host)
}

/// Sends a request that no actor may see.
async fn refused(scene: &Scene, target: &str, headers: &[(&str, &str)]) -> Answer {
    scene.connect().await.send(request(Method::GET, target, headers, "")).await
}

#[tokio::test(start_paused = true)]
async fn http_requests_reach_the_actor_by_each_address() {
    let (scene, actor, mut host) = scene();
    let id = actor.to_string();
    let named = [("x-rivet-target", "actor"), ("x-rivet-actor", &*id)];
    let elsewhere = [("x-rivet-target", "actor"), ("x-rivet-actor", "elsewhere")];
    let mut client = scene.connect().await;
    for (target, headers, path) in [
        (format!("/gateway/{id}"), &[][..], "/"),
        (format!("/gateway/{id}/"), &[], "/"),
        (format!("/gateway/{id}@token/p?q"), &[], "/p?q"),
        (format!("/gateway/{id}/request/x%2Fy?q=%20b+c&&=d"), &elsewhere, "/request/x%2Fy?q=%20b+c&&=d"),
        (format!("/gateway/n/action/get?{QUERY}&q=1&rvt-token=token"), &elsewhere, "/action/get?q=1"),
        (format!("/gateway/n?{QUERY}"), &[], "/"),
        ("/request/x?y".to_owned(), &named, "/request/x?y"),
    ] {
        let served = async {
            let (request, start) = host.expect_request().await;
            assert_eq!((start.actor_id.as_str(), start.path.as_str()), (&*id, path), "{target}");
            host.answer(&request, 200, "");
        };
        let (answer, ()) = tokio::join!(client.send(request(Method::GET, &target, headers, "")), served);
        assert_eq!(answer.status, 200, "{target}");
    }
    let asked = scene.directory.resolved();
    assert_eq!((asked.len(), asked[0].key.as_slice()), (2, &["a".to_owned(), "b".to_owned()][..]));
    assert_eq!((asked[0].namespace.as_str(), asked[0].name.as_str()), ("default", "n"));
}

#[tokio::test(start_paused = true)]
async fn websockets_reach_the_actor_by_each_address() {
    let (scene, actor, mut host) = scene();
    let named = format!("rivet, rivet_target.actor, rivet_actor.{actor}, rivet_token.token");
    for (target, protocols, path) in [
        (format!("/gateway/{actor}/websocket/a"), None, "/websocket/a"),
        (format!("/gateway/{actor}@token/connect"), Some("rivet"), "/connect"),
        (format!("/gateway/n/connect?{QUERY}&rvt-token=token&q"), Some("rivet, rivet_actor.elsewhere"), "/connect?q"),
        ("/websocket/z".to_owned(), Some(named.as_str()), "/websocket/z"),
    ] {
        let headers: Vec<_> = protocols.map(|protocols| ("sec-websocket-protocol", protocols)).into_iter().collect();
        let socket = scene.websocket_with(&target, &headers).await;
        // A protocol that was not asked for would make browsers give up.
        let chosen = socket.answer.get("sec-websocket-protocol").map(|chosen| chosen.to_str().unwrap());
        assert_eq!(chosen, protocols.map(|_| "rivet"), "{target}");
        let (_, open) = host.expect_open().await;
        assert_eq!((open.actor_id, open.path.as_str()), (actor.to_string(), path), "{target}");
        drop(socket);
        host.next().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_creation_says_how() {
    let (scene, actor, mut host) = scene();
    scene.directory.reserve_key(&["new"], actor);
    let target = "/gateway/n/x?rvt-namespace=default&rvt-method=getOrCreate&rvt-key=new&rvt-runner=old&rvt-pool=p&rvt-region=r&rvt-input=9g";
    let mut client = scene.connect().await;
    let served = async {
        let (request, _) = host.expect_request().await;
        host.answer(&request, 200, "");
    };
    tokio::join!(client.send(get(target)), served);
    let method = QueryMethod::GetOrCreate { pool: "p".into(), input: Some(vec![0xf6].into()), region: Some("r".into()) };
    assert_eq!(scene.directory.created()[0].method, method);
}

#[tokio::test(start_paused = true)]
async fn what_names_no_actor_is_an_error_that_says_so() {
    let (scene, actor, _host) = scene();
    let id = actor.to_string();
    let to_actor = ("x-rivet-target", "actor");
    for (target, headers, status, code, message, metadata) in [
        (
            "/gateway/n/x?rvt-namespace=default&rvt-method=create",
            &[][..],
            400,
            "guard.query_invalid_params",
            "invalid query gateway params: unknown method: create, expected get or getOrCreate",
            json!({ "detail": "unknown method: create, expected get or getOrCreate" }),
        ),
        (
            "/gateway?rvt-method=get",
            &[],
            400,
            "guard.query_empty_actor_name",
            "query gateway actor name must not be empty",
            json!(null),
        ),
        (
            "/action/get",
            &[to_actor, ("x-rivet-actor", &id)],
            404,
            "guard.no_route",
            "No route found for hostname engine.test, path /action/get.",
            json!({ "host": "engine.test", "path": "/action/get" }),
        ),
        (
            "/request",
            &[to_actor],
            400,
            "guard.missing_header",
            "Missing x-rivet-actor header.",
            json!({ "header": "x-rivet-actor" }),
        ),
        (
            "/x",
            &[("x-rivet-target", "bogus")],
            404,
            "guard.no_route",
            "No route found for hostname engine.test, path /x.",
            json!({ "host": "engine.test", "path": "/x" }),
        ),
        (
            &format!("/gateway/{id}/x"),
            &[("x-rivet-skip-ready-wait", "maybe")],
            400,
            "guard.invalid_header",
            "Invalid x-rivet-skip-ready-wait header: expected true, 1, false or 0.",
            json!({ "header": "x-rivet-skip-ready-wait", "detail": "expected true, 1, false or 0" }),
        ),
    ] {
        let answer = refused(&scene, target, headers).await;
        assert_eq!(answer.error(), (status, code.to_owned()), "{target}");
        let body = answer.json();
        // Without details there is no member for them.
        assert_eq!((&body["message"], body.get("metadata").unwrap_or(&json!(null))), (&json!(message), &metadata), "{target}");
        assert_eq!(body.get("metadata").is_some(), !metadata.is_null(), "{target}");
        assert_eq!((answer.header("x-rivet-error"), answer.header("x-rivet-ray-id")), (code, RAY), "{target}");
        assert_eq!(answer.header("content-type"), "application/json");
    }
    for (target, protocols, code) in [
        ("/x", "rivet, rivet_target.bogus", "guard.no_route"),
        ("/x", "rivet, rivet_target.actor", "guard.missing_header"),
        ("/x", "rivet, rivet_target.actor, rivet_actor.nonsense", "actor.not_found"),
        ("/x", "rivet", "guard.websocket_not_supported"),
        ("/gateway/n/x?rvt-bogus=1", "rivet", "guard.query_invalid_params"),
    ] {
        let mut socket = scene.websocket_with(target, &[("sec-websocket-protocol", protocols)]).await;
        assert_eq!(socket.expect_close().await, (1011, format!("{code}#{RAY}")), "{target} {protocols}");
    }
    assert_eq!(scene.directory.resolved(), []);
}

#[tokio::test(start_paused = true)]
async fn a_usable_ray_id_is_kept_for_client_and_actor() {
    let (scene, actor, mut host) = scene();
    let longest = "a".repeat(30);
    let too_long = "a".repeat(31);
    let mut client = scene.connect().await;
    for (sent, kept) in [("a-B_9", "a-B_9"), (&longest, &longest), (&too_long, RAY), ("a.b", RAY)] {
        let served = async {
            let (request, start) = host.expect_request().await;
            host.answer_with(&request, 200, &[("x-rivet-ray-id", "the-actors-own")], "");
            start.headers.get("x-rivet-ray-id").cloned()
        };
        let target = format!("/gateway/{actor}/x");
        let (answer, seen) = tokio::join!(client.send(request(Method::GET, &target, &[("x-rivet-ray-id", sent)], "")), served);
        assert_eq!((answer.header("x-rivet-ray-id"), seen.as_deref()), (kept, Some(kept)), "{sent}");
    }
}

#[tokio::test(start_paused = true)]
async fn headers_for_the_next_hop_end_at_the_gateway() {
    let (scene, actor, mut host) = scene();
    let target = format!("/gateway/{actor}/x");
    let sent = [
        ("connection", "keep-alive, x-next-hop"),
        ("keep-alive", "timeout=5"),
        ("te", "trailers"),
        ("proxy-authorization", "Basic eA=="),
        ("x-next-hop", "1"),
        ("x-many", "1"),
        ("x-many", "2"),
        ("cookie", "a=1"),
        ("cookie", "b=2"),
        ("authorization", "Bearer of-the-app"),
    ];
    let mut client = scene.connect().await;
    let served = async {
        let (request, start) = host.expect_request().await;
        let said = [("connection", "close, x-next-hop"), ("keep-alive", "timeout=5"), ("x-next-hop", "1"), ("x-kept", "1")];
        host.answer_with(&request, 200, &said, "");
        start.headers
    };
    let (answer, seen) = tokio::join!(client.send(request(Method::GET, &target, &sent, "")), served);
    let mut seen: Vec<_> = seen.iter().map(|(name, value)| (name, value.as_str())).collect();
    seen.sort_unstable();
    let expected = [
        ("authorization", "Bearer of-the-app"),
        ("cookie", "a=1; b=2"),
        ("host", "engine.test"),
        ("x-forwarded-for", "203.0.113.7"),
        ("x-many", "1, 2"),
        ("x-rivet-ray-id", RAY),
    ];
    assert_eq!(seen, expected);
    assert_eq!(answer.header("x-kept"), "1");
    for name in ["connection", "keep-alive", "x-next-hop"] {
        assert!(!answer.headers.contains_key(name), "{name}");
    }
    // The host of a WebSocket keeps them for the actor.
    let _socket = scene.websocket_with(&target, &[("x-next-hop", "1")]).await;
    let (_, open) = host.expect_open().await;
    for name in ["connection", "upgrade", "sec-websocket-key", "sec-websocket-version", "x-next-hop"] {
        assert!(open.headers.get(name).is_some(), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_health_socket_answers_pings() {
    let scene = Scene::with(|config| config.websocket_health_route = true);
    let mut socket = scene.websocket("/health/ws").await;
    for text in ["hello", "ping", "pong", "ping"] {
        socket.send_text(text).await;
    }
    assert_eq!((socket.expect_text().await, socket.expect_text().await), ("pong".to_owned(), "pong".to_owned()));
    let plain = scene.connect().await.send(get("/health/ws")).await;
    assert_eq!((plain.status.as_u16(), plain.text()), (426, "WebSocket-only endpoint"));
    let mut refused = Scene::new().websocket("/health/ws").await;
    assert_eq!(refused.expect_close().await, (1011, format!("guard.no_route#{RAY}")));
}

#[tokio::test(start_paused = true)]
async fn health_sockets_end_with_their_clients_and_with_the_engine() {
    let scene = Scene::with(|config| config.websocket_health_route = true);
    let mut silent = scene.websocket("/health/ws").await;
    assert_eq!(silent.expect_close().await, (1000, String::new()));
    drop(silent);
    let mut busy = scene.websocket("/health/ws").await;
    for _ping in 0..10 {
        tokio::time::sleep(std::time::Duration::from_secs(59)).await;
        busy.send_text("ping").await;
        assert_eq!(busy.expect_text().await, "pong");
    }
    let closed = scene.gateway.close_websockets();
    assert_eq!(busy.expect_close().await, (1001, String::new()));
    closed.await;
    scene.expect_no_leak().await;
}

#[tokio::test(start_paused = true)]
async fn connection_params_are_limited() {
    let (scene, actor, mut host) = scene();
    let max = limits::CONNECTION_PARAMS_MAX_BYTES;
    let target = format!("/gateway/{actor}/connect");
    let too_long = refused(&scene, &target, &[("x-rivet-conn-params", &"p".repeat(max + 1))]).await;
    assert_eq!(too_long.error(), (400, "guard.connection_params_too_large".to_owned()));
    assert_eq!(too_long.json()["metadata"], json!({ "size": 4097, "max_size": 4096 }));
    let protocols = |size: usize| format!("rivet, rivet_conn_params.{}", "%22".repeat(size));
    let mut socket = scene.websocket_with(&target, &[("sec-websocket-protocol", &protocols(max + 1))]).await;
    assert_eq!(socket.expect_close().await, (1011, format!("guard.connection_params_too_large#{RAY}")));
    let _socket = scene.websocket_with(&target, &[("sec-websocket-protocol", &protocols(max))]).await;
    host.expect_open().await;
}

#[tokio::test(start_paused = true)]
async fn metrics_of_an_actors_process_are_for_this_machine_or_the_operator() {
    let (scene, actor, mut host) = scene();
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let elsewhere = ("x-forwarded-for", "198.51.100.1");
    let target = format!("/gateway/{actor}/metrics");
    for (peer, headers) in [
        (None, &[][..]),
        (None, &[("authorization", "Bearer open")]),
        // What comes through a proxy on this machine comes from elsewhere.
        (Some(loopback), &[elsewhere]),
    ] {
        let mut client = match peer {
            Some(peer) => scene.connect_from(peer).await,
            None => scene.connect().await,
        };
        let answer = client.send(request(Method::GET, &target, headers, "")).await;
        assert_eq!(answer.error(), (403, "api.forbidden".to_owned()), "{headers:?}");
        assert_eq!(answer.header("x-rivet-error"), "api.forbidden");
    }
    for (mut client, headers) in [
        (scene.connect_from(loopback).await, &[][..]),
        (scene.connect_from(loopback).await, &[elsewhere, ("x-rivet-token", "sesame")]),
        (scene.connect().await, &[("authorization", "Bearer sesame")]),
    ] {
        let served = async {
            let (request, _) = host.expect_request().await;
            host.answer(&request, 200, "metrics");
        };
        let (answer, ()) = tokio::join!(client.send(request(Method::GET, &target, headers, "")), served);
        assert_eq!(answer.text(), "metrics", "{headers:?}");
    }
}
