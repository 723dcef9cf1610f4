//! Key-value data that travels with a start (`spec/scheduling.md` 10, checklist 49), and what a host is spared by it.

use std::time::Duration;

use bytes::Bytes;
use protocol::envoy::{
    ActorName, KvListQuery, KvRequestData, KvResponseData, PreloadedKv, ToEnvoy, ToRivet, ToRivetKvRequest, ToRivetMetadata,
};
use serde_json::{Value, json};
use testkit::envoy::{FakeEnvoy, Run};
use testkit::eventually;
use tokio::time::Instant;

use super::endpoint::{Endpoint, document};
use super::{Scene, answer_and_run};
use crate::scene::TestEngine;

/// Wakes whose times are looked at.
const WAKES: usize = 5;
/// What hosts of earlier versions read at each start, one after another.
const KEYS: [&[u8]; 3] = [&[1], &[3], &[5, 1, 1]];
const PREFIXES: [&[u8]; 3] = [&[6, 1], &[2], &[5, 1, 2]];

/// And what they declare.
fn manifest() -> Value {
    json!({ "preload": {
        "keys": KEYS,
        "prefixes": [
            { "prefix": PREFIXES[0], "maxBytes": 131_072, "partial": false },
            { "prefix": PREFIXES[1], "maxBytes": 65_536, "partial": false },
            { "prefix": PREFIXES[2], "maxBytes": 65_536, "partial": false },
        ],
    } })
}

/// A pool whose endpoint declares this metadata of the actor name `counter`.
async fn scene(settings: Value, metadata: &Value) -> Scene {
    let endpoint = Endpoint::start().await;
    let mut document = document(1);
    document["actorNames"]["counter"]["metadata"] = metadata.clone();
    endpoint.set_metadata(200, document);
    let scene = Scene { engine: TestEngine::fresh(settings).await, endpoint };
    scene.configure(json!({})).await;
    is_declared(&scene.engine, metadata).await;
    scene
}

async fn is_declared(engine: &TestEngine, metadata: &Value) {
    eventually("the declared name", async || {
        let names = engine.get("/actors/names?namespace=default").await.json();
        (names["names"]["counter"]["metadata"] == *metadata).then_some(())
    })
    .await;
}

async fn ask(host: &mut FakeEnvoy, run: &Run, data: KvRequestData) -> KvResponseData {
    host.send(&ToRivet::KvRequest(ToRivetKvRequest { actor_id: run.actor_id.clone(), request_id: 7, data }));
    let answer = |message: &ToEnvoy| {
        let ToEnvoy::KvResponse { request_id: 7, data } = message else { return None };
        Some(data.clone())
    };
    host.expect("an answer about key-value data", answer).await
}

/// What such an actor has stored.
async fn store(host: &mut FakeEnvoy, run: &Run) {
    let keys: [&[u8]; 6] = [&[1], &[5, 1, 1], &[2, 0], &[2, 1], &[6, 1, 0], &[6, 1, 1]];
    let values = vec![Bytes::from(vec![7; 4096]); keys.len()];
    let keys = keys.into_iter().map(Bytes::copy_from_slice).collect();
    assert_eq!(ask(host, run, KvRequestData::Put { keys, values }).await, KvResponseData::Put);
}

/// Reads at a start what such a host reads; what was preloaded it need not ask for. Returns the keys that it found, and how
/// often it had to ask.
async fn read_at_start(host: &mut FakeEnvoy, run: &Run, preloaded: Option<&PreloadedKv>) -> (Vec<Bytes>, usize) {
    let (mut found, mut asked) = (Vec::new(), 0);
    for key in KEYS.map(Bytes::from_static) {
        match preloaded.filter(|preloaded| preloaded.requested_get_keys.contains(&key)) {
            Some(preloaded) => {
                found.extend(preloaded.entries.iter().map(|entry| &entry.key).filter(|other| **other == key).cloned())
            }
            None => {
                asked += 1;
                let answer = ask(host, run, KvRequestData::Get { keys: vec![key] }).await;
                let KvResponseData::Get { keys, .. } = answer else { panic!("{answer:?}") };
                found.extend(keys);
            }
        }
    }
    for prefix in PREFIXES.map(Bytes::from_static) {
        match preloaded.filter(|preloaded| preloaded.requested_prefixes.contains(&prefix)) {
            Some(preloaded) => {
                let inside = preloaded.entries.iter().map(|entry| &entry.key).filter(|key| key.starts_with(&prefix));
                found.extend(inside.cloned());
            }
            None => {
                asked += 1;
                let query = KvListQuery::Prefix { key: prefix };
                let answer = ask(host, run, KvRequestData::List { query, reverse: None, limit: None }).await;
                let KvResponseData::List { keys, .. } = answer else { panic!("{answer:?}") };
                found.extend(keys);
            }
        }
    }
    (found, asked)
}

/// An actor with data is put to sleep and woken, until its next generation has read what it needs. Returns what it found,
/// how often it asked, and how long all that took from the request that woke it.
async fn wake(scene: &mut Scene, host: &mut FakeEnvoy) -> (Vec<Bytes>, usize, Duration) {
    let (run, stream) = scene.running_actor(host).await;
    store(host, &run).await;
    host.wants_sleep(&run);
    host.expect_stop(&run).await;
    host.stopped(&run);
    stream.stopping();
    scene.engine.asleep(&run.actor_id).await;

    let asked_at = Instant::now();
    let answer = scene.engine.request(&run.actor_id);
    let call = scene.endpoint.next_start().await;
    let run = call.run();
    let preloaded = call.content().1.command.preloaded_kv;
    // Requests for key-value data name no generation: only now is it this host's.
    host.acknowledge(&run, 0);
    let (found, asked) = read_at_start(host, &run, preloaded.as_ref()).await;
    let took = asked_at.elapsed();
    let (_, _stream) = answer_and_run(call, host);
    let request = host.expect_request().await;
    host.respond(&request, 200, &[], "read");
    assert_eq!(answer.await.unwrap().status, 200);
    (found, asked, took)
}

/// The middle one of the times of some wakes, all of which find the same and ask equally often.
async fn wakes(settings: Value) -> (Vec<Bytes>, usize, Duration) {
    let mut scene = scene(settings, &manifest()).await;
    let mut host = scene.host().await;
    let (found, asked, took) = wake(&mut scene, &mut host).await;
    let mut times = vec![took];
    while times.len() < WAKES {
        let (found_again, asked_again, took) = wake(&mut scene, &mut host).await;
        assert_eq!((&found_again, asked_again), (&found, asked));
        times.push(took);
    }
    times.sort();
    (found, asked, times[WAKES / 2])
}

#[tokio::test]
async fn a_preloaded_start_needs_no_round_trips_and_finds_the_same() {
    let (preloaded, asked, with) = wakes(json!({})).await;
    let (read, asked_without, without) = wakes(json!({ "pegboard": { "preload_max_total_bytes": 0 } })).await;
    assert_eq!((preloaded.len(), &preloaded), (6, &read));
    assert_eq!((asked, asked_without), (0, 6));
    println!("a wake until all is read: {with:?} with preload; {without:?} without, in {asked_without} round trips");
}

/// What is too much for the operator's budget is asked for, and nothing is lost.
#[tokio::test]
async fn what_exceeds_the_budget_is_read_as_before() {
    let mut scene = scene(json!({ "pegboard": { "preload_max_total_bytes": 3 * 4096 } }), &manifest()).await;
    let mut host = scene.host().await;
    let (found, asked, _) = wake(&mut scene, &mut host).await;
    // The two keys fit, both prefixes with data do not.
    assert_eq!((found.len(), asked), (6, 2));
}

#[tokio::test]
async fn a_name_without_a_manifest_and_a_normal_pool_get_nothing() {
    for metadata in [json!({}), json!({ "preload": { "keys": "all" } })] {
        let mut scene = scene(json!({}), &metadata).await;
        scene.engine.create("counter", None).await;
        let call = scene.endpoint.next_start().await;
        assert_eq!(call.content().1.command.preloaded_kv, None, "{metadata}");
        drop(call.accept());
    }

    let engine = TestEngine::start(json!({})).await;
    let mut host = engine.host().await;
    let name = ("counter".to_owned(), ActorName { metadata: manifest().to_string() });
    let names = Some([name].into_iter().collect());
    host.send(&ToRivet::Metadata(ToRivetMetadata { prepopulate_actor_names: names, metadata: None }));
    is_declared(&engine, &manifest()).await;
    engine.create("counter", None).await;
    let (_, start) = host.expect_start().await;
    assert_eq!(start.preloaded_kv, None);
}
