//! `/runner-configs` (`spec/engine-api.md` 7.6 and 8).

use std::collections::BTreeMap;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::HeaderMap;
use protocol::id::NamespaceId;
use protocol::limits;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, json};

use super::request::{Query, json as read_json};
use super::{Answer, ApiContext, Context};
use crate::catalog::pool_config::PoolConfigRequest;
use crate::catalog::{PoolConfig, PoolKind, uncancelled};
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
    let (namespace, upsert): (_, Upsert) = namespace_and_body(&context, query, &headers, body).await?;
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
        delete(&context, namespace.namespace_id, pool).await?;
        return Ok(Json(json!({ "endpoint_config_changed": false })));
    };
    if let Some(url) = request.serverless_url() {
        check_endpoint(&context, &pool, url)?;
    }
    let is_of_starting_host = request.is_of_starting_host();
    let config = PoolConfig::from_request(request, context.pool_rules)?;
    let changed = save(&context, namespace.namespace_id, pool.clone(), config.clone(), is_of_starting_host).await?;
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
    let namespace = only_namespace(query)?;
    context.authorize(&headers)?;
    let namespace = context.catalog.namespace(&namespace).ok_or(ApiError::NamespaceNotFound)?;
    delete(&context, namespace.namespace_id, pool).await?;
    Ok(Json(json!({})))
}

/// What most routes here take: the name of a namespace as the only parameter.
fn only_namespace(query: Option<String>) -> Result<String, ApiError> {
    let mut query = Query::parse(query);
    let namespace = query.required("namespace")?;
    query.finish()?;
    Ok(namespace)
}

/// The same of an authorised call, and its body.
async fn namespace_and_body<T: DeserializeOwned>(
    context: &ApiContext,
    query: Option<String>,
    headers: &HeaderMap,
    body: Body,
) -> Result<(String, T), ApiError> {
    let namespace = only_namespace(query)?;
    let body = read_json(headers, body, limits::API_BODY_MAX_BYTES).await?;
    context.authorize(headers)?;
    Ok((namespace, body))
}

/// Writes a pool's configuration. Whether it leads somewhere else now. Those who wait for the pool hear of it even if the caller
/// hangs up meanwhile.
async fn save(
    context: &ApiContext,
    namespace: NamespaceId,
    pool: String,
    config: PoolConfig,
    is_of_starting_host: bool,
) -> Result<bool, ApiError> {
    let (catalog, scheduler) = (context.catalog.clone(), context.scheduler.clone());
    uncancelled(async move {
        let changed = match is_of_starting_host {
            true => catalog.put_pool_of_host(namespace, &pool, config).await?,
            false => catalog.put_pool(namespace, &pool, config).await?,
        };
        scheduler.pool_saved(namespace, &pool, changed);
        Ok(changed)
    })
    .await
}

/// As [`save`], for a pool that is to have no configuration any more.
async fn delete(context: &ApiContext, namespace: NamespaceId, pool: String) -> Result<(), ApiError> {
    let (catalog, scheduler) = (context.catalog.clone(), context.scheduler.clone());
    uncancelled(async move {
        catalog.delete_pool(namespace, &pool).await?;
        scheduler.pool_saved(namespace, &pool, true);
        Ok(())
    })
    .await
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
    // The answer depends on no namespace.
    let (_, HealthCheck { url, headers: sent }) = namespace_and_body(&context, query, &headers, body).await?;
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
    let (namespace, Nothing {}) = namespace_and_body(&context, query, &headers, body).await?;
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::Router;
    use futures_util::FutureExt;
    use http::{Method, Request, StatusCode, header};
    use protocol::envoy::GatewayId;
    use serde_json::Value;
    use store::Store;
    use tokio::sync::{mpsc, watch};
    use tower::ServiceExt;

    use super::*;
    use crate::clock::Clock;
    use crate::config::Config;
    use crate::control_plane::{self, ControlPlane, Surroundings};
    use crate::random::Randomness;
    use crate::scheduler::OutboundOrder;

    async fn control_plane() -> ControlPlane {
        let config = Config::default();
        let surroundings = Surroundings {
            store: Store::memory(),
            clock: Clock::system(),
            randomness: Randomness::system(),
            gateway_id: GatewayId([1; 4]),
            topology: config.topology.clone(),
            shutdown: watch::Sender::new(false).subscribe(),
            alive: mpsc::channel(1).0,
        };
        control_plane::assemble(&config, surroundings).await.unwrap()
    }

    async fn call(api: &Router, method: Method, path: &str, body: Value) -> StatusCode {
        let request = Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, "application/json");
        api.clone().oneshot(request.body(Body::from(body.to_string())).unwrap()).await.unwrap().status()
    }

    #[tokio::test]
    async fn who_waits_for_a_pool_hears_of_it_though_the_caller_hangs_up() {
        let ControlPlane { api, mut orders, .. } = control_plane().await;
        let save = |config: Value| {
            let body = json!({ "datacenters": { "default": config } });
            call(&api, Method::PUT, "/runner-configs/p?namespace=default", body)
        };
        assert_eq!(save(json!({ "normal": {} })).await, StatusCode::OK);
        let actor = json!({ "name": "counter", "runner_name_selector": "p", "crash_policy": "sleep" });
        assert_eq!(call(&api, Method::POST, "/actors?namespace=default", actor).await, StatusCode::OK);

        // Nothing else wakes the actor: no host comes, and no timers run.
        let serverless = json!({ "serverless": { "url": "http://127.0.0.1:9/", "request_lifespan": 900 } });
        assert!(save(serverless).now_or_never().is_none(), "the configuration was written at once");
        let order = tokio::time::timeout(Duration::from_secs(5), orders.recv()).await;
        assert!(matches!(order, Ok(Some(OutboundOrder::Start { generation: 1, .. }))), "{order:?}");
    }
}
