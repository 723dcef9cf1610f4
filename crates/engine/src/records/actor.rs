//! Actors.
//!
//! * `10` actor id -> the record:
//!   namespace id [u8;18], name str, key opt str, pool str, created i64, has input bool, phase (tag uint, fields below),
//!   generation u32, last event index i64, last command index i64, acknowledged command index i64, alarm opt i64,
//!   served alarm opt i64, start opt i64, connectable opt i64, sleep opt i64, destroy opt i64, error (tag uint, fields), retry count u32,
//!   retry last i64, retry first failure i64.
//!   Phase: 0 starting {host str, deadline i64, then uint} · 1 running {host} · 2 stopping {host, wish uint, deadline} ·
//!   3 sleeping · 4 reallocating {retry at i64} · 5 destroyed · 6 starting through an endpoint {deadline i64, then uint}.
//!   Error: 0 none · 1 no envoys · 2 no response {host opt str} · 3 connection lost {host str} · 4 crashed {message opt str} ·
//!   5 limit of actors at once · errors of the pool: 6 status {code u16, body str} · 7 stream ended early ·
//!   8 connection {message str} · 9 destination blocked {reason str} · 10 downgrade · 11 internal.
//! * `11` actor id -> its input, as given

use std::sync::Arc;

use bare::{DecodeError, NotInVersion, Reader, Writer};
use bytes::Bytes;
use lifecycle::actor::{ActorError, ActorRecord, AfterStart, EnvoyKey, Identity, Phase, Place, Retry, StopWish};
use lifecycle::pool::PoolError;
use protocol::id::{ActorId, NamespaceId};

use super::{CorruptRow, decode, encode, read, write};

pub(crate) const RECORD: u8 = 0x10;
pub(crate) const INPUT: u8 = 0x11;

pub(crate) fn key(actor: ActorId) -> Bytes {
    [&[RECORD], actor.as_bytes().as_slice()].concat().into()
}

pub(crate) fn input_key(actor: ActorId) -> Bytes {
    [&[INPUT], actor.as_bytes().as_slice()].concat().into()
}

/// A record and whether there is an input row for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredActor {
    pub(crate) record: ActorRecord,
    pub(crate) has_input: bool,
}

pub(crate) fn value(stored: &StoredActor) -> Bytes {
    let record = &stored.record;
    let identity = &record.identity;
    encode(|writer| {
        write(writer, identity.namespace_id.as_bytes())?;
        write(writer, &identity.name)?;
        write(writer, &identity.key)?;
        write(writer, &identity.pool)?;
        write(writer, &identity.create_ts)?;
        write(writer, &stored.has_input)?;
        write_phase(writer, &record.phase)?;
        write(writer, &record.generation)?;
        write(writer, &record.last_event_index)?;
        write(writer, &record.last_command_index)?;
        write(writer, &record.acked_command_index)?;
        write(writer, &record.alarm_ts)?;
        write(writer, &record.served_alarm_ts)?;
        write(writer, &record.start_ts)?;
        write(writer, &record.connectable_ts)?;
        write(writer, &record.sleep_ts)?;
        write(writer, &record.destroy_ts)?;
        write_error(writer, record.error.as_ref())?;
        write(writer, &record.retry.count)?;
        write(writer, &record.retry.last_ts)?;
        write(writer, &record.retry.first_failure_ts)
    })
}

pub(crate) fn parse(actor: ActorId, value: Bytes) -> Result<StoredActor, CorruptRow> {
    decode("actor", value, |reader| {
        let namespace_id: [u8; 18] = read(reader)?;
        let identity = Identity {
            actor_id: actor,
            namespace_id: NamespaceId::from_bytes(namespace_id),
            name: read(reader)?,
            key: read(reader)?,
            pool: read(reader)?,
            create_ts: read(reader)?,
        };
        let has_input = read(reader)?;
        let record = ActorRecord {
            identity: Arc::new(identity),
            phase: read_phase(reader)?,
            generation: read(reader)?,
            last_event_index: read(reader)?,
            last_command_index: read(reader)?,
            acked_command_index: read(reader)?,
            alarm_ts: read(reader)?,
            served_alarm_ts: read(reader)?,
            start_ts: read(reader)?,
            connectable_ts: read(reader)?,
            sleep_ts: read(reader)?,
            destroy_ts: read(reader)?,
            error: read_error(reader)?,
            retry: Retry { count: read(reader)?, last_ts: read(reader)?, first_failure_ts: read(reader)? },
        };
        Ok(StoredActor { record, has_input })
    })
}

fn write_phase(writer: &mut Writer<'_>, phase: &Phase) -> Result<(), NotInVersion> {
    let host_text = |host: &EnvoyKey| host.as_str().to_owned();
    match phase {
        Phase::Starting { place, deadline, then } => {
            match place {
                Place::Host(host) => {
                    write(writer, &0_u8)?;
                    write(writer, &host_text(host))?;
                }
                Place::Outbound => write(writer, &6_u8)?,
            }
            write(writer, deadline)?;
            write(writer, &after_start_tag(*then))
        }
        Phase::Running { host } => {
            write(writer, &1_u8)?;
            write(writer, &host_text(host))
        }
        Phase::Stopping { host, wish, deadline } => {
            write(writer, &2_u8)?;
            write(writer, &host_text(host))?;
            write(writer, &stop_wish_tag(*wish))?;
            write(writer, deadline)
        }
        Phase::Sleeping => write(writer, &3_u8),
        Phase::Reallocating { retry_at } => {
            write(writer, &4_u8)?;
            write(writer, retry_at)
        }
        Phase::Destroyed => write(writer, &5_u8),
    }
}

fn read_phase(reader: &mut Reader) -> Result<Phase, DecodeError> {
    let read_host = |reader: &mut Reader| Ok(EnvoyKey::new(&read::<String>(reader)?));
    match read::<u8>(reader)? {
        0 => {
            let place = Place::Host(read_host(reader)?);
            Ok(Phase::Starting { place, deadline: read(reader)?, then: after_start(read(reader)?)? })
        }
        1 => Ok(Phase::Running { host: read_host(reader)? }),
        2 => {
            let host = read_host(reader)?;
            let wish = stop_wish(read(reader)?)?;
            Ok(Phase::Stopping { host, wish, deadline: read(reader)? })
        }
        3 => Ok(Phase::Sleeping),
        4 => Ok(Phase::Reallocating { retry_at: read(reader)? }),
        5 => Ok(Phase::Destroyed),
        6 => Ok(Phase::Starting { place: Place::Outbound, deadline: read(reader)?, then: after_start(read(reader)?)? }),
        tag => Err(bad_tag("phase", tag)),
    }
}

fn after_start_tag(then: AfterStart) -> u8 {
    match then {
        AfterStart::Run => 0,
        AfterStart::Sleep => 1,
        AfterStart::Move => 2,
        AfterStart::Destroy => 3,
    }
}

fn after_start(tag: u8) -> Result<AfterStart, DecodeError> {
    match tag {
        0 => Ok(AfterStart::Run),
        1 => Ok(AfterStart::Sleep),
        2 => Ok(AfterStart::Move),
        3 => Ok(AfterStart::Destroy),
        tag => Err(bad_tag("after start", tag)),
    }
}

fn stop_wish_tag(wish: StopWish) -> u8 {
    match wish {
        StopWish::Sleep { rewake: false } => 0,
        StopWish::Sleep { rewake: true } => 1,
        StopWish::Destruction => 2,
        StopWish::Move => 3,
        StopWish::Destroy => 4,
    }
}

fn stop_wish(tag: u8) -> Result<StopWish, DecodeError> {
    match tag {
        0 => Ok(StopWish::Sleep { rewake: false }),
        1 => Ok(StopWish::Sleep { rewake: true }),
        2 => Ok(StopWish::Destruction),
        3 => Ok(StopWish::Move),
        4 => Ok(StopWish::Destroy),
        tag => Err(bad_tag("stop wish", tag)),
    }
}

fn write_error(writer: &mut Writer<'_>, error: Option<&ActorError>) -> Result<(), NotInVersion> {
    match error {
        None => write(writer, &0_u8),
        Some(ActorError::NoEnvoys) => write(writer, &1_u8),
        Some(ActorError::EnvoyNoResponse { envoy_key }) => {
            write(writer, &2_u8)?;
            write(writer, &envoy_key.as_ref().map(|key| key.as_str().to_owned()))
        }
        Some(ActorError::EnvoyConnectionLost { envoy_key }) => {
            write(writer, &3_u8)?;
            write(writer, &envoy_key.as_str().to_owned())
        }
        Some(ActorError::Crashed { message }) => {
            write(writer, &4_u8)?;
            write(writer, message)
        }
        Some(ActorError::ConcurrentActorLimitReached) => write(writer, &5_u8),
        Some(ActorError::RunnerPoolError(error)) => write_pool_error(writer, error),
    }
}

fn write_pool_error(writer: &mut Writer<'_>, error: &PoolError) -> Result<(), NotInVersion> {
    match error {
        PoolError::HttpError { status_code, body } => {
            write(writer, &6_u8)?;
            write(writer, status_code)?;
            write(writer, body)
        }
        PoolError::StreamEndedEarly => write(writer, &7_u8),
        PoolError::ConnectionError { message } => {
            write(writer, &8_u8)?;
            write(writer, message)
        }
        PoolError::DestinationBlocked { reason } => {
            write(writer, &9_u8)?;
            write(writer, reason)
        }
        PoolError::Downgrade => write(writer, &10_u8),
        PoolError::InternalError => write(writer, &11_u8),
        PoolError::NotAsked { reason } => {
            write(writer, &12_u8)?;
            write(writer, reason)
        }
    }
}

fn read_error(reader: &mut Reader) -> Result<Option<ActorError>, DecodeError> {
    Ok(match read::<u8>(reader)? {
        0 => None,
        1 => Some(ActorError::NoEnvoys),
        2 => {
            let envoy_key: Option<String> = read(reader)?;
            Some(ActorError::EnvoyNoResponse { envoy_key: envoy_key.as_deref().map(EnvoyKey::new) })
        }
        3 => Some(ActorError::EnvoyConnectionLost { envoy_key: EnvoyKey::new(&read::<String>(reader)?) }),
        4 => Some(ActorError::Crashed { message: read(reader)? }),
        5 => Some(ActorError::ConcurrentActorLimitReached),
        6 => Some(ActorError::RunnerPoolError(PoolError::HttpError { status_code: read(reader)?, body: read(reader)? })),
        7 => Some(ActorError::RunnerPoolError(PoolError::StreamEndedEarly)),
        8 => Some(ActorError::RunnerPoolError(PoolError::ConnectionError { message: read(reader)? })),
        9 => Some(ActorError::RunnerPoolError(PoolError::DestinationBlocked { reason: read(reader)? })),
        10 => Some(ActorError::RunnerPoolError(PoolError::Downgrade)),
        11 => Some(ActorError::RunnerPoolError(PoolError::InternalError)),
        12 => Some(ActorError::RunnerPoolError(PoolError::NotAsked { reason: read(reader)? })),
        tag => return Err(bad_tag("actor error", tag)),
    })
}

fn bad_tag(union: &'static str, tag: u8) -> DecodeError {
    DecodeError::TagOutOfRange { union, tag: u64::from(tag) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records() -> impl Iterator<Item = StoredActor> {
        let host = EnvoyKey::new("host-1");
        let phases = [
            Phase::Starting { place: Place::Host(host.clone()), deadline: 5, then: AfterStart::Move },
            Phase::Starting { place: Place::Outbound, deadline: 6, then: AfterStart::Destroy },
            Phase::Running { host: host.clone() },
            Phase::Stopping { host: host.clone(), wish: StopWish::Sleep { rewake: true }, deadline: -1 },
            Phase::Stopping { host: host.clone(), wish: StopWish::Destroy, deadline: i64::MAX },
            Phase::Sleeping,
            Phase::Reallocating { retry_at: 9 },
            Phase::Destroyed,
        ];
        let errors = [
            None,
            Some(ActorError::NoEnvoys),
            Some(ActorError::EnvoyNoResponse { envoy_key: None }),
            Some(ActorError::EnvoyConnectionLost { envoy_key: host }),
            Some(ActorError::Crashed { message: Some("boom".into()) }),
            Some(ActorError::ConcurrentActorLimitReached),
            Some(ActorError::RunnerPoolError(PoolError::HttpError { status_code: 502, body: "no".into() })),
            Some(ActorError::RunnerPoolError(PoolError::StreamEndedEarly)),
            Some(ActorError::RunnerPoolError(PoolError::ConnectionError { message: "refused".into() })),
            Some(ActorError::RunnerPoolError(PoolError::DestinationBlocked { reason: "private".into() })),
            Some(ActorError::RunnerPoolError(PoolError::Downgrade)),
            Some(ActorError::RunnerPoolError(PoolError::InternalError)),
            Some(ActorError::RunnerPoolError(PoolError::NotAsked { reason: "too large".into() })),
        ];
        phases.into_iter().cycle().zip(errors).map(|(phase, error)| {
            let mut record = ActorRecord::new(Identity {
                actor_id: ActorId::from_parts([3; 16], 1),
                namespace_id: NamespaceId::from_parts([4; 16], 1),
                name: "counter".into(),
                key: Some("a/b".into()),
                pool: "default".into(),
                create_ts: 1,
            });
            record.phase = phase;
            record.error = error;
            record.alarm_ts = Some(77);
            record.served_alarm_ts = Some(66);
            record.retry = Retry { count: 3, last_ts: 4, first_failure_ts: 5 };
            StoredActor { record, has_input: true }
        })
    }

    #[test]
    fn round_trip_of_every_phase_and_error() {
        for stored in records() {
            let value = value(&stored);
            assert_eq!(parse(stored.record.identity.actor_id, value.clone()).as_ref(), Ok(&stored));
            for cut in 0..value.len() {
                assert!(parse(stored.record.identity.actor_id, value.slice(..cut)).is_err(), "cut at {cut}");
            }
        }
    }
}
