//! What every driver does alike.

#![allow(clippy::unwrap_used, reason = "an unwrap that fails is a test that fails")]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use store::{Batch, Decision, MAX_BATCH_BYTES, MAX_KEY_BYTES, Reads, Scan, Store, StoreError, View};

use support::{on_every_driver, put, runtime};

/// Shorthand for the entries of a scan.
fn entries(pairs: &[(&'static str, &'static str)]) -> Vec<(Bytes, Bytes)> {
    pairs.iter().map(|(key, value)| (Bytes::from(*key), Bytes::from(*value))).collect()
}

fn letters() -> Batch {
    let mut batch = Batch::new();
    for letter in ["a", "b", "c", "d", "e"] {
        batch.put(letter, letter);
    }
    batch
}

#[tokio::test]
async fn a_batch_takes_effect_in_its_order() {
    on_every_driver(async |store| {
        let mut batch = letters();
        batch.delete("a");
        batch.delete("absent");
        batch.delete_range("b", "d");
        batch.put("c", "again");
        let mut more = Batch::new();
        more.delete("e");
        more.put("e", "once more");
        batch.append(more);
        store.write(batch).await.unwrap();

        let all = store.scan(Scan::range("", "z")).await.unwrap();
        assert_eq!(all, entries(&[("c", "again"), ("d", "d"), ("e", "once more")]));
        let keys = ["e", "absent", "c", ""].map(Bytes::from).to_vec();
        let values = [Some("once more"), None, Some("again"), None].map(|value| value.map(Bytes::from));
        assert_eq!(store.get(keys).await.unwrap(), values);
    })
    .await;
}

#[tokio::test]
async fn scans_keep_to_their_bounds() {
    on_every_driver(async |store| {
        store.write(letters()).await.unwrap();
        let scan = async |scan: Scan| {
            let found = store.scan(scan).await.unwrap();
            found.iter().map(|(key, _)| char::from(key[0])).collect::<String>()
        };
        let reversed = |scan: Scan| Scan { reverse: true, ..scan };

        assert_eq!(scan(Scan::range("b", "d")).await, "bc");
        assert_eq!(scan(Scan::range("", "bb")).await, "ab");
        assert_eq!(scan(Scan::range("cc", "z")).await, "de");
        assert_eq!(scan(Scan::range("", "z").limit(2)).await, "ab");
        assert_eq!(scan(Scan::range("", "z").limit(0)).await, "");
        assert_eq!(scan(Scan::prefix("c")).await, "c");
        assert_eq!(scan(Scan::prefix("")).await, "abcde");
        assert_eq!(scan(reversed(Scan::range("b", "d"))).await, "cb");
        assert_eq!(scan(reversed(Scan::range("", "z"))).await, "edcba");
        assert_eq!(scan(reversed(Scan::range("", "z").limit(2))).await, "ed");
        assert_eq!(scan(reversed(Scan::range("", "cc"))).await, "cba");
        for (start, end) in [("d", "b"), ("c", "c"), ("", ""), ("f", "z"), ("", "a")] {
            assert_eq!(scan(Scan::range(start, end)).await, "", "{start}..{end}");
            assert_eq!(scan(reversed(Scan::range(start, end))).await, "", "{start}..{end}");
        }
        let too_long = vec![b'c'; MAX_KEY_BYTES + 1000];
        assert_eq!(scan(Scan::range(too_long.clone(), "z")).await, "de");
        assert_eq!(scan(reversed(Scan::range("b", too_long))).await, "cb");
    })
    .await;
}

#[tokio::test]
async fn prefixes_of_ones_have_no_end_but_are_found() {
    on_every_driver(async |store| {
        let keys = [vec![0xfe, 0xff], vec![0xff], vec![0xff, 0xff, 0x01], vec![0xff; MAX_KEY_BYTES]];
        for key in keys.clone() {
            store.write(put(key, "")).await.unwrap();
        }
        let found = |prefix: &'static [u8]| store.scan(Scan::prefix(prefix));
        assert_eq!(found(&[0xfe]).await.unwrap().len(), 1);
        assert_eq!(found(&[0xff]).await.unwrap().len(), 3);
        assert_eq!(found(&[0xff, 0xff]).await.unwrap().len(), 2);
    })
    .await;
}

#[tokio::test]
async fn a_scan_that_finds_too_much_fails() {
    on_every_driver(async |store| {
        store.write(letters()).await.unwrap();
        let scan = |max_bytes| store.scan(Scan { max_bytes, ..Scan::range("", "z") });
        assert_eq!(scan(10).await.unwrap().len(), 5);
        assert!(matches!(scan(9).await, Err(StoreError::ScanTooLarge { max_bytes: 9 })));
    })
    .await;
}

#[tokio::test]
async fn an_exploration_sees_one_state_and_ends_when_it_likes() {
    on_every_driver(async |store| {
        let mut batch = letters();
        batch.put("pointer", "b");
        store.write(batch).await.unwrap();

        let explored = store.explore(|explorer| {
            let start = explorer.get(b"pointer").unwrap().unwrap();
            assert_eq!(explorer.get(b"absent").unwrap(), None);
            let all = explorer.range(start, b"e").unwrap().map(|entry| entry.unwrap());
            let seen: String = all.map(|(key, value)| char::from(if key == value { key[0] } else { b'?' })).collect();
            let first = explorer.range(b"", b"z").unwrap().next().unwrap().unwrap();
            assert_eq!(first, (&b"a"[..], &b"a"[..]));
            for (start, end) in [("d", "b"), ("c", "c"), ("", "a"), ("x", "z")] {
                assert!(explorer.range(start.as_bytes(), end.as_bytes()).unwrap().next().is_none(), "{start}..{end}");
            }
            seen
        });
        assert_eq!(explored.await.unwrap(), "bcd");

        // More often than there are threads: none of them is lost.
        for _time in 0..8 {
            let panicked = store.explore(|_| -> () { panic!("an exploration that panics") });
            assert!(matches!(panicked.await, Err(StoreError::ExplorePanicked)));
        }
        assert!(store.explore(|explorer| explorer.get(b"a").unwrap().is_some()).await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn an_update_reads_more_until_it_knows_enough() {
    on_every_driver(async |store| {
        let mut batch = letters();
        batch.put("pointer", "c");
        store.write(batch).await.unwrap();

        let reads = Reads { keys: vec!["pointer".into()], ranges: vec![Scan::range("d", "f")] };
        let answer = store.update(reads, |view| {
            assert_eq!(view.range(0), [(&b"d"[..], &b"d"[..]), (b"e", b"e")]);
            let target = Bytes::copy_from_slice(view.get(0).unwrap());
            if view.key_count() == 1 {
                return Decision::ReadMore(Reads { keys: vec![target], ranges: vec![Scan::prefix("a")] });
            }
            assert_eq!(view.range(1).len(), 1);
            assert_eq!(view.key(&target), view.get(1));
            Decision::Commit(put(target, "seen"), view.range_count())
        });
        assert_eq!(answer.await.unwrap(), 2);
        assert_eq!(store.get(vec!["c".into()]).await.unwrap(), [Some("seen".into())]);
    })
    .await;
}

#[tokio::test]
async fn an_update_that_fails_writes_nothing_and_hurts_nobody() {
    on_every_driver(async |store| {
        let panicking = |view: &View<'_>| Decision::Skip(view.key(b"not declared").is_some());
        let error = store.update(Reads::default(), panicking).await.unwrap_err();
        assert!(matches!(error, StoreError::DecidePanicked), "{error}");

        let endless = |_: &View<'_>| Decision::<()>::ReadMore(Reads::default());
        let error = store.update(Reads::default(), endless).await.unwrap_err();
        assert!(matches!(error, StoreError::TooManyReads), "{error}");

        let bad_key = |_: &View<'_>| Decision::Commit(put(vec![b'k'; MAX_KEY_BYTES + 1], ""), ());
        let error = store.update(Reads::default(), bad_key).await.unwrap_err();
        assert!(matches!(error, StoreError::KeyTooLong { bytes: 1983 }), "{error}");

        let scan = Scan { max_bytes: 0, ..Scan::range("", "z") };
        store.write(letters()).await.unwrap();
        let too_large = store.update(Reads { keys: Vec::new(), ranges: vec![scan] }, |_| Decision::Skip(()));
        assert!(matches!(too_large.await, Err(StoreError::ScanTooLarge { max_bytes: 0 })));

        store.write(put("still", "alive")).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn impossible_batches_are_refused_among_good_ones() {
    on_every_driver(async |store| {
        let longest = vec![b'k'; MAX_KEY_BYTES];
        let (good, too_long, empty, too_large) = tokio::join!(
            store.write(put(longest.clone(), "")),
            store.write(put(vec![b'k'; MAX_KEY_BYTES + 1], "")),
            store.write(put("", "value")),
            store.write(put("large", vec![0; MAX_BATCH_BYTES])),
        );
        good.unwrap();
        assert_eq!(too_long.unwrap_err().code(), "key_too_long");
        assert_eq!(empty.unwrap_err().code(), "key_empty");
        assert_eq!(too_large.unwrap_err().code(), "batch_too_large");
        assert_eq!(store.scan(Scan::range("", "z")).await.unwrap(), [(longest.into(), Bytes::new())]);
    })
    .await;
}

#[tokio::test]
async fn lazy_batches_are_seen_by_whatever_comes_later() {
    on_every_driver(async |store| {
        store.write_lazy(put("key", "1")).unwrap();
        let seen = store.update(Reads::keys(["key".into()]), |view| Decision::Skip(view.get(0).is_some()));
        assert!(seen.await.unwrap());

        store.write_lazy(put("key", "2")).unwrap();
        store.write(put("key", "3")).await.unwrap();
        assert_eq!(store.get(vec!["key".into()]).await.unwrap(), [Some("3".into())]);

        // Alone, it is written after a while.
        store.write_lazy(put("key", "4")).unwrap();
        let arrives = async {
            while store.get(vec!["key".into()]).await.unwrap() != [Some("4".into())] {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), arrives).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_closed_store_says_so() {
    on_every_driver(async |store| {
        store.write_lazy(put("key", "value")).unwrap();
        store.close().await;
        store.close().await;
        assert_eq!(store.write(letters()).await.unwrap_err().code(), "closed");
        assert_eq!(store.write_lazy(letters()).unwrap_err().code(), "closed");
        assert_eq!(store.get(Vec::new()).await.unwrap_err().code(), "closed");
        let update = store.update(Reads::default(), |_| Decision::Skip(()));
        assert_eq!(update.await.unwrap_err().code(), "closed");
        assert_eq!(store.explore(|_| ()).await.unwrap_err().code(), "closed");
    })
    .await;
}

/// Money moves between accounts at random; none is made, none is lost, and no account is overdrawn.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn transfers_keep_the_sum() {
    const ACCOUNTS: u64 = 8;
    const START: u64 = 100;

    fn amount(view: &View<'_>, index: usize) -> u64 {
        u64::from_be_bytes(view.get(index).unwrap().try_into().unwrap())
    }

    async fn transfer(store: &Store, from: u64, to: u64, wanted: u64) {
        let accounts = [from, to].map(|account| Bytes::from(format!("account {account}")));
        let decide = move |view: &View<'_>| {
            if from == to || amount(view, 0) < wanted {
                return Decision::Skip(());
            }
            let mut batch = Batch::new();
            batch.put(format!("account {from}"), (amount(view, 0) - wanted).to_be_bytes().to_vec());
            batch.put(format!("account {to}"), (amount(view, 1) + wanted).to_be_bytes().to_vec());
            Decision::Commit(batch, ())
        };
        store.update(Reads::keys(accounts), decide).await.unwrap();
    }

    on_every_driver(async |store| {
        let store = Arc::new(store);
        for account in 0..ACCOUNTS {
            store.write(put(format!("account {account}"), START.to_be_bytes().to_vec())).await.unwrap();
        }
        let clients: Vec<_> = (0..16u64)
            .map(|client| {
                let store = store.clone();
                tokio::spawn(async move {
                    // A poor man's random numbers: the same in every run, different in every client.
                    let mut random = client * 7919 + 1;
                    for _ in 0..50 {
                        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                        transfer(&store, random >> 33 & 7, random >> 40 & 7, random >> 50 & 63).await;
                    }
                })
            })
            .collect();
        for client in clients {
            client.await.unwrap();
        }
        let balances = store.scan(Scan::prefix("account ")).await.unwrap();
        let sum: u64 = balances.iter().map(|(_, value)| u64::from_be_bytes(value[..].try_into().unwrap())).sum();
        assert_eq!(sum, ACCOUNTS * START);
    })
    .await;
}

/// A step of a random history.
#[derive(Debug, Clone)]
enum Step {
    Write(Vec<Change>),
    WriteLazy(Vec<Change>),
    /// Writes the changes if the key is there, or else nothing.
    UpdateIf(Bytes, Vec<Change>),
    Get(Vec<Bytes>),
    Scan(Scan),
}

#[derive(Debug, Clone)]
enum Change {
    Put(Bytes, Bytes),
    Delete(Bytes),
    DeleteRange(Bytes, Bytes),
}

fn key() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        // Few different ones, so that steps meet.
        4 => prop::collection::vec(prop::sample::select(vec![0, 1, 0xfe, 0xff]), 1..4).prop_map(Bytes::from),
        1 => (0..4u8, MAX_KEY_BYTES - 3..=MAX_KEY_BYTES).prop_map(|(byte, length)| vec![byte; length].into()),
    ]
}

fn value() -> impl Strategy<Value = Bytes> {
    // Around the sizes at which LMDB changes how it stores: inline, one page, more.
    (any::<u8>(), prop_oneof![0..50usize, 2000..2100usize, 4000..4200usize, 9000..9100usize])
        .prop_map(|(byte, length)| vec![byte; length].into())
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let change = prop_oneof![
        6 => (key(), value()).prop_map(|(key, value)| Change::Put(key, value)),
        2 => key().prop_map(Change::Delete),
        1 => (key(), key()).prop_map(|(start, end)| Change::DeleteRange(start, end)),
    ];
    prop::collection::vec(change, 0..8)
}

fn step() -> impl Strategy<Value = Step> {
    let scan = (key(), key(), any::<bool>(), prop_oneof![0..4usize, Just(usize::MAX)])
        .prop_map(|(start, end, reverse, limit)| Scan { reverse, limit, ..Scan::range(start, end) });
    prop_oneof![
        4 => changes().prop_map(Step::Write),
        1 => changes().prop_map(Step::WriteLazy),
        2 => (key(), changes()).prop_map(|(key, changes)| Step::UpdateIf(key, changes)),
        1 => prop::collection::vec(key(), 0..4).prop_map(Step::Get),
        2 => scan.prop_map(Step::Scan),
    ]
}

fn batch(changes: &[Change]) -> Batch {
    let mut batch = Batch::new();
    for change in changes.iter().cloned() {
        match change {
            Change::Put(key, value) => batch.put(key, value),
            Change::Delete(key) => batch.delete(key),
            Change::DeleteRange(start, end) => batch.delete_range(start, end),
        }
    }
    batch
}

fn change_model(model: &mut BTreeMap<Bytes, Bytes>, changes: &[Change]) {
    for change in changes.iter().cloned() {
        match change {
            Change::Put(key, value) => drop(model.insert(key, value)),
            Change::Delete(key) => drop(model.remove(&key)),
            Change::DeleteRange(start, end) => model.retain(|key, _| *key < start || *key >= end),
        }
    }
}

fn scan_model(model: &BTreeMap<Bytes, Bytes>, scan: &Scan) -> Vec<(Bytes, Bytes)> {
    let inside = model.iter().filter(|(key, _)| **key >= scan.start && **key < scan.end);
    let mut found: Vec<_> = inside.map(|(key, value)| (key.clone(), value.clone())).collect();
    if scan.reverse {
        found.reverse();
    }
    found.truncate(scan.limit);
    found
}

async fn history_matches_model(store: Store, steps: &[Step]) {
    let mut model = BTreeMap::new();
    // Whether a lazy batch may not be visible to plain reads yet.
    let mut lazy = false;
    for step in steps {
        match step {
            Step::Write(changes) => {
                store.write(batch(changes)).await.unwrap();
                change_model(&mut model, changes);
                lazy = false;
            }
            Step::WriteLazy(changes) => {
                store.write_lazy(batch(changes)).unwrap();
                change_model(&mut model, changes);
                lazy = true;
            }
            Step::UpdateIf(key, changes) => {
                let batch = batch(changes);
                let update = store.update(Reads::keys([key.clone()]), move |view| match view.get(0) {
                    Some(_) => Decision::Commit(batch.clone(), true),
                    None => Decision::Skip(false),
                });
                let there = update.await.unwrap();
                assert_eq!(there, model.contains_key(key));
                if there {
                    change_model(&mut model, changes);
                }
                lazy = false;
            }
            Step::Get(keys) if !lazy => {
                let expected: Vec<_> = keys.iter().map(|key| model.get(key).cloned()).collect();
                assert_eq!(store.get(keys.clone()).await.unwrap(), expected);
            }
            Step::Scan(scan) if !lazy => {
                assert_eq!(store.scan(scan.clone()).await.unwrap(), scan_model(&model, scan));
            }
            Step::Get(_) | Step::Scan(_) => {}
        }
    }
    store.write(Batch::new()).await.unwrap();
    let everything = Scan { max_bytes: usize::MAX, ..Scan::prefix("") };
    assert_eq!(store.scan(everything).await.unwrap(), Vec::from_iter(model));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn random_histories_match_the_model(steps in prop::collection::vec(step(), 1..60)) {
        runtime().block_on(on_every_driver(async |store| history_matches_model(store, &steps).await));
    }
}
