//! What must hold at every commit of an actor's record: nothing changes without a reason.

use lifecycle::actor::{ActorRecord, Phase, StopWish};

use super::ledger::{ASKED_MS, COMMIT_MS, Known, Ledger, Run, SLACK_MS, phase_in_words};
use super::settings::{LOST_THRESHOLD_MS, PACE_GAP_MS, PACED, START_THRESHOLD_MS, STOP_THRESHOLD_MS};

/// Moves that are looked at together: single ones may be committed late.
const PACE_WINDOW: usize = 4;

impl Ledger {
    /// Which rule a change of a record breaks.
    pub(super) fn broken_rule(&self, before: Option<&ActorRecord>, after: &ActorRecord) -> Option<String> {
        let Some(before) = before else {
            return (after.generation > 1).then(|| format!("it begins with g{}", after.generation));
        };
        if before.is_destroyed() && before != after {
            return Some("it changed after its destruction".into());
        }
        if after.generation != before.generation && after.generation != before.generation + 1 {
            return Some(format!("g{} follows g{}", after.generation, before.generation));
        }
        self.end_without_reason(before, after)
            .or_else(|| self.running_without_reason(before, after))
            .or_else(|| self.wake_without_reason(before, after))
            .or_else(|| self.lost_alarm(before, after))
            .or_else(|| self.destroyed_without_reason(after))
    }

    /// A generation ends because its host says so, has been silent for too long, or could not be asked.
    fn end_without_reason(&self, before: &ActorRecord, after: &ActorRecord) -> Option<String> {
        let ended = before.is_placed() && (!after.is_placed() || after.generation != before.generation);
        if !ended {
            return None;
        }
        let run = (before.identity.actor_id, before.generation);
        let deadline_passed = before.next_deadline().is_some_and(|deadline| deadline <= self.latest_day());
        // A connection that ends and a host that is given up are the same moment for the engine and two commits here.
        let host_lost = before.host().is_some_and(|host| {
            let away = self.said.out_of_touch.get(host.as_str());
            let back = self.said.back_too_late.get(host.as_str());
            away.is_some_and(|since| self.now_ms() + SLACK_MS >= since + LOST_THRESHOLD_MS)
                || back.is_some_and(|at| self.now_ms() <= at + COMMIT_MS)
        });
        let has_reason = self.said.stopped.contains(&run)
            || self.said.outbound_failed.contains(&run)
            || deadline_passed
            || host_lost
            // It had been given up; the host came back before that was durable.
            || before.host().is_none();
        if has_reason && self.was_kept_from_its_host(before) {
            return Some(format!("g{} was given up, and its host had never got its command", before.generation));
        }
        (!has_reason).then(|| format!("g{} ended without a reason ({})", before.generation, phase_in_words(before)))
    }

    /// A host that could have been reached did not get the latest command before the generation was given up.
    fn was_kept_from_its_host(&self, before: &ActorRecord) -> bool {
        let run = (before.identity.actor_id, before.generation);
        let index = before.last_command_index;
        let is_open = before.acked_command_index < index && !self.said.stopped.contains(&run);
        let reached_since = before.host().and_then(|host| self.said.in_touch.get(host.as_str()));
        let sent_at = self.said.sent.get(&(run, index)).copied().unwrap_or_default();
        let may_be_due = matches!(before.phase, Phase::Starting { .. } | Phase::Stopping { .. }) && index > 0;
        // A step of the clock is an end of all waiting (a deadline is a time of day), whoever had no chance yet.
        let waited = self.stepped_ms.is_none_or(|at| at + START_THRESHOLD_MS.max(STOP_THRESHOLD_MS) + COMMIT_MS < self.now_ms());
        may_be_due
            && waited
            && is_open
            && reached_since.is_some_and(|since| since + COMMIT_MS < self.now_ms() && sent_at < *since)
    }

    fn running_without_reason(&self, before: &ActorRecord, after: &ActorRecord) -> Option<String> {
        let Phase::Running { host } = &after.phase else { return None };
        if let Phase::Running { host: before_host } = &before.phase
            && before.generation == after.generation
        {
            return (before_host != host).then(|| format!("g{} runs on {host} and on {before_host}", after.generation));
        }
        let run = (after.identity.actor_id, after.generation);
        let said_so = self.said.running.get(&run).is_some_and(|hosts| hosts.contains(host.as_str()));
        (!said_so).then(|| format!("g{} counts as running on {host}, which never said so", after.generation))
    }

    /// A sleeping actor starts because somebody asked for it or its alarm is due.
    fn wake_without_reason(&self, before: &ActorRecord, after: &ActorRecord) -> Option<String> {
        let woken = before.phase == Phase::Sleeping && !matches!(after.phase, Phase::Sleeping | Phase::Destroyed);
        if !woken {
            return None;
        }
        let actor = after.identity.actor_id;
        let asked = self.said.asked_for.get(&actor).is_some_and(|at| at + ASKED_MS >= self.now_ms());
        let alarm = before.alarm_ts.is_some_and(|alarm| alarm <= self.latest_day());
        (!asked && !alarm).then(|| format!("it was woken without a reason; its alarm is {:?}", before.alarm_ts))
    }

    /// An alarm stays until its actor changes it, or a generation that was started for it has had its chance.
    fn lost_alarm(&self, before: &ActorRecord, after: &ActorRecord) -> Option<String> {
        if after.is_destroyed() {
            return None;
        }
        let run = (before.identity.actor_id, before.generation);
        let of_host = |run: Run| self.said.alarms.get(&run).map_or(&[][..], Vec::as_slice);
        // What it has set may have been taken by the next generation in the same commit.
        let set_by_host = [after.alarm_ts, after.alarm_ts.or(after.served_alarm_ts)]
            .iter()
            .any(|alarm| of_host(run).contains(alarm) || of_host((run.0, after.generation)).contains(alarm));
        if let Some(alarm) = before.alarm_ts {
            let kept = after.alarm_ts == Some(alarm);
            let taken = after.served_alarm_ts == Some(alarm) && alarm <= self.latest_day();
            if !kept && !taken && !set_by_host {
                return Some(format!("its alarm {alarm} has vanished"));
            }
        }
        if let Some(alarm) = before.served_alarm_ts {
            let kept = after.served_alarm_ts == Some(alarm) || after.alarm_ts == Some(alarm);
            let had_its_chance = self.said.stopped.contains(&run) || !of_host(run).is_empty();
            if !kept && !had_its_chance {
                return Some(format!("its alarm {alarm}, which nobody served, has vanished"));
            }
        }
        None
    }

    fn destroyed_without_reason(&self, after: &ActorRecord) -> Option<String> {
        let wanted = self.said.unwanted.contains(&after.identity.actor_id);
        (after.is_destroyed() && !wanted).then(|| "it was destroyed, and nobody wanted that".into())
    }

    /// Notes that an actor is told to move, and whether its host is emptied faster than its pool allows.
    pub(super) fn too_fast(&mut self, before: &Known, after: &ActorRecord) -> Option<String> {
        let Phase::Stopping { host, wish: StopWish::Move, .. } = &after.phase else { return None };
        let now = self.now_ms();
        let actor = after.identity.actor_id;
        let by_client = self.said.rescheduled.get(&actor).is_some_and(|at| at + ASKED_MS >= now);
        // One that was still starting when its turn came moves as soon as it runs.
        let has_run = matches!(before.record.phase, Phase::Running { .. }) && before.since_ms + ASKED_MS < now;
        if after.identity.pool != PACED || by_client || !has_run {
            return None;
        }
        let of_host = self.moves.entry(host.as_str().to_owned()).or_default();
        of_host.push(now);
        let first = of_host.len().checked_sub(PACE_WINDOW).and_then(|at| of_host.get(at).copied())?;
        let least_ms = PACE_GAP_MS * (PACE_WINDOW as u64 - 1) - COMMIT_MS;
        (now - first < least_ms).then(|| format!("{PACE_WINDOW} actors of {host} were moved within {} ms", now - first))
    }
}
