//! Every sequence of inputs up to a depth, from a new actor on.

use std::collections::HashSet;

use lifecycle::Ts;
use lifecycle::actor::{ActorRecord, EventKind, Input};

use crate::invariants::{check, check_strangers_are_ignored};
use crate::scene::{NOW, crashed, host, new_actor, next_event, step_at, stopped};

/// As deep as about two seconds allow without optimisation. Sequences that lead to the same state count once.
const DEPTH: usize = 8;

#[derive(Clone, PartialEq, Eq, Hash)]
struct State {
    record: ActorRecord,
    now: Ts,
}

/// What may happen next, and the host that is at hand then.
fn moves(record: &ActorRecord, now: Ts) -> Vec<(Ts, Input, Option<&'static str>)> {
    let mut moves = Vec::new();
    // Time passes until something is due, at once or later.
    let due = record.next_deadline().map_or(now, |deadline| deadline.max(now));
    for candidate in [None, Some("a"), Some("b")] {
        moves.push((now, Input::Wake, candidate));
        moves.push((due, Input::DeadlineReached, candidate));
        moves.push((now, Input::CapacityArrived, candidate));
        moves.push((now, next_event(record, stopped()), candidate));
        moves.push((now, next_event(record, crashed()), candidate));
        moves.push((now, Input::HostLost { host: host("a") }, candidate));
    }
    let alone = [
        Input::Sleep,
        Input::Reschedule,
        Input::Destroy,
        Input::Evict { generation: record.generation },
        Input::HostLost { host: host("b") },
        next_event(record, EventKind::Running),
        next_event(record, EventKind::IntentSleep),
        next_event(record, EventKind::IntentStop),
        next_event(record, EventKind::SetAlarm(None)),
        next_event(record, EventKind::SetAlarm(Some(now))),
        next_event(record, EventKind::SetAlarm(Some(now + 10_000))),
        Input::CommandsAcked {
            host: record.host().cloned().unwrap_or_else(|| host("a")),
            generation: record.generation,
            index: record.last_command_index,
        },
    ];
    moves.extend(alone.into_iter().map(|input| (now, input, None)));
    moves
}

#[test]
fn every_short_sequence_keeps_the_rules() {
    let mut seen = HashSet::new();
    let mut frontier = vec![State { record: new_actor(), now: NOW }];
    for _step in 0..DEPTH {
        let mut next = Vec::new();
        for State { record, now } in frontier {
            check_strangers_are_ignored(&record, now);
            for (at, input, candidate) in moves(&record, now) {
                let stepped = step_at(at, &record, &input, candidate);
                check(&record, &input, at, &stepped);
                let state = State { record: stepped.record, now: at };
                if seen.insert(state.clone()) {
                    next.push(state);
                }
            }
        }
        frontier = next;
    }
}
