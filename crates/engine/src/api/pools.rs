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
use super::{Answer, ApiContext, Context};
use crate::catalog::pool_config::PoolConfigRequest;
use crate::catalog::{PoolConfig, PoolKind};
use crate::error::ApiError;
use crate::pools::error_json;

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
        let mut shown = pool.config.to_response(pool.protocol_version);
        if let Some(error) = context.scheduler.pool_error(namespace.namespace_id, &name) {
            shown["runner_pool_error"] = error_json(&error);
        }
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
        context.scheduler.pool_saved(namespace.namespace_id, &pool, true);
        return Ok(Json(json!({ "endpoint_config_changed": false })));
    };
    if let Some(url) = request.serverless_url() {
        check_endpoint(&context, &pool, url)?;
    }
    let is_of_starting_host = request.is_of_starting_host();
    let config = PoolConfig::from_request(request, context.pool_rules)?;
    let changed = match is_of_starting_host {
        true => context.catalog.put_pool_of_host(namespace.namespace_id, &pool, config.clone()).await?,
        false => context.catalog.put_pool(namespace.namespace_id, &pool, config.clone()).await?,
    };
    context.scheduler.pool_saved(namespace.namespace_id, &pool, changed);
    match &config.kind {
        // The first actor is to find hosts whose version and actors are known.
        PoolKind::Serverless(endpoint) if changed => {
            if let Err(error) = context.endpoints.refresh(namespace.namespace_id, &pool, endpoint).await {
                tracing::warn!(pool, error = %error.to_json(), "the metadata of a new endpoint cannot be read");
            }
        }
        PoolKind::Serverless(_) | PoolKind::Normal => {}
    }
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
    context.scheduler.pool_saved(namespace.namespace_id, &pool, true);
    Ok(Json(json!({})))
}

/// Whether an endpoint may be asked at all, and told the pool's name: that travels in a header, in which hosts read anything but
/// ASCII wrong.
fn check_endpoint(context: &ApiContext, pool: &str, url: &str) -> Result<(), ApiError> {
    if !pool.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
        let reason = "the name of a serverless pool must be printable ASCII".to_owned();
        return Err(ApiError::RunnerConfigInvalid { reason });
    }
    let checked = context.endpoints.check_url(url);
    checked.map_err(|reason| ApiError::RunnerConfigInvalid { reason: format!("invalid serverless url: {reason}") })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HealthCheck {
    url: String,
    headers: Option<BTreeMap<String, String>>,
}

pub(super) async fn serverless_health_check(
    State(context): Context,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let mut query = Query::parse(query);
    // The answer depends on no namespace.
    query.required("namespace")?;
    query.finish()?;
    let HealthCheck { url, headers: sent } = read_json(&headers, body, limits::API_BODY_MAX_BYTES).await?;
    context.authorize(&headers)?;
    let checked = context.endpoints.metadata(&url, &sent.unwrap_or_default()).await;
    Ok(Json(match checked {
        Ok(metadata) => json!({ "success": { "version": metadata.version } }),
        Err(error) => json!({ "failure": { "error": error.to_json() } }),
    }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

pub(super) async fn refresh_metadata(
    State(context): Context,
    Path(pool): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let mut query = Query::parse(query);
    let namespace = query.required("namespace")?;
    query.finish()?;
    let Nothing {} = read_json(&headers, body, limits::API_BODY_MAX_BYTES).await?;
    context.authorize(&headers)?;
    let namespace = context.catalog.namespace(&namespace).ok_or(ApiError::NamespaceNotFound)?.namespace_id;
    let known = context.catalog.pool(namespace, &pool).ok_or(ApiError::RunnerConfigNotFound)?;
    let endpoint = match &known.config.kind {
        PoolKind::Serverless(endpoint) => endpoint,
        PoolKind::Normal => return Err(ApiError::ServerlessPoolNotFound),
    };
    match context.endpoints.refresh(namespace, &pool, endpoint).await {
        Ok(_) => Ok(Json(json!({}))),
        Err(error) => Err(ApiError::FailedToFetchMetadata { message: error.to_string(), reason: error.to_json() }),
    }
}
