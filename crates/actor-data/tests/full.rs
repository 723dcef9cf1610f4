//! What actors own when the store has no room: refused writes leave no trace, and a destroyed actor makes room.

#![allow(clippy::unwrap_used, reason = "an unwrap that fails is a test that fails")]

mod support;

use actor_data::Options;
use bytes::Bytes;
use protocol::envoy::{KvRequestData, KvResponseData};
use protocol::id::Id;
use store::{Batch, Durability, LmdbOptions, Store};

use support::World;

fn put(key: u32, bytes: usize) -> KvRequestData {
    // Nothing that could be compressed.
    let noise =
        |byte: usize| ((u64::from(key) << 32 | byte as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29) >> 13) as u8;
    let value = (0..bytes).map(noise).collect();
    KvRequestData::Put { keys: vec![Bytes::copy_from_slice(&key.to_be_bytes())], values: vec![value] }
}

#[tokio::test]
async fn a_destroyed_actor_makes_room_in_a_full_store() {
    let folder = tempfile::tempdir().unwrap();
    let map_size_bytes = 2 << 20;
    let options = LmdbOptions { durability: Durability::Os, map_size_bytes, ..LmdbOptions::new(folder.path()) };
    let store = Store::open_lmdb(options).unwrap();
    let large = World::with(store.clone(), Options::default()).await;
    let mut small = World { actor: Id::from_parts([8; 16], 1), generation: 0, ..World::with(store, Options::default()).await };
    small.start().await;
    small.kv(put(0, 100)).await;

    let mut keys = 0;
    let refusal = loop {
        let answer = large.kv(put(keys, 2_500)).await;
        if answer != KvResponseData::Put {
            break answer;
        }
        keys += 1;
    };
    assert!(matches!(&refusal, KvResponseData::Error { message } if message.starts_with("the store is full")), "{refusal:?}");
    // To the brim: others find room where the large one found none.
    for bytes in [2_000, 500, 10] {
        for row in 0.. {
            let mut filling = Batch::new();
            filling.put(format!("zz {bytes} {row:05}"), vec![7; bytes]);
            if large.store.write(filling).await.is_err() {
                break;
            }
        }
    }
    let KvResponseData::List { keys: stored, .. } =
        large.kv(KvRequestData::List { query: protocol::envoy::KvListQuery::All, reverse: None, limit: None }).await
    else {
        panic!("no list");
    };
    assert_eq!(stored.len(), keys as usize);
    assert!(matches!(small.kv(put(1, 20_000)).await, KvResponseData::Error { .. }));

    large.data.delete_all(large.actor).await.unwrap();
    for key in 1..60 {
        assert_eq!(small.kv(put(key, 20_000)).await, KvResponseData::Put);
    }
}
