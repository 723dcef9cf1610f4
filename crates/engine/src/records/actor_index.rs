//! Rows that lead to actors.
//!
//! * `12` namespace id, length of name u16, name, serialised key -> actor id: who holds a key now
//! * `13` namespace id, length of name u16, name, created u64, actor id -> nothing: live actors by name, in order of creation
//! * `14` the same, destroyed ones included
//! * `15` actor id -> nothing: actors that are not asleep; read at start
//! * `16` due u64, actor id -> nothing: when time alone changes something
//! * `17` actor id -> nothing: destroyed actors whose data has not been deleted yet

use bytes::Bytes;
use lifecycle::Ts;
use protocol::id::{ActorId, NamespaceId};

use super::CorruptRow;

pub(crate) const BY_KEY: u8 = 0x12;
pub(crate) const LIVE_BY_NAME: u8 = 0x13;
pub(crate) const ALL_BY_NAME: u8 = 0x14;
pub(crate) const ACTIVE: u8 = 0x15;
pub(crate) const DUE: u8 = 0x16;
pub(crate) const RECLAIM: u8 = 0x17;
const ID_BYTES: usize = 18;

fn named(kind: u8, namespace: NamespaceId, name: &str, rest: &[&[u8]]) -> Bytes {
    let mut key = vec![kind];
    key.extend_from_slice(namespace.as_bytes());
    // Names are at most 64 characters, so the length always fits.
    key.extend_from_slice(&(name.len() as u16).to_be_bytes());
    key.extend_from_slice(name.as_bytes());
    for part in rest {
        key.extend_from_slice(part);
    }
    key.into()
}

fn single(kind: u8, actor: ActorId) -> Bytes {
    let mut key = vec![kind];
    key.extend_from_slice(actor.as_bytes());
    key.into()
}

pub(crate) fn by_key(namespace: NamespaceId, name: &str, key: &str) -> Bytes {
    named(BY_KEY, namespace, name, &[key.as_bytes()])
}

/// The value of a `by_key` row.
pub(crate) fn holder(value: &[u8]) -> Result<ActorId, CorruptRow> {
    let id: [u8; ID_BYTES] =
        value.try_into().map_err(|_| CorruptRow { kind: "actor key", reason: "its value has the wrong length".into() })?;
    Ok(ActorId::from_bytes(id))
}

pub(crate) fn live_by_name(namespace: NamespaceId, name: &str, create_ts: Ts, actor: ActorId) -> Bytes {
    named(LIVE_BY_NAME, namespace, name, &[&(create_ts as u64).to_be_bytes(), actor.as_bytes()])
}

pub(crate) fn all_by_name(namespace: NamespaceId, name: &str, create_ts: Ts, actor: ActorId) -> Bytes {
    named(ALL_BY_NAME, namespace, name, &[&(create_ts as u64).to_be_bytes(), actor.as_bytes()])
}

/// First key, and the key behind the last, of the actors of a name created before `before`.
pub(crate) fn listed(namespace: NamespaceId, name: &str, destroyed_too: bool, before: Option<Ts>) -> (Bytes, Bytes) {
    let kind = if destroyed_too { ALL_BY_NAME } else { LIVE_BY_NAME };
    let prefix = named(kind, namespace, name, &[]);
    let end = match before {
        Some(before) => named(kind, namespace, name, &[&(before.max(0) as u64).to_be_bytes()]),
        None => store::prefix_end(&prefix),
    };
    (prefix, end)
}

pub(crate) fn active(actor: ActorId) -> Bytes {
    single(ACTIVE, actor)
}

pub(crate) fn all_active() -> (Bytes, Bytes) {
    (Bytes::from_static(&[ACTIVE]), Bytes::from_static(&[ACTIVE + 1]))
}

pub(crate) fn due(at: Ts, actor: ActorId) -> Bytes {
    let mut key = vec![DUE];
    key.extend_from_slice(&(at.max(0) as u64).to_be_bytes());
    key.extend_from_slice(actor.as_bytes());
    key.into()
}

/// First key, and the key behind the last, of everything due before `before`.
pub(crate) fn due_before(before: Ts) -> (Bytes, Bytes) {
    let mut end = vec![DUE];
    end.extend_from_slice(&(before.max(0) as u64).to_be_bytes());
    (Bytes::from_static(&[DUE]), end.into())
}

pub(crate) fn reclaim(actor: ActorId) -> Bytes {
    single(RECLAIM, actor)
}

pub(crate) fn all_reclaim() -> (Bytes, Bytes) {
    (Bytes::from_static(&[RECLAIM]), Bytes::from_static(&[RECLAIM + 1]))
}

/// The actor at the end of a key.
pub(crate) fn actor_at_end(key: &[u8]) -> Result<ActorId, CorruptRow> {
    let id: [u8; ID_BYTES] = key
        .len()
        .checked_sub(ID_BYTES)
        .and_then(|start| key[start..].try_into().ok())
        .ok_or_else(|| CorruptRow { kind: "actor index", reason: "its key is too short".into() })?;
    Ok(ActorId::from_bytes(id))
}

/// The due time in a key of [`due`].
pub(crate) fn due_time(key: &[u8]) -> Result<Ts, CorruptRow> {
    let at: [u8; 8] = key
        .get(1..9)
        .and_then(|at| at.try_into().ok())
        .ok_or_else(|| CorruptRow { kind: "due", reason: "its key is too short".into() })?;
    Ok(u64::from_be_bytes(at) as Ts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_prefixes_of_each_other_do_not_mix() {
        let namespace = NamespaceId::from_parts([1; 16], 1);
        let actor = ActorId::from_parts([2; 16], 1);
        let (start, end) = listed(namespace, "a", false, None);
        let within = |key: &Bytes| start <= *key && *key < end;
        assert!(within(&live_by_name(namespace, "a", 5, actor)));
        assert!(!within(&live_by_name(namespace, "ab", 5, actor)));
        let (start, end) = listed(namespace, "a", false, Some(5));
        assert!(start < end && !(start..end).contains(&live_by_name(namespace, "a", 5, actor)));
    }

    #[test]
    fn due_rows_are_in_order_of_time() {
        let actor = ActorId::from_parts([0xff; 16], 0xffff);
        let (start, end) = due_before(1_000);
        assert!((start.clone()..end.clone()).contains(&due(999, actor)));
        assert!(!(start..end).contains(&due(1_000, actor)));
        let key = due(1_795_225_433_089, actor);
        assert_eq!((due_time(&key), actor_at_end(&key)), (Ok(1_795_225_433_089), Ok(actor)));
    }
}
