//! `/envoys` and the older `/runners` (`spec/engine-api.md` 7.8).

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::HeaderMap;
use protocol::limits;
use serde_json::json;

use super::request::{Query, ts_cursor};
use super::{Answer, Context};
use crate::error::ApiError;

/// Connected hosts, newest first; with keys, also ones that are out of touch.
pub(super) async fn envoys(State(context): Context, RawQuery(query): RawQuery, headers: HeaderMap) -> Answer {
    let mut query = Query::parse(query);
    let namespace = query.required("namespace")?;
    let pool = query.optional("name")?;
    let keys = query.list("envoy_key");
    let limit = query.number("limit")?.unwrap_or(limits::LIST_DEFAULT_LIMIT).min(limits::LIST_MAX_LIMIT) as usize;
    let before = ts_cursor(&mut query)?;
    query.finish()?;
    context.authorize(&headers)?;
    let namespace = context.catalog.namespace(&namespace).ok_or(ApiError::NamespaceNotFound)?;
    let mut hosts = Vec::new();
    for host in context.hosts.all().into_iter().filter(|host| host.namespace_id == namespace.namespace_id) {
        let info = host.info();
        let asked_for = if keys.is_empty() { info.connected } else { keys.iter().any(|key| key == host.key.as_str()) };
        let of_pool = pool.as_ref().is_none_or(|pool| *pool == info.pool);
        if asked_for && of_pool && before.is_none_or(|before| info.create_ts < before) {
            hosts.push((host, info));
        }
    }
    // No two were made at the same time.
    hosts.sort_by_key(|(_, info)| std::cmp::Reverse(info.create_ts));
    hosts.truncate(limit);
    let cursor = hosts.last().map(|(_, info)| info.create_ts.to_string());
    let mut envoys = Vec::with_capacity(hosts.len());
    for (host, info) in hosts {
        envoys.push(json!({
            "envoy_key": host.key.as_str(),
            "namespace_id": namespace.namespace_id.to_string(),
            "datacenter": context.datacenter_name(),
            "pool_name": info.pool,
            "version": info.version,
            "slots": context.scheduler.slots(&host),
            "create_ts": info.create_ts,
            "stop_ts": null,
            "last_ping_ts": info.last_ping_ts,
            "last_connected_ts": null,
            "last_rtt": info.last_rtt_ms,
            "metadata": info.metadata,
        }));
    }
    Ok(Json(json!({ "envoys": envoys, "pagination": { "cursor": cursor } })))
}

/// There are no legacy runners.
pub(super) async fn runners(State(context): Context, RawQuery(query): RawQuery, headers: HeaderMap) -> Answer {
    let mut query = Query::parse(query);
    let namespace = query.required("namespace")?;
    query.optional("name")?;
    query.list("runner_id");
    query.optional("runner_ids")?;
    query.flag("include_stopped")?;
    query.number::<u64>("limit")?;
    ts_cursor(&mut query)?;
    query.finish()?;
    context.authorize(&headers)?;
    context.catalog.namespace(&namespace).ok_or(ApiError::NamespaceNotFound)?;
    Ok(Json(json!({ "runners": [], "pagination": { "cursor": null } })))
}

/// There are no legacy runners.
pub(super) async fn runner_names(State(context): Context, RawQuery(query): RawQuery, headers: HeaderMap) -> Answer {
    let mut query = Query::parse(query);
    let namespace = query.required("namespace")?;
    query.number::<u64>("limit")?;
    query.optional("cursor")?;
    query.finish()?;
    context.authorize(&headers)?;
    context.catalog.namespace(&namespace).ok_or(ApiError::NamespaceNotFound)?;
    Ok(Json(json!({ "names": [], "pagination": { "cursor": null } })))
}
