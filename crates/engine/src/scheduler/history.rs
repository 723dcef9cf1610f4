//! The past of actors' databases: how long it is kept, going back to it, and actors made of it.

use std::sync::Arc;

use actor_data::{HistoryError, Past, Restored};
use bytes::Bytes;
use gateway::{ActorView, Readiness};
use lifecycle::Ts;
use lifecycle::actor::{ActorRecord, Identity, Input};
use protocol::id::ActorId;
use protocol::limits;
use tokio::time::MissedTickBehavior;

use super::{Created, NewActor, Scheduler, alarm, persist};
use crate::catalog::uncancelled;
use crate::error::ApiError;
use crate::records::actor::{self, StoredActor};

impl Scheduler {
    /// How long a generation of an actor keeps the history of its database, in seconds; 0: not at all.
    pub(super) fn retention_s(&self, actor: &Identity) -> u32 {
        let pool = self.0.catalog.pool(actor.namespace_id, &actor.pool);
        pool.and_then(|pool| pool.config.history_retention_s).unwrap_or(self.0.config.history_retention_s)
    }

    /// Forgets old history of actors that do not write, for as long as the engine runs.
    pub(crate) async fn prune_history(self) {
        let mut prune = tokio::time::interval(limits::PRUNE_HISTORY_INTERVAL);
        prune.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            prune.tick().await;
            if let Err(error) = self.0.data.prune_history().await {
                tracing::warn!(%error, "old history of databases cannot be removed; tried again later");
            }
        }
    }

    /// The present time.
    pub(crate) fn now(&self) -> Ts {
        self.0.clock.now()
    }

    /// What is known of the past of an actor's database.
    pub(crate) async fn past(&self, actor: ActorId) -> Result<Option<Past>, ApiError> {
        match self.0.data.past(actor).await {
            Ok(past) => Ok(past),
            // It has not started yet.
            Err(HistoryError::NoActor) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes an actor's database what it was at some time, and starts the actor anew: it must forget what it has in memory, and
    /// say when its schedules of that time are due. When this returns, no request reaches the old instance any more.
    ///
    /// A caller that goes away changes nothing.
    pub(crate) async fn restore(&self, actor: ActorId, at: Ts) -> Result<(), ApiError> {
        let scheduler = self.clone();
        uncancelled(async move {
            let restored = scheduler.0.data.restore(actor, at, |draft| alarm::forgotten(actor, draft)).await?;
            match restored {
                Restored::Same => {}
                Restored::Changed { head } => {
                    tracing::info!(actor_id = %actor, at, head, "an actor's database was put back to an earlier time");
                    scheduler.start_anew(actor).await?;
                }
            }
            Ok(())
        })
        .await
    }

    /// Ends the present generation of an actor, if it has one, and starts the next.
    async fn start_anew(&self, actor: ActorId) -> Result<(), ApiError> {
        let Some(mut view) = self.watch(actor).await? else { return Err(ApiError::ActorNotFound) };
        let stored = self.actors(&[actor]).await?.pop().flatten().ok_or(ApiError::ActorNotFound)?;
        let old = stored.record.generation;
        self.post(actor, Input::Evict { generation: old });
        // One that sleeps has no generation to be moved.
        self.post(actor, Input::Wake);
        let is_shut = |view: &ActorView| !matches!(view.readiness, Readiness::Ready { generation, .. } if generation == old);
        if tokio::time::timeout(limits::RESTORE_ANSWER_TIMEOUT, view.wait_for(is_shut)).await.is_err() {
            tracing::warn!(actor_id = %actor, "an actor whose database was put back still takes requests (restore_answer_timeout)");
        }
        Ok(())
    }

    /// Makes a sleeping actor with the data of another one: as it is, or with the database as it was at some time. It has no
    /// alarm, so that it does nothing before somebody addresses it.
    ///
    /// A caller that goes away changes nothing.
    pub(crate) async fn fork(&self, source: &StoredActor, new: NewActor, at: Option<Ts>) -> Result<Created, ApiError> {
        self.check(&new)?;
        if let Some(key) = &new.key
            && let Some(holder) = self.holder_of_key(new.namespace.namespace_id, &new.name, key).await?
        {
            return Ok(Created::Existing(holder));
        }
        if !self.0.creation_limit.take(new.namespace.namespace_id, self.0.clock.now()) {
            return Err(ApiError::CreationRateLimit);
        }
        let (scheduler, from, has_input) = (self.clone(), source.record.identity.actor_id, source.has_input);
        uncancelled(async move {
            let actor_id = scheduler.new_id();
            // Should the process end halfway, the next one deletes what there is.
            scheduler.0.store.write(persist::fork_begun(actor_id)).await?;
            let forked = scheduler.copy_and_insert(actor_id, new, from, has_input, at).await;
            if !matches!(forked, Ok(Created::New(_))) {
                scheduler.reclaim(actor_id);
            }
            forked
        })
        .await
    }

    async fn copy_and_insert(
        &self,
        actor_id: ActorId,
        new: NewActor,
        from: ActorId,
        has_input: bool,
        at: Option<Ts>,
    ) -> Result<Created, ApiError> {
        self.0.data.copy(from, actor_id, at, |draft| alarm::forgotten(actor_id, draft)).await?;
        let input = if has_input { self.input(from).await? } else { None };
        let identity = self.identity(actor_id, new);
        let record = ActorRecord { sleep_ts: Some(identity.create_ts), ..ActorRecord::new(identity) };
        let stored = StoredActor { record, has_input: input.is_some() };
        match self.insert(&stored.record.identity, persist::fork(&stored, input)).await? {
            Some(existing) => Ok(Created::Existing(existing)),
            None => Ok(Created::New(Arc::new(stored))),
        }
    }

    async fn input(&self, actor: ActorId) -> Result<Option<Bytes>, ApiError> {
        Ok(self.0.store.get(vec![actor::input_key(actor)]).await?.pop().flatten())
    }
}
