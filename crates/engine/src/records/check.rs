//! Looking at every row of the engine in search of damage: records that cannot be read, and records and indexes that do not
//! fit each other.
//!
//! What belongs together is written together, so in one snapshot it fits whatever is in flight. Only the list of open sockets
//! is written later than what it is about, so its rows are only read.

use actor_data::check::{Fenced, Finding, OUT_OF_ORDER, Owner, Report, fenced};
use bytes::Bytes;
use protocol::id::{ActorId, Id};
use store::{Explorer, StoreError, prefix_end};

use super::actor::{self, StoredActor};
use super::{CorruptRow, actor_index, actor_name, namespace, open_socket, pool};
use crate::catalog::PoolConfig;
use crate::scheduler::persist::is_active;

/// What was looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Actors, destroyed ones included.
    pub(crate) actors: u64,
    /// Rows of all kinds.
    pub(crate) rows: u64,
    /// Bytes of their keys and values.
    pub(crate) bytes: u64,
}

/// Looks at all rows but those of `actor_data`.
pub(crate) fn check(explorer: &Explorer<'_>, report: &mut Report<'_>) -> Result<Seen, StoreError> {
    let mut walk = Walk { explorer, report, seen: Seen::default() };
    let data = actor_data::check::KINDS;
    for (start, end) in [(Bytes::new(), vec![data.start].into()), (vec![data.end].into(), prefix_end(&[]))] {
        let mut last = None;
        for row in explorer.range(&start, &end)? {
            let (key, value) = row?;
            // A damaged file may lead in circles.
            if last.is_some_and(|last| key <= last) {
                walk.find(None, OUT_OF_ORDER, key, "rows are not in order: the file is damaged, and the walk ends here".into());
                break;
            }
            last = Some(key);
            walk.seen.rows += 1;
            walk.seen.bytes += (key.len() + value.len()) as u64;
            walk.row(key, value)?;
        }
    }
    Ok(walk.seen)
}

/// Whose data an id is about.
pub(crate) fn owner(explorer: &Explorer<'_>, id: &Id) -> Result<Owner, StoreError> {
    if let Some(value) = explorer.get(&actor::key(*id))? {
        // One that cannot be read is found elsewhere, and may well have started.
        let unstarted = actor::parse(*id, Bytes::copy_from_slice(value)).is_ok_and(|stored| stored.record.generation == 0);
        return Ok(if unstarted { Owner::Unstarted } else { Owner::Actor });
    }
    let noted = explorer.get(&actor_index::reclaim(*id))?.is_some();
    Ok(if noted { Owner::Remains } else { Owner::Nobody })
}

struct Walk<'w, 'a> {
    explorer: &'w Explorer<'a>,
    report: &'w mut Report<'w>,
    seen: Seen,
}

impl Walk<'_, '_> {
    fn row(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        // The store has no empty keys.
        let kind = key.first().copied().unwrap_or_default();
        let owned = || Bytes::copy_from_slice(value);
        match kind {
            namespace::KIND => self.readable(key, namespace::parse(key, owned())),
            pool::KIND => {
                self.readable(key, pool::parse_key(key));
                self.readable(key, PoolConfig::from_stored(value));
            }
            actor_name::KIND => self.name(key, value),
            actor::RECORD => self.actor(key, owned())?,
            actor::INPUT => self.input(key)?,
            actor_index::BY_KEY => self.index(key, actor_index::holder(value))?,
            actor_index::LIVE_BY_NAME
            | actor_index::ALL_BY_NAME
            | actor_index::ACTIVE
            | actor_index::DUE
            | actor_index::RECLAIM => self.index(key, actor_index::actor_at_end(key))?,
            open_socket::OPEN_SOCKET => self.readable(key, open_socket::parse(key)),
            _ => self.find(None, "row.unknown_kind", key, format!("a row has the unknown kind {kind:#04x}")),
        }
        Ok(())
    }

    fn find(&mut self, actor: Option<ActorId>, code: &'static str, key: &[u8], message: String) {
        (self.report)(Finding { code, actor, key: key.to_vec(), message });
    }

    fn readable<T>(&mut self, key: &[u8], read: Result<T, CorruptRow>) {
        if let Err(corrupt) = read {
            self.find(None, "row.damaged", key, corrupt.to_string());
        }
    }

    /// Metadata of a name is a JSON object.
    fn name(&mut self, key: &[u8], value: &[u8]) {
        if let Err(error) = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(value) {
            let name = actor_name::name(key);
            self.find(None, "row.damaged", key, format!("the metadata of the actor name {name:?} cannot be read: {error}"));
        }
    }

    fn actor(&mut self, key: &[u8], value: Bytes) -> Result<(), StoreError> {
        self.seen.actors += 1;
        let id = match actor_index::actor_at_end(key) {
            Ok(id) if actor::key(id) == key => id,
            Ok(_) | Err(_) => {
                self.find(None, "row.malformed", key, "an actor row has a key of the wrong length".into());
                return Ok(());
            }
        };
        let stored = match actor::parse(id, value) {
            Ok(stored) => stored,
            Err(corrupt) => {
                self.find(Some(id), "row.damaged", key, corrupt.to_string());
                return Ok(());
            }
        };
        for index in index_keys(&stored) {
            if self.explorer.get(&index)?.is_none() {
                self.find(Some(id), "index.missing", &index, format!("the row that {} is missing", purpose(&index)));
            }
        }
        if wants_input(&stored) && self.explorer.get(&actor::input_key(id))?.is_none() {
            self.find(Some(id), "input.missing", &actor::input_key(id), "its input is missing".into());
        }
        self.fence(id, &stored)
    }

    /// The generation that may use the data must be that of the record.
    fn fence(&mut self, id: ActorId, stored: &StoredActor) -> Result<(), StoreError> {
        let record = &stored.record;
        let problem = match (record.is_destroyed(), fenced(self.explorer, &id)?) {
            // The walk over the data finds it.
            (_, Fenced::Damaged) => return Ok(()),
            (false, Fenced::Generation(generation)) if generation == u64::from(record.generation) => return Ok(()),
            (false, Fenced::Nobody) if record.generation == 0 => return Ok(()),
            (false, Fenced::Generation(generation)) => {
                format!("generation {generation} may use its data, but its record says {}", record.generation)
            }
            (false, Fenced::Nobody) => format!("its generation {} may not use its data", record.generation),
            (false, Fenced::Destroyed) => "its data is closed to everybody, but it is not destroyed".into(),
            (true, Fenced::Nobody) => return Ok(()),
            (true, Fenced::Destroyed) if self.explorer.get(&actor_index::reclaim(id))?.is_some() => return Ok(()),
            (true, Fenced::Destroyed) => "it is destroyed, but it is not noted that its data is to be removed".into(),
            (true, Fenced::Generation(generation)) => format!("it is destroyed, but generation {generation} may use its data"),
        };
        self.find(Some(id), "fence.wrong", &actor::key(id), problem);
        Ok(())
    }

    fn input(&mut self, key: &[u8]) -> Result<(), StoreError> {
        let Ok(id) = actor_index::actor_at_end(key) else {
            self.find(None, "row.malformed", key, "an input row has a key that is too short".into());
            return Ok(());
        };
        if self.stored(id)?.is_some_and(|stored| !wants_input(&stored)) {
            self.find(Some(id), "input.unexpected", key, "it has an input of which its record knows nothing".into());
        } else if self.explorer.get(&actor::key(id))?.is_none() {
            self.find(Some(id), "input.unexpected", key, "there is an input for an actor that does not exist".into());
        }
        Ok(())
    }

    /// A row that leads to an actor must be one of those that follow from its record.
    fn index(&mut self, key: &[u8], id: Result<ActorId, CorruptRow>) -> Result<(), StoreError> {
        let id = match id {
            Ok(id) => id,
            Err(corrupt) => {
                self.find(None, "row.damaged", key, corrupt.to_string());
                return Ok(());
            }
        };
        let to_be_removed = actor_index::reclaim(id) == key;
        if self.explorer.get(&actor::key(id))?.is_none() {
            // Data of what never became an actor is removed in the same way.
            if !to_be_removed {
                let message = format!("a row that {} leads to an actor that does not exist", purpose(key));
                self.find(Some(id), "index.stale", key, message);
            }
            return Ok(());
        }
        // One whose record cannot be read is found there.
        let Some(stored) = self.stored(id)? else { return Ok(()) };
        let expected =
            if to_be_removed { stored.record.is_destroyed() } else { index_keys(&stored).iter().any(|index| index == key) };
        if !expected {
            let message = format!("a row that {} does not fit its record", purpose(key));
            self.find(Some(id), "index.stale", key, message);
        }
        Ok(())
    }

    /// The record of an actor, if there is one that can be read.
    fn stored(&self, id: ActorId) -> Result<Option<StoredActor>, StoreError> {
        let value = self.explorer.get(&actor::key(id))?;
        Ok(value.and_then(|value| actor::parse(id, Bytes::copy_from_slice(value)).ok()))
    }
}

/// Whether there must be an input row; otherwise there must be none.
fn wants_input(stored: &StoredActor) -> bool {
    stored.has_input && !stored.record.is_destroyed()
}

/// Keys of the rows that must lead to an actor. That of its data being removed is not among them: it comes and goes.
fn index_keys(stored: &StoredActor) -> Vec<Bytes> {
    let record = &stored.record;
    let identity = &record.identity;
    let (id, namespace, name) = (identity.actor_id, identity.namespace_id, identity.name.as_str());
    let mut keys = vec![actor_index::all_by_name(namespace, name, identity.create_ts, id)];
    if !record.is_destroyed() {
        keys.push(actor_index::live_by_name(namespace, name, identity.create_ts, id));
        keys.extend(identity.key.as_ref().map(|key| actor_index::by_key(namespace, name, key)));
    }
    if is_active(record) {
        keys.push(actor_index::active(id));
    }
    keys.extend(record.next_deadline().map(|due| actor_index::due(due, id)));
    keys
}

/// What an index row does.
fn purpose(key: &[u8]) -> &'static str {
    match key.first().copied() {
        Some(actor_index::BY_KEY) => "finds it by its key",
        Some(actor_index::LIVE_BY_NAME) => "lists it among the live actors",
        Some(actor_index::ALL_BY_NAME) => "lists it among all actors",
        Some(actor_index::ACTIVE) => "says that it is not asleep",
        Some(actor_index::DUE) => "says when it must be looked at",
        Some(actor_index::RECLAIM) => "says that its data is to be removed",
        _ => "leads to it",
    }
}

#[cfg(test)]
mod tests {
    use lifecycle::actor::{ActorRecord, EnvoyKey, Identity, Phase};
    use protocol::id::NamespaceId;
    use store::{Batch, Scan, Store};

    use super::super::namespace::Namespace;
    use super::*;
    use crate::scheduler::persist::{Change, change, creation};

    const NAMESPACE: [u8; 16] = [7; 16];

    fn actor(number: u8, phase: Phase) -> StoredActor {
        let identity = Identity {
            actor_id: ActorId::from_parts([number; 16], 1),
            namespace_id: NamespaceId::from_parts(NAMESPACE, 1),
            name: "counter".to_owned(),
            key: Some("k".to_owned()),
            pool: "default".to_owned(),
            create_ts: 1,
        };
        let record = ActorRecord { phase, generation: 1, ..ActorRecord::new(identity) };
        StoredActor { record, has_input: true }
    }

    async fn write(store: &Store, change: impl FnOnce(&mut Batch)) {
        let mut batch = Batch::new();
        change(&mut batch);
        store.write(batch).await.unwrap();
    }

    /// A destroyed actor, whose data waits to be removed, and a live one that has its key now.
    async fn store() -> Store {
        let store = Store::memory();
        let before = actor(1, Phase::Running { host: EnvoyKey::new("host") });
        store.write(creation(&before, Some("input".into()), 0)).await.unwrap();
        let mut after = before.clone();
        after.record.phase = Phase::Destroyed;
        after.record.destroy_ts = Some(9);
        let Change::Durable(batch) = change(&before, &after, 0) else { panic!("a destruction is durable") };
        store.write(batch).await.unwrap();
        let live = actor(2, Phase::Reallocating { retry_at: 1_000 });
        store.write(creation(&live, Some("input".into()), 0)).await.unwrap();
        let namespace = Namespace {
            namespace_id: NamespaceId::from_parts(NAMESPACE, 1),
            name: "default".into(),
            display_name: "Default".into(),
            create_ts: 1,
        };
        write(&store, |batch| batch.put(namespace::key(namespace.namespace_id), namespace::value(&namespace))).await;
        store
    }

    fn codes(store: &Store) -> Vec<&'static str> {
        let mut codes = Vec::new();
        store.snapshot(|explorer| check(explorer, &mut |finding| codes.push(finding.code))).unwrap().unwrap();
        codes
    }

    async fn rows(store: &Store) -> Vec<(Bytes, Bytes)> {
        store.scan(Scan::prefix("")).await.unwrap()
    }

    #[tokio::test]
    async fn every_row_that_is_missing_is_missed() {
        let store = store().await;
        assert_eq!(codes(&store), [] as [&str; 0]);
        for (key, value) in rows(&store).await {
            write(&store, |batch| batch.delete(key.clone())).await;
            let destroyed = actor_index::actor_at_end(&key) == Ok(ActorId::from_parts([1; 16], 1));
            let expected: &[&str] = match key[0] {
                namespace::KIND => &[],
                actor::RECORD if destroyed => &["index.stale"],
                // Its input, and the rows for its key, name (twice), that it is not asleep, and when to look at it.
                actor::RECORD => &["input.unexpected", "index.stale", "index.stale", "index.stale", "index.stale", "index.stale"],
                actor::INPUT => &["input.missing"],
                actor_index::RECLAIM => &["fence.wrong"],
                // Once everything of a destroyed actor is removed, its fence is, too.
                0x40 if destroyed => &[],
                0x40 => &["fence.wrong"],
                _ => &["index.missing"],
            };
            assert_eq!(codes(&store), expected, "{key:x?}");
            write(&store, |batch| batch.put(key, value)).await;
        }
    }

    #[tokio::test]
    async fn rows_that_fit_nothing_are_found() {
        let store = store().await;
        let [destroyed, live, nobody] = [1, 2, 3].map(|number| ActorId::from_parts([number; 16], 1));
        let space = NamespaceId::from_parts(NAMESPACE, 1);
        let holder = |id: ActorId| Bytes::copy_from_slice(id.as_bytes());
        let socket_key = Bytes::from(vec![open_socket::OPEN_SOCKET, 1]);
        for (key, value, expected) in [
            (actor_index::active(destroyed), Bytes::new(), "index.stale"),
            (actor_index::active(nobody), Bytes::new(), "index.stale"),
            (actor_index::due(5, live), Bytes::new(), "index.stale"),
            (actor_index::reclaim(live), Bytes::new(), "index.stale"),
            (actor_index::by_key(space, "counter", "other"), holder(live), "index.stale"),
            (actor_index::by_key(space, "counter", "other"), "short".into(), "row.damaged"),
            (actor_index::live_by_name(space, "counter", 2, live), Bytes::new(), "index.stale"),
            (actor::input_key(destroyed), Bytes::new(), "input.unexpected"),
            (actor::input_key(nobody), Bytes::new(), "input.unexpected"),
            (Bytes::from_static(&[actor::RECORD, 1]), Bytes::new(), "row.malformed"),
            (Bytes::from_static(&[actor::INPUT, 1]), Bytes::new(), "row.malformed"),
            (actor::key(nobody), Bytes::from_static(&[1, 2, 3]), "row.damaged"),
            (namespace::key(space), Bytes::from_static(&[9]), "row.damaged"),
            (pool::key(space, "p"), "{".into(), "row.damaged"),
            (actor_name::key(space, "n"), "[]".into(), "row.damaged"),
            (socket_key, Bytes::new(), "row.damaged"),
            (Bytes::from_static(&[0x3f]), Bytes::new(), "row.unknown_kind"),
            (Bytes::from_static(&[0xff]), Bytes::new(), "row.unknown_kind"),
        ] {
            let before = store.get(vec![key.clone()]).await.unwrap().remove(0);
            write(&store, |batch| batch.put(key.clone(), value)).await;
            assert_eq!(codes(&store), [expected], "{key:x?}");
            write(&store, |batch| match before {
                Some(before) => batch.put(key, before),
                None => batch.delete(key),
            })
            .await;
        }
        assert_eq!(codes(&store), [] as [&str; 0]);
        write(&store, |batch| actor_data::fence::set_generation(batch, &live, 2)).await;
        assert_eq!(codes(&store), ["fence.wrong"]);
        write(&store, |batch| actor_data::fence::mark_destroyed(batch, &live)).await;
        assert_eq!(codes(&store), ["fence.wrong"]);
    }

    #[tokio::test]
    async fn owners_are_told_apart() {
        let store = store().await;
        let unstarted =
            StoredActor { record: ActorRecord { generation: 0, ..actor(4, Phase::Sleeping).record }, has_input: false };
        write(&store, |batch| {
            batch.put(actor::key(unstarted.record.identity.actor_id), actor::value(&unstarted));
            batch.put(actor_index::reclaim(ActorId::from_parts([5; 16], 1)), Bytes::new());
        })
        .await;
        let owners = |number: u8| store.snapshot(|explorer| owner(explorer, &ActorId::from_parts([number; 16], 1))).unwrap();
        let found: Vec<_> = [1, 2, 3, 4, 5].into_iter().map(|number| owners(number).unwrap()).collect();
        assert_eq!(found, [Owner::Actor, Owner::Actor, Owner::Nobody, Owner::Unstarted, Owner::Remains]);
    }
}
