//! The past of an actor's database: `/actors/{id}/history`, `restore` and `fork`. The published engine has none of these.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::HeaderMap;
use lifecycle::Ts;
use protocol::limits;
use serde::Deserialize;
use serde_json::json;

use super::actors::{addressed, shown};
use super::request::json as read_json;
use super::{Answer, ApiContext, Context};
use crate::error::ApiError;
use crate::records::actor::StoredActor;
use crate::scheduler::{Created, NewActor};

/// From when on the database's content is known, and how many bytes that takes; nulls if no history is kept.
pub(super) async fn show(
    State(context): Context,
    Path(actor_id): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Answer {
    let stored = alive(addressed(&context, &actor_id, query, &headers).await?.as_ref())?.clone();
    let identity = &stored.record.identity;
    let past = context.scheduler.past(identity.actor_id).await?;
    Ok(Json(json!({
        // What was before its creation is of no interest.
        "since_ts": past.map(|past| past.since.max(identity.create_ts)),
        "bytes": past.map(|past| past.bytes),
    })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RestoreBody {
    /// Epoch milliseconds.
    at: Ts,
}

pub(super) async fn restore(
    State(context): Context,
    Path(actor_id): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let RestoreBody { at } = read_json(&headers, body, limits::API_BODY_MAX_BYTES).await?;
    let stored = addressed(&context, &actor_id, query, &headers).await?;
    let stored = alive(&stored)?;
    check_time(stored, at, now(&context))?;
    let identity = &stored.record.identity;
    context.scheduler.restore(identity.actor_id, at).await?;
    let restored = context.scheduler.actor(identity.namespace_id, identity.actor_id).await?;
    Ok(Json(json!({ "actor": shown(&context, &restored) })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ForkBody {
    /// Epoch milliseconds; none: as it is.
    at: Option<Ts>,
    /// None: that of the source.
    name: Option<String>,
    /// Serialised; none: it is found only by its id.
    key: Option<String>,
}

pub(super) async fn fork(
    State(context): Context,
    Path(actor_id): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let ForkBody { at, name, key } = read_json(&headers, body, limits::API_BODY_MAX_BYTES).await?;
    let source = addressed(&context, &actor_id, query, &headers).await?;
    let source = alive(&source)?;
    if let Some(at) = at {
        check_time(source, at, now(&context))?;
    }
    let identity = &source.record.identity;
    let namespace = context.catalog.namespace_by_id(identity.namespace_id).ok_or(ApiError::NamespaceNotFound)?;
    let name = name.unwrap_or_else(|| identity.name.clone());
    let new = NewActor { namespace, name, key: key.clone(), pool: identity.pool.clone(), input: None };
    match context.scheduler.fork(source, new, at).await? {
        Created::New(forked) => Ok(Json(json!({ "actor": shown(&context, &forked) }))),
        Created::Existing(existing) => {
            Err(ApiError::DuplicateKey { key: key.unwrap_or_default(), existing_actor_id: existing.to_string() })
        }
    }
}

/// A destroyed actor has no data.
fn alive(stored: &StoredActor) -> Result<&StoredActor, ApiError> {
    if stored.record.is_destroyed() { Err(ApiError::ActorNotFound) } else { Ok(stored) }
}

/// The actor must have been there, and the time must have come.
fn check_time(stored: &StoredActor, at: Ts, now: Ts) -> Result<(), ApiError> {
    let created = stored.record.identity.create_ts;
    if at < created {
        return Err(ApiError::InvalidInput { message: format!("The actor was created at {created}.") });
    }
    if at > now {
        return Err(ApiError::InvalidInput { message: format!("The time is in the future; it is {now} now.") });
    }
    Ok(())
}

fn now(context: &ApiContext) -> Ts {
    context.scheduler.now()
}
