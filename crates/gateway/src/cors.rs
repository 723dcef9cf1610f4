//! CORS for everything under the gateway (`spec/gateway.md` 9).

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue};

const ANY: HeaderValue = HeaderValue::from_static("*");

/// The headers of a preflight answer (204): nothing is looked up, woken or checked.
pub fn preflight(request: &HeaderMap, response: &mut HeaderMap) {
    decorate(request.get(ORIGIN), response);
    response.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, PUT, DELETE, OPTIONS, PATCH"));
    let asked = request.get(ACCESS_CONTROL_REQUEST_HEADERS).cloned();
    response.insert(ACCESS_CONTROL_ALLOW_HEADERS, asked.unwrap_or(ANY));
    response.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
}

/// Lets the page of `origin` read a response, whatever the actor set.
pub fn decorate(origin: Option<&HeaderValue>, response: &mut HeaderMap) {
    response.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.cloned().unwrap_or(ANY));
    response.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    response.insert(ACCESS_CONTROL_EXPOSE_HEADERS, ANY);
    if origin.is_some() {
        response.append(VARY, HeaderValue::from_static("Origin"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vary_is_added_next_to_the_actors_own() {
        let mut response = HeaderMap::new();
        response.insert(VARY, HeaderValue::from_static("Accept"));
        response.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("https://actor"));
        let origin = HeaderValue::from_static("https://page");
        decorate(Some(&origin), &mut response);
        assert_eq!(response.get_all(VARY).iter().collect::<Vec<_>>(), ["Accept", "Origin"]);
        assert_eq!(response.get_all(ACCESS_CONTROL_ALLOW_ORIGIN).iter().collect::<Vec<_>>(), ["https://page"]);
    }
}
