//! What the gateway counts, under the names by which it is exported. `docs/metrics.md` has the same table.

use std::fmt;

use gateway::metrics::Metrics;

use super::families::Families;

pub(super) fn encode(families: &mut Families<'_>, gateway: &Metrics) -> fmt::Result {
    requests(families, gateway)?;
    http(families, gateway)?;
    websockets(families, gateway)
}

fn requests(families: &mut Families<'_>, gateway: &Metrics) -> fmt::Result {
    families.gauges("gateway_tasks", "Tasks of the gateway that run", &gateway.tasks)?;
    families.counts_of("pegboard_gateway_request", "Requests to actors that have ended", &gateway.requests)?;
    families.histograms(
        "pegboard_gateway_request_duration_seconds",
        "From the arrival of a request to an actor to its end",
        &gateway.requests,
    )?;
    families.histograms(
        "guard_route_pegboard_ready_wait_duration",
        "How long requests waited for their actor, in seconds",
        &gateway.ready_wait,
    )?;
    families.counters(
        "gateway_request_retries",
        "Requests handed on to another generation, because the first had not seen them",
        &gateway.retries,
    )
}

fn http(families: &mut Families<'_>, gateway: &Metrics) -> fmt::Result {
    families.gauges(
        "guard_proxy_request_pending",
        "HTTP requests to actors whose answer is not finished",
        &gateway.http_requests_open,
    )?;
    families.histograms(
        "gateway_http_response_start_duration_seconds",
        "From the arrival of an HTTP request to the head of the actor's answer",
        &gateway.response_start,
    )?;
    families.counters("gateway_http_body_bytes", "Bytes of HTTP bodies", &gateway.body_bytes)?;
    families.counters(
        "gateway3_http_body_window_exhausted",
        "Times an upload stood still because the actor had not taken what was sent",
        &gateway.window_exhausted,
    )?;
    families.histograms(
        "gateway3_http_body_window_stall_duration_seconds",
        "How long uploads stood still",
        &gateway.window_stall,
    )?;
    families.counters("gateway3_http_stream_abort", "HTTP exchanges with actors that were aborted", &gateway.stream_aborts)
}

fn websockets(families: &mut Families<'_>, gateway: &Metrics) -> fmt::Result {
    families.gauges("guard_websocket_active", "WebSockets of clients", &gateway.websockets_open)?;
    families.histograms(
        "pegboard_gateway_websocket_open_wait_seconds",
        "From the upgrade of a WebSocket to the actor's acceptance",
        &gateway.websocket_open,
    )?;
    families.counters("gateway_websocket_messages", "Messages on WebSockets", &gateway.websocket_messages)?;
    families.counters("gateway_websocket_bytes", "Bytes of messages on WebSockets", &gateway.websocket_bytes)?;
    families.counters("gateway_websocket_closes", "WebSockets that have ended", &gateway.websocket_closes)?;
    families.counters(
        "gateway_hibernation_sleeps",
        "Times a WebSocket began to wait for a sleeping actor",
        &gateway.hibernation_sleeps,
    )?;
    families.counters("gateway_hibernation_wakes", "Times an actor took a waiting WebSocket back", &gateway.hibernation_wakes)
}
