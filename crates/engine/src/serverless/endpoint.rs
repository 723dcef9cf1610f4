//! A pool's endpoint: the addresses of its routes, and the headers that the operator wants to be sent there.

use std::collections::BTreeMap;

use http::header::{HeaderMap, HeaderName, HeaderValue};
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

/// The operator's headers, in their order.
pub(super) fn headers(given: &BTreeMap<String, String>) -> Result<HeaderMap, EndpointError> {
    let mut headers = HeaderMap::new();
    for (name, value) in given {
        let (name, value) = (name.trim(), value.trim());
        let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| EndpointError::HeaderName(name.to_owned()))?;
        let value = HeaderValue::from_str(value).map_err(|_| EndpointError::HeaderValue(name.to_owned()))?;
        headers.append(header, value);
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
        let given = BTreeMap::from([("X-Mine".to_owned(), " abc ".to_owned()), ("X-Other".to_owned(), "two".to_owned())]);
        let headers = headers(&given).unwrap();
        let sent: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(sent, [("x-mine", "abc"), ("x-other", "two")]);
    }
}
