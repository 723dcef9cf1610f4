//! The scheduler as the gateway sees it.

use gateway::{ActorQuery, ActorView, Directory, Obstacle, QueryMethod, Refusal};
use lifecycle::actor::Input;
use protocol::id::ActorId;
use tokio::sync::watch;

use super::{Created, NewActor, Scheduler};
use crate::error::ApiError;

impl Directory for Scheduler {
    async fn find(&self, query: &ActorQuery) -> Result<Option<ActorId>, Refusal> {
        self.find_by_query(query).await.map_err(Refusal::new)
    }

    async fn create(&self, query: ActorQuery) -> Result<ActorId, Refusal> {
        self.create_by_query(query).await.map_err(Refusal::new)
    }

    async fn watch(&self, actor: ActorId) -> Result<Option<watch::Receiver<ActorView>>, Refusal> {
        // The id names a datacenter that this engine knows nothing of; a newer list of datacenters may have it.
        if actor.label() != self.0.config.datacenter_label {
            return Err(Refusal::new(ApiError::DatacenterNotFound));
        }
        Scheduler::watch(self, actor).await.map_err(Refusal::new)
    }

    fn wake(&self, actor: ActorId) {
        self.post(actor, Input::Wake);
    }

    fn obstacle(&self, actor: ActorId) -> Option<Obstacle> {
        self.obstacle_to(actor)
    }
}

impl Scheduler {
    async fn find_by_query(&self, query: &ActorQuery) -> Result<Option<ActorId>, ApiError> {
        let namespace = self.0.catalog.namespace(&query.namespace).ok_or(ApiError::NamespaceNotFound)?;
        match &query.method {
            QueryMethod::Get => {}
            QueryMethod::GetOrCreate { pool, region, .. } => {
                if region.as_ref().is_some_and(|region| !self.is_own_datacenter(region)) {
                    return Err(ApiError::DatacenterNotFound);
                }
                // Checked before the key is looked up, so that even an actor that exists needs it (`spec/gateway.md` 7).
                self.check_pool(&namespace, pool)?;
            }
        }
        let key = protocol::key::serialize(&query.key);
        self.holder_of_key(namespace.namespace_id, &query.name, &key).await
    }

    async fn create_by_query(&self, query: ActorQuery) -> Result<ActorId, ApiError> {
        let namespace = self.0.catalog.namespace(&query.namespace).ok_or(ApiError::NamespaceNotFound)?;
        let (pool, input) = match query.method {
            QueryMethod::Get => return Err(ApiError::ActorNotFound),
            QueryMethod::GetOrCreate { pool, input, region: _ } => (pool, input),
        };
        let key = Some(protocol::key::serialize(&query.key));
        Ok(match self.create(NewActor { namespace, name: query.name, key, pool, input }).await? {
            Created::New(stored) => stored.record.identity.actor_id,
            Created::Existing(actor) => actor,
        })
    }

    /// Whether a datacenter name means this engine.
    pub(crate) fn is_own_datacenter(&self, name: &str) -> bool {
        name == self.0.config.datacenter_name
    }
}
