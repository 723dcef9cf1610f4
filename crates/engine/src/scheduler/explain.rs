//! What an actor waits for, and how its generations end, for those who wait with it (`spec/scheduling.md` 1.5, 5).

use std::time::Duration;

use gateway::{GenerationEnd, Obstacle};
use lifecycle::Ts;
use lifecycle::actor::{ActorError, ActorRecord, EnvoyKey, EventKind, Identity, Input, Phase, Place};
use lifecycle::envoy::{Link, is_eligible};
use lifecycle::pool::PoolError;
use protocol::id::ActorId;
use protocol::limits;

use super::Scheduler;
use crate::catalog::PoolKind;
use crate::hosts::Host;
use crate::pools::error_for_clients;

impl Scheduler {
    /// What is wrong with an actor, as clients see it: whatever is wrong with its pool explains why it has no hosts
    /// (`spec/scheduling.md` 1.5).
    pub(crate) fn error_of(&self, record: &ActorRecord) -> Option<ActorError> {
        let of_pool = match &record.error {
            Some(ActorError::NoEnvoys) => self.0.pools.error(record.identity.namespace_id, &record.identity.pool),
            Some(
                ActorError::ConcurrentActorLimitReached
                | ActorError::RunnerPoolError(_)
                | ActorError::EnvoyNoResponse { .. }
                | ActorError::EnvoyConnectionLost { .. }
                | ActorError::Crashed { .. },
            )
            | None => None,
        };
        of_pool.map(ActorError::RunnerPoolError).or_else(|| record.error.clone())
    }

    /// What keeps an actor that is in memory from taking requests now. One that somebody waits for is there.
    pub(super) fn obstacle_to(&self, actor: ActorId) -> Option<Obstacle> {
        let cell = self.0.cells.lock().get(&actor).cloned();
        self.obstacle_of(&cell?.stored()?.record)
    }

    /// What keeps an actor from taking requests now; `None` when it takes them, is about to, or never will again.
    pub(crate) fn obstacle_of(&self, record: &ActorRecord) -> Option<Obstacle> {
        let now = self.0.clock.now();
        let start_began = |deadline: Ts| deadline - self.0.config.rules.start_threshold_ms;
        match &record.phase {
            Phase::Sleeping => Some(Obstacle::Asleep),
            Phase::Reallocating { retry_at } => self.shortage_for(record, between(now, *retry_at)),
            Phase::Starting { place: Place::Host(host), deadline, .. } => {
                let starting = Obstacle::Starting { host: name(host), since: between(start_began(*deadline), now) };
                Some(self.silence_at(&record.identity, host).unwrap_or(starting))
            }
            Phase::Starting { place: Place::Outbound, deadline, .. } => {
                let pool = record.identity.pool.clone();
                Some(Obstacle::StartingOutbound { pool, since: between(start_began(*deadline), now) })
            }
            Phase::Running { host } => self.silence_at(&record.identity, host),
            Phase::Stopping { host, deadline, .. } => {
                let since = between(deadline - self.stop_threshold_ms(record), now);
                let stopping = Obstacle::Stopping { host: name(host), since };
                Some(self.silence_at(&record.identity, host).unwrap_or(stopping))
            }
            Phase::Destroyed => None,
        }
    }

    /// Why nobody takes an actor. What the latest attempt has found counts, because it decides when the next one is made.
    fn shortage_for(&self, record: &ActorRecord, retry_in: Duration) -> Option<Obstacle> {
        let pool = &record.identity.pool;
        let failing = |error: &PoolError| Obstacle::PoolFailing {
            pool: pool.clone(),
            fault: error_for_clients(error),
            retry_in: Some(retry_in),
        };
        match self.error_of(record) {
            Some(ActorError::RunnerPoolError(error)) => Some(failing(&error)),
            Some(ActorError::ConcurrentActorLimitReached) => Some(Obstacle::PoolFull {
                pool: pool.clone(),
                max_concurrent_actors: self.max_concurrent_actors(&record.identity),
            }),
            Some(ActorError::NoEnvoys) => self.why_no_host(&record.identity),
            // Nothing is wrong with the pool. What happened to the actor is in its error.
            Some(ActorError::EnvoyNoResponse { .. } | ActorError::EnvoyConnectionLost { .. } | ActorError::Crashed { .. })
            | None => Some(Obstacle::BackingOff { retry_in }),
        }
    }

    fn max_concurrent_actors(&self, identity: &Identity) -> Option<u64> {
        match &self.0.catalog.pool(identity.namespace_id, &identity.pool)?.config.kind {
            PoolKind::Serverless(options) => Some(options.max_concurrent_actors),
            PoolKind::Normal => None,
        }
    }

    /// Why no host of an actor's pool takes it. `None`: one does, by now.
    fn why_no_host(&self, identity: &Identity) -> Option<Obstacle> {
        let pool = identity.pool.clone();
        let connected = self.0.hosts.connected_of(identity.namespace_id, &pool);
        let (leaving, staying): (Vec<_>, Vec<_>) = connected.into_iter().partition(|host| host.is_stopping());
        let silences: Vec<_> = staying.iter().map(|host| self.silence_of(host)).collect::<Option<_>>()?;
        let least_silent = silences.into_iter().zip(&staying).min_by_key(|(silence, _host)| silence.lasts);
        Some(match least_silent {
            Some((silence, host)) => silence.of(&host.key),
            None if !leaving.is_empty() => Obstacle::HostsLeaving { pool, hosts: leaving.len() },
            None if self.0.catalog.pool(identity.namespace_id, &pool).is_none() => Obstacle::NoPool { pool },
            None => Obstacle::NoHosts { pool },
        })
    }

    fn silence_at(&self, identity: &Identity, key: &EnvoyKey) -> Option<Obstacle> {
        let host = self.0.hosts.get(identity.namespace_id, key)?;
        Some(self.silence_of(&host)?.of(key))
    }

    /// Whether a host is out of touch, or has been silent for so long that it would get no new actors.
    fn silence_of(&self, host: &Host) -> Option<Silence> {
        let uptime = self.0.clock.uptime();
        match host.link_state() {
            link @ Link::Up { .. } if is_eligible(link, uptime, self.0.hosts.rules()) => None,
            Link::Up { last_pong_ts } => Some(Silence { lasts: between(last_pong_ts, uptime), connected: true }),
            Link::Down { since_ts } => Some(Silence { lasts: between(since_ts, uptime), connected: false }),
        }
    }
}

struct Silence {
    lasts: Duration,
    connected: bool,
}

impl Silence {
    fn of(self, host: &EnvoyKey) -> Obstacle {
        Obstacle::HostSilent { host: name(host), silent_for: self.lasts, connected: self.connected }
    }
}

/// How the generation ends that an input ends, in words for those who waited for it.
pub(super) fn generation_end(before: &ActorRecord, input: &Input) -> GenerationEnd {
    let host = before.host().map(name);
    let is_starting = matches!(before.phase, Phase::Starting { .. });
    match (input, host) {
        (Input::Event { kind: EventKind::Stopped { error: true, message }, .. }, _) => {
            let message = message.as_deref().map(shortened);
            if is_starting { GenerationEnd::StartFailed { message } } else { GenerationEnd::Crashed { message } }
        }
        (Input::DeadlineReached, host) if is_starting => GenerationEnd::StartUnanswered { host },
        (Input::DeadlineReached, Some(host)) => GenerationEnd::StopUnanswered { host },
        (Input::OutboundFailed { error, .. }, _) => GenerationEnd::EndpointFailed(error_for_clients(error)),
        (Input::HostLost { host, .. }, _) => GenerationEnd::HostLost { host: name(host) },
        (
            Input::Event { .. }
            | Input::DeadlineReached
            | Input::Wake
            | Input::CapacityArrived
            | Input::Sleep
            | Input::Reschedule
            | Input::Destroy
            | Input::Evict { .. }
            | Input::HostFound { .. }
            | Input::CommandsAcked { .. },
            _,
        ) => GenerationEnd::Stopped,
    }
}

fn name(host: &EnvoyKey) -> String {
    host.as_str().to_owned()
}

/// The beginning of what somebody else has said.
fn shortened(words: &str) -> String {
    words[..words.floor_char_boundary(limits::FOREIGN_WORDS_MAX_BYTES)].to_owned()
}

/// The time from one moment to a later one; none when a step of the clock came in between.
fn between(from: Ts, to: Ts) -> Duration {
    Duration::from_millis(u64::try_from(to.saturating_sub(from)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use gateway::PoolFault;
    use lifecycle::actor::AfterStart;
    use protocol::id::NamespaceId;
    use serde_json::json;

    use super::*;

    fn host() -> EnvoyKey {
        EnvoyKey::new("h")
    }

    fn record(phase: Phase) -> ActorRecord {
        let mut record = ActorRecord::new(Identity {
            actor_id: ActorId::from_parts([3; 16], 1),
            namespace_id: NamespaceId::from_parts([4; 16], 1),
            name: "counter".to_owned(),
            key: None,
            pool: "p".to_owned(),
            create_ts: 1,
        });
        record.phase = phase;
        record
    }

    fn starting(place: Place) -> ActorRecord {
        record(Phase::Starting { place, deadline: 5, then: AfterStart::Run })
    }

    fn stopped(error: bool, message: Option<&str>) -> Input {
        let kind = EventKind::Stopped { error, message: message.map(str::to_owned) };
        Input::Event { host: host(), generation: 1, index: 0, kind }
    }

    #[test]
    fn how_a_generation_ends_depends_on_what_ends_it_and_how_far_it_was() {
        let running = || record(Phase::Running { host: host() });
        let stopping = || record(Phase::Stopping { host: host(), wish: lifecycle::actor::StopWish::Move, deadline: 5 });
        let on_host = || starting(Place::Host(host()));
        let message = || Some("boom".to_owned());
        let refused = PoolError::HttpError { status_code: 502, body: "no".to_owned() };
        let endpoint_failed = GenerationEnd::EndpointFailed(PoolFault {
            words: "endpoint answered 502".to_owned(),
            details: json!({ "serverless_http_error": { "status_code": 502 } }),
        });
        let lost = Input::HostLost { host: host(), generation: 1 };
        let table = [
            (on_host(), stopped(true, Some("boom")), GenerationEnd::StartFailed { message: message() }),
            (on_host(), stopped(true, None), GenerationEnd::StartFailed { message: None }),
            (on_host(), stopped(false, None), GenerationEnd::Stopped),
            (on_host(), Input::DeadlineReached, GenerationEnd::StartUnanswered { host: Some("h".to_owned()) }),
            (on_host(), lost.clone(), GenerationEnd::HostLost { host: "h".to_owned() }),
            (starting(Place::Outbound), Input::DeadlineReached, GenerationEnd::StartUnanswered { host: None }),
            (starting(Place::Outbound), Input::OutboundFailed { generation: 1, error: refused }, endpoint_failed),
            (running(), stopped(true, Some("boom")), GenerationEnd::Crashed { message: message() }),
            (running(), stopped(false, None), GenerationEnd::Stopped),
            (running(), lost, GenerationEnd::HostLost { host: "h".to_owned() }),
            (stopping(), stopped(true, Some("boom")), GenerationEnd::Crashed { message: message() }),
            (stopping(), stopped(false, None), GenerationEnd::Stopped),
            (stopping(), Input::DeadlineReached, GenerationEnd::StopUnanswered { host: "h".to_owned() }),
        ];
        for (before, input, expected) in table {
            assert_eq!(generation_end(&before, &input), expected, "{:?}, {input:?}", before.phase);
        }
    }

    #[test]
    fn a_clock_that_was_set_back_makes_no_time_of_centuries() {
        assert_eq!(between(5, 12), Duration::from_millis(7));
        assert_eq!(between(12, 5), Duration::ZERO);
        assert_eq!(between(Ts::MIN, Ts::MAX), Duration::from_millis(Ts::MAX as u64));
    }
}
