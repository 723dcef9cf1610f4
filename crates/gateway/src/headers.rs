//! What crosses the gateway in headers, in both directions (`spec/gateway.md` 12 and 13).

use std::net::IpAddr;

use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, HOST, HeaderName, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, Uri};
use protocol::envoy::Headers;

/// Carries the trace id of a request, both ways.
pub const RAY_ID_HEADER: HeaderName = HeaderName::from_static("x-rivet-ray-id");
/// Names the error on answers that the gateway itself made.
pub(crate) const ERROR_HEADER: HeaderName = HeaderName::from_static("x-rivet-error");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const RAY_ID_MAX_BYTES: usize = 30;

/// The client's own ray id, if it sent a usable one.
pub fn accept_ray_id(headers: &HeaderMap) -> Option<&str> {
    let ray = headers.get(RAY_ID_HEADER)?.to_str().ok()?;
    let usable = (1..=RAY_ID_MAX_BYTES).contains(&ray.len())
        && ray.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    usable.then_some(ray)
}

/// Whether a header speaks to the next hop only (RFC 9110, 7.6.1).
fn is_hop_by_hop(name: &HeaderName) -> bool {
    [CONNECTION, KEEP_ALIVE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, PROXY_AUTHORIZATION, PROXY_AUTHENTICATE].contains(name)
}

/// Whether a request keeps its hop-by-hop headers: those of a WebSocket upgrade are stored by the actor's host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HopByHop {
    Remove,
    Keep,
}

/// The headers of a client's request as the actor gets them: lower-case, one value per name.
///
/// The protocol has room for one value: repeated ones are joined (with `; ` for cookies). Values that are not UTF-8 are
/// left out, because the protocol's strings are UTF-8.
pub(crate) fn for_actor(headers: &HeaderMap, uri: &Uri, ray: &str, peer: IpAddr, hop_by_hop: HopByHop) -> Headers {
    let mut pairs: Vec<(String, String)> = Vec::with_capacity(headers.len() + 3);
    for name in headers.keys() {
        let skipped = *name == RAY_ID_HEADER || *name == FORWARDED_FOR || (hop_by_hop == HopByHop::Remove && is_hop_by_hop(name));
        if skipped {
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

fn joined(headers: &HeaderMap, name: &HeaderName, separator: &str) -> Option<String> {
    let mut joined: Option<String> = None;
    for value in headers.get_all(name) {
        let Ok(value) = std::str::from_utf8(value.as_bytes()) else { continue };
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
    for (name, value) in headers.iter() {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| IllegalHeader)?;
        if is_hop_by_hop(&name) {
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
        headers.append(CONNECTION, HeaderValue::from_static("close"));
        headers.append("x-utf8", HeaderValue::from_bytes("grün".as_bytes()).unwrap());
        headers.append("x-bytes", HeaderValue::from_bytes(&[0xff]).unwrap());
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
