//! The request that asks an endpoint to start one actor, and whether its answer is the stream of that actor
//! (`spec/scheduling.md` 9.3, 9.4 and 9.6).

use std::collections::BTreeMap;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use http::{Method, Response};
use hyper::body::Incoming;
use lifecycle::pool::PoolError;
use protocol::envoy::ServerlessStart;
use protocol::limits;

use super::body::{self, ReadError};
use super::client::{Call, ENDPOINT, NAMESPACE_NAME, POOL_NAME, SendError, TOKEN, USER_AGENT_HEADER};
use super::endpoint::{self, EndpointError};
use crate::config::Secret;

const EVENT_STREAM: &str = "text/event-stream";

/// Why a start request has led to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// The endpoint is to blame, or what the pool says of it: other actors would fare no better.
    Endpoint(PoolError),
    /// This actor cannot be asked for, or not now.
    Actor(PoolError),
}

impl Failure {
    /// The request was not made.
    pub(super) fn not_asked(reason: impl Into<String>) -> Self {
        Self::Actor(PoolError::NotAsked { reason: bounded(reason.into()) })
    }
}

impl From<SendError> for Failure {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Blocked(blocked) => Self::Endpoint(PoolError::DestinationBlocked { reason: bounded(blocked.to_string()) }),
            SendError::Failed(message) => Self::Endpoint(connection_error(message)),
            SendError::OwnFault(message) => Self::not_asked(message),
        }
    }
}

/// Where a start request goes, and what it says of where it comes from.
pub(super) struct Sender<'a> {
    pub(super) url: &'a str,
    /// The pool's own.
    pub(super) headers: &'a BTreeMap<String, String>,
    /// Where hosts find this engine.
    pub(super) public_url: &'a str,
    pub(super) pool: &'a str,
    pub(super) namespace: &'a str,
    /// With what hosts are let in, if that needs a token. The pool's own header of that name goes before it.
    pub(super) admin_token: Option<&'a Secret>,
}

impl Sender<'_> {
    /// The request with a body.
    pub(super) fn request(&self, body: Bytes) -> Result<Call, EndpointError> {
        let url = endpoint::route(self.url, "start")?;
        Ok(Call { method: Method::POST, url, headers: self.all_headers()?, body })
    }

    fn all_headers(&self) -> Result<HeaderMap, EndpointError> {
        let mut headers = endpoint::headers(self.headers, &[ENDPOINT, POOL_NAME, NAMESPACE_NAME, ACCEPT, USER_AGENT])?;
        for (name, value) in [(ENDPOINT, self.public_url), (POOL_NAME, self.pool), (NAMESPACE_NAME, self.namespace)] {
            let value = text(&name, value)?;
            headers.append(name, value);
        }
        if let Some(token) = self.admin_token
            && !headers.contains_key(&TOKEN)
        {
            let mut value = text(&TOKEN, token.expose())?;
            value.set_sensitive(true);
            headers.append(TOKEN, value);
        }
        headers.append(ACCEPT, HeaderValue::from_static(EVENT_STREAM));
        headers.append(USER_AGENT, USER_AGENT_HEADER);
        Ok(headers)
    }
}

fn text(name: &HeaderName, value: &str) -> Result<HeaderValue, EndpointError> {
    HeaderValue::from_str(value).map_err(|_| EndpointError::HeaderValue(name.to_string()))
}

/// The body for hosts that speak `version`. It never has more bytes than a host accepts.
pub(super) fn body(start: &ServerlessStart, version: u16) -> Result<Bytes, Failure> {
    let body = start.clone().to_body(version).map_err(|error| Failure::not_asked(error.to_string()))?;
    if body.len() <= limits::SERVERLESS_START_BODY_MAX_BYTES {
        return Ok(body);
    }
    Err(Failure::not_asked(format!(
        "the start of actor {} needs {} bytes, more than the {} that a host accepts: its input or its number of sleeping \
         WebSockets is too large",
        start.checkpoint.actor_id,
        body.len(),
        limits::SERVERLESS_START_BODY_MAX_BYTES
    )))
}

/// Whether an answer is the event stream of an actor; if not, why not.
pub(super) async fn event_stream(response: Response<Incoming>) -> Result<Incoming, PoolError> {
    let status = response.status();
    if !status.is_success() {
        let reading = body::read(response.into_body(), limits::POOL_ERROR_BODY_MAX_BYTES);
        let read = tokio::time::timeout(limits::POOL_ERROR_BODY_TIMEOUT, reading).await;
        let body = match read {
            Ok(Ok(body) | Err(ReadError::TooLarge { beginning: body, .. })) => body,
            // The status says enough.
            Ok(Err(ReadError::Broken(_))) | Err(_) => Bytes::new(),
        };
        return Err(PoolError::HttpError { status_code: status.as_u16(), body: excerpt(&body) });
    }
    match wrong_content_type(response.headers()) {
        None => Ok(response.into_body()),
        Some(message) => Err(connection_error(message)),
    }
}

fn wrong_content_type(headers: &HeaderMap) -> Option<String> {
    let expected = format!("expected Content-Type header to be {EVENT_STREAM}");
    let Some(value) = headers.get(CONTENT_TYPE) else { return Some(format!("{expected}, but there is none")) };
    let value = String::from_utf8_lossy(value.as_bytes());
    let kind = value.split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case(EVENT_STREAM) {
        return None;
    }
    Some(format!("{expected}, received \"{}\"", cut(&value)))
}

/// A body as text, within its bound also if bytes that are no text had to be replaced by longer ones.
fn excerpt(body: &[u8]) -> String {
    // A character that was cut in two by the bound is left out; one that was broken to begin with is replaced.
    let whole = match std::str::from_utf8(body) {
        Err(error) if error.error_len().is_none() => &body[..error.valid_up_to()],
        Ok(_) | Err(_) => body,
    };
    cut(&String::from_utf8_lossy(whole)).to_owned()
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(limits::POOL_ERROR_BODY_MAX_BYTES)]
}

/// A failure to reach an endpoint, or to make sense of it.
pub(super) fn connection_error(message: impl Into<String>) -> PoolError {
    PoolError::ConnectionError { message: bounded(message.into()) }
}

/// Words that go into the record of each actor that hears them.
fn bounded(mut words: String) -> String {
    words.truncate(cut(&words).len());
    words
}

#[cfg(test)]
mod tests {
    use protocol::envoy::{ActorCheckpoint, ActorConfig, CommandStartActor};

    use super::super::policy::Blocked;
    use super::*;

    fn sender<'a>(headers: &'a BTreeMap<String, String>, admin_token: Option<&'a Secret>) -> Sender<'a> {
        Sender {
            url: "http://h/api/rivet/",
            headers,
            public_url: "http://127.0.0.1:6420/",
            pool: "web",
            namespace: "default",
            admin_token,
        }
    }

    fn sent(headers: &[(&str, &str)], admin_token: Option<&str>) -> Vec<(String, String)> {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let admin_token = admin_token.map(Secret::new);
        let call = sender(&headers, admin_token.as_ref()).request(Bytes::new()).unwrap();
        assert_eq!((call.method, call.url.as_str()), (Method::POST, "http://h/api/rivet/start"));
        call.headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect()
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    const OURS: [(&str, &str); 3] =
        [("x-rivet-endpoint", "http://127.0.0.1:6420/"), ("x-rivet-pool-name", "web"), ("x-rivet-namespace-name", "default")];
    const LAST: [(&str, &str); 2] = [("accept", "text/event-stream"), ("user-agent", "RivetEngine/2.3.19")];

    #[test]
    fn headers_come_in_order() {
        let expected = [[("x-mine", "abc"), ("x-other", "two")].as_slice(), &OURS, &LAST].concat();
        assert_eq!(sent(&[("x-mine", "abc"), ("x-other", "two")], None), pairs(&expected));
        let with_token = [OURS.as_slice(), &[("x-rivet-token", "admin")], &LAST].concat();
        assert_eq!(sent(&[], Some("admin")), pairs(&with_token));
    }

    #[test]
    fn a_pool_brings_its_own_token_but_cannot_speak_for_the_engine() {
        let given = [("accept", "x"), ("X-Rivet-Endpoint", "http://evil/"), ("x-rivet-pool-name", "p"), ("x-rivet-token", "dev")];
        let expected = [[("x-rivet-token", "dev")].as_slice(), &OURS, &LAST].concat();
        assert_eq!(sent(&given, Some("admin")), pairs(&expected));
    }

    fn start(input: usize) -> ServerlessStart {
        ServerlessStart {
            checkpoint: ActorCheckpoint { actor_id: "a".to_owned(), generation: 1, index: 0 },
            command: CommandStartActor {
                config: ActorConfig { name: "n".to_owned(), key: None, create_ts: 0, input: Some(vec![0; input].into()) },
                hibernating_requests: Vec::new(),
                preloaded_kv: None,
            },
        }
    }

    #[test]
    fn a_body_has_its_version_and_never_too_many_bytes() {
        let small = body(&start(3), 8).unwrap();
        assert_eq!(small[..2], [8, 0]);
        assert_eq!(ServerlessStart::from_body(small).unwrap(), (8, start(3)));

        let max = limits::SERVERLESS_START_BODY_MAX_BYTES;
        let around = body(&start(max - 100), 8).unwrap().len() - (max - 100);
        assert_eq!(body(&start(max - around), 8).unwrap().len(), max);
        let Failure::Actor(PoolError::NotAsked { reason: message }) = body(&start(max - around + 1), 8).unwrap_err() else {
            panic!("another error")
        };
        let words = "the start of actor a needs 16777217 bytes, more than the 16777216 that a host accepts";
        assert!(message.starts_with(words), "{message}");
    }

    #[test]
    fn only_an_event_stream_will_do() {
        let wrong = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_str(value).unwrap());
            wrong_content_type(&headers)
        };
        assert_eq!(wrong("text/event-stream"), None);
        assert_eq!(wrong("Text/Event-Stream; charset=utf-8"), None);
        let text = "expected Content-Type header to be text/event-stream, received \"application/json\"";
        assert_eq!(wrong("application/json").as_deref(), Some(text));
        let text = "expected Content-Type header to be text/event-stream, but there is none";
        assert_eq!(wrong_content_type(&HeaderMap::new()).as_deref(), Some(text));
    }

    #[test]
    fn only_the_beginning_of_an_error_is_kept() {
        let long = || "ä".repeat(1_000);
        let cut = "ä".repeat(limits::POOL_ERROR_BODY_MAX_BYTES / 2);
        assert_eq!(connection_error(long()), PoolError::ConnectionError { message: cut.clone() });
        let blocked = Failure::from(SendError::Blocked(Blocked::Unresolved(long())));
        let Failure::Endpoint(PoolError::DestinationBlocked { reason }) = blocked else { panic!("{blocked:?}") };
        assert!(reason.len() <= limits::POOL_ERROR_BODY_MAX_BYTES);
        let own = Failure::from(SendError::OwnFault(long()));
        assert_eq!(own, Failure::Actor(PoolError::NotAsked { reason: cut }));
    }

    #[test]
    fn an_error_body_is_cut_between_characters() {
        assert_eq!(excerpt("ä".repeat(256).as_bytes()), "ä".repeat(256));
        let cut_in_two = format!("x{}", "ä".repeat(256));
        assert_eq!(excerpt(&cut_in_two.as_bytes()[..512]), format!("x{}", "ä".repeat(255)));
        assert!(excerpt(&[0xff; 512]).len() <= 512);
    }
}
