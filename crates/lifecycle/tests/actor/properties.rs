//! Long random sequences, and what must come of them in the end.

use lifecycle::Ts;
use lifecycle::actor::{ActorRecord, EventKind, Input, Phase};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::invariants::{check, check_strangers_are_ignored};
use crate::scene::{NOW, crashed, host, new_actor, next_event, step_at, stopped};

/// Something happens some time after what happened before.
#[derive(Debug, Clone)]
struct Happening {
    after_ms: Ts,
    candidate: Option<&'static str>,
    what: What,
}

#[derive(Debug, Clone)]
enum What {
    /// An input as it is.
    Input(Input),
    /// An event of whatever generation is the present one, `skip` places further on.
    Event { kind: EventKind, skip: i64 },
    /// The present generation's host empties itself.
    Evict,
    /// The present host acknowledges what it got.
    Ack,
    /// Time passes until the deadline.
    Deadline,
}

fn any_kind() -> impl Strategy<Value = EventKind> {
    prop_oneof![
        4 => Just(EventKind::Running),
        1 => Just(stopped()),
        2 => Just(crashed()),
        2 => Just(EventKind::IntentSleep),
        1 => Just(EventKind::IntentStop),
        2 => (NOW - 1_000..NOW + 1_000_000).prop_map(|ts| EventKind::SetAlarm(Some(ts))),
        1 => Just(EventKind::SetAlarm(None)),
    ]
}

fn any_host() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("a"), Just("b")]
}

fn any_input() -> impl Strategy<Value = Input> {
    prop_oneof![
        4 => Just(Input::Wake),
        2 => Just(Input::DeadlineReached),
        2 => Just(Input::CapacityArrived),
        2 => Just(Input::Sleep),
        2 => Just(Input::Reschedule),
        2 => any_host().prop_map(|name| Input::HostLost { host: host(name) }),
        // Events and acknowledgements out of nowhere: of any generation, host and index.
        4 => (any_host(), 0..6_u32, -2..8_i64, any_kind()).prop_map(|(name, generation, index, kind)| Input::Event {
            host: host(name),
            generation,
            index,
            kind,
        }),
        1 => (any_host(), 0..6_u32, any::<i64>()).prop_map(|(name, generation, index)| Input::CommandsAcked {
            host: host(name),
            generation,
            index,
        }),
    ]
}

fn any_happening() -> impl Strategy<Value = Happening> {
    let what = prop_oneof![
        4 => any_input().prop_map(What::Input),
        6 => (any_kind(), 0..4_i64).prop_map(|(kind, skip)| What::Event { kind, skip }),
        1 => Just(What::Evict),
        1 => Just(What::Ack),
        3 => Just(What::Deadline),
    ];
    let after_ms = prop_oneof![Just(0), 0..100_i64, 0..900_000_i64];
    let candidate = prop_oneof![Just(None), any_host().prop_map(Some)];
    (after_ms, candidate, what).prop_map(|(after_ms, candidate, what)| Happening { after_ms, candidate, what })
}

/// Lets things happen, checking every step.
fn run(mut record: ActorRecord, mut now: Ts, happenings: &[Happening]) -> (ActorRecord, Ts) {
    for Happening { after_ms, candidate, what } in happenings {
        now += after_ms;
        let input = match what {
            What::Input(input) => input.clone(),
            What::Event { kind, skip } => {
                let Input::Event { host, generation, index, kind } = next_event(&record, kind.clone()) else { unreachable!() };
                Input::Event { host, generation, index: index + skip, kind }
            }
            What::Evict => Input::Evict { generation: record.generation },
            What::Ack => Input::CommandsAcked {
                host: record.host().cloned().unwrap_or_else(|| host("a")),
                generation: record.generation,
                index: record.last_command_index,
            },
            What::Deadline => {
                now = record.next_deadline().map_or(now, |deadline| deadline.max(now));
                Input::DeadlineReached
            }
        };
        let stepped = step_at(now, &record, &input, *candidate);
        check(&record, &input, now, &stepped);
        record = stepped.record;
    }
    check_strangers_are_ignored(&record, now);
    (record, now)
}

/// From here on nothing happens but the passing of time.
fn time_passes(mut record: ActorRecord, mut now: Ts, deadlines: usize, candidate: Option<&'static str>) -> (ActorRecord, Ts) {
    for _deadline in 0..deadlines {
        let Some(deadline) = record.next_deadline() else { break };
        now = now.max(deadline);
        let stepped = step_at(now, &record, &Input::DeadlineReached, candidate);
        check(&record, &Input::DeadlineReached, now, &stepped);
        record = stepped.record;
    }
    (record, now)
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    vec(any_happening(), 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_start_and_no_stop_hangs(happenings in happenings()) {
        let (record, now) = run(new_actor(), NOW, &happenings);
        let (record, _) = time_passes(record, now, 1, None);
        let at_rest = matches!(
            record.phase,
            Phase::Running { .. } | Phase::Sleeping | Phase::Reallocating { .. } | Phase::Destroyed
        );
        prop_assert!(at_rest, "{:?}", record);
    }

    #[test]
    fn an_actor_without_alarm_comes_to_rest(happenings in happenings()) {
        let (record, now) = run(new_actor(), NOW, &happenings);
        let without_alarm = ActorRecord { alarm_ts: None, served_alarm_ts: None, ..record };
        let (record, _) = time_passes(without_alarm, now, 20, None);
        prop_assert_eq!(record.next_deadline(), None, "{:?}", record);
    }

    #[test]
    fn destruction_once_asked_for_comes(before in happenings(), after in happenings(), hosts_there: bool) {
        let (record, now) = run(new_actor(), NOW, &before);
        let asked = step_at(now, &record, &Input::Destroy, None).record;
        let (record, now) = run(asked, now, &after);
        // The start's deadline, or the stop's.
        let (record, _) = time_passes(record, now, 1, hosts_there.then_some("b"));
        prop_assert!(record.is_destroyed(), "{:?}", record);
    }

    #[test]
    fn an_alarm_fires_late_but_fires(before in happenings(), alarm_in_ms in 0..1_000_000_i64, after in happenings()) {
        let (record, now) = run(new_actor(), NOW, &before);
        let (mut record, now) = run(record, now, &[
            Happening { after_ms: 0, candidate: Some("a"), what: What::Input(Input::Wake) },
            Happening { after_ms: 0, candidate: None, what: What::Event { kind: EventKind::Running, skip: 0 } },
        ]);
        prop_assume!(matches!(record.phase, Phase::Running { .. }));
        let alarm = now + alarm_in_ms;
        record = step_at(now, &record, &next_event(&record, EventKind::SetAlarm(Some(alarm))), None).record;
        // Hosts come and go, the actor is put to sleep and woken, but it does not speak of alarms again.
        let silent = |happening: &&Happening| !matches!(
            happening.what,
            What::Event { kind: EventKind::SetAlarm(_), .. } | What::Input(Input::Event { .. })
        );
        let after: Vec<Happening> = after.iter().filter(silent).cloned().collect();
        let set_in = record.generation;
        let (record, now) = run(record, now, &after);
        prop_assume!(!record.is_destroyed());
        let waiting = record.alarm_ts == Some(alarm);
        let taken = record.generation > set_in && now >= alarm;
        prop_assert!(waiting || taken, "{:?}", record);
        // Once it is not running, time alone starts it.
        if waiting && record.host().is_none() {
            let (started, at) = time_passes(record, now, 1, Some("b"));
            prop_assert!(matches!(started.phase, Phase::Starting { .. }) , "{:?}", started);
            prop_assert!(at >= alarm || at >= now);
        }
    }
}
