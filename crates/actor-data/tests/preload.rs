//! What travels with a start (`spec/scheduling.md` 10, item 49 of its checklist).

#![allow(clippy::unwrap_used, reason = "an unwrap that fails is a test that fails")]

mod support;

use std::collections::BTreeMap;

use actor_data::KvError;
use actor_data::preload::{Manifest, ManifestTooLarge, PreloadPrefix};
use bytes::Bytes;
use proptest::prelude::*;
use protocol::envoy::{
    ActorCheckpoint, ActorConfig, CommandStartActor, KvRequestData, KvResponseData, PreloadedKv, ServerlessStart,
};
use protocol::limits;

use support::World;

/// What an entry costs besides its key and value: its time, and the version text of this engine.
const OVERHEAD: u64 = 8 + env!("CARGO_PKG_VERSION").len() as u64;

fn bytes(list: &[&[u8]]) -> Vec<Bytes> {
    list.iter().map(|item| Bytes::copy_from_slice(item)).collect()
}

fn prefix(prefix: &[u8], max_bytes: u64, partial: bool) -> PreloadPrefix {
    PreloadPrefix { prefix: Bytes::copy_from_slice(prefix), max_bytes, partial }
}

fn manifest(keys: &[&[u8]], prefixes: Vec<PreloadPrefix>) -> Manifest {
    Manifest::new(bytes(keys), prefixes).unwrap()
}

impl World {
    async fn put(&self, key: &[u8], value_bytes: usize) {
        let (keys, values) = (bytes(&[key]), vec![Bytes::from(vec![7; value_bytes])]);
        assert_eq!(self.kv(KvRequestData::Put { keys, values }).await, KvResponseData::Put);
    }

    async fn preload(&self, manifest: Manifest, budget: u64) -> PreloadedKv {
        self.data.preload(self.actor, self.generation, manifest, budget).await.unwrap().unwrap()
    }
}

fn keys(preloaded: &PreloadedKv) -> Vec<Bytes> {
    preloaded.entries.iter().map(|entry| entry.key.clone()).collect()
}

/// An actor with what hosts of an earlier version keep, each entry of 100 bytes by its key and value.
async fn older_actor() -> World {
    let world = World::new().await;
    for key in [&[1][..], &[2, 0], &[2, 1], &[5, 1, 1], &[6, 1, 0], &[6, 1, 1], &[6, 1, 2], &[7]] {
        world.put(key, 100 - key.len()).await;
    }
    world
}

const ENTRY: u64 = 100 + OVERHEAD;

#[tokio::test]
async fn a_manifest_of_an_older_host_is_answered_whole() {
    let world = older_actor().await;
    let prefixes = vec![prefix(&[6, 1], 131_072, false), prefix(&[2], 65_536, false), prefix(&[5, 1, 2], 65_536, false)];
    let preloaded = world.preload(manifest(&[&[1], &[3], &[5, 1, 1]], prefixes), limits::PRELOAD_MAX_BYTES).await;
    assert_eq!(keys(&preloaded), bytes(&[&[1], &[5, 1, 1], &[6, 1, 0], &[6, 1, 1], &[6, 1, 2], &[2, 0], &[2, 1]]));
    // What was looked up and is not there is listed, too.
    assert_eq!(preloaded.requested_get_keys, bytes(&[&[1], &[3], &[5, 1, 1]]));
    assert_eq!(preloaded.requested_prefixes, bytes(&[&[6, 1], &[2], &[5, 1, 2]]));
    // Entries are as a get brings them.
    let KvResponseData::Get { values, metadata, .. } = world.kv(KvRequestData::Get { keys: bytes(&[&[1]]) }).await else {
        panic!("no answer")
    };
    assert_eq!((&preloaded.entries[0].value, &preloaded.entries[0].metadata), (&values[0], &metadata[0]));
}

#[tokio::test]
async fn prefixes_keep_to_their_limits() {
    let world = older_actor().await;
    let cases: [(PreloadPrefix, &[&[u8]], bool); 7] = [
        // Just enough, and one byte less.
        (prefix(&[6, 1], 3 * ENTRY, false), &[&[6, 1, 0], &[6, 1, 1], &[6, 1, 2]], true),
        (prefix(&[6, 1], 3 * ENTRY - 1, false), &[], false),
        (prefix(&[6, 1], 3 * ENTRY - 1, true), &[&[6, 1, 0], &[6, 1, 1]], true),
        (prefix(&[6, 1], 1, true), &[], true),
        // Not even looked at.
        (prefix(&[6, 1], 0, false), &[], false),
        (prefix(&[6, 1], 0, true), &[], false),
        // Nothing there.
        (prefix(&[9], 1, false), &[], true),
    ];
    for (asked, expected, listed) in cases {
        let preloaded = world.preload(manifest(&[], vec![asked.clone()]), limits::PRELOAD_MAX_BYTES).await;
        assert_eq!(keys(&preloaded), bytes(expected), "{asked:?}");
        assert_eq!(preloaded.requested_prefixes.len(), usize::from(listed), "{asked:?}");
    }
}

#[tokio::test]
async fn the_budget_ends_in_the_middle_of_a_list() {
    let world = older_actor().await;
    let wanted: [&[u8]; 4] = [&[1], &[5, 1, 1], &[7], &[8]];
    let prefixes = vec![prefix(&[6, 1], u64::MAX, true), prefix(&[2], u64::MAX, true)];
    let asked = manifest(&wanted, prefixes);
    // An entry that does not fit is not listed, a later one that does not exist is.
    let preloaded = world.preload(asked.clone(), 3 * ENTRY - 1).await;
    assert_eq!((keys(&preloaded), preloaded.requested_get_keys), (bytes(&wanted[..2]), bytes(&[&[1], &[5, 1, 1], &[8]])));
    assert_eq!(preloaded.requested_prefixes, bytes(&[&[6, 1], &[2]]));
    // When it is used up, nothing more is looked at.
    let preloaded = world.preload(asked.clone(), 2 * ENTRY).await;
    assert_eq!((keys(&preloaded), preloaded.requested_get_keys), (bytes(&wanted[..2]), bytes(&wanted[..2])));
    assert_eq!(preloaded.requested_prefixes, bytes(&[]));
    // What a dropped prefix would have used is free for the next.
    let prefixes = vec![prefix(&[6, 1], 2 * ENTRY, false), prefix(&[2], u64::MAX, false)];
    let preloaded = world.preload(manifest(&[], prefixes), 2 * ENTRY).await;
    assert_eq!((keys(&preloaded), preloaded.requested_prefixes), (bytes(&[&[2, 0], &[2, 1]]), bytes(&[&[2]])));

    assert_eq!(world.data.preload(world.actor, world.generation, asked, 0).await.unwrap(), None);
}

#[tokio::test]
async fn only_the_current_generation_is_told() {
    let mut world = older_actor().await;
    world.start().await;
    let overtaken = world.data.preload(world.actor, 1, manifest(&[&[1]], Vec::new()), 1000).await;
    assert!(matches!(overtaken, Err(KvError::NotCurrent { generation: 1 })), "{overtaken:?}");
    world.destroy().await;
    let destroyed = world.data.preload(world.actor, 2, manifest(&[&[1]], Vec::new()), 1000).await;
    assert!(matches!(destroyed, Err(KvError::NoActor)), "{destroyed:?}");
}

#[test]
fn a_manifest_has_bounds() {
    let key = |bytes| Bytes::from(vec![1; bytes]);
    let asked = |count| vec![prefix(&[1], 1, false); count];
    assert!(Manifest::new(vec![key(2048); 512], asked(16)).is_ok());
    assert_eq!(Manifest::new(vec![key(1); 513], asked(0)), Err(ManifestTooLarge::Keys));
    assert_eq!(Manifest::new(vec![key(2049)], asked(0)), Err(ManifestTooLarge::KeyTooLong));
    assert_eq!(Manifest::new(vec![], asked(17)), Err(ManifestTooLarge::Prefixes));
    assert_eq!(Manifest::new(vec![], vec![prefix(&[1; 2049], 1, false)]), Err(ManifestTooLarge::KeyTooLong));
}

fn start(input_bytes: usize, preloaded_kv: Option<PreloadedKv>) -> ServerlessStart {
    let input = Some(vec![0; input_bytes].into());
    let config = ActorConfig { name: "n".repeat(64), key: Some("k".repeat(1024)), create_ts: 0, input };
    ServerlessStart {
        checkpoint: ActorCheckpoint { actor_id: "a".repeat(30), generation: 1, index: 0 },
        command: CommandStartActor { config, hibernating_requests: Vec::new(), preloaded_kv },
    }
}

/// However much there is and an operator allows, a host can take it: many small entries are the worst case, because each
/// is sent with lengths that count nothing.
#[tokio::test]
async fn a_start_with_the_largest_input_and_preload_fits_a_host() {
    let world = World::new().await;
    for batch in 0..6u32 {
        for part in 0..8u32 {
            let first = (batch * 8 + part) * 128;
            let keys: Vec<Bytes> = (first..first + 128).map(|number| number.to_be_bytes().to_vec().into()).collect();
            let values = vec![Bytes::new(); keys.len()];
            assert_eq!(world.kv(KvRequestData::Put { keys, values }).await, KvResponseData::Put);
        }
    }
    for number in 0..90u8 {
        world.put(&[9, number], 131_072).await;
    }
    let asked = manifest(&[&[9, 0], &[8]], vec![prefix(&[0], u64::MAX, true), prefix(&[9], u64::MAX, true)]);
    let input_bytes = limits::ACTOR_INPUT_MAX_BYTES;
    let bytes = |start: ServerlessStart| start.to_body(protocol::envoy::PROTOCOL_VERSION).unwrap().len();
    let room = limits::SERVERLESS_START_BODY_MAX_BYTES - bytes(start(input_bytes, None));
    let budget = asked.budget_within(room);
    assert!(budget > 4 * limits::PRELOAD_MAX_BYTES, "an input leaves little room: {budget}");
    let preloaded = world.preload(asked, budget).await;
    assert!(preloaded.entries.len() > 6000);
    let body_bytes = bytes(start(input_bytes, Some(preloaded)));
    assert!(body_bytes <= limits::SERVERLESS_START_BODY_MAX_BYTES, "{body_bytes}");
}

/// Keys short and long, many of them in the same few buckets of the store.
fn key() -> impl Strategy<Value = Bytes> {
    let length = prop_oneof![4 => 0..4usize, 1 => 1899..1904usize, 1 => Just(2048usize)];
    (length, 0..2u8, 0..3u8).prop_map(|(length, first, last)| {
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

fn asked_prefix() -> impl Strategy<Value = PreloadPrefix> {
    let prefix = prop_oneof![
        3 => prop::collection::vec(0..2u8, 0..3).prop_map(Bytes::from),
        1 => key(),
        1 => (1899..1903usize).prop_map(|length| vec![1; length].into()),
    ];
    let max_bytes = prop_oneof![Just(0), 1..600u64, Just(u64::MAX)];
    (prefix, max_bytes, any::<bool>()).prop_map(|(prefix, max_bytes, partial)| PreloadPrefix { prefix, max_bytes, partial })
}

/// The rules, by sums over everything that is there.
fn model(stored: &BTreeMap<Bytes, usize>, asked: &Manifest, budget: u64) -> (Vec<Bytes>, Vec<Bytes>, Vec<Bytes>) {
    let size = |key: &Bytes| key.len() as u64 + stored[key] as u64 + OVERHEAD;
    let (mut total, mut chosen, mut listed_keys, mut listed_prefixes) = (0, Vec::new(), Vec::new(), Vec::new());
    for key in asked.keys() {
        if total >= budget {
            break;
        }
        match stored.contains_key(key) {
            false => listed_keys.push(key.clone()),
            true if total + size(key) <= budget => {
                total += size(key);
                chosen.push(key.clone());
                listed_keys.push(key.clone());
            }
            true => {}
        }
    }
    for PreloadPrefix { prefix, max_bytes, partial } in asked.prefixes() {
        let limit = (*max_bytes).min(budget - total);
        let inside: Vec<&Bytes> = stored.keys().filter(|key| key.starts_with(prefix)).collect();
        let sums = inside.iter().scan(0, |sum, key| {
            *sum += size(key);
            Some(*sum)
        });
        let fitting = sums.take_while(|sum| *sum <= limit).count();
        if limit == 0 || fitting < inside.len() && !partial {
            continue;
        }
        total += inside[..fitting].iter().map(|key| size(key)).sum::<u64>();
        chosen.extend(inside[..fitting].iter().map(|key| (*key).clone()));
        listed_prefixes.push(prefix.clone());
    }
    (chosen, listed_keys, listed_prefixes)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn what_is_chosen_matches_the_model(
        stored in prop::collection::btree_map(key(), 0..200usize, 0..20),
        wanted in prop::collection::vec(key(), 0..6),
        prefixes in prop::collection::vec(asked_prefix(), 0..5),
        budget in prop_oneof![1..3000u64, Just(u64::MAX)],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let asked = Manifest::new(wanted, prefixes).unwrap();
        let preloaded = runtime.block_on(async {
            let world = World::new().await;
            for (key, value_bytes) in &stored {
                world.put(key, *value_bytes).await;
            }
            world.preload(asked.clone(), budget).await
        });
        for entry in &preloaded.entries {
            prop_assert_eq!(entry.value.len(), stored[&entry.key]);
        }
        let found = (keys(&preloaded), preloaded.requested_get_keys.clone(), preloaded.requested_prefixes.clone());
        prop_assert_eq!(found, model(&stored, &asked, budget));
        // Whatever is chosen within the budget for a room has room in it.
        let without = start(0, None).to_body(protocol::envoy::PROTOCOL_VERSION).unwrap().len();
        let with = start(0, Some(preloaded)).to_body(protocol::envoy::PROTOCOL_VERSION).unwrap().len();
        let room = with - without;
        prop_assert!(asked.budget_within(room - 1) < budget, "a budget of {budget} has taken {room} bytes");
    }
}
