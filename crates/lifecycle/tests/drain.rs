//! Emptying a host (`spec/scheduling.md` 8.2).

use std::collections::BTreeMap;

use lifecycle::Ts;
use lifecycle::drain::{CATCH_UP_MAX_MS, Drain, Hosted};
use lifecycle::eviction::EvictionPace;
use proptest::collection::vec;
use proptest::prelude::*;
use protocol::id::{ActorId, Id};

type Actors = BTreeMap<ActorId, u32>;

fn actor(number: u32) -> ActorId {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    Id::from_parts(bytes, 1)
}

fn actors(count: u32) -> Actors {
    (0..count).map(|number| (actor(number), 1)).collect()
}

fn pace(delay_s: u32, period_s: u32, rate_per_s: Option<f32>) -> EvictionPace {
    EvictionPace { delay_s, period_s, rate_per_s }
}

/// Looks exactly when the drain wants it, until it has nothing more to do; returns who went when.
fn run(drain: &mut Drain, hosted: &Actors) -> Vec<(Ts, Hosted)> {
    let mut went = Vec::new();
    while let Some(now) = drain.next_look() {
        let due = drain.advance(now, hosted);
        went.extend(due.into_iter().map(|one| (now, one)));
    }
    went
}

fn times(drain: &mut Drain, hosted: &Actors) -> Vec<Ts> {
    run(drain, hosted).into_iter().map(|(at, _)| at).collect()
}

#[test]
fn paces_of_the_specification() {
    let due = |delay_s, period_s, rate_per_s, count| {
        times(&mut Drain::begin(pace(delay_s, period_s, rate_per_s), 1_000_000, None), &actors(count))
            .into_iter()
            .map(|at| at - 1_000_000)
            .collect::<Vec<_>>()
    };
    assert_eq!(due(2, 60, Some(1.0), 6), [2000, 3000, 4000, 5000, 6000, 7000]);
    assert_eq!(due(1, 3, Some(1.0), 6), [1000, 1500, 2000, 2500, 3000, 3500]);
    assert_eq!(due(0, 100, Some(4.0), 6), [0, 250, 500, 750, 1000, 1250]);
    assert_eq!(due(0, 0, None, 3), [0, 0, 0]);
    assert_eq!(due(0, 0, Some(3.0), 4), [0, 334, 667, 1000], "fractions of milliseconds add up");
    assert_eq!(due(0, 60, Some(0.0), 2), [0, 0]);
    assert!(due(5, 60, None, 0).is_empty());
}

#[test]
fn who_is_there_after_the_delay_is_listed() {
    let mut drain = Drain::begin(pace(2, 4, Some(1.0)), 0, None);
    assert!(drain.advance(1_999, &actors(1)).is_empty());
    drain.arrived((actor(1), 1), 1_999);
    assert_eq!(times(&mut drain, &actors(8)), [2000, 2500, 3000, 3500, 4000, 4500, 5000, 5500]);
}

#[test]
fn who_has_left_needs_no_turn() {
    let mut hosted = actors(4);
    let mut drain = Drain::begin(pace(0, 0, Some(1.0)), 0, None);
    assert_eq!(drain.advance(0, &hosted), [(actor(0), 1)]);
    hosted.remove(&actor(1));
    // It slept and is back: this is somebody else.
    hosted.insert(actor(2), 2);
    assert_eq!(drain.advance(1_000, &hosted), [(actor(3), 1)]);
    assert_eq!(drain.next_look(), None);
}

#[test]
fn latecomers_go_last_and_once() {
    let mut hosted = actors(2);
    let mut drain = Drain::begin(pace(0, 0, Some(1.0)), 0, None);
    assert_eq!(drain.advance(0, &hosted), [(actor(0), 1)]);
    hosted.insert(actor(9), 1);
    drain.arrived((actor(9), 1), 10);
    drain.arrived((actor(0), 1), 10);
    drain.arrived((actor(9), 1), 20);
    assert_eq!(run(&mut drain, &hosted), [(1_000, (actor(1), 1)), (2_000, (actor(9), 1))]);
    // Long after the end there is nothing to make up for, and the pace holds among those who come late together.
    hosted.extend([(actor(10), 1), (actor(11), 1)]);
    drain.arrived((actor(10), 1), 60_000);
    drain.arrived((actor(11), 1), 60_001);
    assert_eq!(run(&mut drain, &hosted), [(60_000, (actor(10), 1)), (61_000, (actor(11), 1))]);
}

#[test]
fn a_host_that_comes_back_goes_on_where_it_was() {
    let hosted = actors(4);
    let mut drain = Drain::begin(pace(1, 0, Some(1.0)), 0, None);
    assert_eq!(drain.advance(1_000, &hosted), [(actor(0), 1)]);
    drain.pause();
    assert_eq!(drain.next_look(), None);
    assert!(drain.advance(5_000, &hosted).is_empty(), "nobody is told to go while nobody can hear it");
    drain.resume(5_100);
    assert_eq!(run(&mut drain, &hosted), [(5_100, (actor(1), 1)), (6_100, (actor(2), 1)), (7_100, (actor(3), 1))]);

    let mut short = Drain::begin(pace(1, 0, Some(1.0)), 0, None);
    short.advance(1_000, &hosted);
    short.pause();
    short.resume(1_300);
    assert_eq!(times(&mut short, &hosted), [2_000, 3_000, 4_000], "a short absence changes nothing");
}

#[test]
fn the_next_drain_keeps_to_the_pace_of_the_one_before() {
    let hosted = actors(3);
    let slow = pace(0, 0, Some(0.5));
    let mut first = Drain::begin(slow, 0, None);
    assert_eq!(first.free_at(), None);
    first.advance(0, &hosted);
    let mut second = Drain::begin(slow, 500, first.free_at());
    assert_eq!(times(&mut second, &hosted), [2_000, 4_000, 6_000]);
    let mut much_later = Drain::begin(slow, 9_000, second.free_at());
    assert_eq!(times(&mut much_later, &hosted), [9_000, 11_000, 13_000]);
}

fn any_pace() -> impl Strategy<Value = EvictionPace> {
    let rate = prop_oneof![Just(None), (0.2f32..2_000.0).prop_map(Some)];
    (0u32..3, 0u32..20, rate).prop_map(|(delay_s, period_s, rate_per_s)| EvictionPace { delay_s, period_s, rate_per_s })
}

/// What happens to a host that is being emptied.
#[derive(Debug, Clone)]
enum Happening {
    /// The drain is looked after this late, in milliseconds.
    Look { late: Ts },
    /// The host is away for this long.
    Absence { ms: Ts },
    /// One comes that was on its way.
    Arrival,
    /// One leaves by itself.
    Departure,
    /// One goes to sleep and is started there again.
    Return,
}

fn any_happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        8 => (0i64..10).prop_map(|late| Happening::Look { late }),
        1 => (0i64..5_000).prop_map(|late| Happening::Look { late }),
        1 => (0i64..5_000).prop_map(|ms| Happening::Absence { ms }),
        1 => Just(Happening::Arrival),
        1 => Just(Happening::Departure),
        1 => Just(Happening::Return),
    ]
}

proptest! {
    #[test]
    fn undisturbed_it_takes_no_longer_than_asked_for(pace in any_pace(), count in 1u32..200) {
        let mut drain = Drain::begin(pace, 0, None);
        let went = run(&mut drain, &actors(count));
        prop_assert_eq!(went.len(), count as usize);
        let took_ms = (went[went.len() - 1].0 - pace.delay_ms()) as f64;
        prop_assert_eq!(went[0].0, pace.delay_ms());
        if let Some(rate) = pace.rate_per_s {
            prop_assert!(took_ms <= f64::from(count) * 1000.0 / f64::from(rate) + 1.0);
        }
        if pace.period_s > 0 {
            prop_assert!(took_ms <= f64::from(pace.period_s) * 1000.0);
        }
        if pace.rate_per_s.is_none() && pace.period_s == 0 {
            prop_assert_eq!(took_ms, 0.0);
        }
    }

    #[test]
    fn whatever_happens_the_pace_holds_and_everybody_goes_once(
        pace in any_pace(), count in 0u32..60, happenings in vec(any_happening(), 0..200),
    ) {
        let mut hosted = actors(count);
        let mut listed_gap = None;
        let mut drain = Drain::begin(pace, 0, None);
        let mut now = 0;
        let mut newcomers = 1_000;
        let mut went: Vec<(Ts, Hosted)> = Vec::new();
        // In the end it is looked after for as long as there is something to do.
        let rest = std::iter::repeat_n(Happening::Look { late: 0 }, 400);
        for happening in happenings.into_iter().chain(rest) {
            match happening {
                Happening::Look { late } => {
                    let Some(look) = drain.next_look() else { continue };
                    now = now.max(look) + late;
                    listed_gap.get_or_insert(pace.gap_ms(hosted.len()));
                    let due = drain.advance(now, &hosted);
                    went.extend(due.into_iter().map(|one| (now, one)));
                }
                Happening::Absence { ms } => {
                    drain.pause();
                    now += ms;
                    prop_assert!(drain.advance(now, &hosted).is_empty());
                    drain.resume(now);
                }
                Happening::Arrival => {
                    newcomers += 1;
                    hosted.insert(actor(newcomers), 1);
                    drain.arrived((actor(newcomers), 1), now);
                }
                Happening::Departure => drop(hosted.pop_first()),
                Happening::Return => {
                    if let Some(mut first) = hosted.first_entry() {
                        *first.get_mut() += 1;
                        let returned = (*first.key(), *first.get());
                        drain.arrived(returned, now);
                    }
                }
            }
        }
        prop_assert_eq!(drain.next_look(), None, "it ends");
        let mut once: Vec<Hosted> = went.iter().map(|(_, one)| *one).collect();
        once.sort_unstable();
        let told = once.len();
        once.dedup();
        prop_assert_eq!(told, once.len(), "nobody is told twice");
        for one in hosted {
            prop_assert!(once.binary_search(&one).is_ok(), "nobody who is still there was forgotten");
        }
        // In no window more than the pace allows, give or take what may be made up for after a delay.
        let gap_ms = listed_gap.unwrap_or(0.0);
        if gap_ms > 0.0 {
            for (first, (from, _)) in went.iter().enumerate() {
                for (further, (to, _)) in went[first..].iter().enumerate() {
                    let window_ms = (to - from + CATCH_UP_MAX_MS + 1) as f64;
                    prop_assert!(further as f64 <= window_ms / gap_ms + 1e-6, "{} within {} ms", further + 1, to - from);
                }
            }
        }
    }
}
