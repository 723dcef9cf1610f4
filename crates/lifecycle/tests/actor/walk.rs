//! Every state that the machine can reach, in whatever number of steps.
//!
//! There are only so many of them, because most numbers in a record do not matter for themselves: times count relative to the
//! present, generations and indices by their order, old timestamps by being there. [`essence`] takes away what does not matter;
//! that it takes away no more is tested with long histories in [`crate::properties`]. The limits are a few milliseconds, which
//! makes every order of deadlines and alarms happen.

use std::collections::{HashSet, VecDeque};

use lifecycle::Ts;
use lifecycle::actor::{ActorError, ActorRecord, EventKind, Input, Outcome, Phase, Rules, Step, may_start};
use lifecycle::pool::PoolError;

use crate::futures::check_futures;
use crate::invariants::{Made, check, strangers};
use crate::scene::{
    NOW, Room, bad_gateway, crashed, host_found, host_lost, its_host, new_actor, next_event, outbound_failed, step_under, stopped,
};

/// Attempts that fail are 1, 2, 4, 4, ... apart.
pub(crate) const SHORT: Rules =
    Rules { start_threshold_ms: 2, retry_base_ms: 1, retry_max_exponent: 2, retry_reset_ms: 6, retry_give_up_ms: 5 };

pub(crate) const SHORT_STOP_THRESHOLD_MS: i64 = 3;

/// How far ahead alarms are set: before and after a start's deadline.
const ALARMS_AHEAD_MS: [i64; 2] = [1, 3];

/// A step under short limits.
pub(crate) fn short_step(now: Ts, record: &ActorRecord, input: &Input, room: Room) -> Step {
    step_under(&SHORT, SHORT_STOP_THRESHOLD_MS, now, record, input, room)
}

/// The record as it would be at [`NOW`], without what makes no difference.
pub(crate) fn essence(record: &ActorRecord, now: Ts) -> ActorRecord {
    let mut essence = record.clone();
    let shift = NOW - now;
    // What is due is due, however long.
    let ahead_or_due = |ts: Ts| ts.saturating_add(shift).max(NOW);
    match &mut essence.phase {
        Phase::Starting { deadline, .. } | Phase::Stopping { deadline, .. } => *deadline = ahead_or_due(*deadline),
        Phase::Reallocating { retry_at } => *retry_at = ahead_or_due(*retry_at),
        Phase::Running { .. } | Phase::Sleeping | Phase::Destroyed => {}
    }
    essence.alarm_ts = record.alarm_ts.map(ahead_or_due);
    let past = |ts: Option<Ts>| ts.map(|_| NOW);
    essence.served_alarm_ts = past(record.served_alarm_ts);
    essence.start_ts = past(record.start_ts);
    essence.connectable_ts = past(record.connectable_ts);
    essence.sleep_ts = past(record.sleep_ts);
    essence.destroy_ts = past(record.destroy_ts);
    // The machine writes errors and never reads them.
    essence.error = record.error.as_ref().map(|_| ActorError::NoEnvoys);
    essence.generation = record.generation.min(1);
    essence.last_event_index = record.last_event_index.min(0);
    // Acknowledgements have no effect on anything else.
    essence.acked_command_index = -1;
    if !record.is_placed() {
        essence.last_command_index = 0;
    }
    let retry = &mut essence.retry;
    if record.retry.last_ts < now - SHORT.retry_reset_ms {
        (retry.count, retry.last_ts) = (0, 0);
    } else {
        (retry.count, retry.last_ts) = (retry.count.min(SHORT.retry_max_exponent), retry.last_ts + shift);
    }
    if retry.first_failure_ts != 0 {
        retry.first_failure_ts = (retry.first_failure_ts + shift).max(NOW - SHORT.retry_give_up_ms);
    }
    essence
}

/// Everything that may happen now, with everybody who may be there to take the actor.
fn happenings(record: &ActorRecord) -> Vec<(Input, Room)> {
    let mut happenings = Vec::new();
    for room in [Room::On("a"), Room::On("b"), Room::Endpoint, Room::NoHosts, Room::Limit, Room::Failing, Room::EngineStops] {
        let may_start = [
            Input::Wake,
            Input::DeadlineReached,
            Input::CapacityArrived,
            host_lost(record),
            outbound_failed(record, bad_gateway()),
            outbound_failed(record, PoolError::StreamEndedEarly),
            next_event(record, stopped()),
            next_event(record, crashed()),
        ];
        happenings.extend(may_start.map(|input| (input, room)));
    }
    let never_start = [
        Input::Sleep,
        Input::Reschedule,
        Input::Destroy,
        Input::Evict { generation: record.generation },
        host_found(record),
        next_event(record, EventKind::Running),
        next_event(record, EventKind::IntentSleep),
        next_event(record, EventKind::IntentStop),
        next_event(record, EventKind::SetAlarm(None)),
        next_event(record, EventKind::SetAlarm(Some(NOW))),
        next_event(record, EventKind::SetAlarm(Some(NOW + ALARMS_AHEAD_MS[0]))),
        next_event(record, EventKind::SetAlarm(Some(NOW + ALARMS_AHEAD_MS[1]))),
        Input::CommandsAcked { host: its_host(record), generation: record.generation, index: record.last_command_index },
    ];
    happenings.extend(never_start.map(|input| (input, Room::On("b"))));
    happenings
}

#[test]
fn every_state_that_can_be_reached_keeps_the_rules() {
    let new = essence(&new_actor(), NOW);
    let mut seen = HashSet::from([new.clone()]);
    let mut unexplored = VecDeque::from([new]);
    let mut steps = 0;
    while let Some(record) = unexplored.pop_front() {
        let mut next = vec![essence(&record, NOW + 1)];
        for (input, room) in happenings(&record) {
            let step = short_step(NOW, &record, &input, room);
            check(&Made { before: &record, input: &input, room, now: NOW, step: &step });
            check_may_start(&record, &input, room, &step);
            steps += 1;
            next.push(essence(&step.record, NOW));
        }
        for stranger in strangers(&record, NOW) {
            let step = short_step(NOW, &record, &stranger, Room::On("b"));
            assert!(matches!(step.outcome, Outcome::Ignored(_)), "{stranger:?} in {record:#?}");
            assert!(!may_start(&record, &stranger, NOW), "{stranger:?} in {record:#?}");
        }
        check_futures(&record);
        unexplored.extend(next.into_iter().filter(|record| seen.insert(record.clone())));
    }
    println!("{} states, {steps} steps", seen.len());
    // A walk that ends early proves nothing.
    assert!(seen.len() > 20_000, "only {} states", seen.len());
}

/// A place is offered for every input for which it matters, and for none that is ignored.
fn check_may_start(record: &ActorRecord, input: &Input, room: Room, step: &Step) {
    let is_offered = may_start(record, input, NOW);
    let makes_no_difference = || *step == short_step(NOW, record, input, Room::NoHosts);
    assert!(is_offered || makes_no_difference(), "{input:?} in {record:#?}");
    let has_room = matches!(room, Room::On(_) | Room::Endpoint);
    let is_ignored = matches!(step.outcome, Outcome::Ignored(_));
    assert!(!(is_offered && has_room && is_ignored), "{input:?} in {record:#?}");
}
