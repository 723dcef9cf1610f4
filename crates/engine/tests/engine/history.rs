//! Going back to what an actor's database was, and actors made of it: the routes, and the commands that call them.

use http::{Method, StatusCode};
use protocol::envoy::StopActorReason;
use serde_json::{Value, json};
use testkit::client::Answer;
use testkit::envoy::{FakeEnvoy, Run};

use crate::one_actor::{A_WHILE, fall_asleep, is_running, later, now_ms, running_actor, wake};
use crate::page_host::Database;
use crate::process::Process;
use crate::scene::{TestEngine, is_set, post};

/// An engine that keeps history, and an actor that runs on a host.
struct Scene {
    engine: TestEngine,
    envoy: FakeEnvoy,
    run: Run,
    /// The actor's database after a first commit.
    past: Database,
    /// A time between that and the second one.
    then: i64,
    /// The database after the second one.
    present: Database,
}

async fn with_past() -> Scene {
    let (engine, mut envoy, run) = running_actor(json!({ "sqlite": { "pitr": { "retention_ms": 60_000 } } })).await;
    let mut present = Database::of(&run);
    present.commit(&mut envoy, 3).await.unwrap();
    let then = later().await;
    let past = present.in_run(&run, present.head);
    // More than one step of what is done with them.
    present.commit(&mut envoy, 300).await.unwrap();
    Scene { engine, envoy, run, past, then, present }
}

async fn ask(engine: &TestEngine, actor: &str, action: &str, body: Value) -> Answer {
    engine.post(&format!("/actors/{actor}/{action}?namespace=default"), &body).await
}

/// Lets the host stop the run that is told to move, and start the next.
async fn restarted(envoy: &mut FakeEnvoy, run: &Run) -> Run {
    let (index, reason) = envoy.expect_stop(run).await;
    assert_eq!(reason, StopActorReason::GoingAway);
    envoy.acknowledge(run, index);
    envoy.stopped(run);
    let next = envoy.start_actor().await;
    assert_eq!((&next.actor_id, next.generation), (&run.actor_id, run.generation + 1));
    next
}

#[tokio::test]
async fn a_running_actor_is_put_back_and_started_anew() {
    let Scene { engine, mut envoy, run, past, then, .. } = with_past().await;
    let answer = ask(&engine, &run.actor_id, "restore", json!({ "at": then })).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    assert_eq!(answer.json()["actor"]["actor_id"], run.actor_id.as_str());
    // Requests wait for the next run.
    assert!(!is_running(&answer.json()["actor"]));

    // The old run is out of step with its database.
    let mut stale = past.in_run(&run, 2);
    assert_eq!(stale.commit(&mut envoy, 1).await.unwrap_err().code, "head_fence_mismatch");
    let next = restarted(&mut envoy, &run).await;
    past.in_run(&next, 3).check(&mut envoy).await;

    // The restore itself can be taken back.
    let mut database = past.in_run(&next, 3);
    database.commit(&mut envoy, 1).await.unwrap();
    let answer = ask(&engine, &run.actor_id, "restore", json!({ "at": then })).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let last = restarted(&mut envoy, &next).await;
    past.in_run(&last, 5).check(&mut envoy).await;
}

#[tokio::test]
async fn a_sleeping_actor_is_put_back_and_woken() {
    let Scene { engine, mut envoy, run, past, then, .. } = with_past().await;
    fall_asleep(&engine, &mut envoy, &run).await;
    let answer = ask(&engine, &run.actor_id, "restore", json!({ "at": then })).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    // It says for itself when its schedules of that time are due.
    let next = envoy.start_actor().await;
    past.in_run(&next, 3).check(&mut envoy).await;
    engine.actor_when(&run.actor_id, "a running actor", is_running).await;

    // Nothing has changed since, so that there is nothing to be done.
    let answer = ask(&engine, &run.actor_id, "restore", json!({ "at": later().await })).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    envoy.expect_no_command(A_WHILE).await;
}

#[tokio::test]
async fn a_fork_is_an_actor_of_its_own() {
    let Scene { engine, mut envoy, run, past, then, mut present } = with_past().await;
    for (key, at, expected) in [("now", None, &present), ("then", Some(then), &past)] {
        let answer = ask(&engine, &run.actor_id, "fork", json!({ "key": key, "at": at })).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        let fork = answer.json()["actor"].clone();
        assert_eq!((&fork["name"], &fork["key"]), (&json!("counter"), &json!(key)));
        assert!(is_set(&fork["sleep_ts"]) && fork["start_ts"].is_null(), "{fork}");
        let fork_id = fork["actor_id"].as_str().unwrap();
        envoy.expect_no_command(A_WHILE).await;

        let fork_run = wake(&engine, &mut envoy, fork_id).await;
        assert_eq!(fork_run.generation, 1);
        let mut database = expected.in_run(&fork_run, 1);
        database.check(&mut envoy).await;
        database.commit(&mut envoy, 1).await.unwrap();
        let taken = ask(&engine, &run.actor_id, "fork", json!({ "key": key })).await.error();
        assert_eq!(taken, (400, "actor.duplicate_key".to_owned()));
    }
    // The source has noticed nothing.
    present.check(&mut envoy).await;
    assert!(is_running(&engine.actor(&run.actor_id).await));
    let listed = engine.get("/actors?namespace=default&name=counter").await.json();
    assert_eq!(listed["actors"].as_array().unwrap().len(), 3, "{listed}");
}

#[tokio::test]
async fn what_cannot_be_gone_back_to_says_why() {
    let Scene { engine, mut envoy, run, then, .. } = with_past().await;
    let actor = &run.actor_id;
    let refused = async |actor: &str, action: &str, body: Value| ask(&engine, actor, action, body).await.error();
    let invalid = (400, "validation.invalid_input".to_owned());
    assert_eq!(refused(actor, "restore", json!({ "at": now_ms() + 60_000 })).await, invalid);
    assert_eq!(refused(actor, "fork", json!({ "at": 5 })).await, invalid);
    let bad_request = (400, "api.bad_request".to_owned());
    for body in [json!({}), json!({ "at": "now" }), json!({ "at": then, "zzz": 1 })] {
        assert_eq!(refused(actor, "restore", body).await, bad_request);
    }
    let no_json = engine.send(post(&format!("/actors/{actor}/restore?namespace=default")), "").await;
    assert_eq!(no_json.error(), bad_request);
    assert_eq!(refused(actor, "fork", json!({ "key": "" })).await, (400, "actor.empty_key".to_owned()));

    let past = engine.get(&format!("/actors/{actor}/history?namespace=default")).await.json();
    assert_eq!(past["since_ts"], engine.actor(actor).await["create_ts"]);
    assert!(past["bytes"].as_u64().unwrap() > 0);

    // With the next start the pool keeps none.
    engine.put_pool("default", json!({ "normal": { "history_retention": 0 } })).await;
    fall_asleep(&engine, &mut envoy, &run).await;
    let next = wake(&engine, &mut envoy, actor).await;
    Database::of(&next).in_run(&next, 2).commit(&mut envoy, 1).await.unwrap();
    let not_kept = (400, "actor.history_not_kept".to_owned());
    assert_eq!(refused(actor, "restore", json!({ "at": then })).await, not_kept);
    assert_eq!(refused(actor, "fork", json!({ "at": then })).await, not_kept);
    let past = engine.get(&format!("/actors/{actor}/history?namespace=default")).await.json();
    assert_eq!(past, json!({ "since_ts": null, "bytes": null }));

    // And with the one after that, since then.
    engine.put_pool("default", json!({ "normal": { "history_retention": 60 } })).await;
    fall_asleep(&engine, &mut envoy, &next).await;
    let last = wake(&engine, &mut envoy, actor).await;
    Database::of(&last).in_run(&last, 3).commit(&mut envoy, 1).await.unwrap();
    assert_eq!(refused(actor, "restore", json!({ "at": then })).await, (400, "actor.history_too_short".to_owned()));

    envoy.stopped(&last);
    engine.actor_when(actor, "a destroyed actor", |actor| is_set(&actor["destroy_ts"])).await;
    let gone = (400, "actor.not_found".to_owned());
    assert_eq!(refused(actor, "restore", json!({ "at": then })).await, gone);
    assert_eq!(refused(actor, "fork", json!({})).await, gone);
}

#[tokio::test]
async fn the_commands_ask_a_running_engine() {
    let Scene { engine, mut envoy, run, past, then, .. } = with_past().await;
    let endpoint = format!("http://{}", engine.address());
    let actor = run.actor_id.as_str();
    let command = async |arguments: &[&str]| {
        let arguments = [&["actor"], arguments, &["--endpoint", endpoint.as_str()]].concat();
        Process::start(&arguments, &[]).ended().await
    };
    let forked = command(&["fork", actor, "--key", "copy"]).await;
    assert_eq!(forked.status.code(), Some(0), "{forked:?}");
    let holder = engine.get("/actors?namespace=default&name=counter&key=copy").await.json();
    let fork = holder["actors"][0]["actor_id"].as_str().unwrap();
    assert_eq!(forked.stdout, format!("Forked {actor} as {fork}.\n"));

    let again = command(&["fork", actor, "--key", "copy"]).await;
    assert_eq!((again.status.code(), again.stdout.as_str()), (Some(1), ""));
    assert!(again.stderr.starts_with("Error: [actor.duplicate_key] Actor key 'copy' already in use"), "{again:?}");

    let restored = command(&["restore", actor, "--at", &then.to_string()]).await;
    assert_eq!((restored.status.code(), restored.stderr.as_str()), (Some(0), ""), "{restored:?}");
    let next = restarted(&mut envoy, &run).await;
    past.in_run(&next, 3).check(&mut envoy).await;

    let elsewhere = Process::start(&["actor", "restore", actor, "--at", "1", "--endpoint", "ftp://h"], &[]).ended().await;
    assert!(elsewhere.stderr.starts_with("Error: [remote.bad_endpoint]"), "{elsewhere:?}");
}

#[tokio::test]
async fn only_an_administrator_may_do_that() {
    let engine = TestEngine::fresh(json!({ "auth": { "admin_token": "secret" } })).await;
    let id = "l7vkd1jx7umf0v9vgriff88ipmal00";
    for (method, action) in [(Method::POST, "restore"), (Method::POST, "fork"), (Method::GET, "history")] {
        let path = format!("/actors/{id}/{action}?namespace=default");
        let body = if action == "restore" { json!({ "at": 1 }) } else { json!({}) };
        let call =
            |builder: http::request::Builder| engine.send(builder.header("content-type", "application/json"), body.to_string());
        let anybody = call(http::Request::builder().method(method.clone()).uri(&path)).await;
        assert_eq!(anybody.error(), (403, "api.forbidden".to_owned()), "{action}");
        let admin = http::Request::builder().method(method).uri(&path).header("authorization", "Bearer secret");
        assert_eq!(call(admin).await.error(), (400, "actor.not_found".to_owned()), "{action}");
    }
}
