//! CORS of the management API (`spec/engine-api.md` 3.4).

use axum::extract::Request;
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::with_headers;

const ANY: HeaderValue = HeaderValue::from_static("*");
const VARY_ON: HeaderValue = HeaderValue::from_static("origin, access-control-request-method, access-control-request-headers");

/// API routes: the origin is mirrored, and a preflight is answered without a token.
pub(super) async fn mirror(request: Request, next: Next) -> Response {
    let asked = request.headers().clone();
    let set = move |headers: &mut HeaderMap| {
        headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        headers.insert(VARY, VARY_ON);
        if let Some(origin) = asked.get(ORIGIN) {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("x-rivet-ray-id, x-rivet-error"));
        }
        for (from, to) in [
            (ACCESS_CONTROL_REQUEST_METHOD, ACCESS_CONTROL_ALLOW_METHODS),
            (ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_ALLOW_HEADERS),
        ] {
            if let Some(value) = asked.get(from) {
                headers.insert(to, value.clone());
            }
        }
    };
    if *request.method() == Method::OPTIONS {
        let mut response = StatusCode::OK.into_response();
        set(response.headers_mut());
        return response;
    }
    with_headers(request, next, set).await
}

/// Everything else: anybody may read it.
pub(super) async fn permissive(request: Request, next: Next) -> Response {
    let set = |headers: &mut HeaderMap| {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, ANY);
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, ANY);
    };
    if *request.method() == Method::OPTIONS {
        let mut response = StatusCode::OK.into_response();
        set(response.headers_mut());
        response.headers_mut().insert(ACCESS_CONTROL_ALLOW_METHODS, ANY);
        response.headers_mut().insert(ACCESS_CONTROL_ALLOW_HEADERS, ANY);
        return response;
    }
    with_headers(request, next, set).await
}
