//! What pages of other origins may do (`spec/gateway.md` 9, checklist 17 and 18).

use http::header::VARY;
use http::{HeaderMap, Method};

use crate::scene::{Scene, request};

const ORIGIN: (&str, &str) = ("origin", "https://page.example");

fn value<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let first = values.next().map(|value| value.to_str().unwrap());
    assert!(values.next().is_none(), "several values of {name}");
    first
}

/// The three headers that every answer under the gateway has.
#[track_caller]
fn assert_readable(headers: &HeaderMap, origin: Option<&str>) {
    assert_eq!(value(headers, "access-control-allow-origin"), Some(origin.unwrap_or("*")));
    assert_eq!(value(headers, "access-control-allow-credentials"), Some("true"));
    assert_eq!(value(headers, "access-control-expose-headers"), Some("*"));
}

#[tokio::test(start_paused = true)]
async fn a_preflight_is_answered_without_looking_further() {
    let scene = Scene::new();
    let actor = scene.actor(1);
    let mut client = scene.connect().await;
    let create = "/gateway/n/x?rvt-namespace=default&rvt-method=getOrCreate&rvt-pool=default&rvt-key=a";
    let asked = ("access-control-request-headers", "x-thing, authorization");
    let method = ("access-control-request-method", "PUT");
    for target in [&format!("/gateway/{actor}/x"), create, "/gateway/bogus/x", "/gateway/n?rvt-bogus=1", "/gateway"] {
        for (headers, origin, allowed) in [
            (&[][..], None, "*"),
            (&[ORIGIN, method], Some(ORIGIN.1), "*"),
            (&[ORIGIN, method, asked], Some(ORIGIN.1), asked.1),
            (&[asked], None, asked.1),
        ] {
            let answer = client.send(request(Method::OPTIONS, target, headers, "")).await;
            assert_eq!((answer.status.as_u16(), answer.body.len()), (204, 0), "{target}");
            assert_readable(&answer.headers, origin);
            let methods = "GET, POST, PUT, DELETE, OPTIONS, PATCH";
            assert_eq!(value(&answer.headers, "access-control-allow-methods"), Some(methods));
            assert_eq!(value(&answer.headers, "access-control-allow-headers"), Some(allowed));
            assert_eq!(value(&answer.headers, "access-control-max-age"), Some("86400"));
            assert_eq!(value(&answer.headers, "vary"), origin.map(|_| "Origin"));
            assert!(value(&answer.headers, "x-rivet-ray-id").is_some());
        }
    }
    let named = [("x-rivet-target", "actor"), ORIGIN];
    assert_eq!(client.send(request(Method::OPTIONS, "/action/get", &named, "")).await.status, 204);
    // Nobody was asked for, made or woken.
    assert_eq!(scene.directory.resolved(), []);
    assert_eq!(scene.directory.created(), []);
    assert_eq!(scene.directory.wakes(actor), 0);
}

#[tokio::test(start_paused = true)]
async fn pages_may_read_every_answer_of_the_gateway() {
    let scene = Scene::new();
    let destroyed = scene.actor(2);
    scene.destroy(destroyed);
    let mut client = scene.connect().await;
    for (target, code) in [
        (format!("/gateway/{destroyed}/x"), "actor.not_found"),
        ("/gateway/n?rvt-bogus=1".to_owned(), "guard.query_invalid_params"),
        ("/gateway?rvt-namespace=default".to_owned(), "guard.query_empty_actor_name"),
        ("/gateway/a@b/x?rvt-method=get".to_owned(), "guard.query_path_token_syntax"),
    ] {
        for origin in [None, Some(ORIGIN)] {
            let answer = client.send(request(Method::GET, &target, origin.as_slice(), "")).await;
            assert_eq!(answer.error().1, code, "{target}");
            assert_readable(&answer.headers, origin.map(|(_, origin)| origin));
            assert_eq!(value(&answer.headers, "vary"), origin.map(|_| "Origin"));
            assert_eq!(answer.header("x-rivet-error"), code);
            assert_eq!(answer.header("content-type"), "application/json");
        }
    }
    let no_route = [("x-rivet-target", "bogus"), ORIGIN];
    assert_readable(&client.send(request(Method::GET, "/x", &no_route, "")).await.headers, Some(ORIGIN.1));
}

#[tokio::test(start_paused = true)]
async fn what_the_actor_says_is_replaced_or_kept_beside() {
    let scene = Scene::new();
    let actor = scene.actor(1);
    let mut host = scene.host();
    scene.run(actor, 1, &host);
    let said = [
        ("access-control-allow-origin", "https://actor.example"),
        ("access-control-allow-credentials", "false"),
        ("access-control-expose-headers", "x-actor"),
        ("access-control-allow-methods", "PUT"),
        ("vary", "Accept"),
    ];
    for origin in [None, Some(ORIGIN)] {
        for status in [200, 404, 500] {
            let mut client = scene.connect().await;
            let answered = async {
                let (request, _) = host.expect_request().await;
                host.answer_with(&request, status, &said, "x");
            };
            let target = format!("/gateway/{actor}/x");
            let (answer, ()) = tokio::join!(client.send(request(Method::GET, &target, origin.as_slice(), "")), answered);
            assert_eq!(answer.status, status);
            assert_readable(&answer.headers, origin.map(|(_, origin)| origin));
            assert_eq!(value(&answer.headers, "access-control-allow-methods"), Some("PUT"));
            let vary: Vec<_> = answer.headers.get_all(VARY).iter().collect();
            assert_eq!(vary, if origin.is_some() { &["Accept", "Origin"][..] } else { &["Accept"] });
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_accepted_websocket_may_be_read_too() {
    let scene = Scene::new();
    let actor = scene.actor(1);
    let target = format!("/gateway/{actor}/websocket/");
    for origin in [None, Some(ORIGIN)] {
        let socket = scene.websocket_with(&target, origin.as_slice()).await;
        assert_readable(&socket.answer, origin.map(|(_, origin)| origin));
        assert!(value(&socket.answer, "x-rivet-ray-id").is_some());
    }
    // Refused ones as well.
    let refused = scene.websocket_with("/gateway/n?rvt-bogus=1", &[ORIGIN]).await;
    assert_readable(&refused.answer, Some(ORIGIN.1));
}
