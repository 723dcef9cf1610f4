//! What the metrics port says of real traffic, and to whom (`spec/engine-api.md` 12, `decisions.md` 10).

use std::collections::BTreeSet;

use serde_json::json;
use testkit::client::{begin, empty};
use testkit::eventually;

use crate::scene::{TestEngine, is_set};

/// What must be zero when nobody asks for anything.
pub(crate) const HELD: [&str; 7] = [
    "rivet_guard_proxy_request_pending",
    "rivet_guard_websocket_active",
    "rivet_gateway_in_flight",
    "rivet_gateway_tasks",
    "rivet_gateway_waiting_bytes",
    "rivet_guard_in_flight_request_count",
    "rivet_envoy_outbox_bytes",
];
const SCRAPE_LINES_MAX: usize = 800;
/// Elsewhere the operating system is not asked.
const ON_LINUX: bool = cfg!(target_os = "linux");

/// Names of all families in a scrape, as series have them.
fn families(scrape: &str) -> BTreeSet<String> {
    let types = scrape.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let names = types.map(|family| match family.split_once(' ').unwrap() {
        (name, "counter") => format!("{name}_total"),
        (name, _) => name.to_owned(),
    });
    names.collect()
}

/// Names of all families that the documentation explains.
fn documented() -> BTreeSet<String> {
    let text = include_str!("../../../../docs/metrics.md");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    let is_family = |row: &&str| row.starts_with("rivet_") || (row.starts_with("process_") && ON_LINUX);
    rows.filter(is_family).map(|row| row.split('`').next().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn traffic_moves_counters_and_leaves_nothing_behind_and_makes_no_series() {
    let engine = TestEngine::start(json!({})).await;
    let before = engine.scrape(None).await.text();
    let mut envoy = engine.host().await;
    let actor = engine.create("counter", None).await;
    envoy.start_actor().await;
    engine.actor_when(&actor, "a running actor", |actor| is_set(&actor["connectable_ts"])).await;

    let answer = engine.request(&actor);
    let request = envoy.expect_request().await;
    assert_eq!(engine.metric("rivet_guard_proxy_request_pending").await, 1);
    envoy.respond(&request, 200, &[], "hello");
    assert_eq!(answer.await.unwrap().text(), "hello");

    // A client that leaves in the middle of a stream.
    let target = format!("/gateway/{actor}/request/stream");
    let client = tokio::spawn(begin(engine.address(), empty(http::Method::GET, &target)));
    let request = envoy.expect_request().await;
    envoy.begin_response(&request, 200, &[]);
    envoy.response_chunk(&request, "0123456789", false);
    let mut stream = client.await.unwrap().unwrap();
    assert_eq!(stream.chunk().await.unwrap().unwrap(), "0123456789");
    drop(stream);

    let at_rest = async || {
        for name in HELD {
            if engine.metric(name).await != 0 {
                return None;
            }
        }
        // The host's own.
        (engine.metric("rivet_guard_tcp_connection_pending").await == 1).then_some(())
    };
    eventually("all gauges at rest", at_rest).await;
    let after = engine.scrape(None).await.text();
    if ON_LINUX {
        let memory = engine.metric("process_resident_memory_bytes").await;
        assert!((1 << 20..1 << 40).contains(&memory), "{memory} bytes of memory");
        // At least the three listeners, the host's connection and the store.
        assert!(engine.metric("process_open_fds").await >= 5);
    }
    for expected in [
        "rivet_envoy_connection_active 1",
        "rivet_actor_resident 1",
        "rivet_guard_route_total{router=\"gateway\"} 2",
        "rivet_guard_route_total{router=\"envoy\"} 1",
        "rivet_pegboard_gateway_request_total{request_kind=\"http\",result=\"success\"} 1",
        "rivet_pegboard_gateway_request_total{request_kind=\"http\",result=\"client_disconnect\"} 1",
        "rivet_gateway_http_response_start_duration_seconds_count 2",
        "rivet_gateway_http_body_bytes_total{direction=\"egress\"} 15",
        "rivet_gateway3_http_stream_abort_total{direction=\"response\",initiator=\"client\",kind=\"cancelled\"} 1",
    ] {
        assert!(after.lines().any(|line| line == expected), "{expected} is not in {after}");
    }
    assert_eq!(after.lines().count(), before.lines().count(), "traffic has made series");
    assert!(after.lines().count() < SCRAPE_LINES_MAX, "{} lines", after.lines().count());
    assert_eq!(families(&after), documented());
}

#[tokio::test]
async fn a_token_is_wanted_from_everybody_once_there_is_one() {
    let engine = TestEngine::start(json!({ "metrics": { "host": "127.0.0.1", "token": "let me in" } })).await;
    for wrong in [None, Some(""), Some("let me"), Some("let me in, please")] {
        let answer = engine.scrape(wrong).await;
        assert_eq!((answer.status.as_u16(), answer.text().contains("rivet_")), (401, false), "{wrong:?}");
    }
    let answer = engine.scrape(Some("let me in")).await;
    assert_eq!(answer.status.as_u16(), 200);
    assert!(answer.text().ends_with("# EOF\n"));
}
