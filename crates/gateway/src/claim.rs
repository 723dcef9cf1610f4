//! What a request is, as far as that can be told without looking anything up: one for an actor, and which, or not
//! (`spec/gateway.md` 3, 4.3 to 4.5). Pure.

use http::{HeaderMap, HeaderValue, Method, Request};
use percent_encoding::percent_decode_str;
use protocol::limits;

use crate::error::GatewayError;
use crate::ready::WaitFor;
use crate::target::{self, Addressed, GatewayPath};
use crate::{headers, query, websocket};

/// Where hosts connect: the engine's own business, whatever the headers say.
const CONNECT_PATHS: [&str; 4] = ["/envoys/connect", "/envoys/connect/", "/runners/connect", "/runners/connect/"];
/// A WebSocket that shows whether WebSockets get through to the engine.
const HEALTH_SOCKET_PATHS: [&str; 2] = ["/health/ws", "/health/ws/"];
/// Names the destination of a request that has no gateway path.
const TARGET_HEADER: &str = "x-rivet-target";
const ACTOR_HEADER: &str = "x-rivet-actor";
/// Asks for delivery before the actor is ready.
const SKIP_READY_WAIT_HEADER: &str = "x-rivet-skip-ready-wait";
/// JSON text for the actor.
const CONNECTION_PARAMS_HEADER: &str = "x-rivet-conn-params";
/// The same for WebSockets, as entries of the subprotocol list; the last one is percent-encoded.
const TARGET_PROTOCOL: &str = "rivet_target.";
const ACTOR_PROTOCOL: &str = "rivet_actor.";
const SKIP_READY_WAIT_PROTOCOL: &str = "rivet_skip_ready_wait";
const CONNECTION_PARAMS_PROTOCOL: &str = "rivet_conn_params.";

/// A request for an actor.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ToActor {
    pub(crate) actor: Addressed,
    /// Path and query as the actor sees them.
    pub(crate) path: String,
    pub(crate) wait_for: WaitFor,
}

/// What a request is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    ToActor(ToActor),
    /// A browser asks what it may do; nothing is looked up or woken for that.
    Preflight,
    HealthSocket,
    /// Not for the gateway.
    NotMine,
}

/// Tells what a request is. The first rule of `spec/gateway.md` 3 that fits decides.
pub(crate) fn claim<B>(request: &Request<B>, serves_health_socket: bool) -> Result<Claim, GatewayError> {
    let is_upgrade = websocket::is_upgrade(request);
    let path = request.uri().path();
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    let header_target = request.headers().get(TARGET_HEADER).and_then(|value| value.to_str().ok());
    if HEALTH_SOCKET_PATHS.contains(&path) {
        return if serves_health_socket { Ok(Claim::HealthSocket) } else { Err(no_route(request)) };
    }
    let is_preflight = *request.method() == Method::OPTIONS && !is_upgrade;
    if is_preflight && (target::is_gateway_path(path) || header_target == Some("actor")) {
        return Ok(Claim::Preflight);
    }
    if let Some(GatewayPath { actor, path, skip_ready_wait }) = target::parse(target)? {
        return to_actor(request.headers(), is_upgrade, actor, path, skip_ready_wait);
    }
    if CONNECT_PATHS.contains(&path) {
        return Ok(Claim::NotMine);
    }
    let wanted = if is_upgrade { websocket::protocol_entry(request.headers(), TARGET_PROTOCOL) } else { header_target };
    match wanted {
        // Only actors and hosts speak over WebSockets here.
        None | Some("api-public" | "envoy" | "runner") if is_upgrade => Err(GatewayError::WebSocketNotSupported),
        None | Some("api-public" | "envoy" | "runner") => Ok(Claim::NotMine),
        Some("actor") => {
            if !is_upgrade && path != "/request" && !path.starts_with("/request/") {
                return Err(no_route(request));
            }
            let actor = Addressed::Direct { actor_id: named_actor(request.headers(), is_upgrade)? };
            to_actor(request.headers(), is_upgrade, actor, target.to_owned(), None)
        }
        Some(_unknown) => Err(no_route(request)),
    }
}

/// Adds what headers or subprotocols say. A query path says for itself whether to skip the wait.
fn to_actor(
    headers: &HeaderMap,
    is_upgrade: bool,
    actor: Addressed,
    path: String,
    skip_ready_wait: Option<bool>,
) -> Result<Claim, GatewayError> {
    let skip_ready_wait = match skip_ready_wait {
        Some(skip) => skip,
        None => skips_ready_wait(headers, is_upgrade)?,
    };
    check_connection_params(headers, is_upgrade)?;
    let wait_for = if skip_ready_wait { WaitFor::Host } else { WaitFor::Ready };
    Ok(Claim::ToActor(ToActor { actor, path, wait_for }))
}

fn named_actor(headers: &HeaderMap, is_upgrade: bool) -> Result<String, GatewayError> {
    let named = if is_upgrade {
        // A subprotocol has no room for every character, so clients escape the id there.
        websocket::protocol_entry(headers, ACTOR_PROTOCOL)
            .and_then(|id| Some(percent_decode_str(id).decode_utf8().ok()?.into_owned()))
    } else {
        headers.get(ACTOR_HEADER).and_then(|value| value.to_str().ok()).map(str::to_owned)
    };
    named.ok_or(GatewayError::MissingHeader { header: ACTOR_HEADER })
}

fn skips_ready_wait(headers: &HeaderMap, is_upgrade: bool) -> Result<bool, GatewayError> {
    if is_upgrade {
        return Ok(websocket::offers_protocol(headers, SKIP_READY_WAIT_PROTOCOL));
    }
    let Some(value) = headers.get(SKIP_READY_WAIT_HEADER) else { return Ok(false) };
    value.to_str().ok().and_then(query::flag).ok_or_else(|| GatewayError::InvalidHeader {
        header: SKIP_READY_WAIT_HEADER,
        detail: "expected true, 1, false or 0".to_owned(),
    })
}

/// Limits what a client says of itself to the actor; what it says is the actor's business.
fn check_connection_params(headers: &HeaderMap, is_upgrade: bool) -> Result<(), GatewayError> {
    let size: usize = if is_upgrade {
        let escaped = websocket::protocol_entries(headers).filter_map(|entry| entry.strip_prefix(CONNECTION_PARAMS_PROTOCOL));
        escaped.map(|escaped| percent_decode_str(escaped).count()).sum()
    } else {
        headers.get_all(CONNECTION_PARAMS_HEADER).iter().map(HeaderValue::len).sum()
    };
    let max_size = limits::CONNECTION_PARAMS_MAX_BYTES;
    if size > max_size { Err(GatewayError::ConnectionParamsTooLarge { size, max_size }) } else { Ok(()) }
}

fn no_route<B>(request: &Request<B>) -> GatewayError {
    let host = headers::host_name(request).unwrap_or_default().to_owned();
    GatewayError::NoRoute { host, path: request.uri().path().to_owned() }
}

#[cfg(test)]
mod tests {
    use http::header::HOST;
    use protocol::error::Coded;

    use super::*;
    use crate::directory::{ActorQuery, QueryMethod};

    const UPGRADE: [(&str, &str); 2] = [("upgrade", "websocket"), ("connection", "Upgrade")];
    const QUERY: &str = "rvt-namespace=default&rvt-method=get";

    fn request(method: &str, target: &str, headers: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::builder().method(method).uri(target).header(HOST, "h.example:6420");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    fn over_http(target: &str, headers: &[(&str, &str)]) -> Result<Claim, GatewayError> {
        claim(&request("GET", target, headers), false)
    }

    fn over_websocket(target: &str, protocols: &str) -> Result<Claim, GatewayError> {
        let headers = [UPGRADE[0], UPGRADE[1], ("sec-websocket-protocol", protocols)];
        claim(&request("GET", target, &headers), false)
    }

    fn by_id(actor_id: &str, path: &str, wait_for: WaitFor) -> Claim {
        let actor = Addressed::Direct { actor_id: actor_id.to_owned() };
        Claim::ToActor(ToActor { actor, path: path.to_owned(), wait_for })
    }

    fn by_key(path: &str, wait_for: WaitFor) -> Claim {
        let actor = ActorQuery { namespace: "default".into(), name: "n".into(), key: vec![], method: QueryMethod::Get };
        Claim::ToActor(ToActor { actor: Addressed::Query(actor), path: path.to_owned(), wait_for })
    }

    #[track_caller]
    fn assert_refused(claimed: Result<Claim, GatewayError>, expected: &str) {
        let error = claimed.expect_err(expected);
        assert_eq!(format!("{}.{}", error.group(), error.code()), expected);
    }

    #[test]
    fn an_actor_is_found_in_each_place_and_the_path_wins() {
        let other = [("x-rivet-target", "actor"), ("x-rivet-actor", "OTHER"), ("x-rivet-token", "t")];
        for (target, headers, expected) in [
            ("/gateway/ID/x?y", &[][..], by_id("ID", "/x?y", WaitFor::Ready)),
            ("/gateway/ID@tok/x", &[], by_id("ID", "/x", WaitFor::Ready)),
            ("/gateway/ID/x", &other, by_id("ID", "/x", WaitFor::Ready)),
            (&format!("/gateway/n/x?{QUERY}&rvt-token=tok"), &other, by_key("/x", WaitFor::Ready)),
            ("/request", &other, by_id("OTHER", "/request", WaitFor::Ready)),
            ("/request/x%2Fy?z=1&rvt-key=a", &other, by_id("OTHER", "/request/x%2Fy?z=1&rvt-key=a", WaitFor::Ready)),
            // An actor without a target is not asked for.
            ("/request/x", &other[1..], Claim::NotMine),
            ("/request/x", &[("x-rivet-target", "api-public")], Claim::NotMine),
        ] {
            assert_eq!(over_http(target, headers).unwrap(), expected, "{target} {headers:?}");
        }
        let other = "rivet, rivet_target.actor, rivet_actor.OT%48ER, rivet_token.t, rivet_encoding.bare";
        for (target, protocols, expected) in [
            ("/gateway/ID/websocket/a", "chat", by_id("ID", "/websocket/a", WaitFor::Ready)),
            ("/gateway/ID@tok/connect", "rivet", by_id("ID", "/connect", WaitFor::Ready)),
            ("/gateway/ID/connect", other, by_id("ID", "/connect", WaitFor::Ready)),
            (&format!("/gateway/n/connect?{QUERY}&rvt-token=tok"), other, by_key("/connect", WaitFor::Ready)),
            // Any path will do, and nothing is taken off it.
            ("/websocket/z?q", other, by_id("OTHER", "/websocket/z?q", WaitFor::Ready)),
            ("/", other, by_id("OTHER", "/", WaitFor::Ready)),
        ] {
            assert_eq!(over_websocket(target, protocols).unwrap(), expected, "{target} {protocols}");
        }
    }

    #[test]
    fn what_names_no_actor_has_a_code() {
        let to_actor = ("x-rivet-target", "actor");
        let named = [to_actor, ("x-rivet-actor", "ID")];
        for path in ["/action/get", "/health", "/requests", "/"] {
            assert_refused(over_http(path, &named), "guard.no_route");
        }
        assert_refused(over_http("/request", &[to_actor]), "guard.missing_header");
        assert_refused(over_http("/health", &[("x-rivet-target", "bogus")]), "guard.no_route");
        assert_refused(over_http("/gateway?rvt-namespace=default", &[]), "guard.query_empty_actor_name");
        assert_refused(over_websocket("/x", "rivet, rivet_target.bogus, rivet_actor.ID"), "guard.no_route");
        assert_refused(over_websocket("/x", "rivet, rivet_target.actor"), "guard.missing_header");
        assert_refused(over_websocket("/gateway/n/x?rvt-bogus=1", "rivet"), "guard.query_invalid_params");
        // The target of a WebSocket is never in a header, nor that of an HTTP request among the subprotocols.
        let socket = [UPGRADE[0], UPGRADE[1], named[0], named[1]];
        assert_refused(claim(&request("GET", "/request", &socket), false), "guard.websocket_not_supported");
        let protocols = [("sec-websocket-protocol", "rivet_target.actor, rivet_actor.ID")];
        assert_eq!(over_http("/request", &protocols).unwrap(), Claim::NotMine);
        for path in ["/envoys/connect", "/envoys/connect/", "/runners/connect"] {
            assert_eq!(over_http(path, &named).unwrap(), Claim::NotMine, "{path}");
            assert_eq!(over_websocket(path, "rivet_target.actor, rivet_actor.ID").unwrap(), Claim::NotMine, "{path}");
        }
        assert_refused(over_websocket("/metadata", "rivet"), "guard.websocket_not_supported");
    }

    #[test]
    fn a_missing_route_names_the_host_without_its_port() {
        for (host, name) in [("h.example:80", "h.example"), ("h.example", "h.example"), ("[::1]:80", "[::1]"), ("[::1]", "[::1]")]
        {
            let request = Request::get("/").header(HOST, host).header(TARGET_HEADER, "bogus").body(()).unwrap();
            let expected = format!("No route found for hostname {name}, path /.");
            assert_eq!(claim(&request, false).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn preflights_are_told_by_path_or_target() {
        let to_actor = [("x-rivet-target", "actor")];
        for (target, headers, expected) in [
            ("/gateway/bogus/x", &[][..], Claim::Preflight),
            ("/gateway", &[], Claim::Preflight),
            ("/gateway/n/x?rvt-bogus", &[], Claim::Preflight),
            ("/action/get", &to_actor, Claim::Preflight),
            ("/gateway//x", &[], Claim::NotMine),
            ("/actors", &[], Claim::NotMine),
        ] {
            assert_eq!(claim(&request("OPTIONS", target, headers), false).unwrap(), expected, "{target}");
        }
    }

    #[test]
    fn the_wait_for_ready_is_skipped_where_it_is_said() {
        let header = |value| over_http("/gateway/ID/x", &[("x-rivet-skip-ready-wait", value)]);
        for (value, wait_for) in [("true", WaitFor::Host), ("1", WaitFor::Host), ("false", WaitFor::Ready), ("0", WaitFor::Ready)]
        {
            assert_eq!(header(value).unwrap(), by_id("ID", "/x", wait_for), "{value}");
            let target = format!("/gateway/n/x?{QUERY}&rvt-skip-ready-wait={value}");
            assert_eq!(over_http(&target, &[]).unwrap(), by_key("/x", wait_for), "{value}");
            assert_eq!(over_websocket(&target, "rivet").unwrap(), by_key("/x", wait_for), "{value}");
        }
        for value in ["yes", "", "TRUE", "2"] {
            assert_refused(header(value), "guard.invalid_header");
            let target = format!("/gateway/n/x?{QUERY}&rvt-skip-ready-wait={value}");
            assert_refused(over_http(&target, &[]), "guard.query_invalid_params");
        }
        let named = [("x-rivet-target", "actor"), ("x-rivet-actor", "ID"), ("x-rivet-skip-ready-wait", "1")];
        assert_eq!(over_http("/request", &named).unwrap(), by_id("ID", "/request", WaitFor::Host));
        let flagged = "rivet, rivet_skip_ready_wait";
        assert_eq!(over_websocket("/gateway/ID/x", flagged).unwrap(), by_id("ID", "/x", WaitFor::Host));
        let by_protocol = "rivet, rivet_target.actor, rivet_actor.ID, rivet_skip_ready_wait";
        assert_eq!(over_websocket("/x", by_protocol).unwrap(), by_id("ID", "/x", WaitFor::Host));
        // A query says it in its own parameter or not at all.
        let query = format!("/gateway/n/x?{QUERY}");
        assert_eq!(over_http(&query, &[("x-rivet-skip-ready-wait", "bogus")]).unwrap(), by_key("/x", WaitFor::Ready));
        assert_eq!(over_websocket(&query, flagged).unwrap(), by_key("/x", WaitFor::Ready));
    }

    #[test]
    fn connection_params_are_limited_at_their_edge() {
        let max = limits::CONNECTION_PARAMS_MAX_BYTES;
        let header = |size| over_http("/gateway/ID/x", &[("x-rivet-conn-params", &"p".repeat(size))]);
        // What counts is what the actor reads, not its escaped form.
        let protocol = |size| over_websocket("/gateway/ID/x", &format!("rivet, rivet_conn_params.{}", "%7B".repeat(size)));
        assert_eq!(header(max).unwrap(), by_id("ID", "/x", WaitFor::Ready));
        assert_eq!(protocol(max).unwrap(), by_id("ID", "/x", WaitFor::Ready));
        assert_refused(header(max + 1), "guard.connection_params_too_large");
        assert_refused(protocol(max + 1), "guard.connection_params_too_large");
        let half = "p".repeat(max / 2 + 1);
        let twice = [("x-rivet-conn-params", &*half), ("x-rivet-conn-params", &*half)];
        assert_refused(over_http("/gateway/ID/x", &twice), "guard.connection_params_too_large");
    }

    #[test]
    fn the_health_socket_comes_first_if_it_is_served() {
        for path in ["/health/ws", "/health/ws/"] {
            let request = request("GET", path, &[("x-rivet-target", "actor"), ("x-rivet-actor", "ID")]);
            assert_eq!(claim(&request, true).unwrap(), Claim::HealthSocket, "{path}");
            assert_refused(claim(&request, false), "guard.no_route");
        }
        assert_eq!(claim(&request("GET", "/health", &[]), true).unwrap(), Claim::NotMine);
    }
}
