//! What crosses the gateway in headers, in both directions (`spec/gateway.md` 12 and 13).

use std::net::IpAddr;

use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, HOST, HeaderName, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use http::uri::Authority;
use http::{HeaderMap, Request, Uri};
use protocol::envoy::Headers;
use protocol::limits;

/// Carries the trace id of a request, both ways.
pub const RAY_ID_HEADER: HeaderName = HeaderName::from_static("x-rivet-ray-id");
/// Names the error on answers that the gateway itself made.
pub(crate) const ERROR_HEADER: HeaderName = HeaderName::from_static("x-rivet-error");
pub(crate) const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// The client's own ray id, if it sent a usable one.
pub fn accept_ray_id(headers: &HeaderMap) -> Option<&str> {
    let ray = headers.get(RAY_ID_HEADER)?.to_str().ok()?;
    let usable = (1..=limits::RAY_ID_MAX_BYTES).contains(&ray.len())
        && ray.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    usable.then_some(ray)
}

/// Whether a header speaks to the next hop only (RFC 9110, 7.6.1).
fn is_hop_by_hop(name: &HeaderName) -> bool {
    [CONNECTION, KEEP_ALIVE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, PROXY_AUTHORIZATION, PROXY_AUTHENTICATE].contains(name)
}

/// The headers that the sender's `connection` header gives to the next hop only. Hosts and forwarded addresses are for
/// everybody, whatever it says: a client must not be able to take off what a proxy has added.
fn named_by_connection<'a>(values: impl Iterator<Item = &'a str>, is_present: impl Fn(&HeaderName) -> bool) -> Vec<HeaderName> {
    let mut named = Vec::new();
    for token in values.flat_map(|list| list.split(',')) {
        let Ok(name) = HeaderName::from_bytes(token.trim().as_bytes()) else { continue };
        // What is not there would only make the list as long as the sender likes.
        if is_present(&name) && name != HOST && name != FORWARDED_FOR && !named.contains(&name) {
            named.push(name);
        }
    }
    named
}

/// The host that a request is for, without the port; `None` when it does not say.
pub fn host_name<B>(request: &Request<B>) -> Option<&str> {
    let named = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    let host = named.or_else(|| request.uri().authority().map(Authority::as_str))?;
    // An address of version 6 has colons of its own, within brackets.
    let port = host.rfind(':').filter(|colon| host[*colon..].bytes().all(|byte| byte != b']'));
    Some(port.map_or(host, |colon| &host[..colon]))
}

/// Whether a request keeps its hop-by-hop headers: those of a WebSocket upgrade are stored by the actor's host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HopByHop {
    Remove,
    Keep,
}

/// The headers of a client's request as the actor gets them: lower-case, one value per name.
///
/// The protocol has room for one value: repeated ones are joined (with `; ` for cookies). Values that hosts cannot be given
/// are left out.
pub(crate) fn for_actor(headers: &HeaderMap, uri: &Uri, ray: &str, peer: IpAddr, hop_by_hop: HopByHop) -> Headers {
    let mut pairs: Vec<(String, String)> = Vec::with_capacity(headers.len() + 3);
    let for_next_hop = match hop_by_hop {
        HopByHop::Remove => {
            let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
            named_by_connection(values, |name| headers.contains_key(name))
        }
        HopByHop::Keep => Vec::new(),
    };
    for name in headers.keys() {
        let is_hop_by_hop = hop_by_hop == HopByHop::Remove && (is_hop_by_hop(name) || for_next_hop.contains(name));
        if *name == RAY_ID_HEADER || *name == FORWARDED_FOR || is_hop_by_hop {
            continue;
        }
        let separator = if *name == COOKIE { "; " } else { ", " };
        if let Some(value) = joined(headers, name, separator) {
            pairs.push((name.as_str().to_owned(), value));
        }
    }
    if !headers.contains_key(HOST)
        && let Some(authority) = uri.authority()
    {
        pairs.push((HOST.as_str().to_owned(), authority.as_str().to_owned()));
    }
    let peer = peer.to_canonical();
    let forwarded_for = match joined(headers, &FORWARDED_FOR, ", ") {
        Some(hops) => format!("{hops}, {peer}"),
        None => peer.to_string(),
    };
    pairs.push((FORWARDED_FOR.as_str().to_owned(), forwarded_for));
    pairs.push((RAY_ID_HEADER.as_str().to_owned(), ray.to_owned()));
    pairs.into_iter().collect()
}

/// A value as a host can take it. The protocol's strings are UTF-8. The headers of a JavaScript host hold no character above
/// U+00FF, and one that has any makes the whole request fail there.
fn for_host(value: &HeaderValue) -> Option<&str> {
    let text = std::str::from_utf8(value.as_bytes()).ok()?;
    text.chars().all(|character| character <= '\u{ff}').then_some(text)
}

fn joined(headers: &HeaderMap, name: &HeaderName, separator: &str) -> Option<String> {
    let mut joined: Option<String> = None;
    for value in headers.get_all(name) {
        let Some(value) = for_host(value) else { continue };
        match &mut joined {
            Some(joined) => {
                joined.push_str(separator);
                joined.push_str(value);
            }
            None => joined = Some(value.to_owned()),
        }
    }
    joined
}

/// A header of the actor that HTTP does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IllegalHeader;

/// The headers of an actor's answer as the client gets them.
pub(crate) fn for_client(headers: &Headers) -> Result<HeaderMap, IllegalHeader> {
    let mut map = HeaderMap::with_capacity(headers.len() + 6);
    let connection = headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(CONNECTION.as_str()));
    let is_present = |name: &HeaderName| headers.iter().any(|(present, _)| present.eq_ignore_ascii_case(name.as_str()));
    let for_next_hop = named_by_connection(connection.map(|(_, value)| value.as_str()), is_present);
    for (name, value) in headers.iter() {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| IllegalHeader)?;
        if is_hop_by_hop(&name) || for_next_hop.contains(&name) {
            continue;
        }
        map.insert(name, HeaderValue::from_bytes(value.as_bytes()).map_err(|_| IllegalHeader)?);
    }
    Ok(map)
}

/// The length that a request announces; `None` when it announces none.
pub(crate) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_headers_are_joined_cleaned_and_completed() {
        let mut headers = HeaderMap::new();
        headers.append("x-a", HeaderValue::from_static("1"));
        headers.append("x-a", HeaderValue::from_static("2"));
        headers.append(COOKIE, HeaderValue::from_static("a=1"));
        headers.append(COOKIE, HeaderValue::from_static("b=2"));
        headers.append(CONNECTION, HeaderValue::from_static("close, X-Next-Hop"));
        headers.append(CONNECTION, HeaderValue::from_static("host, x-forwarded-for, x-nowhere, te, b@d"));
        headers.append("x-next-hop", HeaderValue::from_static("for the gateway"));
        for name in ["keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "proxy-authorization"] {
            headers.append(name, HeaderValue::from_static("x"));
        }
        headers.append("x-utf8", HeaderValue::from_bytes("grün".as_bytes()).unwrap());
        headers.append("x-bytes", HeaderValue::from_bytes(&[0xff]).unwrap());
        headers.append("x-wide", HeaderValue::from_bytes("ż".as_bytes()).unwrap());
        headers.append("x-a", HeaderValue::from_bytes("€".as_bytes()).unwrap());
        headers.append("x-forwarded-for", HeaderValue::from_static("9.9.9.9"));
        let uri = Uri::from_static("http://h.example/x");
        let sent = for_actor(&headers, &uri, "ray1", IpAddr::from([127, 0, 0, 1]), HopByHop::Remove);
        let mut sent: Vec<_> = sent.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        sent.sort();
        let expected = [
            ("cookie", "a=1; b=2"),
            ("host", "h.example"),
            ("x-a", "1, 2"),
            ("x-forwarded-for", "9.9.9.9, 127.0.0.1"),
            ("x-rivet-ray-id", "ray1"),
            ("x-utf8", "grün"),
        ];
        assert_eq!(sent, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn a_websocket_upgrade_keeps_its_headers() {
        let pairs = [("connection", "upgrade, x-next-hop"), ("upgrade", "websocket"), ("x-next-hop", "1")];
        let headers: HeaderMap =
            pairs.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).into_iter().collect();
        let sent = for_actor(&headers, &Uri::from_static("/"), "ray1", IpAddr::from([127, 0, 0, 1]), HopByHop::Keep);
        for (name, value) in pairs {
            assert_eq!(sent.get(name).map(String::as_str), Some(value), "{name}");
        }
    }

    #[test]
    fn response_headers_are_cleaned() {
        let sent = [
            ("Connection", "close, X-Next-Hop, x-nowhere"),
            ("keep-alive", "timeout=5"),
            ("te", "x"),
            ("trailer", "x"),
            ("Transfer-Encoding", "chunked"),
            ("upgrade", "h2c"),
            ("proxy-authenticate", "Basic"),
            ("x-next-hop", "for the gateway"),
            ("X-Kept", "gr\u{fc}n"),
            ("vary", "Accept"),
        ];
        let sent: Headers = sent.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let kept = for_client(&sent).unwrap();
        assert_eq!(kept.len(), 2, "{kept:?}");
        assert_eq!((kept["x-kept"].as_bytes(), kept["vary"].as_bytes()), ("gr\u{fc}n".as_bytes(), &b"Accept"[..]));
        for (name, value) in [("bad name", "x"), ("x", "line\nbreak")] {
            let sent: Headers = std::iter::once((name.to_owned(), value.to_owned())).collect();
            assert_eq!(for_client(&sent), Err(IllegalHeader), "{name}");
        }
    }

    #[test]
    fn the_host_is_named_without_its_port() {
        let named = |uri: &'static str, host: Option<&'static str>| {
            let request = Request::get(uri);
            let request = match host {
                Some(host) => request.header(HOST, host),
                None => request,
            };
            host_name(&request.body(()).unwrap()).map(str::to_owned)
        };
        for (host, name) in [("a.b:80", "a.b"), ("a.b", "a.b"), ("[::1]:80", "[::1]"), ("[::1]", "[::1]"), ("", "")] {
            assert_eq!(named("/", Some(host)).as_deref(), Some(name), "{host}");
        }
        assert_eq!(named("http://a.b:80/x", None).as_deref(), Some("a.b"));
        assert_eq!(named("/", None), None);
    }

    #[test]
    fn ray_ids_are_accepted_up_to_thirty_harmless_characters() {
        let accepted = |ray: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RAY_ID_HEADER, HeaderValue::from_str(ray).unwrap());
            accept_ray_id(&headers).is_some()
        };
        assert!(accepted("a-B_9") && accepted(&"a".repeat(30)));
        assert!(!accepted(&"a".repeat(31)) && !accepted("a.b") && !accepted(""));
    }
}
