//! What a start request carries: gathered from the scheduler and the actor's data, and made to fit.

use bytes::Bytes;
use protocol::envoy::{ActorCheckpoint, CommandStartActor, PreloadedKv, ServerlessStart};
use protocol::id::ActorId;
use protocol::limits;

use super::start::Failure;
use super::{Endpoints, start};
use crate::scheduler::StartConfig;

/// Index of the one command of a start request (`spec/scheduling.md` 3.2).
const START_INDEX: i64 = 0;

/// The body of the request for a generation, for hosts that speak `version`. `None`: the actor has moved on.
pub(super) async fn gather(
    endpoints: &Endpoints,
    actor: ActorId,
    generation: u32,
    version: u16,
) -> Result<Option<Bytes>, Failure> {
    let config = endpoints.0.scheduler.start_config(actor, generation).await.map_err(|error| {
        tracing::error!(actor_id = %actor, %error, "what an actor's start needs cannot be read");
        Failure::not_asked("what the start needs cannot be read")
    })?;
    let Some(config) = config else { return Ok(None) };
    let (namespace, name) = (config.identity.namespace_id, config.identity.name.clone());
    let manifest = match endpoints.0.preload_max_bytes {
        0 => None,
        _ => endpoints.0.catalog.preload_manifest(namespace, &name).await.unwrap_or_else(|error| {
            tracing::error!(actor_id = %actor, %error, "what an actor's start is to preload cannot be read");
            None
        }),
    };
    let bare = as_start(actor, generation, config, None);
    let body = start::body(&bare, version)?;
    let Some(manifest) = manifest else { return Ok(Some(body)) };
    let room = limits::SERVERLESS_START_BODY_MAX_BYTES - body.len();
    let budget = endpoints.0.preload_max_bytes.min(manifest.budget_within(room));
    let preloaded_kv = endpoints.0.data.preload(actor, generation, manifest, budget).await.unwrap_or_else(|error| {
        tracing::warn!(actor_id = %actor, %error, "an actor's data cannot be preloaded; its host will ask for them");
        None
    });
    if preloaded_kv.is_none() {
        return Ok(Some(body));
    }
    let full = ServerlessStart { command: CommandStartActor { preloaded_kv, ..bare.command }, ..bare };
    start::body(&full, version).map(Some)
}

fn as_start(actor: ActorId, generation: u32, config: StartConfig, preloaded_kv: Option<PreloadedKv>) -> ServerlessStart {
    let checkpoint = ActorCheckpoint { actor_id: actor.to_string(), generation, index: START_INDEX };
    ServerlessStart { checkpoint, command: config.into_command(preloaded_kv) }
}
