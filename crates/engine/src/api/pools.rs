//! `/runner-configs` (`spec/engine-api.md` 7.6 and 8).

use std::collections::BTreeMap;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::HeaderMap;
use protocol::limits;
use serde::Deserialize;
use serde_json::{Map, json};

use super::request::{Query, json as read_json};
use super::{Answer, Context};
use crate::catalog::pool_config::PoolConfigRequest;
use crate::catalog::{PoolConfig, PoolKind};
use crate::error::ApiError;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Upsert {
    datacenters: BTreeMap<String, PoolConfigRequest>,
}

pub(super) async fn list(State(context): Context, RawQuery(query): RawQuery, headers: HeaderMap) -> Answer {
    let mut query = Query::parse(query);
    let namespace = query.required("namespace")?;
    let limit = query.number("limit")?.unwrap_or(limits::LIST_DEFAULT_LIMIT).min(limits::LIST_MAX_LIMIT) as usize;
    let cursor = query.optional("cursor")?;
    let variant = query.optional("variant")?;
    let mut names = query.list("runner_name");
    if let Some(list) = query.optional("runner_names")? {
        names.extend(list.split(',').map(str::to_owned));
    }
    query.finish()?;
    context.authorize(&headers)?;
    let namespace = context.catalog.namespace(&namespace).ok_or(ApiError::NamespaceNotFound)?;
    // A cursor is `<variant>:<name>`; the variant in it is of no interest here.
    let after = cursor.as_deref().map(|cursor| cursor.split_once(':').map_or(cursor, |(_, name)| name));
    let mut configs = Map::new();
    let mut last = None;
    for (name, pool) in context.catalog.pools(namespace.namespace_id) {
        let kind = match pool.config.kind {
            PoolKind::Normal => "normal",
            PoolKind::Serverless(_) => "serverless",
        };
        let wanted = (names.is_empty() || names.contains(&name))
            && variant.as_deref().is_none_or(|variant| variant == kind)
            && after.is_none_or(|after| name.as_str() > after);
        if !wanted {
            continue;
        }
        if configs.len() == limit {
            break;
        }
        let shown = pool.config.to_response(pool.protocol_version);
        last = Some(format!("{kind}:{name}"));
        configs.insert(name, json!({ "datacenters": { context.datacenter_name(): shown } }));
    }
    Ok(Json(json!({ "runner_configs": configs, "pagination": { "cursor": last } })))
}

pub(super) async fn upsert(
    State(context): Context,
    Path(pool): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let mut query = Query::parse(query);
    let namespace = query.required("namespace")?;
    query.finish()?;
    let upsert: Upsert = read_json(&headers, body, limits::API_BODY_MAX_BYTES).await?;
    context.authorize(&headers)?;
    if pool.is_empty() || pool.len() > limits::POOL_NAME_MAX_BYTES {
        let reason = format!("pool name must have 1 to {} bytes", limits::POOL_NAME_MAX_BYTES);
        return Err(ApiError::RunnerConfigInvalid { reason });
    }
    let namespace = context.catalog.namespace(&namespace).ok_or(ApiError::NamespaceNotFound)?;
    if upsert.datacenters.keys().any(|name| !context.topology.datacenters.contains_key(name)) {
        return Err(ApiError::DatacenterNotFound);
    }
    let own = upsert.datacenters.into_iter().find(|(name, _)| name == context.datacenter_name());
    let Some((_, request)) = own else {
        context.catalog.delete_pool(namespace.namespace_id, &pool).await?;
        return Ok(Json(json!({ "endpoint_config_changed": false })));
    };
    let config = PoolConfig::from_request(request, context.pool_rules)?;
    let changed = context.catalog.put_pool(namespace.namespace_id, &pool, config).await?;
    Ok(Json(json!({ "endpoint_config_changed": changed })))
}

pub(super) async fn remove(
    State(context): Context,
    Path(pool): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Answer {
    let mut query = Query::parse(query);
    let namespace = query.required("namespace")?;
    query.finish()?;
    context.authorize(&headers)?;
    let namespace = context.catalog.namespace(&namespace).ok_or(ApiError::NamespaceNotFound)?;
    context.catalog.delete_pool(namespace.namespace_id, &pool).await?;
    Ok(Json(json!({})))
}

pub(super) async fn serverless_health_check() -> ApiError {
    ApiError::NotImplemented { what: "checking a serverless endpoint" }
}

pub(super) async fn refresh_metadata() -> ApiError {
    ApiError::NotImplemented { what: "fetching the metadata of a serverless endpoint" }
}
