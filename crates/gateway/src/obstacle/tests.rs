//! Every obstacle and every end once: what people read, and what programs do.

use super::*;

fn fault() -> PoolFault {
    let details = json!({ "serverless_http_error": { "status_code": 502, "body": "Bad Gateway" } });
    PoolFault { words: "endpoint answered 502: Bad Gateway".to_owned(), details }
}

fn obstacles() -> Vec<(Obstacle, &'static str, Value)> {
    let pool = || "p".to_owned();
    let host = || "h".to_owned();
    let since = Duration::from_millis(12_345);
    vec![
        (Obstacle::Asleep, "it is asleep and being woken", json!({ "waiting_for": "asleep" })),
        (Obstacle::NoPool { pool: pool() }, "no pool \"p\" is configured", json!({ "waiting_for": "no_pool", "pool": "p" })),
        (
            Obstacle::NoHosts { pool: pool() },
            "no capacity, because no host of pool \"p\" is connected",
            json!({ "waiting_for": "no_hosts", "pool": "p" }),
        ),
        (
            Obstacle::HostsLeaving { pool: pool(), hosts: 2 },
            "no capacity, because all hosts of pool \"p\" (2) are shutting down or being replaced",
            json!({ "waiting_for": "hosts_leaving", "pool": "p", "hosts": 2 }),
        ),
        (
            Obstacle::PoolFull { pool: pool(), max_concurrent_actors: Some(2) },
            "no capacity, because pool \"p\" runs as many actors at once as it may, which is 2",
            json!({ "waiting_for": "pool_full", "pool": "p", "max_concurrent_actors": 2 }),
        ),
        (
            Obstacle::PoolFailing { pool: pool(), fault: fault(), retry_in: Some(Duration::from_millis(1_600)) },
            "pool \"p\" fails: endpoint answered 502: Bad Gateway; next attempt in 1.6 s",
            json!({
                "waiting_for": "pool_failing", "pool": "p", "runner_pool_error": fault().details, "retry_in_ms": 1_600,
            }),
        ),
        (
            Obstacle::PoolFailing { pool: pool(), fault: fault(), retry_in: None },
            "pool \"p\" fails: endpoint answered 502: Bad Gateway",
            json!({ "waiting_for": "pool_failing", "pool": "p", "runner_pool_error": fault().details }),
        ),
        (
            Obstacle::Starting { host: host(), since },
            "host \"h\" was told to start it 12 s ago and has not reported it running",
            json!({ "waiting_for": "starting", "envoy_key": "h", "since_ms": 12_345 }),
        ),
        (
            Obstacle::StartingOutbound { pool: pool(), since },
            "the endpoint of pool \"p\" was asked to start it 12 s ago and no host has reported it running",
            json!({ "waiting_for": "starting", "pool": "p", "since_ms": 12_345 }),
        ),
        (
            Obstacle::Stopping { host: host(), since },
            "host \"h\" was told to stop it 12 s ago and has not reported that done",
            json!({ "waiting_for": "stopping", "envoy_key": "h", "since_ms": 12_345 }),
        ),
        (
            Obstacle::HostSilent { host: host(), silent_for: since, connected: true },
            "host \"h\" silent for 12 s, still connected",
            json!({ "waiting_for": "host_silent", "envoy_key": "h", "silent_ms": 12_345, "connected": true }),
        ),
        (
            Obstacle::HostSilent { host: host(), silent_for: since, connected: false },
            "host \"h\" silent for 12 s, not connected",
            json!({ "waiting_for": "host_silent", "envoy_key": "h", "silent_ms": 12_345, "connected": false }),
        ),
        (
            Obstacle::BackingOff { retry_in: Duration::from_secs(4) },
            "the next attempt to start it is due in 4 s",
            json!({ "waiting_for": "backing_off", "retry_in_ms": 4_000 }),
        ),
    ]
}

fn ends() -> Vec<(GenerationEnd, &'static str, Value)> {
    let host = || "h".to_owned();
    let message = || Some("boom".to_owned());
    vec![
        (GenerationEnd::Stopped, "stopped", json!({ "reason": "stopped" })),
        (
            GenerationEnd::StartFailed { message: message() },
            "start failed: boom",
            json!({ "reason": "start_failed", "message": "boom" }),
        ),
        (GenerationEnd::StartFailed { message: None }, "start failed", json!({ "reason": "start_failed", "message": null })),
        (GenerationEnd::Crashed { message: message() }, "crashed: boom", json!({ "reason": "crashed", "message": "boom" })),
        (
            GenerationEnd::StartUnanswered { host: Some(host()) },
            "host \"h\" did not report it running in time",
            json!({ "reason": "start_unanswered", "envoy_key": "h" }),
        ),
        (
            GenerationEnd::StartUnanswered { host: None },
            "no host reported it running in time",
            json!({ "reason": "start_unanswered", "envoy_key": null }),
        ),
        (
            GenerationEnd::StopUnanswered { host: host() },
            "host \"h\" did not report it stopped in time",
            json!({ "reason": "stop_unanswered", "envoy_key": "h" }),
        ),
        (GenerationEnd::HostLost { host: host() }, "host \"h\" lost", json!({ "reason": "host_lost", "envoy_key": "h" })),
        (
            GenerationEnd::EndpointFailed(fault()),
            "endpoint answered 502: Bad Gateway",
            json!({ "reason": "endpoint_failed", "runner_pool_error": fault().details }),
        ),
        (GenerationEnd::SearchGivenUp, "the search for a host was given up", json!({ "reason": "search_given_up" })),
    ]
}

fn wait(obstacle: Option<Obstacle>, end: Option<GenerationEnd>) -> VainWait {
    let actor = ActorId::from_parts([3; 16], 1);
    VainWait { actor, waited: Duration::from_secs(30), obstacle, last_end: end.map(Arc::new) }
}

/// The metadata of a wait, less what is in all of them.
fn details(wait: &VainWait) -> Value {
    let mut metadata = wait.metadata();
    assert_eq!(metadata.remove("actor_id"), Some(wait.actor.to_string().into()));
    assert_eq!(metadata.remove("waited_ms"), Some(30_000.into()));
    metadata.into()
}

#[test]
fn every_obstacle_has_words_and_details() {
    for (obstacle, words, expected) in obstacles() {
        let wait = wait(Some(obstacle), None);
        assert_eq!(wait.to_string(), format!("After 30 s: {words}."));
        assert_eq!(details(&wait), expected);
    }
    let unknown = wait(None, None);
    assert_eq!(unknown.to_string(), "After 30 s: nothing that the engine knows of was in the way.");
    assert_eq!(details(&unknown), json!({ "waiting_for": "unknown" }));
}

#[test]
fn every_end_has_words_and_details() {
    for (end, words, expected) in ends() {
        let wait = wait(Some(Obstacle::Asleep), Some(end));
        assert_eq!(wait.to_string(), format!("After 30 s: it is asleep and being woken. Last end: {words}."));
        assert_eq!(details(&wait), json!({ "waiting_for": "asleep", "last_end": expected }));
    }
}

#[test]
fn times_are_as_exact_as_people_want_them() {
    let expected = [(0, "0 ms"), (999, "999 ms"), (1_000, "1 s"), (1_099, "1 s"), (1_100, "1.1 s"), (9_999, "9.9 s")];
    for (millis, words) in expected.into_iter().chain([(10_000, "10 s"), (12_900, "12 s"), (90_000, "90 s")]) {
        assert_eq!(spoken(Duration::from_millis(millis)), words);
    }
}
