//! `/actors` (`spec/engine-api.md` 7.7).

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::HeaderMap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use gateway::{Directory as _, Obstacle, Readiness};
use lifecycle::actor::{ActorError, ActorRecord, Input};
use protocol::id::ActorId;
use protocol::limits;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::request::{Query, json as read_json, path_id, ts_cursor};
use super::{Answer, ApiContext, Context};
use crate::error::ApiError;
use crate::pools::error_json;
use crate::records::actor::StoredActor;
use crate::records::namespace::Namespace;
use crate::scheduler::{Created, ListQuery, NewActor};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateBody {
    datacenter: Option<String>,
    name: String,
    key: Option<String>,
    input: Option<String>,
    runner_name_selector: String,
    #[serde(rename = "crash_policy")]
    _crash_policy: CrashPolicy,
}

/// Accepted as the reference does; every actor behaves as with `sleep` (`spec/scheduling.md` 3.6).
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum CrashPolicy {
    Restart,
    Sleep,
    Destroy,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoFields {}

/// An actor as lists show it, with what is wrong and what it waits for. The second is not in the published engine's answer;
/// its clients pass over it.
pub(super) fn shown(context: &ApiContext, stored: &StoredActor) -> Value {
    let mut actor = shown_state(context, &stored.record);
    if let Some(error) = context.scheduler.error_of(&stored.record) {
        actor["error"] = shown_error(&error);
    }
    // One that sleeps waits for nothing.
    let obstacle = context.scheduler.obstacle_of(&stored.record);
    if let Some(obstacle) = obstacle.filter(|obstacle| *obstacle != Obstacle::Asleep) {
        actor["waiting_for"] = obstacle.to_string().into();
    }
    actor
}

/// An actor as the answer to its creation: the start is under way, and its timestamps are not part of the answer.
fn shown_new(context: &ApiContext, stored: &StoredActor) -> Value {
    shown_state(context, &ActorRecord::new((*stored.record.identity).clone()))
}

fn shown_state(context: &ApiContext, record: &ActorRecord) -> Value {
    let identity = &record.identity;
    json!({
        "actor_id": identity.actor_id.to_string(),
        "name": identity.name,
        "key": identity.key,
        "namespace_id": identity.namespace_id.to_string(),
        "datacenter": context.datacenter_name(),
        "runner_name_selector": identity.pool,
        "crash_policy": "sleep",
        "create_ts": identity.create_ts,
        "start_ts": record.start_ts,
        "pending_allocation_ts": null,
        "connectable_ts": record.connectable_ts,
        "sleep_ts": record.sleep_ts,
        "reschedule_ts": record.reschedule_ts(),
        "destroy_ts": record.destroy_ts,
    })
}

fn shown_error(error: &ActorError) -> Value {
    match error {
        ActorError::NoEnvoys => json!("no_envoys"),
        ActorError::ConcurrentActorLimitReached => json!("concurrent_actor_limit_reached"),
        ActorError::RunnerPoolError(error) => json!({ "runner_pool_error": error_json(error) }),
        ActorError::EnvoyNoResponse { envoy_key } => {
            json!({ "envoy_no_response": { "envoy_key": envoy_key.as_ref().map(|key| key.as_str()) } })
        }
        ActorError::EnvoyConnectionLost { envoy_key } => {
            json!({ "envoy_connection_lost": { "envoy_key": envoy_key.as_str() } })
        }
        ActorError::Crashed { message } => json!({ "crashed": { "message": message } }),
    }
}

fn page(context: &ApiContext, actors: &[Arc<StoredActor>]) -> Value {
    let cursor = actors.last().map(|stored| stored.record.identity.create_ts.to_string());
    let actors: Vec<Value> = actors.iter().map(|stored| shown(context, stored)).collect();
    json!({ "actors": actors, "pagination": { "cursor": cursor } })
}

pub(super) async fn list(State(context): Context, RawQuery(query): RawQuery, headers: HeaderMap) -> Answer {
    let mut query = Query::parse(query);
    let namespace = query.required("namespace")?;
    let name = query.optional("name")?;
    let key = query.optional("key")?;
    let single_ids = query.list("actor_id");
    let comma_ids = query.optional("actor_ids")?;
    let include_destroyed = query.flag("include_destroyed")?;
    let limit = query.number("limit")?.unwrap_or(limits::LIST_DEFAULT_LIMIT).min(limits::LIST_MAX_LIMIT) as usize;
    let before = ts_cursor(&mut query)?;
    query.finish()?;
    let ids = parse_ids(&single_ids, comma_ids.as_deref())?;
    context.authorize(&headers)?;
    let namespace = namespace_of(&context, &namespace)?;

    if !ids.is_empty() && key.is_some() {
        let message = "Cannot provide both actor_id and (name + key). Use either actor_id or (name + key).".to_owned();
        return Err(ApiError::InvalidInput { message });
    }
    if !ids.is_empty() {
        return by_ids(&context, &namespace, &ids, name.as_deref(), before).await;
    }
    let Some(name) = name else {
        let message = match key {
            Some(_) => "Name is required when key is provided.",
            None => "Name is required when not using actor_ids.",
        };
        return Err(ApiError::InvalidInput { message: message.to_owned() });
    };
    if let (Some(key), false) = (&key, include_destroyed) {
        let holder = context.scheduler.holder_of_key(namespace.namespace_id, &name, key).await?;
        let ids: Vec<ActorId> = holder.into_iter().collect();
        let actors: Vec<_> = context.scheduler.actors(&ids).await?.into_iter().flatten().collect();
        return Ok(Json(page(&context, &actors)));
    }
    let query =
        ListQuery { namespace: namespace.namespace_id, name: &name, key: key.as_deref(), include_destroyed, before, limit };
    let actors = context.scheduler.list(query).await?;
    Ok(Json(page(&context, &actors)))
}

/// The published Rust client sends a name next to the ids; it then filters.
async fn by_ids(
    context: &ApiContext,
    namespace: &Namespace,
    ids: &[ActorId],
    name: Option<&str>,
    before: Option<lifecycle::Ts>,
) -> Answer {
    if ids.len() > limits::LIST_ACTOR_IDS_MAX {
        return Err(ApiError::TooManyActorIds { count: ids.len(), max: limits::LIST_ACTOR_IDS_MAX });
    }
    let mut actors: Vec<Arc<StoredActor>> = context.scheduler.actors(ids).await?.into_iter().flatten().collect();
    actors.retain(|stored| {
        let identity = &stored.record.identity;
        identity.namespace_id == namespace.namespace_id
            && name.is_none_or(|name| identity.name == name)
            && before.is_none_or(|before| identity.create_ts < before)
    });
    actors.sort_by_key(|stored| std::cmp::Reverse(stored.record.identity.create_ts));
    Ok(Json(page(context, &actors)))
}

/// A bad id in the deprecated comma list is skipped, elsewhere refused.
fn parse_ids(single: &[String], comma: Option<&str>) -> Result<Vec<ActorId>, ApiError> {
    let mut ids = Vec::new();
    for (position, id) in single.iter().enumerate() {
        let id = id.parse().map_err(|error| ApiError::BadRequest {
            reason: format!("Failed to deserialize query string: actor_id[{position}]: {error}"),
        })?;
        ids.push(id);
    }
    ids.extend(comma.unwrap_or_default().split(',').filter_map(|id| id.parse::<ActorId>().ok()));
    Ok(ids)
}

fn namespace_of(context: &ApiContext, name: &str) -> Result<Arc<Namespace>, ApiError> {
    context.catalog.namespace(name).ok_or(ApiError::NamespaceNotFound)
}

async fn read_creation(
    context: &ApiContext,
    query: Option<String>,
    headers: &HeaderMap,
    body: Body,
) -> Result<NewActor, ApiError> {
    let mut query = Query::parse(query);
    let namespace = query.required("namespace")?;
    query.finish()?;
    let body: CreateBody = read_json(headers, body, limits::API_CREATE_BODY_MAX_BYTES).await?;
    context.authorize(headers)?;
    let namespace = namespace_of(context, &namespace)?;
    if body.datacenter.as_ref().is_some_and(|name| !context.topology.datacenters.contains_key(name)) {
        return Err(ApiError::DatacenterNotFound);
    }
    let decode = |text: String| STANDARD.decode(text).map(Bytes::from);
    let input = body
        .input
        .map(decode)
        .transpose()
        .map_err(|error| ApiError::BadRequest { reason: format!("input is not base64: {error}") })?;
    Ok(NewActor { namespace, name: body.name, key: body.key, pool: body.runner_name_selector, input })
}

pub(super) async fn create(State(context): Context, RawQuery(query): RawQuery, headers: HeaderMap, body: Body) -> Answer {
    let new = read_creation(&context, query, &headers, body).await?;
    let key = new.key.clone().unwrap_or_default();
    match context.scheduler.create(new).await? {
        Created::New(stored) => Ok(Json(json!({ "actor": shown_new(&context, &stored) }))),
        Created::Existing(existing) => Err(ApiError::DuplicateKey { key, existing_actor_id: existing.to_string() }),
    }
}

pub(super) async fn get_or_create(State(context): Context, RawQuery(query): RawQuery, headers: HeaderMap, body: Body) -> Answer {
    let new = read_creation(&context, query, &headers, body).await?;
    let Some(key) = new.key.clone() else {
        let reason = "Failed to deserialize the JSON body into the target type: missing field `key`".to_owned();
        return Err(ApiError::BadRequest { reason });
    };
    let namespace = new.namespace.clone();
    context.scheduler.check_pool(&namespace, &new.pool)?;
    let mut found = find_or_create(&context, new.clone(), &key).await?;
    // Destroyed between the two look-ups: the key is free again.
    if let Found::Existing(stored) = &found
        && stored.record.is_destroyed()
    {
        context.scheduler.forget_holder(namespace.namespace_id, &new.name, &key);
        found = find_or_create(&context, new, &key).await?;
    }
    Ok(Json(match found {
        Found::New(stored) => json!({ "actor": shown_new(&context, &stored), "created": true }),
        Found::Existing(stored) => json!({ "actor": shown(&context, &stored), "created": false }),
    }))
}

enum Found {
    New(Arc<StoredActor>),
    Existing(Arc<StoredActor>),
}

async fn find_or_create(context: &ApiContext, new: NewActor, key: &str) -> Result<Found, ApiError> {
    let namespace = new.namespace.namespace_id;
    let existing = match context.scheduler.holder_of_key(namespace, &new.name, key).await? {
        Some(holder) => holder,
        None => match context.scheduler.create(new).await? {
            Created::New(stored) => return Ok(Found::New(stored)),
            Created::Existing(existing) => existing,
        },
    };
    Ok(Found::Existing(context.scheduler.actor(namespace, existing).await?))
}

/// What the calls on one actor begin with.
pub(super) async fn addressed(
    context: &ApiContext,
    actor_id: &str,
    query: Option<String>,
    headers: &HeaderMap,
) -> Result<Arc<StoredActor>, ApiError> {
    let actor = path_id(actor_id)?;
    let mut query = Query::parse(query);
    let namespace = query.required("namespace")?;
    query.finish()?;
    context.authorize(headers)?;
    if !context.topology.datacenters.values().any(|datacenter| datacenter.datacenter_label == actor.label()) {
        return Err(ApiError::DatacenterNotFound);
    }
    let namespace = namespace_of(context, &namespace)?;
    context.scheduler.actor(namespace.namespace_id, actor).await
}

pub(super) async fn destroy(
    State(context): Context,
    Path(actor_id): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Answer {
    let stored = addressed(&context, &actor_id, query, &headers).await?;
    let actor = stored.record.identity.actor_id;
    if stored.record.is_destroyed() {
        return Ok(Json(json!({})));
    }
    let Some(mut view) = context.scheduler.watch(actor).await? else { return Err(ApiError::ActorNotFound) };
    context.scheduler.post(actor, Input::Destroy);
    let destroyed = view.wait_for(|view| matches!(view.readiness, Readiness::Destroyed));
    if tokio::time::timeout(limits::DESTROY_ANSWER_TIMEOUT, destroyed).await.is_err() {
        let waiting_for = context.scheduler.obstacle(actor).map(|obstacle| obstacle.to_string());
        tracing::warn!(actor_id = %actor, waiting_for, "an actor's host has not confirmed its destruction yet");
    }
    Ok(Json(json!({})))
}

pub(super) async fn sleep(
    State(context): Context,
    Path(actor_id): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    command(&context, &actor_id, query, &headers, body, Input::Sleep).await
}

pub(super) async fn reschedule(
    State(context): Context,
    Path(actor_id): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    command(&context, &actor_id, query, &headers, body, Input::Reschedule).await
}

/// Fire and forget.
async fn command(
    context: &ApiContext,
    actor_id: &str,
    query: Option<String>,
    headers: &HeaderMap,
    body: Body,
    input: Input,
) -> Answer {
    let NoFields {} = read_json(headers, body, limits::API_BODY_MAX_BYTES).await?;
    let stored = addressed(context, actor_id, query, headers).await?;
    context.scheduler.post(stored.record.identity.actor_id, input);
    Ok(Json(json!({})))
}

pub(super) async fn names(State(context): Context, RawQuery(query): RawQuery, headers: HeaderMap) -> Answer {
    let mut query = Query::parse(query);
    let namespace = query.required("namespace")?;
    let limit = query.number("limit")?.unwrap_or(limits::LIST_DEFAULT_LIMIT).min(limits::LIST_MAX_LIMIT) as usize;
    let after = query.optional("cursor")?;
    query.finish()?;
    context.authorize(&headers)?;
    let namespace = namespace_of(&context, &namespace)?;
    let found = context.catalog.actor_names(namespace.namespace_id, after.as_deref(), limit).await?;
    let cursor = found.last().map(|(name, _)| name.clone());
    let names: Map<String, Value> = found.into_iter().map(|(name, metadata)| (name, json!({ "metadata": metadata }))).collect();
    Ok(Json(json!({ "names": names, "pagination": { "cursor": cursor } })))
}

pub(super) async fn kv_get(
    State(context): Context,
    Path((actor_id, key)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Answer {
    let bad_key = |error| ApiError::BadRequest { reason: format!("key is not base64: {error}") };
    let key = STANDARD.decode(&key).map_err(bad_key)?;
    let stored = addressed(&context, &actor_id, query, &headers).await?;
    if stored.record.is_destroyed() {
        return Err(ApiError::ActorNotFound);
    }
    let found = context.data.kv_get(stored.record.identity.actor_id, key.into()).await?;
    let (value, update_ts) = found.ok_or(ApiError::KvKeyNotFound)?;
    Ok(Json(json!({ "value": STANDARD.encode(value), "update_ts": update_ts })))
}
