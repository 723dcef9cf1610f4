//! Rows that are damaged, as whoever manages the engine sees them.

use http::Method;
use protocol::envoy::{KvRequestData, KvResponseData, ToEnvoy, ToRivet, ToRivetKvRequest};
use serde_json::{Value, json};
use testkit::client;
use testkit::envoy::FakeEnvoy;

use crate::commands::change_rows;
use crate::full_disk::Scene;
use crate::process::on;

/// First bytes of the keys of pages, of key-value entries, and of commits of the past.
const DAMAGED_KINDS: [u8; 3] = [0x42, 0x45, 0x47];

async fn put(envoy: &mut FakeEnvoy, actor_id: &str, key: &'static str) {
    let data = KvRequestData::Put { keys: vec![key.into()], values: vec!["value".into()] };
    envoy.send(&ToRivet::KvRequest(ToRivetKvRequest { actor_id: actor_id.to_owned(), request_id: 1, data }));
    let answer = envoy.expect("an answer", |message| {
        let ToEnvoy::KvResponse { data, .. } = message else { return None };
        Some(data.clone())
    });
    assert_eq!(answer.await, KvResponseData::Put);
}

#[tokio::test]
async fn who_asks_for_what_is_damaged_hears_that_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let Scene { process, mut envoy, database, then, run, .. } = Scene::start(folder.path()).await;
    let hurt = &database.run.actor_id;
    for actor in [hurt, &run.actor_id] {
        put(&mut envoy, actor, "key").await;
    }
    process.kill();
    let id: protocol::id::Id = hurt.parse().unwrap();
    change_rows(folder.path(), |rows, batch| {
        for (key, row) in rows {
            if DAMAGED_KINDS.contains(&key[0]) && key[1..19] == id.as_bytes()[..] {
                let mut damaged = row.to_vec();
                damaged[0] ^= 1;
                batch.put(key.clone(), damaged);
            }
        }
    })
    .await;

    let (_process, address) = on(folder.path());
    let kv =
        async |actor: &str| client::call(address, Method::GET, &format!("/actors/{actor}/kv/keys/a2V5?namespace=default")).await;
    let act = async |action: &str, body: Value| {
        client::call_with(address, Method::POST, &format!("/actors/{hurt}/{action}?namespace=default"), &body).await
    };
    let answers = [kv(hurt).await, act("fork", json!({})).await, act("restore", json!({ "at": then })).await];
    assert_eq!(answers.map(|answer| answer.error()), [(); 3].map(|()| (500, "store.damaged".to_owned())));
    assert_eq!(kv(&run.actor_id).await.json()["value"], "dmFsdWU=");
}
