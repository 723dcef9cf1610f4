//! The metrics listener: a few gauges of low cardinality in Prometheus text form (`spec/engine-api.md` 12).

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use subtle::ConstantTimeEq;

use crate::config::Secret;
use crate::hosts::Hosts;
use crate::scheduler::Scheduler;

/// What the metrics are read from.
pub(crate) struct MetricsContext {
    pub(crate) hosts: Hosts,
    pub(crate) scheduler: Scheduler,
    pub(crate) tunnels: gateway::Tunnels,
    pub(crate) token: Option<Secret>,
}

/// Answers every path with all metrics.
pub(crate) fn router(context: Arc<MetricsContext>) -> Router {
    Router::new().fallback(scrape).with_state(context)
}

async fn scrape(
    State(context): State<Arc<MetricsContext>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
) -> Response {
    if !context.may_scrape(peer, &headers) {
        return (StatusCode::UNAUTHORIZED, "a bearer token is required").into_response();
    }
    match context.render() {
        Ok(text) => ([("content-type", "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

impl MetricsContext {
    /// With a token configured it is required, without one only this machine may look (`decisions.md` 10).
    fn may_scrape(&self, peer: SocketAddr, headers: &HeaderMap) -> bool {
        let Some(wanted) = &self.token else { return peer.ip().to_canonical().is_loopback() };
        let given = headers.get("authorization").and_then(|value| value.to_str().ok());
        let given = given.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
        given.as_bytes().ct_eq(wanted.expose().as_bytes()).into()
    }

    fn render(&self) -> Result<String, std::fmt::Error> {
        let mut registry = Registry::with_prefix("rivet");
        let connected = self.hosts.all().iter().filter(|host| host.info().connected).count();
        for (name, help, value) in [
            ("envoy_connection_active", "Hosts that are connected", connected),
            ("gateway_in_flight", "Requests and WebSockets that are open to actors", self.tunnels.open_count()),
            ("actor_resident", "Actors held in memory: all that are not asleep", self.scheduler.resident_actors()),
        ] {
            let gauge = Gauge::<i64>::default();
            gauge.set(value as i64);
            registry.register(name, help, gauge);
        }
        let mut text = String::new();
        encode(&mut text, &registry)?;
        Ok(text)
    }
}
