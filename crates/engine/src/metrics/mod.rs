//! The metrics listener: families of a fixed number of series in Prometheus text form (`spec/engine-api.md` 12,
//! `decisions.md` 10).
//!
//! * `families`: how a family is written.
//! * `gateway`, `listener`, `process`, `sql`, `storage`: which families there are.

mod families;
mod gateway;
mod listener;
mod process;
mod sql;
mod storage;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use ::gateway::Gateway;
use axum::Router;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::registry::Registry;
use store::Store;
use subtle::ConstantTimeEq;

use crate::config::Secret;
use crate::envoy::StorageMetrics;
use crate::hosts::Hosts;
use crate::scheduler::Scheduler;
use crate::sql::RemoteSql;
use families::Families;
use process::Process;

pub(crate) use listener::{Destination, ListenerMetrics};

/// What the metrics are read from.
pub(crate) struct MetricsContext {
    pub(crate) hosts: Hosts,
    pub(crate) scheduler: Scheduler,
    pub(crate) sql: RemoteSql,
    pub(crate) gateway: Gateway<Scheduler>,
    pub(crate) tunnels: ::gateway::Tunnels,
    pub(crate) listener: Arc<ListenerMetrics>,
    pub(crate) store: Store,
    pub(crate) storage: Arc<StorageMetrics>,
}

/// Answers every path with all metrics.
pub(crate) fn router(context: MetricsContext, token: Option<Secret>) -> Router {
    let mut registry = Registry::with_prefix("rivet");
    registry.register_collector(Box::new(context));
    let mut process = Registry::default();
    process.register_collector(Box::new(Process));
    Router::new().fallback(scrape).with_state(Arc::new(Exporter { registry, process, token }))
}

struct Exporter {
    registry: Registry,
    process: Registry,
    token: Option<Secret>,
}

async fn scrape(
    State(exporter): State<Arc<Exporter>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
) -> Response {
    if !may_scrape(exporter.token.as_ref(), peer, &headers) {
        return (StatusCode::UNAUTHORIZED, "a bearer token is required").into_response();
    }
    // Files are counted by listing them, and there may be many.
    match tokio::task::spawn_blocking(move || exporter.render()).await {
        Ok(Ok(text)) => ([("content-type", "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response(),
        Ok(Err(fmt::Error)) | Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

impl Exporter {
    fn render(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode_registry(&mut text, &self.process)?;
        encode_registry(&mut text, &self.registry)?;
        encode_eof(&mut text)?;
        Ok(text)
    }
}

/// With a token configured it is required, without one only this machine may look (`decisions.md` 10).
fn may_scrape(token: Option<&Secret>, peer: SocketAddr, headers: &HeaderMap) -> bool {
    let Some(wanted) = token else { return peer.ip().to_canonical().is_loopback() };
    let given = headers.get("authorization").and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    given.as_bytes().ct_eq(wanted.expose().as_bytes()).into()
}

impl Collector for MetricsContext {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut families = Families::new(encoder);
        self.encode_engine(&mut families)?;
        self.encode_tables(&mut families)?;
        storage::encode(&mut families, &self.storage, &self.store)?;
        self.listener.encode(&mut families)?;
        sql::encode(&mut families, self.sql.metrics())?;
        gateway::encode(&mut families, self.gateway.metrics())
    }
}

impl MetricsContext {
    fn encode_engine(&self, families: &mut Families<'_>) -> fmt::Result {
        let hosts = self.hosts.all();
        let connected = hosts.iter().filter(|host| host.info().connected).count() as u64;
        let outboxes: usize = hosts.iter().filter_map(|host| host.link()).map(|link| link.queued_bytes()).sum();
        let resident = self.scheduler.resident_actors() as u64;
        let alive_tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks() as u64;
        families.value("envoy_connection_active", "Hosts that are connected", connected)?;
        families.value("envoy_outbox_bytes", "Bytes that wait to be written to hosts", outboxes as u64)?;
        families.value("actor_resident", "Actors held in memory: all that are not asleep", resident)?;
        families.value("tokio_active_task_count", "Tasks of the whole process", alive_tasks)
    }

    fn encode_tables(&self, families: &mut Families<'_>) -> fmt::Result {
        let open = self.tunnels.open_count() as u64;
        families.value("gateway_in_flight", "Requests and WebSockets that are open to actors", open)?;
        let waiting =
            [("actors", self.tunnels.waiting_for_actors_bytes()), ("clients", self.tunnels.waiting_for_clients_bytes())];
        families.values("gateway_waiting_bytes", "Bytes that wait for those who should take them", "for", &waiting)?;
        let admission = self.gateway.admission_counts();
        let in_flight = admission.in_flight;
        families.value("guard_in_flight_request_count", "Requests and WebSockets of clients that have a limit", in_flight)?;
        let refused = [("rate", admission.refused_by_rate), ("in_flight", admission.refused_by_in_flight)];
        families.counts("guard_admission_refused", "Requests refused for what their client did before", "limit", &refused)
    }
}

/// Needed by the registry; there is nothing to tell.
impl fmt::Debug for MetricsContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricsContext").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_may_scrape_without_a_token() {
        let none = HeaderMap::new();
        let peer = |address: &str| SocketAddr::new(address.parse().unwrap(), 5);
        for near in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert!(may_scrape(None, peer(near), &none), "{near}");
        }
        let with = |value: &'static str| HeaderMap::from_iter([(http::header::AUTHORIZATION, value.parse().unwrap())]);
        for far in ["203.0.113.7", "10.0.0.1", "2001:db8::1", "::ffff:10.0.0.1"] {
            assert!(!may_scrape(None, peer(far), &none), "{far}");
            assert!(!may_scrape(None, peer(far), &with("Bearer ")), "{far}");
        }
    }
}
