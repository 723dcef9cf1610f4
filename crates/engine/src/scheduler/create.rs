//! Creating actors (`spec/scheduling.md` 2).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use lifecycle::Ts;
use lifecycle::actor::{ActorRecord, Identity, Input, World, step};
use protocol::id::ActorId;
use protocol::limits;
use store::{Decision, Reads};

use super::Scheduler;
use super::cell::ActorCell;
use super::perform::Consequences;
use super::{lane, persist};
use crate::error::ApiError;
use crate::records::actor::StoredActor;
use crate::records::actor_index;
use crate::records::namespace::Namespace;

/// An actor to be created.
#[derive(Debug, Clone)]
pub(crate) struct NewActor {
    pub(crate) namespace: Arc<Namespace>,
    pub(crate) name: String,
    /// Serialised.
    pub(crate) key: Option<String>,
    pub(crate) pool: String,
    pub(crate) input: Option<Bytes>,
}

/// The result of a creation.
pub(crate) enum Created {
    /// It was made.
    New(Arc<StoredActor>),
    /// The key is held by this one.
    Existing(ActorId),
}

impl Scheduler {
    /// Creates an actor and starts it, in one commit: record, key, indexes and the first command.
    ///
    /// A caller that goes away changes nothing: what has been committed is acted upon all the same.
    pub(crate) async fn create(&self, new: NewActor) -> Result<Created, ApiError> {
        self.check(&new)?;
        if !self.0.creation_limit.take(new.namespace.namespace_id, self.0.clock.now()) {
            return Err(ApiError::CreationRateLimit);
        }
        let scheduler = self.clone();
        let creation = tokio::spawn(async move { scheduler.create_claimed(new).await });
        creation.await.unwrap_or(Err(ApiError::Internal))
    }

    async fn create_claimed(&self, new: NewActor) -> Result<Created, ApiError> {
        let input = new.input.clone();
        let unborn = ActorRecord::new(self.identity(self.new_id(), new));
        // Others learn the id from the commit. What they ask for waits in the lane until the creation has been acted upon.
        let cell = self.enter(unborn.identity.actor_id, ActorCell::claim);
        let created = self.commit_and_perform(&cell, unborn, input).await;
        tokio::spawn(lane::run(self.clone(), cell));
        created
    }

    async fn commit_and_perform(&self, cell: &ActorCell, unborn: ActorRecord, input: Option<Bytes>) -> Result<Created, ApiError> {
        let offer = self.0.pools.offer(&unborn.identity);
        let world = World {
            now: self.0.clock.now(),
            rules: &self.0.config.rules,
            stop_threshold_ms: self.stop_threshold_ms(&unborn),
            capacity: offer.capacity(),
        };
        let first = step(&unborn, &Input::Wake, &world);
        let stored = StoredActor { record: first.record, has_input: input.is_some() };
        let batch = persist::creation(&stored, input, self.retention_s(&stored.record.identity));
        match self.insert(&stored.record.identity, batch).await {
            Ok(None) => {}
            Ok(Some(existing)) => {
                self.return_offer(&offer, &unborn.identity, false);
                return Ok(Created::Existing(existing));
            }
            Err(error) => {
                self.return_offer(&offer, &unborn.identity, false);
                return Err(error);
            }
        }
        let stored = Arc::new(stored);
        let consequences = Consequences { commands: first.commands, ..Consequences::default() };
        self.perform(cell, &unborn, stored.clone(), consequences);
        Ok(Created::New(stored))
    }

    /// An id for a new actor.
    pub(super) fn new_id(&self) -> ActorId {
        self.0.randomness.id(self.0.config.datacenter_label)
    }

    /// Of an actor that is created now.
    pub(super) fn identity(&self, actor_id: ActorId, new: NewActor) -> Identity {
        Identity {
            actor_id,
            namespace_id: new.namespace.namespace_id,
            name: new.name,
            key: new.key,
            pool: new.pool,
            create_ts: self.next_create_ts(),
        }
    }

    /// Stores a new actor, and remembers who has its key. If that is another one already, nothing is stored, and the answer is
    /// who.
    pub(super) async fn insert(&self, identity: &Identity, batch: store::Batch) -> Result<Option<ActorId>, ApiError> {
        let epoch = self.0.keys.epoch();
        let holder = self.insert_unless_taken(identity, batch).await?;
        if holder.is_none()
            && let Some(key) = &identity.key
        {
            self.0.keys.insert(epoch, identity.namespace_id, &identity.name, key, identity.actor_id);
        }
        Ok(holder)
    }

    async fn insert_unless_taken(&self, identity: &Identity, batch: store::Batch) -> Result<Option<ActorId>, ApiError> {
        let key = identity.key.as_ref().map(|key| actor_index::by_key(identity.namespace_id, &identity.name, key));
        let Some(key) = key else {
            self.0.store.write(batch).await?;
            return Ok(None);
        };
        let holder = self
            .0
            .store
            .update(Reads::keys([key]), move |view| match view.get(0) {
                Some(holder) => Decision::Skip(Some(Bytes::copy_from_slice(holder))),
                None => Decision::Commit(batch.clone(), None),
            })
            .await?;
        Ok(holder.map(|holder| actor_index::holder(&holder)).transpose()?)
    }

    /// Whether an actor may be created like this: the limits of `spec/scheduling.md` 2.1, and its pool.
    pub(super) fn check(&self, new: &NewActor) -> Result<(), ApiError> {
        check(new)?;
        self.check_pool(&new.namespace, &new.pool)
    }

    /// Fails when a pool has no configuration.
    pub(crate) fn check_pool(&self, namespace: &Namespace, pool: &str) -> Result<(), ApiError> {
        match self.0.catalog.pool(namespace.namespace_id, pool) {
            Some(_) => Ok(()),
            None => Err(ApiError::NoRunnerConfigConfigured { namespace: namespace.name.clone(), pool_name: pool.to_owned() }),
        }
    }

    /// The present time, moved on by a millisecond as often as needed to be unique.
    pub(super) fn next_create_ts(&self) -> Ts {
        let now = self.0.clock.now();
        let after = |last: Ts| Some(now.max(last + 1));
        match self.0.last_create_ts.fetch_update(Ordering::AcqRel, Ordering::Acquire, after) {
            Ok(last) | Err(last) => now.max(last + 1),
        }
    }
}

/// The limits of `spec/scheduling.md` 2.1.
fn check(new: &NewActor) -> Result<(), ApiError> {
    if new.name.is_empty() {
        return Err(ApiError::EmptyName);
    }
    if new.name.chars().count() > limits::ACTOR_NAME_MAX_CHARS {
        return Err(ApiError::NameTooLong { max_size: limits::ACTOR_NAME_MAX_CHARS });
    }
    if let Some(key) = &new.key {
        if key.is_empty() {
            return Err(ApiError::EmptyKey);
        }
        check_size(key, limits::ACTOR_KEY_MAX_BYTES)?;
        for component in protocol::key::parse(key) {
            check_size(&component, limits::ACTOR_KEY_COMPONENT_MAX_BYTES)?;
        }
    }
    if new.input.as_ref().is_some_and(|input| input.len() > limits::ACTOR_INPUT_MAX_BYTES) {
        return Err(ApiError::InputTooLarge { max_size: limits::ACTOR_INPUT_MAX_BYTES });
    }
    Ok(())
}

/// Limits a key, or a component of one (`spec/gateway.md` 6.3).
fn check_size(text: &str, max_size: usize) -> Result<(), ApiError> {
    if text.len() <= max_size {
        return Ok(());
    }
    let key_preview = text[..text.floor_char_boundary(max_size)].to_owned();
    Err(ApiError::KeyTooLarge { max_size, key_preview })
}
