//! The public port byte by byte: which requests it reads at all, and how it ends those that it does not (`spec/gateway.md` 2).

use http::{Method, Request};
use serde_json::json;
use testkit::{client, in_time};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::scene::{TestEngine, is_set};

/// Sends these bytes and reads until the engine closes the connection: head and body of what it says.
async fn say(engine: &TestEngine, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(engine.address()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    in_time("the end of the connection", stream.read_to_end(&mut answer)).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    (head.to_ascii_lowercase(), body.to_owned())
}

#[track_caller]
fn assert_refused((head, body): (String, String), status: u16) {
    assert!(head.starts_with(&format!("http/1.1 {status} ")), "{head}");
    assert!(body.is_empty() && head.contains("\r\nconnection: close"), "{head}\n{body}");
}

#[tokio::test]
async fn heads_are_limited_at_their_edges() {
    let engine = TestEngine::fresh(json!({})).await;
    // `host` and `connection` count too.
    let headers = |count: usize| -> String { (2..count).map(|n| format!("x-{n}: 1\r\n")).collect() };
    let request = |target: &str, headers: &str| format!("GET {target} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n{headers}\r\n");
    let (head, _) = say(&engine, &request("/health", &headers(100))).await;
    assert!(head.starts_with("http/1.1 200 "), "{head}");
    assert_refused(say(&engine, &request("/health", &headers(101))).await, 431);

    let target = |bytes: usize| format!("/health?{}", "x".repeat(bytes - "/health?".len()));
    let (head, _) = say(&engine, &request(&target(65_534), "")).await;
    assert!(head.starts_with("http/1.1 200 "), "{head}");
    assert_refused(say(&engine, &request(&target(65_535), "")).await, 414);

    let (head, _) = say(&engine, &request("/health", &format!("x-long: {}\r\n", "x".repeat(120_000)))).await;
    assert!(head.starts_with("http/1.1 200 "), "{head}");
}

#[tokio::test]
async fn what_is_no_http_is_refused() {
    let engine = TestEngine::fresh(json!({})).await;
    for nonsense in
        ["nonsense\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "GET /a b HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\nb@d: 1\r\n\r\n"]
    {
        assert_refused(say(&engine, nonsense).await, 400);
    }
    assert_eq!(engine.get("/health").await.status, 200);
}

#[tokio::test]
async fn old_clients_are_served() {
    let engine = TestEngine::start(json!({})).await;
    let (head, body) = say(&engine, "GET /health HTTP/1.0\r\n\r\n").await;
    assert!(head.starts_with("http/1.0 200 ") && head.contains("\r\ndate: "), "{head}");
    assert!(body.contains(r#""runtime":"engine""#), "{body}");

    let mut envoy = engine.host().await;
    let actor = engine.create("counter", None).await;
    let run = envoy.start_actor().await;
    engine.actor_when(&actor, "a running actor", |actor| is_set(&actor["connectable_ts"])).await;
    let request = format!("GET /gateway/{}/request/x HTTP/1.0\r\n\r\n", run.actor_id);
    let served = async {
        let request = envoy.expect_request().await;
        envoy.begin_response(&request, 200, &[]);
        envoy.response_chunk(&request, "piece by ", false);
        envoy.response_chunk(&request, "piece", true);
    };
    let ((head, body), ()) = tokio::join!(say(&engine, &request), served);
    // They know no chunks: the end of the connection is the end of the body.
    assert!(!head.contains("transfer-encoding"), "{head}");
    assert_eq!(body, "piece by piece");
}

#[tokio::test]
async fn http_2_is_served_to_those_who_know() {
    let engine = TestEngine::start(json!({})).await;
    let mut envoy = engine.host().await;
    let actor = engine.create("counter", None).await;
    let run = envoy.start_actor().await;
    engine.actor_when(&actor, "a running actor", |actor| is_set(&actor["connectable_ts"])).await;
    let request =
        Request::builder().method(Method::POST).uri(format!("http://h.example:1234/gateway/{}/request/x?y", run.actor_id));
    let request = request.body(http_body_util::Full::from("sent")).unwrap();
    let served = async {
        let request = envoy.expect_request().await;
        assert_eq!((request.start.path.as_str(), request.start.body.as_deref()), ("/request/x?y", Some(&b"sent"[..])));
        // There is no such header in this version of HTTP, but the actor gets it all the same.
        assert_eq!(request.start.headers.get("host").map(String::as_str), Some("h.example:1234"));
        envoy.begin_response(&request, 201, &[("x-answer", "42")]);
        envoy.response_chunk(&request, "got", true);
    };
    let (answer, ()) = tokio::join!(client::send_http2(engine.address(), request), served);
    assert_eq!((answer.status.as_u16(), answer.header("x-answer"), answer.text().as_str()), (201, "42", "got"));
    assert!(!answer.header("x-rivet-ray-id").is_empty() && !answer.header("date").is_empty());
}

#[tokio::test]
async fn http_2_has_the_same_limits_on_heads() {
    let engine = TestEngine::fresh(json!({})).await;
    let ask = async |target: &str, headers: Vec<(String, String)>| {
        let mut request = Request::builder().uri(format!("http://h.example{target}"));
        for (name, value) in &headers {
            request = request.header(name, value);
        }
        let request = request.body(http_body_util::Full::from("")).unwrap();
        client::send_http2(engine.address(), request).await.status.as_u16()
    };
    let headers = |count: usize| (0..count).map(|n| (format!("x-{n}"), "1".to_owned())).collect();
    assert_eq!(ask("/health", headers(100)).await, 200);
    assert_eq!(ask("/health", headers(101)).await, 431);
    let long = |bytes: usize| vec![("x-long".to_owned(), "x".repeat(bytes))];
    assert_eq!(ask("/health", long(120_000)).await, 200);
    assert_eq!(ask("/health", long(417_792)).await, 431);
    // An actor's input may make a target this long.
    assert_eq!(ask(&format!("/health?{}", "x".repeat(65_000)), Vec::new()).await, 200);
}

#[tokio::test]
async fn a_body_that_is_announced_as_too_large_is_not_read() {
    let engine = TestEngine::fresh(json!({ "guard": { "http_max_request_body_size": 1_000 } })).await;
    let announced =
        |bytes: usize| format!("POST /nowhere HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: {bytes}\r\n\r\n");
    let (head, body) = say(&engine, &announced(1_001)).await;
    assert!(head.starts_with("http/1.1 413 ") && body.contains("guard") && body.contains("invalid_request_body"), "{head}{body}");
    let (head, _) = say(&engine, &format!("{}{}", announced(1_000), "x".repeat(1_000))).await;
    assert!(head.starts_with("http/1.1 404 "), "{head}");
}

#[tokio::test]
async fn the_health_socket_is_there_if_configured() {
    let without = TestEngine::fresh(json!({})).await;
    let answer = without.get("/health/ws").await;
    assert_eq!(answer.error(), (404, "guard.no_route".to_owned()));
    let with = TestEngine::fresh(json!({ "guard": { "enable_websocket_health_route": true } })).await;
    for path in ["/health/ws", "/health/ws/"] {
        let answer = with.get(path).await;
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (426, "WebSocket-only endpoint"));
    }
}
