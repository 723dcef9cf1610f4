//! What every single step must keep to, whatever the record, the input and the time.

use lifecycle::Ts;
use lifecycle::actor::{
    ActorRecord, AfterStart, Command, EventKind, Ignored, Input, Outcome, Phase, Place, Step, StopReason, StopWish,
};

use crate::scene::{Room, bad_gateway, host, its_host, stopped};

/// A step that was made.
pub(crate) struct Made<'a> {
    pub(crate) before: &'a ActorRecord,
    pub(crate) input: &'a Input,
    pub(crate) room: Room,
    pub(crate) now: Ts,
    pub(crate) step: &'a Step,
}

/// What holds for every step.
type Rule = (&'static str, fn(&Made<'_>) -> bool);

/// Panics, naming both states, if the step breaks a rule.
pub(crate) fn check(made: &Made<'_>) {
    let Made { before, input, room, now, step } = made;
    let rules: [Rule; 26] = [
        ("what is ignored changes nothing", ignored_changes_nothing),
        ("a destroyed record never changes", destroyed_stays),
        ("identity and creation stay", |made| made.before.identity == made.after().identity),
        ("a generation begins with its start, and only so", generation_begins_with_start),
        ("commands of a generation count on from its start: 1 on a host, 0 where an endpoint was asked", commands_count_on),
        ("a generation ends when its host has said so or is told", generation_ends_known),
        ("a failed attempt costs no generation", |made| !made.waits_anew() || made.before.generation == made.after().generation),
        ("only a running actor, or one that moves or is destroyed by the API, is connectable", connectable_by_phase),
        ("connectable is set by `running` alone", connectable_by_running),
        ("a hosted actor has no error", |made| !made.after().is_placed() || made.after().error.is_none()),
        ("errors come from ends and attempts alone", errors_have_causes),
        ("the first start stays", |made| made.before.start_ts.is_none() || made.before.start_ts == made.after().start_ts),
        ("an actor has started once it ran", |made| {
            !matches!(made.after().phase, Phase::Running { .. }) || made.after().start_ts.is_some()
        }),
        ("an actor that does not run shows since when", shows_since_when),
        ("sleep is cleared by a start alone", sleep_is_cleared_by_start),
        ("destruction and its time come together", |made| made.after().is_destroyed() == made.after().destroy_ts.is_some()),
        ("whatever waits has a deadline", waits_have_deadlines),
        ("a deadline that was handled is over", deadline_is_over),
        ("a due alarm stays until somebody takes it", due_alarm_stays),
        ("an alarm ahead stays whatever happens", alarm_ahead_stays),
        ("an alarm taken by a start stays until it is served", taken_alarm_stays),
        ("waking never lengthens the wait", waking_never_delays),
        ("a wish to destroy stays", |made| !is_doomed(made.before) || is_doomed(made.after())),
        ("asking for destruction is enough", |made| *made.input != Input::Destroy || is_doomed(made.after())),
        ("no acknowledgement without command", |made| made.after().acked_command_index <= made.after().last_command_index),
        ("a host is found once", |made| {
            made.before.host().is_none() || !matches!(made.input, Input::HostFound { .. }) || made.is_ignored()
        }),
    ];
    for (rule, holds) in rules {
        assert!(holds(made), "{rule}: at {now} {input:?} with {room:?} made\n{before:#?}\ninto\n{step:#?}");
    }
}

impl Made<'_> {
    fn after(&self) -> &ActorRecord {
        &self.step.record
    }

    fn is_ignored(&self) -> bool {
        matches!(self.step.outcome, Outcome::Ignored(_))
    }

    fn starts(&self) -> bool {
        self.after().generation > self.before.generation
    }

    /// The generation that there was is over.
    fn ends(&self) -> bool {
        self.before.is_placed() && (self.starts() || !self.after().is_placed())
    }

    /// An attempt was made and found no room.
    fn waits_anew(&self) -> bool {
        self.after().reschedule_ts().is_some() && self.after().phase != self.before.phase
    }

    /// The host has spoken: of this kind of thing, or at all.
    fn is_event(&self, of: impl Fn(&EventKind) -> bool) -> bool {
        !self.is_ignored() && matches!(self.input, Input::Event { kind, .. } if of(kind))
    }
}

fn ignored_changes_nothing(made: &Made<'_>) -> bool {
    match made.step.outcome {
        Outcome::Ignored(_) => made.after() == made.before && made.step.commands.is_empty(),
        Outcome::Applied => made.after() != made.before,
    }
}

fn destroyed_stays(made: &Made<'_>) -> bool {
    !made.before.is_destroyed() || made.step.outcome == Outcome::Ignored(Ignored::Destroyed)
}

fn generation_begins_with_start(made: &Made<'_>) -> bool {
    let (before, after) = (made.before, made.after());
    let mut starts = made.step.commands.iter().filter(|command| command.command == Command::Start);
    let (start, another) = (starts.next(), starts.next());
    if after.generation == before.generation {
        return start.is_none();
    }
    let Phase::Starting { place, then: AfterStart::Run, .. } = &after.phase else { return false };
    let ordered = match (place, start) {
        (Place::Host(host), Some(start)) => (&start.host, start.generation, start.index) == (host, after.generation, 1),
        // The order is a request; the driver makes it.
        (Place::Outbound, None) => after.last_command_index == 0,
        (Place::Host(_), None) | (Place::Outbound, Some(_)) => false,
    };
    let room_was_there = match made.room {
        Room::On(name) => place.host() == Some(&host(name)),
        Room::Endpoint => *place == Place::Outbound,
        Room::NoHosts | Room::Limit | Room::Failing | Room::EngineStops => false,
    };
    after.generation == before.generation + 1
        && ordered
        && another.is_none()
        && room_was_there
        && (after.last_event_index, after.acked_command_index) == (-1, after.last_command_index - 1)
}

fn commands_count_on(made: &Made<'_>) -> bool {
    let mut last = (made.before.generation, made.before.last_command_index);
    for command in &made.step.commands {
        let expected = match command.command {
            Command::Start => (last.0 + 1, 1),
            Command::Stop(_) => (last.0, last.1 + 1),
        };
        // A stop of index 0 would be ignored by hosts.
        if (command.generation, command.index) != expected || command.index < 1 {
            return false;
        }
        last = expected;
    }
    let after = made.after();
    let asked_for = made.starts() && matches!(after.phase, Phase::Starting { place: Place::Outbound, .. });
    let expected = if asked_for { (last.0 + 1, 0) } else { last };
    expected == (after.generation, after.last_command_index)
}

/// At most one generation lives: before a new one, and before the actor is let go, the old one has said that it is over, or its
/// host is told to end it. A host that nobody knows cannot be told; it gets the order when it comes forward.
fn generation_ends_known(made: &Made<'_>) -> bool {
    let told = made.step.commands.iter().any(|command| command.command == Command::Stop(StopReason::Lost));
    if !made.ends() {
        return !told;
    }
    let said_so = made.is_event(|kind| matches!(kind, EventKind::Stopped { .. }));
    let told_first = made.step.commands.first().is_some_and(|first| {
        Some(&first.host) == made.before.host()
            && first.generation == made.before.generation
            && first.command == Command::Stop(StopReason::Lost)
    });
    if said_so { !told } else { told_first || made.before.host().is_none() }
}

fn connectable_by_phase(made: &Made<'_>) -> bool {
    let may_be = match &made.after().phase {
        Phase::Running { .. } => true,
        Phase::Stopping { wish, .. } => match wish {
            StopWish::Move | StopWish::Destroy => true,
            StopWish::Sleep { .. } | StopWish::Destruction => false,
        },
        Phase::Starting { .. } | Phase::Sleeping | Phase::Reallocating { .. } | Phase::Destroyed => false,
    };
    let must_be = matches!(made.after().phase, Phase::Running { .. });
    let is = made.after().connectable_host().is_some();
    is == made.after().connectable_ts.is_some() && (may_be || !is) && (is || !must_be)
}

fn connectable_by_running(made: &Made<'_>) -> bool {
    let after = made.after().connectable_ts;
    let began = made.is_event(|kind| *kind == EventKind::Running) && after == Some(made.now);
    after.is_none() || after == made.before.connectable_ts || began
}

fn errors_have_causes(made: &Made<'_>) -> bool {
    made.before.error == made.after().error || made.ends() || made.starts() || made.waits_anew() || gave_up(made)
}

/// The last attempt of a series found no room.
fn gave_up(made: &Made<'_>) -> bool {
    made.after().phase == Phase::Sleeping && *made.input == Input::DeadlineReached
}

fn shows_since_when(made: &Made<'_>) -> bool {
    let after = made.after();
    let rests = matches!(after.phase, Phase::Sleeping | Phase::Reallocating { .. });
    // A new one has not done anything yet.
    let is_unborn = after.generation == 0 && after.phase == Phase::Sleeping;
    !rests || after.sleep_ts.is_some() || is_unborn
}

fn sleep_is_cleared_by_start(made: &Made<'_>) -> bool {
    made.before.sleep_ts.is_none() || made.after().sleep_ts.is_some() != made.starts()
}

fn waits_have_deadlines(made: &Made<'_>) -> bool {
    let after = made.after();
    match &after.phase {
        Phase::Starting { .. } | Phase::Stopping { .. } | Phase::Reallocating { .. } => after.next_deadline().is_some(),
        Phase::Sleeping => after.next_deadline() == after.alarm_ts,
        Phase::Running { .. } | Phase::Destroyed => after.next_deadline().is_none(),
    }
}

fn deadline_is_over(made: &Made<'_>) -> bool {
    *made.input != Input::DeadlineReached || made.after().next_deadline().is_none_or(|deadline| deadline > made.now)
}

fn speaks_of_alarms(made: &Made<'_>) -> bool {
    made.is_event(|kind| matches!(kind, EventKind::SetAlarm(_)))
}

fn due_alarm_stays(made: &Made<'_>) -> bool {
    let (before, after) = (made.before, made.after());
    let due = before.alarm_ts.is_some_and(|alarm| alarm <= made.now);
    let taken = made.starts() && after.alarm_ts.is_none() && after.served_alarm_ts == before.alarm_ts;
    !due || after.alarm_ts == before.alarm_ts || taken || after.is_destroyed() || speaks_of_alarms(made)
}

fn alarm_ahead_stays(made: &Made<'_>) -> bool {
    let (before, after) = (made.before, made.after());
    let ahead = before.alarm_ts.is_some_and(|alarm| alarm > made.now);
    !ahead || after.alarm_ts == before.alarm_ts || after.is_destroyed() || speaks_of_alarms(made)
}

/// It goes on with the generation, is set again, or is taken by the next one. It is spent when the host has spoken of alarms, or
/// has ended the generation without being asked to move.
fn taken_alarm_stays(made: &Made<'_>) -> bool {
    let (before, after) = (made.before, made.after());
    let Some(taken) = before.served_alarm_ts else {
        return after.served_alarm_ts.is_none() || made.starts();
    };
    let goes_on = after.served_alarm_ts == Some(taken) || after.alarm_ts == Some(taken);
    let moves = matches!(
        before.phase,
        Phase::Starting { then: AfterStart::Move, .. }
            | Phase::Stopping { wish: StopWish::Move | StopWish::Sleep { rewake: true }, .. }
    );
    let had_its_chance = made.is_event(|kind| matches!(kind, EventKind::Stopped { .. })) && !moves;
    before.alarm_ts.is_none() && (goes_on || had_its_chance || speaks_of_alarms(made) || after.is_destroyed())
}

fn waking_never_delays(made: &Made<'_>) -> bool {
    let (Some(old), Some(new)) = (made.before.reschedule_ts(), made.after().reschedule_ts()) else { return true };
    !matches!(made.input, Input::Wake | Input::CapacityArrived) || old == new
}

/// Whether it is destroyed, or will be as soon as it has stopped.
pub(crate) fn is_doomed(record: &ActorRecord) -> bool {
    matches!(
        record.phase,
        Phase::Destroyed | Phase::Starting { then: AfterStart::Destroy, .. } | Phase::Stopping { wish: StopWish::Destroy, .. }
    )
}

/// What speaks of another generation, another host or the past. All of it must be ignored.
pub(crate) fn strangers(record: &ActorRecord, now: Ts) -> Vec<Input> {
    let its = its_host(record);
    let mut strangers = vec![Input::HostLost { host: host("stranger"), generation: record.generation }];
    let kinds = [EventKind::Running, stopped(), EventKind::IntentSleep, EventKind::IntentStop, EventKind::SetAlarm(Some(now))];
    for kind in kinds {
        let event =
            |host: &_, generation, index| Input::Event { host: Clone::clone(host), generation, index, kind: kind.clone() };
        strangers.push(event(&host("stranger"), record.generation, record.last_event_index + 1));
        strangers.push(event(&its, record.generation, record.last_event_index));
        strangers.push(event(&its, record.generation + 1, record.last_event_index + 1));
    }
    for generation in [record.generation.checked_sub(1), Some(record.generation + 1)].into_iter().flatten() {
        strangers.push(Input::Evict { generation });
        strangers.push(Input::HostLost { host: its.clone(), generation });
        strangers.push(Input::HostFound { host: its.clone(), generation });
        strangers.push(Input::OutboundFailed { generation, error: bad_gateway() });
        strangers.push(Input::CommandsAcked { host: its.clone(), generation, index: record.last_command_index });
        strangers.push(Input::Event { host: its.clone(), generation, index: i64::MAX, kind: stopped() });
    }
    strangers
}
