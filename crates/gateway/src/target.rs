//! Which actor a request target addresses, and the path that the actor sees (`spec/gateway.md` 3 to 5). Pure.

use percent_encoding::percent_decode_str;

use crate::directory::ActorQuery;
use crate::error::GatewayError;
use crate::query;

/// An actor addressed by a gateway path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayPath {
    /// Which actor.
    pub actor: Addressed,
    /// Path and query for the actor: the two first segments and the gateway's own parameters removed, the rest byte for
    /// byte.
    pub path: String,
    /// Whether the request wants to be delivered before the actor is ready; `None` where the path has no way to say so, and
    /// headers or subprotocols may.
    pub skip_ready_wait: Option<bool>,
}

/// How an actor is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Addressed {
    /// By its id, as text that has not been checked.
    Direct {
        /// The id.
        actor_id: String,
    },
    /// By name and key.
    Query(ActorQuery),
}

/// Parses a request target. `Ok(None)`: not a gateway path.
pub fn parse(path_and_query: &str) -> Result<Option<GatewayPath>, GatewayError> {
    let (path, query) = split_query(path_and_query);
    if !is_gateway_path(path) {
        return Ok(None);
    }
    let rest = path.strip_prefix("/gateway/").unwrap_or_default();
    let (subject, rest) = match rest.find('/') {
        Some(slash) => rest.split_at(slash),
        None => (rest, "/"),
    };
    if let Some(query) = query.filter(|query| query::is_query_style(query)) {
        let parsed = query::parse(subject, query)?;
        let path = if parsed.kept.is_empty() { rest.to_owned() } else { format!("{rest}?{}", parsed.kept) };
        let skip_ready_wait = Some(parsed.skip_ready_wait);
        return Ok(Some(GatewayPath { actor: Addressed::Query(parsed.actor), path, skip_ready_wait }));
    }
    let Some(actor_id) = direct_actor_id(subject) else { return Ok(None) };
    let path = match query {
        Some(query) => format!("{rest}?{query}"),
        None => rest.to_owned(),
    };
    Ok(Some(GatewayPath { actor: Addressed::Direct { actor_id }, path, skip_ready_wait: None }))
}

/// Whether a path belongs to the gateway: its first segment says so. Preflight requests are answered without looking further.
pub fn is_gateway_path(path: &str) -> bool {
    (path == "/gateway" || path.starts_with("/gateway/")) && !path.contains("//")
}

/// The id of a direct path's second segment, `{actor_id}[@{token}]`. The token is checked by nobody in this edition, but
/// an empty or undecodable one makes the path no gateway path, as does such an id.
fn direct_actor_id(subject: &str) -> Option<String> {
    let decode = |text: &str| Some(percent_decode_str(text).decode_utf8().ok()?.into_owned()).filter(|text| !text.is_empty());
    match subject.split_once('@') {
        Some((actor_id, token)) => {
            decode(token)?;
            decode(actor_id)
        }
        None => decode(subject),
    }
}

/// Splits at the first `?`; a fragment, which no client should send, is dropped.
fn split_query(path_and_query: &str) -> (&str, Option<&str>) {
    let without_fragment = path_and_query.split('#').next().unwrap_or_default();
    match without_fragment.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (without_fragment, None),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::directory::QueryMethod;

    fn direct(target: &str) -> (String, String) {
        match parse(target).unwrap().unwrap() {
            GatewayPath { actor: Addressed::Direct { actor_id }, path, skip_ready_wait: None } => (actor_id, path),
            other @ GatewayPath { actor: Addressed::Direct { .. }, .. } => panic!("{other:?}"),
            GatewayPath { actor: Addressed::Query(query), .. } => panic!("{query:?}"),
        }
    }

    #[test]
    fn direct_paths_are_stripped_byte_for_byte() {
        for (target, actor_id, path) in [
            ("/gateway/ID", "ID", "/"),
            ("/gateway/ID/", "ID", "/"),
            ("/gateway/ID?a=1", "ID", "/?a=1"),
            ("/gateway/ID/request/x%2Fy?q=%20b+c", "ID", "/request/x%2Fy?q=%20b+c"),
            ("/gateway/ID@tok/p?q", "ID", "/p?q"),
            ("/gateway/I%44/p#frag", "ID", "/p"),
            ("/gateway/I%44@t%2Fok/p", "ID", "/p"),
            ("/gateway/ID@t@u/", "ID", "/"),
            ("/gateway/ID/?&&a=+&=&", "ID", "/?&&a=+&=&"),
            ("/gateway/ID/a;b=c/../d/./%2e?rvt%2Dkey=1", "ID", "/a;b=c/../d/./%2e?rvt%2Dkey=1"),
        ] {
            assert_eq!(direct(target), (actor_id.to_owned(), path.to_owned()), "{target}");
        }
    }

    #[test]
    fn what_is_no_gateway_path() {
        for target in [
            "/gateway//ID/x",
            "//gateway/ID",
            "/Gateway/ID",
            "/gateway",
            "/gateway?a=1",
            "/gateway/",
            "/gateway/ID//x?rvt-method=get",
            "/gatewayx/ID",
            "/x/gateway/ID",
            "/gateway/@t/x",
            "/gateway/ID@/x",
            "/gateway/%ff/x",
            "/gateway/ID@%ff/x",
            "/",
        ] {
            assert_eq!(parse(target).unwrap(), None, "{target}");
        }
    }

    #[test]
    fn a_query_path_needs_a_name() {
        for target in ["/gateway?rvt-method=get", "/gateway/?rvt-method=get", "/gateway?a=1&rvt-bogus"] {
            assert!(matches!(parse(target), Err(GatewayError::QueryEmptyActorName)), "{target}");
        }
    }

    #[test]
    fn query_paths_lose_only_the_gateways_own_parameters() {
        let target = "/gateway/n/request/echo?a=1&rvt-namespace=default&rvt-method=getOrCreate&&rvt-runner=default&rvt-key=t&b=%2F+c&&=d&e";
        let parsed = parse(target).unwrap().unwrap();
        assert_eq!(parsed.path, "/request/echo?a=1&b=%2F+c&=d&e");
        for target in ["/gateway/n?rvt-namespace=d&rvt-method=get", "/gateway/n/?&rvt-namespace=d&&rvt-method=get&"] {
            assert_eq!(parse(target).unwrap().unwrap().path, "/", "{target}");
        }
        let Addressed::Query(query) = parsed.actor else { panic!() };
        assert_eq!(
            (query.namespace.as_str(), query.name.as_str(), query.key.as_slice()),
            ("default", "n", &["t".to_owned()][..])
        );
        assert_eq!(query.method, QueryMethod::GetOrCreate { pool: "default".into(), input: None, region: None });
    }

    proptest! {
        /// Whatever a client sends is understood or refused, and an actor never sees the gateway's own parameters.
        #[test]
        fn any_target_can_be_read(target in "(/gateway(/[a-z%@]{0,4})?)?[/?&=#%+@a-f0-9-]{0,30}(&rvt-(namespace|method|key|zzz)=(get|a))*") {
            let Ok(Some(parsed)) = parse(&target) else { return Ok(()) };
            prop_assert!(target.starts_with("/gateway") && parsed.path.starts_with('/'), "{:?}", parsed);
            let (path, query) = split_query(&parsed.path);
            prop_assert!(path == "/" || split_query(&target).0.ends_with(path), "{:?}", parsed);
            if let Some(query) = query {
                prop_assert!(!query::is_query_style(query), "{:?}", parsed);
            }
        }
    }
}
