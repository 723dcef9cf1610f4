//! The metrics of an actor's process, which the actor's framework exports under one path of each actor without asking who
//! wants them: they are for this machine, and for whoever has the admin token (`decisions.md` 10).

use std::fmt;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use percent_encoding::percent_decode_str;
use subtle::ConstantTimeEq;

use crate::error::GatewayError;

const TOKEN_HEADER: &str = "x-rivet-token";

/// The token of the engine's operator. Never printed.
#[derive(Clone)]
pub struct AdminToken(String);

impl AdminToken {
    /// Takes a token, which is not empty.
    pub fn new(token: &str) -> Self {
        Self(token.to_owned())
    }

    /// Whether a request carries it, as `authorization: Bearer` or in `x-rivet-token`. Takes as long for a token that is
    /// almost right as for any other of its length.
    fn is_carried_by(&self, headers: &HeaderMap) -> bool {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let bearer = text(AUTHORIZATION.as_str()).and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then_some(token)
        });
        let given = bearer.or_else(|| text(TOKEN_HEADER)).unwrap_or_default();
        given.as_bytes().ct_eq(self.0.as_bytes()).into()
    }
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken")
    }
}

/// Refuses a request for the metrics of an actor's process unless it comes from this machine or carries the admin token.
pub(crate) fn check(
    path: &str,
    headers: &HeaderMap,
    is_local: bool,
    admin_token: Option<&AdminToken>,
) -> Result<(), GatewayError> {
    let allowed = !is_metrics(path) || is_local || admin_token.is_some_and(|token| token.is_carried_by(headers));
    if allowed { Ok(()) } else { Err(GatewayError::MetricsForbidden) }
}

/// The published framework knows the one spelling `/metrics`. Others that some framework could take for the same are refused
/// too: nothing else is there.
fn is_metrics(path_and_query: &str) -> bool {
    let path = path_and_query.split('?').next().unwrap_or_default();
    let Ok(decoded) = percent_decode_str(path).decode_utf8() else { return false };
    let mut segments = decoded.split('/').filter(|segment| !segment.is_empty() && *segment != ".");
    segments.next().is_some_and(|first| first.eq_ignore_ascii_case("metrics")) && segments.next().is_none()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn all_spellings_of_the_metrics_path_are_one() {
        for path in
            ["/metrics", "/metrics?a=b", "/metrics/", "/%6Detrics", "/%2Fmetrics", "/metrics%2f", "/./metrics", "/Metrics"]
        {
            assert!(is_metrics(path), "{path}");
        }
        for path in ["/", "/request/metrics", "/metrics/x", "/metricsx", "/action/metrics", "/x?/metrics", "/%ff"] {
            assert!(!is_metrics(path), "{path}");
        }
    }

    #[test]
    fn metrics_are_for_this_machine_or_the_operator() {
        let token = AdminToken::new("sesame");
        let with = |name: &'static str, value: &'static str| {
            HeaderMap::from_iter([(http::HeaderName::from_static(name), HeaderValue::from_static(value))])
        };
        let none = HeaderMap::new();
        let allowed = |headers: &HeaderMap, is_local, token| check("/metrics", headers, is_local, token).is_ok();
        assert!(allowed(&none, true, None) && allowed(&none, true, Some(&token)));
        assert!(!allowed(&none, false, None) && !allowed(&none, false, Some(&token)));
        assert!(allowed(&with("authorization", "Bearer sesame"), false, Some(&token)));
        assert!(allowed(&with("authorization", "bearer sesame"), false, Some(&token)));
        assert!(allowed(&with("x-rivet-token", "sesame"), false, Some(&token)));
        for headers in [
            with("authorization", "Bearer sesam"),
            with("authorization", "sesame"),
            with("x-rivet-token", ""),
            with("x-a", "sesame"),
        ] {
            assert!(!allowed(&headers, false, Some(&token)), "{headers:?}");
        }
        // Without a configured token nobody has it.
        assert!(!allowed(&with("x-rivet-token", ""), false, None));
        assert!(check("/request/metrics", &none, false, None).is_ok());
        assert_eq!(format!("{token:?}"), "AdminToken");
    }
}
