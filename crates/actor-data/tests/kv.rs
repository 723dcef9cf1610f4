//! Key-value requests (`spec/storage.md` 3; the numbers are those of its checklist, section 19).

#![allow(clippy::unwrap_used, reason = "an unwrap that fails is a test that fails")]

mod support;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use proptest::prelude::*;
use protocol::envoy::{KvListQuery, KvMetadata, KvRequestData, KvResponseData};

use support::World;

fn bytes(list: &[&[u8]]) -> Vec<Bytes> {
    list.iter().map(|item| Bytes::copy_from_slice(item)).collect()
}

fn put(entries: impl IntoIterator<Item = (Bytes, Bytes)>) -> KvRequestData {
    let (keys, values) = entries.into_iter().unzip();
    KvRequestData::Put { keys, values }
}

/// An entry for each key, the value being the key.
fn put_keys(keys: &[&[u8]]) -> KvRequestData {
    put(bytes(keys).into_iter().map(|key| (key.clone(), key)))
}

fn get(keys: &[&[u8]]) -> KvRequestData {
    KvRequestData::Get { keys: bytes(keys) }
}

fn list(query: KvListQuery) -> KvRequestData {
    KvRequestData::List { query, reverse: None, limit: None }
}

fn prefix(key: &[u8]) -> KvListQuery {
    KvListQuery::Prefix { key: Bytes::copy_from_slice(key) }
}

fn range(start: &[u8], end: &[u8], exclusive: bool) -> KvListQuery {
    KvListQuery::Range { start: Bytes::copy_from_slice(start), end: Bytes::copy_from_slice(end), exclusive }
}

fn long(length: usize) -> Bytes {
    vec![b'k'; length].into()
}

impl World {
    async fn kv_ok(&self, request: KvRequestData) -> KvResponseData {
        let answer = self.kv(request).await;
        assert!(!matches!(answer, KvResponseData::Error { .. }), "{answer:?}");
        answer
    }

    async fn kv_error(&self, request: KvRequestData) -> String {
        let answer = self.kv(request).await;
        let KvResponseData::Error { message } = answer else { panic!("{answer:?}") };
        message
    }

    async fn kv_list(&self, request: KvRequestData) -> Vec<Bytes> {
        let answer = self.kv(request).await;
        let KvResponseData::List { keys, .. } = answer else { panic!("{answer:?}") };
        keys
    }

    async fn kv_get(&self, request: KvRequestData) -> (Vec<Bytes>, Vec<Bytes>, Vec<KvMetadata>) {
        let answer = self.kv(request).await;
        let KvResponseData::Get { keys, values, metadata } = answer else { panic!("{answer:?}") };
        (keys, values, metadata)
    }
}

/// Items 1 and 8.
#[tokio::test]
async fn get_finds_what_was_put() {
    let world = World::new().await;
    assert_eq!(world.kv(put_keys(&[b"a", b"b"])).await, KvResponseData::Put);
    world.now.store(1_700_000_000_005, Ordering::Relaxed);
    world.kv_ok(put([(Bytes::from("b"), Bytes::from("1")), ("c".into(), "2".into()), ("b".into(), "3".into())])).await;

    let (keys, values, metadata) = world.kv_get(get(&[b"c", b"missing", b"b", b"b", b"a", b"c"])).await;
    assert_eq!(keys, bytes(&[b"c", b"b", b"a", b"c"]));
    assert_eq!(values, bytes(&[b"2", b"3", b"a", b"2"]));
    let times: Vec<_> = metadata.iter().map(|metadata| metadata.update_ts - 1_700_000_000_000).collect();
    assert_eq!(times, [5, 5, 0, 5]);
    assert_eq!(metadata[0].version, env!("CARGO_PKG_VERSION"));
    assert_eq!(world.kv_get(get(&[])).await.0, bytes(&[]));

    let found = world.data.kv_get(world.actor, "b".into()).await.unwrap();
    assert_eq!(found, Some(("3".into(), 1_700_000_000_005)));
    assert_eq!(world.data.kv_get(world.actor, "missing".into()).await.unwrap(), None);
    assert_eq!(world.data.kv_get(world.actor, long(3000)).await.unwrap(), None);
}

/// Items 2 and 3.
#[tokio::test]
async fn lists_come_in_order() {
    let world = World::new().await;
    let all: [&[u8]; 7] = [&[], &[0], &[0, 0xff], &[1], &[1, 0], &[0xff], &[0xff, 0xff]];
    world.kv_ok(put_keys(&[all[4], all[6], all[0], all[2], all[5], all[1], all[3]])).await;

    assert_eq!(world.kv_list(list(KvListQuery::All)).await, bytes(&all));
    assert_eq!(world.kv_list(list(prefix(&[]))).await, bytes(&all));
    assert_eq!(world.kv_list(list(prefix(&[0xff]))).await, bytes(&all[5..]));
    assert_eq!(world.kv_list(list(prefix(&[0]))).await, bytes(&all[1..3]));
    assert_eq!(world.kv_list(list(range(&[0], &[1], false))).await, bytes(&all[1..4]));
    assert_eq!(world.kv_list(list(range(&[0], &[1], true))).await, bytes(&all[1..3]));
    assert_eq!(world.kv_list(list(range(&[1], &[1], false))).await, bytes(&all[3..4]));
    assert_eq!(world.kv_list(list(range(&[1], &[1], true))).await, bytes(&[]));
    assert_eq!(world.kv_list(list(range(&[2], &[1], false))).await, bytes(&[]));

    let limited = async |limit, reverse| {
        let request = KvRequestData::List { query: KvListQuery::All, reverse: Some(reverse), limit: Some(limit) };
        world.kv_list(request).await
    };
    assert_eq!(limited(2, false).await, bytes(&all[..2]));
    assert_eq!(limited(2, true).await, bytes(&[all[6], all[5]]));
    assert_eq!(limited(0, false).await, bytes(&[]));
    assert_eq!(limited(u64::MAX, false).await, bytes(&all));
}

/// Item 2, the default limit, and `decisions.md` 19.
#[tokio::test]
async fn lists_have_a_default_limit_and_a_largest_size() {
    let world = World::new().await;
    for batch in 0..129u32 {
        let entries = (0..128u32).map(|entry| (Bytes::from(format!("{batch:03} {entry:03}")), Bytes::new()));
        world.kv_ok(put(entries)).await;
    }
    assert_eq!(world.kv_list(list(KvListQuery::All)).await.len(), 16_384);
    let everything = KvRequestData::List { query: KvListQuery::All, reverse: None, limit: Some(u64::MAX) };
    assert_eq!(world.kv_list(everything.clone()).await.len(), 129 * 128);

    for large in 0..19 {
        world.kv_ok(put((0..7).map(|entry| (format!("large {large} {entry}").into(), vec![0; 131_072].into())))).await;
    }
    let message = "the list is too large (max 16777216 bytes), ask for fewer entries at a time";
    assert_eq!(world.kv_error(everything).await, message);
    assert_eq!(world.kv_list(list(prefix(b"large 1 "))).await.len(), 7);
    // Nothing is too large to be dropped.
    assert_eq!(world.kv(KvRequestData::Drop).await, KvResponseData::Drop);
    assert_eq!(world.rows().await.len(), 2);
}

/// Items 4, 5 and 6.
#[tokio::test]
async fn limits_are_exact_and_say_what_is_wrong() {
    let world = World::new().await;
    let entries = |count: usize, key: usize, value: usize| {
        let numbered = (0..count).map(move |number| {
            let mut long_key = vec![b'k'; key];
            long_key[..3].copy_from_slice(format!("{number:03}").as_bytes());
            (long_key.into(), vec![b'v'; value].into())
        });
        put(numbered)
    };
    for fits in [entries(128, 3, 1), entries(1, 2048, 131_072), entries(16, 416, 62_048)] {
        world.kv_ok(fits).await;
    }
    let rows = world.rows().await;
    for (too_much, message) in [
        (entries(129, 3, 1), "A maximum of 128 key-value entries is allowed"),
        (entries(1, 2049, 1), "key is too long (max 2048 bytes)"),
        (entries(1, 3, 131_073), "value is too large (max 128 KiB)"),
        (entries(16, 417, 62_048), "total payload is too large (max 976 KiB)"),
        (put([("good".into(), Bytes::new()), ("bad".into(), long(131_073))]), "value is too large (max 128 KiB)"),
        (KvRequestData::Put { keys: bytes(&[b"a", b"b"]), values: bytes(&[b"a"]) }, "Keys list length != values list length"),
        (KvRequestData::Get { keys: vec!["k".into(); 129] }, "a maximum of 128 keys is allowed"),
        (KvRequestData::Delete { keys: vec!["k".into(); 129] }, "a maximum of 128 keys is allowed"),
        (KvRequestData::Get { keys: vec![long(2049)] }, "key is too long (max 2048 bytes)"),
        (KvRequestData::Delete { keys: vec![long(2049)] }, "key is too long (max 2048 bytes)"),
        (list(prefix(&long(2049))), "prefix key is too long (max 2048 bytes)"),
        (list(range(&long(2049), b"", false)), "start key is too long (max 2048 bytes)"),
        (list(range(b"", &long(2049), false)), "end key is too long (max 2048 bytes)"),
        (KvRequestData::DeleteRange { start: long(2049), end: long(1) }, "start key is too long (max 2048 bytes)"),
        (KvRequestData::DeleteRange { start: long(1), end: long(2049) }, "end key is too long (max 2048 bytes)"),
    ] {
        assert_eq!(world.kv_error(too_much).await, message);
    }
    assert_eq!(world.rows().await, rows);
}

/// Item 7.
#[tokio::test]
async fn deleting_leaves_the_rest() {
    let world = World::new().await;
    let delete = async |request| assert_eq!(world.kv(request).await, KvResponseData::Delete);
    let empty = world.rows().await;
    world.kv_ok(put_keys(&[b"a", b"b", b"c", b"d", b"e"])).await;

    delete(KvRequestData::Delete { keys: bytes(&[b"c", b"missing"]) }).await;
    delete(KvRequestData::DeleteRange { start: "b".into(), end: "d".into() }).await;
    delete(KvRequestData::DeleteRange { start: "e".into(), end: "a".into() }).await;
    assert_eq!(world.kv_list(list(KvListQuery::All)).await, bytes(&[b"a", b"d", b"e"]));

    // More than one step has room for, some with keys longer than the store takes.
    for step in 0..3 {
        let keys = (0..100).map(|number| (Bytes::from(format!("{step} {number:02000}")), Bytes::new()));
        world.kv_ok(put(keys)).await;
    }
    assert_eq!(world.kv(KvRequestData::Drop).await, KvResponseData::Drop);
    assert_eq!(world.kv_list(list(KvListQuery::All)).await, bytes(&[]));
    // But for the ledger, which says how little there is.
    assert_eq!(world.rows().await.len(), empty.len() + 1);
}

/// `spec/storage.md` 3.6.
#[tokio::test]
async fn only_the_newest_generation_of_a_living_actor_is_served() {
    let mut world = World::new().await;
    world.kv_ok(put_keys(&[b"a"])).await;
    world.start().await;
    assert_eq!(
        world.data.kv(world.actor, 1, get(&[b"a"])).await,
        KvResponseData::Error { message: "actor generation 1 is not current".into() }
    );
    world.kv_ok(put_keys(&[b"b"])).await;

    world.destroy().await;
    for request in [get(&[b"a"]), put_keys(&[b"a"]), list(KvListQuery::All), KvRequestData::Drop] {
        assert_eq!(world.kv_error(request).await, "actor does not exist");
    }
    assert_eq!(world.data.kv_get(world.actor, "a".into()).await.unwrap(), None);
}

/// A change of a random history.
#[derive(Debug, Clone)]
enum Change {
    Put(Bytes, usize),
    Delete(Bytes),
    DeleteRange(Bytes, Bytes),
}

/// Keys short and long, many of them in the same few buckets.
fn key() -> impl Strategy<Value = Bytes> {
    let length = prop_oneof![3 => 0..3usize, 1 => 1899..1902usize, 3 => 1902..1905usize, 1 => Just(2048usize)];
    (length, 0..3u8, 0..3u8).prop_map(|(length, first, last)| {
        let mut key = vec![1; length];
        if let Some(byte) = key.first_mut() {
            *byte = first;
        }
        if let Some(byte) = key.last_mut() {
            *byte = last;
        }
        key.into()
    })
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        5 => (key(), 0..300usize).prop_map(|(key, length)| Change::Put(key, length)),
        2 => key().prop_map(Change::Delete),
        1 => (key(), key()).prop_map(|(start, end)| Change::DeleteRange(start, end)),
    ]
}

fn change_model(model: &mut BTreeMap<Bytes, usize>, change: &Change) {
    match change.clone() {
        Change::Put(key, length) => drop(model.insert(key, length)),
        Change::Delete(key) => drop(model.remove(&key)),
        Change::DeleteRange(start, end) => model.retain(|key, _| *key < start || *key >= end),
    }
}

async fn make(world: &World, change: &Change) {
    let request = match change.clone() {
        Change::Put(key, length) => put([(key, vec![7; length].into())]),
        Change::Delete(key) => KvRequestData::Delete { keys: vec![key] },
        Change::DeleteRange(start, end) => KvRequestData::DeleteRange { start, end },
    };
    world.kv_ok(request).await;
}

/// Bytes that the actor of a random history may store: more than any has.
const LIMIT: u64 = 131_072;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn histories_match_the_model(
        changes in prop::collection::vec(change(), 1..40),
        query in (key(), key(), any::<bool>(), any::<bool>(), prop::option::of(0..5u64)),
        several in prop::collection::vec(key(), 0..8),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let world = World::with_limit(LIMIT).await;
            let mut model = BTreeMap::new();
            for change in &changes {
                make(&world, change).await;
                change_model(&mut model, change);
            }
            // Several keys in one request, new ones and old ones.
            world.kv_ok(put(several.iter().map(|key| (key.clone(), Bytes::new())))).await;
            model.extend(several.iter().map(|key| (key.clone(), 0)));

            let (start, end, exclusive, reverse, limit) = query;
            let inside = model.keys().filter(|key| **key >= start && (**key < end || !exclusive && **key == end));
            let mut expected: Vec<_> = inside.cloned().collect();
            if reverse {
                expected.reverse();
            }
            expected.truncate(limit.map_or(usize::MAX, |limit| limit as usize));
            let query = KvListQuery::Range { start: start.clone(), end, exclusive };
            let request = KvRequestData::List { query, reverse: Some(reverse), limit };
            assert_eq!(world.kv_list(request).await, expected);

            let expected: Vec<_> = model.keys().filter(|key| key.starts_with(&start)).cloned().collect();
            assert_eq!(world.kv_list(list(prefix(&start))).await, expected);

            let (keys, values, _) = world.kv_get(KvRequestData::Get { keys: model.keys().cloned().collect() }).await;
            assert_eq!(keys, Vec::from_iter(model.keys().cloned()));
            assert_eq!(Vec::from_iter(values.iter().map(Bytes::len)), Vec::from_iter(model.values().copied()));

            // The ledger counts exactly what is there: so much fits and no more.
            let used: usize = model.iter().map(|(key, length)| key.len() + length + 32).sum();
            let fill = |length| put([(Bytes::from("fill"), vec![0; length].into())]);
            let room = LIMIT as usize - used - "fill".len() - 32;
            assert_eq!(world.kv_error(fill(room + 1)).await, "Not enough space left in storage.");
            world.kv_ok(fill(room)).await;
            world.kv_ok(KvRequestData::Drop).await;
            assert_eq!(world.rows().await.len(), 2);
        });
    }
}
