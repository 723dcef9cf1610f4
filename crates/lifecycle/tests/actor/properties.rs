//! Long random histories, with real limits and any times between what happens.

use lifecycle::Ts;
use lifecycle::actor::{ActorRecord, EventKind, Input, Outcome, Phase, Step};
use lifecycle::pool::PoolError;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::invariants::{Made, check, strangers};
use crate::scene::{
    NOW, Room, bad_gateway, crashed, host, host_found, host_lost, its_host, new_actor, next_event, outbound_failed, step_at,
    stopped,
};
use crate::walk::{essence, short_step};

/// Something happens some time after what happened before.
#[derive(Debug, Clone)]
struct Happening {
    after_ms: Ts,
    room: Room,
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
    /// The present generation's host is lost.
    Lost,
    /// A host comes forward for the present generation.
    Found,
    /// The present generation's request fails.
    Failed(PoolError),
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
        1 => any::<Ts>().prop_map(|ts| EventKind::SetAlarm(Some(ts))),
    ]
}

fn any_host() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("a"), Just("b")]
}

fn any_room() -> impl Strategy<Value = Room> {
    prop_oneof![
        3 => any_host().prop_map(Room::On),
        3 => Just(Room::Endpoint),
        3 => Just(Room::NoHosts),
        1 => Just(Room::Limit),
        1 => Just(Room::Failing),
        1 => Just(Room::EngineStops),
    ]
}

fn any_pool_error() -> impl Strategy<Value = PoolError> {
    prop_oneof![
        Just(bad_gateway()),
        Just(PoolError::StreamEndedEarly),
        Just(PoolError::ConnectionError { message: "refused".into() }),
        Just(PoolError::DestinationBlocked { reason: "private".into() }),
        Just(PoolError::Downgrade),
        Just(PoolError::InternalError),
    ]
}

fn any_input() -> impl Strategy<Value = Input> {
    let generation = 0..6_u32;
    prop_oneof![
        4 => Just(Input::Wake),
        2 => Just(Input::DeadlineReached),
        2 => Just(Input::CapacityArrived),
        2 => Just(Input::Sleep),
        2 => Just(Input::Reschedule),
        // Out of nowhere: of any generation, host and index.
        1 => (any_host(), generation.clone()).prop_map(|(name, generation)| Input::HostLost { host: host(name), generation }),
        1 => (any_host(), generation.clone()).prop_map(|(name, generation)| Input::HostFound { host: host(name), generation }),
        1 => (any_pool_error(), generation.clone()).prop_map(|(error, generation)| Input::OutboundFailed { generation, error }),
        1 => generation.clone().prop_map(|generation| Input::Evict { generation }),
        4 => (any_host(), generation.clone(), -2..8_i64, any_kind())
            .prop_map(|(name, generation, index, kind)| Input::Event { host: host(name), generation, index, kind }),
        1 => (any_host(), generation, any::<i64>())
            .prop_map(|(name, generation, index)| Input::CommandsAcked { host: host(name), generation, index }),
    ]
}

fn any_what() -> impl Strategy<Value = What> {
    prop_oneof![
        4 => any_input().prop_map(What::Input),
        6 => (any_kind(), 0..4_i64).prop_map(|(kind, skip)| What::Event { kind, skip }),
        1 => Just(What::Evict),
        1 => Just(What::Lost),
        2 => Just(What::Found),
        1 => any_pool_error().prop_map(What::Failed),
        1 => Just(What::Ack),
        3 => Just(What::Deadline),
    ]
}

fn happenings(longest_pause_ms: Ts) -> impl Strategy<Value = Vec<Happening>> {
    let after_ms = prop_oneof![Just(0), 0..=longest_pause_ms.min(100), 0..=longest_pause_ms];
    let happening = (after_ms, any_room(), any_what()).prop_map(|(after_ms, room, what)| Happening { after_ms, room, what });
    vec(happening, 0..60)
}

/// A quarter of an hour: longer than every limit but the stop threshold.
const LONG_PAUSE_MS: Ts = 900_000;

/// The input that happens, and when.
fn resolve(record: &ActorRecord, now: Ts, what: &What) -> (Input, Ts) {
    let input = match what {
        What::Input(input) => input.clone(),
        What::Event { kind, skip } => {
            let index = record.last_event_index + 1 + skip;
            Input::Event { host: its_host(record), generation: record.generation, index, kind: kind.clone() }
        }
        What::Evict => Input::Evict { generation: record.generation },
        What::Lost => host_lost(record),
        What::Found => host_found(record),
        What::Failed(error) => outbound_failed(record, error.clone()),
        What::Ack => {
            Input::CommandsAcked { host: its_host(record), generation: record.generation, index: record.last_command_index }
        }
        What::Deadline => {
            let due = record.next_deadline().filter(|due| *due < now + LONG_PAUSE_MS).map_or(now, |due| due.max(now));
            return (Input::DeadlineReached, due);
        }
    };
    (input, now)
}

fn checked_step(now: Ts, record: &ActorRecord, input: &Input, room: Room) -> Step {
    let step = step_at(now, record, input, room);
    check(&Made { before: record, input, room, now, step: &step });
    step
}

/// Lets things happen, checking every step.
fn run(mut record: ActorRecord, mut now: Ts, happenings: &[Happening]) -> (ActorRecord, Ts) {
    for Happening { after_ms, room, what } in happenings {
        let (input, at) = resolve(&record, now + after_ms, what);
        now = at;
        record = checked_step(now, &record, &input, *room).record;
    }
    for stranger in strangers(&record, now) {
        let step = checked_step(now, &record, &stranger, Room::On("b"));
        assert!(matches!(step.outcome, Outcome::Ignored(_)), "{stranger:?} in {record:#?}");
    }
    (record, now)
}

/// From here on nothing happens but the passing of time.
fn time_passes(mut record: ActorRecord, mut now: Ts, deadlines: usize, room: Room) -> (ActorRecord, Ts) {
    for _deadline in 0..deadlines {
        let Some(deadline) = record.next_deadline() else { break };
        now = now.max(deadline);
        record = checked_step(now, &record, &Input::DeadlineReached, room).record;
    }
    (record, now)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_start_and_no_stop_hangs(happenings in happenings(LONG_PAUSE_MS)) {
        let (record, now) = run(new_actor(), NOW, &happenings);
        let (record, _) = time_passes(record, now, 1, Room::NoHosts);
        let hangs = matches!(record.phase, Phase::Starting { .. } | Phase::Stopping { .. });
        prop_assert!(!hangs, "{:?}", record);
    }

    #[test]
    fn an_actor_without_alarm_comes_to_rest(happenings in happenings(LONG_PAUSE_MS)) {
        let (record, now) = run(new_actor(), NOW, &happenings);
        let without_alarm = ActorRecord { alarm_ts: None, served_alarm_ts: None, ..record };
        let (record, _) = time_passes(without_alarm, now, 20, Room::NoHosts);
        prop_assert_eq!(record.next_deadline(), None, "{:?}", record);
    }

    #[test]
    fn destruction_once_asked_for_comes(
        before in happenings(LONG_PAUSE_MS),
        after in happenings(LONG_PAUSE_MS),
        hosts_there: bool,
    ) {
        let (record, now) = run(new_actor(), NOW, &before);
        let asked = checked_step(now, &record, &Input::Destroy, Room::NoHosts).record;
        let (record, now) = run(asked, now, &after);
        // The start's deadline, or the stop's.
        let room = if hosts_there { Room::On("b") } else { Room::NoHosts };
        let (record, _) = time_passes(record, now, 1, room);
        prop_assert!(record.is_destroyed(), "{:?}", record);
    }

    #[test]
    fn an_alarm_fires_late_but_fires(
        before in happenings(LONG_PAUSE_MS),
        alarm_in_ms in 0..1_000_000_i64,
        after in happenings(LONG_PAUSE_MS),
    ) {
        let (record, now) = run(new_actor(), NOW, &before);
        let (mut record, now) = run(record, now, &[
            Happening { after_ms: 0, room: Room::On("a"), what: What::Input(Input::Wake) },
            Happening { after_ms: 0, room: Room::NoHosts, what: What::Found },
            Happening { after_ms: 0, room: Room::NoHosts, what: What::Event { kind: EventKind::Running, skip: 0 } },
        ]);
        prop_assume!(matches!(record.phase, Phase::Running { .. }));
        let alarm = now + alarm_in_ms;
        record = checked_step(now, &record, &next_event(&record, EventKind::SetAlarm(Some(alarm))), Room::NoHosts).record;
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
        if waiting && !record.is_placed() {
            let (started, at) = time_passes(record.clone(), now, 2, Room::On("b"));
            prop_assert!(started.generation > record.generation, "{:?}", started);
            prop_assert!(at >= alarm || record.reschedule_ts().is_some(), "{:?} was early", started);
        }
    }

    /// What the walk through all states takes for the same state behaves the same.
    #[test]
    fn the_essence_of_a_record_decides(happenings in happenings(4)) {
        let (mut record, mut now) = (new_actor(), NOW);
        for Happening { after_ms, room, what } in &happenings {
            now += after_ms;
            let (input, _) = resolve(&record, now, what);
            let in_essence = essence(&record, now);
            let (same_input, _) = resolve(&in_essence, NOW, &at_now(what, NOW - now));
            if is_of_the_present(what) {
                let whole = short_step(now, &record, &input, *room);
                let reduced = short_step(NOW, &in_essence, &same_input, *room);
                prop_assert_eq!(essence(&whole.record, now), essence(&reduced.record, NOW), "{:?} in {:?}", input, record);
                let said = |step: &Step| step.commands.iter().map(|command| (command.command, command.index)).collect::<Vec<_>>();
                prop_assert_eq!(said(&whole), said(&reduced));
                prop_assert_eq!(is_ignored(&whole, what), is_ignored(&reduced, what), "{:?} in {:?}", input, record);
            }
            record = short_step(now, &record, &input, *room).record;
        }
    }
}

/// Inputs that name a generation or index outright mean something else in the essence, which counts anew.
fn is_of_the_present(what: &What) -> bool {
    match what {
        What::Input(input) => matches!(
            input,
            Input::Wake | Input::DeadlineReached | Input::CapacityArrived | Input::Sleep | Input::Reschedule | Input::Destroy
        ),
        What::Event { .. } | What::Evict | What::Lost | What::Found | What::Failed(_) | What::Ack | What::Deadline => true,
    }
}

/// Whether a step was ignored. The essence forgets acknowledgements.
fn is_ignored(step: &Step, what: &What) -> bool {
    matches!(step.outcome, Outcome::Ignored(_)) && !matches!(what, What::Ack)
}

/// The same happening at another time.
fn at_now(what: &What, shift: Ts) -> What {
    if let What::Event { kind: EventKind::SetAlarm(Some(ts)), skip } = what {
        return What::Event { kind: EventKind::SetAlarm(Some(ts.saturating_add(shift))), skip: *skip };
    }
    what.clone()
}
