//! The scheduler as the gateway sees it.

use gateway::{ActorQuery, ActorView, Directory, QueryMethod, Refusal};
use lifecycle::actor::Input;
use protocol::id::ActorId;
use tokio::sync::watch;

use super::{Created, NewActor, Scheduler};
use crate::error::ApiError;

impl Directory for Scheduler {
    async fn resolve(&self, query: ActorQuery) -> Result<ActorId, Refusal> {
        self.resolve_query(query).await.map_err(Refusal::new)
    }

    async fn watch(&self, actor: ActorId) -> Result<Option<watch::Receiver<ActorView>>, Refusal> {
        Scheduler::watch(self, actor).await.map_err(Refusal::new)
    }

    fn wake(&self, actor: ActorId) {
        self.post(actor, Input::Wake);
    }
}

impl Scheduler {
    async fn resolve_query(&self, query: ActorQuery) -> Result<ActorId, ApiError> {
        let namespace = self.0.catalog.namespace(&query.namespace).ok_or(ApiError::NamespaceNotFound)?;
        let key = protocol::key::serialize(&query.key);
        match query.method {
            QueryMethod::Get => {
                let holder = self.holder_of_key(namespace.namespace_id, &query.name, &key).await?;
                holder.ok_or(ApiError::ActorNotFound)
            }
            QueryMethod::GetOrCreate { pool, input, region } => {
                if region.is_some_and(|region| !self.is_own_datacenter(&region)) {
                    return Err(ApiError::DatacenterNotFound);
                }
                self.check_pool(&namespace, &pool)?;
                if let Some(holder) = self.holder_of_key(namespace.namespace_id, &query.name, &key).await? {
                    return Ok(holder);
                }
                check_components(&query.key)?;
                let new = NewActor { namespace, name: query.name, key: Some(key), pool, input };
                Ok(match self.create(new).await? {
                    Created::New(stored) => stored.record.identity.actor_id,
                    Created::Existing(actor) => actor,
                })
            }
        }
    }

    /// Whether a datacenter name means this engine.
    pub(crate) fn is_own_datacenter(&self, name: &str) -> bool {
        name == self.0.config.datacenter_name
    }
}

/// Each component of a new actor's key has a limit of its own (`spec/gateway.md` 6.3).
fn check_components(key: &[String]) -> Result<(), ApiError> {
    let max_size = protocol::limits::ACTOR_KEY_COMPONENT_MAX_BYTES;
    match key.iter().find(|component| component.len() > max_size) {
        Some(component) => {
            let end = component.floor_char_boundary(max_size);
            Err(ApiError::KeyTooLarge { max_size, key_preview: component[..end].to_owned() })
        }
        None => Ok(()),
    }
}
