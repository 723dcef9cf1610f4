//! How much one client may ask for (`spec/gateway.md` 10).

use std::net::IpAddr;
use std::time::Duration;

use gateway::{AdmissionCounts, ClientLimits, RateLimit};
use http::Method;
use http_body_util::{BodyExt, Empty};
use protocol::id::ActorId;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::scene::{Answer, Connection, Host, PEER, RAY, Scene, get, request, settle};

const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
const OTHER_PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 8));

/// One request a minute.
const ONE_A_MINUTE: ClientLimits =
    ClientLimits { rate: Some(RateLimit { requests: 1, period: Duration::from_secs(60) }), max_in_flight: None };
/// One request at a time.
const ONE_AT_ONCE: ClientLimits = ClientLimits { rate: None, max_in_flight: Some(1) };

fn with_limits(per_actor: ClientLimits) -> Scene {
    Scene::with(|config| config.admission.per_actor = per_actor)
}

/// A host that runs an actor and answers whatever comes.
fn serve(scene: &Scene, actor: ActorId) -> JoinHandle<()> {
    let mut host = scene.host();
    scene.run(actor, 1, &host);
    tokio::spawn(async move {
        loop {
            let (request, _) = host.expect_request().await;
            host.answer(&request, 200, "served");
        }
    })
}

/// Requests that the host has, each on a connection of its own, and that it does not answer.
async fn hold(scene: &Scene, host: &mut Host, actor: ActorId, peer: IpAddr, count: usize) -> Vec<Pending> {
    let mut held = Vec::new();
    for _ in 0..count {
        let mut connection = scene.connect_from(peer).await;
        let task = tokio::spawn(async move { connection.send(get(&format!("/gateway/{actor}/wait"))).await });
        let (request, _) = host.expect_request().await;
        held.push(Pending { request, task });
    }
    held
}

struct Pending {
    request: crate::scene::Request,
    task: JoinHandle<Answer>,
}

async fn status(connection: &mut Connection, actor: ActorId) -> u16 {
    connection.send(get(&format!("/gateway/{actor}/x"))).await.status.as_u16()
}

fn get_or_create(key: &str) -> String {
    format!("/gateway/counter/x?rvt-namespace=default&rvt-method=getOrCreate&rvt-pool=default&rvt-key={key}")
}

#[tokio::test(start_paused = true)]
async fn the_1201st_request_of_a_minute_is_refused() {
    let scene = Scene::new();
    let (actor, other) = (scene.actor(1), scene.actor(2));
    serve(&scene, actor);
    serve(&scene, other);
    let mut client = scene.connect().await;
    for _ in 0..1_200 {
        assert_eq!(status(&mut client, actor).await, 200);
    }
    let refused = client.send(request(Method::POST, &format!("/gateway/{actor}/x?a=1"), &[], "body")).await;
    assert_eq!(refused.error(), (429, "guard.rate_limit".to_owned()));
    assert_eq!((refused.header("retry-after"), refused.header("x-rivet-error")), ("60", "guard.rate_limit"));
    assert_eq!(refused.header("access-control-allow-origin"), "*");
    let path = format!("/gateway/{actor}/x?a=1");
    assert_eq!(
        refused.json(),
        json!({
            "group": "guard",
            "code": "rate_limit",
            "message": format!("Too many requests to 'POST {path}' from IP {PEER}; limit is 1200 requests per 60000 ms."),
            "metadata": { "ip": PEER.to_string(), "method": "POST", "path": path, "period_ms": 60_000, "requests": 1_200 },
        })
    );
    assert_eq!(status(&mut client, other).await, 200, "another actor");
    assert_eq!(status(&mut scene.connect_from(OTHER_PEER).await, actor).await, 200, "another client");

    sleep(Duration::from_millis(59_999)).await;
    let refused = client.send(get(&format!("/gateway/{actor}/x"))).await;
    assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (429, "1"));
    sleep(Duration::from_millis(1)).await;
    assert_eq!(status(&mut client, actor).await, 200);
    assert_eq!(scene.gateway.admission_counts(), AdmissionCounts { in_flight: 0, refused_by_rate: 2, refused_by_in_flight: 0 });
}

#[tokio::test(start_paused = true)]
async fn the_33rd_request_at_once_is_refused() {
    let scene = Scene::new();
    let (actor, other) = (scene.actor(1), scene.actor(2));
    let mut host = scene.host();
    scene.run(actor, 1, &host);
    serve(&scene, other);
    let mut held = hold(&scene, &mut host, actor, PEER, 32).await;
    let mut client = scene.connect().await;
    let refused = client.send(get(&format!("/gateway/{actor}/x"))).await;
    assert_eq!(refused.error(), (429, "guard.max_in_flight".to_owned()));
    assert_eq!(refused.header("retry-after"), "1");
    let path = format!("/gateway/{actor}/x");
    assert_eq!(
        refused.json(),
        json!({
            "group": "guard",
            "code": "max_in_flight",
            "message": format!("Too many concurrent requests to 'GET {path}' from IP {PEER}; limit is 32."),
            "metadata": { "ip": PEER.to_string(), "max_in_flight": 32, "method": "GET", "path": path },
        })
    );
    assert_eq!(status(&mut client, other).await, 200, "another actor");
    held.extend(hold(&scene, &mut host, actor, OTHER_PEER, 1).await);
    assert_eq!(scene.gateway.admission_counts(), AdmissionCounts { in_flight: 33, refused_by_rate: 0, refused_by_in_flight: 1 });

    let Pending { request, task } = held.swap_remove(0);
    host.answer(&request, 200, "served");
    assert_eq!(task.await.unwrap().text(), "served");
    held.extend(hold(&scene, &mut host, actor, PEER, 1).await);
    for Pending { request, task } in held {
        host.answer(&request, 200, "served");
        assert_eq!(task.await.unwrap().status.as_u16(), 200);
    }
    settle().await;
    assert_eq!(scene.gateway.admission_counts().in_flight, 0);
    scene.expect_no_leak().await;
}

#[tokio::test(start_paused = true)]
async fn who_the_client_is_cannot_be_invented() {
    let scene = with_limits(ONE_A_MINUTE);
    let actor = scene.actor(1);
    serve(&scene, actor);
    let path = format!("/gateway/{actor}/x");
    let from = async |peer: IpAddr, forwarded_for: &str| {
        let mut client = scene.connect_from(peer).await;
        let headers = [("x-forwarded-for", forwarded_for)];
        let answer = client.send(request(Method::GET, &path, &headers[..usize::from(!forwarded_for.is_empty())], "")).await;
        if answer.status.as_u16() == 200 { None } else { Some(answer.json()["metadata"]["ip"].as_str().unwrap().to_owned()) }
    };
    let proxy = IpAddr::from([10, 0, 0, 9]);
    // Clients on this machine are not limited, be they called by a name or not.
    for _ in 0..3 {
        assert_eq!(from(LOOPBACK, "").await, None);
        assert_eq!(from(LOOPBACK, "127.0.0.1").await, None);
    }
    // Clients behind a proxy are, each for itself.
    assert_eq!(from(LOOPBACK, "198.51.100.1").await, None);
    assert_eq!(from(LOOPBACK, "198.51.100.1").await.as_deref(), Some("198.51.100.1"));
    assert_eq!(from(proxy, "198.51.100.1").await.as_deref(), Some("198.51.100.1"), "the same client through another proxy");
    assert_eq!(from(proxy, "8.8.8.8, 198.51.100.1").await.as_deref(), Some("198.51.100.1"), "with a claim of its own");
    assert_eq!(from(proxy, "198.51.100.2").await, None);
    // Whoever is no proxy has one name only.
    assert_eq!(from(PEER, "198.51.100.3").await, None);
    assert_eq!(from(PEER, "198.51.100.4").await, Some(PEER.to_string()));
    assert_eq!(from(PEER, "127.0.0.1").await, Some(PEER.to_string()));
}

#[tokio::test(start_paused = true)]
async fn clients_on_this_machine_are_limited_if_the_operator_wants_it() {
    let scene = Scene::with(|config| {
        config.admission.per_actor = ONE_A_MINUTE;
        config.admission.exempt_loopback = false;
    });
    let actor = scene.actor(1);
    serve(&scene, actor);
    let mut client = scene.connect_from(LOOPBACK).await;
    assert_eq!(status(&mut client, actor).await, 200);
    assert_eq!(status(&mut client, actor).await, 429);
}

#[tokio::test(start_paused = true)]
async fn limits_of_a_client_hold_for_all_actors_and_for_this_machine() {
    let scene = Scene::with(|config| config.admission.per_client = ONE_A_MINUTE);
    let (actor, other) = (scene.actor(1), scene.actor(2));
    serve(&scene, actor);
    serve(&scene, other);
    for peer in [PEER, LOOPBACK] {
        let mut client = scene.connect_from(peer).await;
        assert_eq!(status(&mut client, actor).await, 200);
        assert_eq!(status(&mut client, other).await, 429);
        // A preflight asks nothing of any actor.
        let preflight = client.send(request(Method::OPTIONS, &format!("/gateway/{other}/x"), &[], "")).await;
        assert_eq!(preflight.status.as_u16(), 204);
    }
    let scene = Scene::with(|config| config.admission.per_client = ONE_AT_ONCE);
    let (actor, other) = (scene.actor(1), scene.actor(2));
    let mut host = scene.host();
    scene.run(actor, 1, &host);
    serve(&scene, other);
    let held = hold(&scene, &mut host, actor, PEER, 1).await;
    assert_eq!(status(&mut scene.connect().await, other).await, 429);
    for Pending { request, task } in held {
        host.answer(&request, 200, "served");
        task.await.unwrap();
    }
    assert_eq!(status(&mut scene.connect().await, other).await, 200);
}

#[tokio::test(start_paused = true)]
async fn a_streamed_answer_is_open_until_its_end_or_until_the_client_leaves() {
    let scene = with_limits(ONE_AT_ONCE);
    let actor = scene.actor(1);
    let mut host = scene.host();
    scene.run(actor, 1, &host);
    let path = format!("/gateway/{actor}/x");
    let mut client = scene.connect().await;
    let stream = async |client: &mut Connection, host: &mut Host| {
        let begun = http::Request::get(&path).body(Empty::<bytes::Bytes>::new()).unwrap();
        let served = async {
            let (request, _) = host.expect_request().await;
            host.start_stream(&request, 200, &[]);
            host.chunk(&request, 1, "first", false);
            request
        };
        let (response, request) = tokio::join!(client.begin(begun), served);
        (response.unwrap().into_body(), request)
    };
    let (mut body, request) = stream(&mut client, &mut host).await;
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "first");
    assert_eq!(status(&mut scene.connect().await, actor).await, 429);
    host.chunk(&request, 2, "last", true);
    assert_eq!(body.collect().await.unwrap().to_bytes(), "last");
    settle().await;
    assert_eq!(scene.gateway.admission_counts().in_flight, 0);

    let (body, _) = stream(&mut client, &mut host).await;
    assert_eq!(status(&mut scene.connect().await, actor).await, 429);
    drop((body, client));
    settle().await;
    assert_eq!(scene.gateway.admission_counts().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn a_websocket_is_open_until_its_end_also_while_its_actor_sleeps() {
    let scene = with_limits(ONE_AT_ONCE);
    let actor = scene.actor(1);
    let mut host = scene.host();
    scene.run(actor, 1, &host);
    let path = format!("/gateway/{actor}/websocket/");
    let first = scene.websocket(&path).await;
    host.accept(true).await;
    let mut second = scene.websocket(&path).await;
    assert_eq!(second.expect_close().await, (1011, format!("guard.max_in_flight#{RAY}")));
    scene.stop(actor);
    settle().await;
    assert_eq!(status(&mut scene.connect().await, actor).await, 429);
    assert_eq!(scene.directory.wakes(actor), 0);
    // The actor has to wake to be told that the client has left; the client need not wait for that.
    drop(first);
    settle().await;
    assert_eq!(scene.gateway.admission_counts().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_creates_and_wakes_nothing() {
    let scene = with_limits(ONE_A_MINUTE);
    let (sleeper, newborn) = (scene.actor(1), scene.actor(2));
    let mut client = scene.connect().await;
    let serving = serve(&scene, sleeper);
    assert_eq!(status(&mut client, sleeper).await, 200);
    serving.abort();
    scene.stop(sleeper);
    assert_eq!(status(&mut client, sleeper).await, 429);
    let mut socket = scene.websocket(&format!("/gateway/{sleeper}/websocket/")).await;
    assert_eq!(socket.expect_close().await, (1011, format!("guard.rate_limit#{RAY}")));
    assert_eq!(scene.directory.wakes(sleeper), 0);

    scene.directory.reserve_key(&["k"], newborn);
    serve(&scene, newborn);
    assert_eq!(client.send(get(&get_or_create("k"))).await.status.as_u16(), 200);
    assert_eq!(scene.directory.created().len(), 1);
    // The actor exists now, so it counts as one of its requests, whichever way the next one comes.
    assert_eq!(status(&mut client, newborn).await, 429);
    assert_eq!(client.send(get(&get_or_create("k"))).await.status.as_u16(), 429);
    // Destroyed meanwhile: creating it once more is refused as well.
    scene.directory.reserve_key(&["k"], newborn);
    let refused = client.send(get(&get_or_create("k"))).await;
    assert_eq!(refused.error(), (429, "guard.rate_limit".to_owned()));
    assert_eq!(scene.directory.created().len(), 1);
    assert_eq!(scene.gateway.admission_counts().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_creates_its_actor_is_open_there() {
    let scene = with_limits(ONE_AT_ONCE);
    let actor = scene.actor(1);
    scene.directory.reserve_key(&["k"], actor);
    let mut client = scene.connect().await;
    let creating = tokio::spawn(async move { client.send(get(&get_or_create("k"))).await });
    scene.directory.woken(actor, 1).await;
    assert_eq!(status(&mut scene.connect().await, actor).await, 429);
    let mut host = scene.host();
    scene.run(actor, 1, &host);
    let (request, _) = host.expect_request().await;
    host.answer(&request, 200, "served");
    assert_eq!(creating.await.unwrap().status.as_u16(), 200);
    settle().await;
    assert_eq!(scene.gateway.admission_counts().in_flight, 0);
}
