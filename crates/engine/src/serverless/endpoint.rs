//! A pool's endpoint: the addresses of its routes, and the headers that the operator wants to be sent there.

use std::collections::BTreeMap;

use http::header::{CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE};
use url::Url;

/// Why a request to an endpoint cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EndpointError {
    #[error("invalid url: {0}")]
    Url(#[from] url::ParseError),
    #[error("the url cannot have a path")]
    NoPath,
    #[error("invalid header name: {0}")]
    HeaderName(String),
    #[error("invalid header value of {0}")]
    HeaderValue(String),
}

/// The URL of an endpoint's route. Slashes at the end of the endpoint's path do not count, and a query stays behind the path.
pub(super) fn route(url: &str, route: &str) -> Result<Url, EndpointError> {
    let mut url = Url::parse(url.trim())?;
    let path = format!("{}/{route}", url.path().trim_end_matches('/'));
    if url.cannot_be_a_base() {
        return Err(EndpointError::NoPath);
    }
    url.set_path(&path);
    url.set_fragment(None);
    Ok(url)
}

/// Headers that say where a request ends. They are for whoever writes it.
const FRAMING: [HeaderName; 5] = [CONNECTION, CONTENT_LENGTH, TE, TRANSFER_ENCODING, UPGRADE];

/// The operator's headers, in their order, without those that are the engine's to send.
pub(super) fn headers(given: &BTreeMap<String, String>, engines: &[HeaderName]) -> Result<HeaderMap, EndpointError> {
    let mut headers = HeaderMap::new();
    for (name, value) in given {
        let (name, value) = (name.trim(), value.trim());
        let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| EndpointError::HeaderName(name.to_owned()))?;
        let value = HeaderValue::from_str(value).map_err(|_| EndpointError::HeaderValue(name.to_owned()))?;
        if !FRAMING.contains(&header) && !engines.contains(&header) {
            headers.append(header, value);
        }
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_put_behind_the_path() {
        for (url, expected) in [
            ("http://h/api/rivet", "http://h/api/rivet/start"),
            (" http://h/api/rivet// ", "http://h/api/rivet/start"),
            ("http://h", "http://h/start"),
            ("http://h/?a=b#c", "http://h/start?a=b"),
        ] {
            assert_eq!(route(url, "start").unwrap().as_str(), expected);
        }
        assert_eq!(route("mailto:a@b", "start"), Err(EndpointError::NoPath));
        assert_eq!(route("", "start").unwrap_err().to_string(), "invalid url: relative URL without a base");
    }

    #[test]
    fn headers_keep_their_order_and_lose_their_spaces() {
        let given = [("Content-Length", "7"), ("X-Mine", " abc "), ("X-Other", "two"), ("accept", "x")];
        let given = given.map(|(name, value)| (name.to_owned(), value.to_owned())).into_iter().collect();
        let headers = headers(&given, &[http::header::ACCEPT]).unwrap();
        let sent: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(sent, [("x-mine", "abc"), ("x-other", "two")]);
        let given = BTreeMap::from([("x".to_owned(), "a\r\nb".to_owned())]);
        assert_eq!(super::headers(&given, &[]), Err(EndpointError::HeaderValue("x".to_owned())));
    }
}
