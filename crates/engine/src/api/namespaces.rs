//! `/namespaces` (`spec/engine-api.md` 7.5).

use axum::Json;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::HeaderMap;
use protocol::id::NamespaceId;
use protocol::limits;
use serde::Deserialize;
use serde_json::{Value, json};

use super::request::{Query, json as read_json};
use super::{Answer, Context};
use crate::error::ApiError;
use crate::records::namespace::Namespace;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    name: String,
    display_name: String,
}

fn shown(namespace: &Namespace) -> Value {
    json!({
        "namespace_id": namespace.namespace_id.to_string(),
        "name": namespace.name,
        "display_name": namespace.display_name,
        "create_ts": namespace.create_ts,
    })
}

pub(super) async fn list(State(context): Context, RawQuery(query): RawQuery, headers: HeaderMap) -> Answer {
    let mut query = Query::parse(query);
    let limit = query.number("limit")?.unwrap_or(limits::LIST_NAMESPACES_DEFAULT_LIMIT).min(limits::LIST_MAX_LIMIT) as usize;
    let cursor = query.optional("cursor")?;
    let name = query.optional("name")?;
    let mut ids = query.list("namespace_id");
    if let Some(list) = query.optional("namespace_ids")? {
        ids.extend(list.split(',').map(str::to_owned));
    }
    query.finish()?;
    let ids = ids.iter().map(|id| parse_id(id)).collect::<Result<Vec<NamespaceId>, _>>()?;
    context.authorize(&headers)?;
    let all = context.catalog.namespaces();
    let (page, next) = match (name, ids.is_empty()) {
        (Some(name), _) => (all.iter().filter(|namespace| namespace.name == name).collect::<Vec<_>>(), None),
        (None, false) => (ids.iter().filter_map(|id| all.iter().find(|namespace| namespace.namespace_id == *id)).collect(), None),
        (None, true) => {
            // By name, as the cursor says: time alone would lose namespaces of one millisecond.
            let after = cursor.unwrap_or_default();
            let page: Vec<_> = all.iter().filter(|namespace| namespace.name > after).take(limit).collect();
            let next = page.last().map(|namespace| namespace.name.clone());
            (page, next)
        }
    };
    let namespaces: Vec<Value> = page.into_iter().map(|namespace| shown(namespace)).collect();
    Ok(Json(json!({ "namespaces": namespaces, "pagination": { "cursor": next } })))
}

fn parse_id(text: &str) -> Result<NamespaceId, ApiError> {
    let reason = |error| format!("invalid id in `namespace_ids` query: {error}");
    text.parse().map_err(|error| ApiError::BadRequest { reason: reason(error) })
}

pub(super) async fn create(State(context): Context, RawQuery(query): RawQuery, headers: HeaderMap, body: Body) -> Answer {
    Query::parse(query).finish()?;
    let create: Create = read_json(&headers, body, limits::API_BODY_MAX_BYTES).await?;
    context.authorize(&headers)?;
    let namespace = context.catalog.create_namespace(&create.name, &create.display_name).await?;
    Ok(Json(json!({ "namespace": shown(&namespace) })))
}
