//! The document with which an endpoint describes itself, `GET {url}/metadata` (`spec/scheduling.md` 9.2, `spec/engine-api.md`
//! 8.6): how it is asked for, read and checked, and in which words a failure is reported.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::header::{ACCEPT, HeaderMap, HeaderValue, USER_AGENT};
use http::{Method, StatusCode};
use protocol::envoy::{PROTOCOL_VERSION, is_supported};
use protocol::limits;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use url::Url;

use super::body::{self, ReadError};
use super::client::{Call, Client, SendError, USER_AGENT_HEADER};
use super::endpoint::{self, EndpointError};
use super::policy::Blocked;

/// What an endpoint says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Metadata {
    /// Release of the SDK.
    pub(crate) version: String,
    /// The envoy protocol that its hosts speak; `None`: none.
    pub(crate) protocol_version: Option<u16>,
    /// Actors it has, with their metadata as the JSON text of an object.
    pub(crate) actor_names: Vec<(String, String)>,
    /// Version of the application.
    pub(crate) application_version: Option<u32>,
}

/// Why there is no document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MetadataError {
    #[error("invalid serverless metadata request")]
    InvalidRequest { details: String },
    #[error("serverless endpoint is not an allowed destination")]
    DestinationBlocked { reason: String },
    #[error("failed to reach serverless endpoint")]
    RequestFailed { details: String },
    #[error("serverless metadata request timed out")]
    RequestTimedOut,
    #[error("serverless metadata request returned status {status_code}")]
    NonSuccessStatus { status_code: u16, body: String },
    #[error("serverless metadata response is not valid JSON")]
    InvalidResponseJson { body: String, parse_error: String },
    #[error("serverless runtime {runtime} version {version} is unsupported")]
    InvalidResponseSchema { runtime: String, version: String },
    #[error("envoy protocol version {0} is not supported (max supported: {PROTOCOL_VERSION})")]
    InvalidEnvoyProtocolVersion(u16),
}

impl MetadataError {
    /// As the API shows it.
    pub(crate) fn to_json(&self) -> Value {
        let (kind, details, more) = match self {
            Self::InvalidRequest { details } => ("invalid_request", Some(details), json!({})),
            Self::DestinationBlocked { reason } => ("destination_blocked", Some(reason), json!({ "reason": reason })),
            Self::RequestFailed { details } => ("request_failed", Some(details), json!({})),
            Self::RequestTimedOut => ("request_timed_out", None, json!({})),
            Self::NonSuccessStatus { status_code, body } => {
                ("non_success_status", None, json!({ "status_code": status_code, "body": body }))
            }
            Self::InvalidResponseJson { body, parse_error } => {
                ("invalid_response_json", None, json!({ "body": body, "parse_error": parse_error }))
            }
            Self::InvalidResponseSchema { runtime, version } => {
                ("invalid_response_schema", None, json!({ "runtime": runtime, "version": version }))
            }
            Self::InvalidEnvoyProtocolVersion(version) => (
                "invalid_envoy_protocol_version",
                None,
                json!({ "envoy_protocol_version": version, "max_supported_envoy_protocol_version": PROTOCOL_VERSION }),
            ),
        };
        let mut metadata = Map::new();
        metadata.insert("kind".into(), kind.into());
        if let Value::Object(more) = more {
            metadata.extend(more);
        }
        let mut shown = Map::new();
        shown.insert("message".into(), self.to_string().into());
        if let Some(details) = details {
            shown.insert("details".into(), details.as_str().into());
        }
        shown.insert("metadata".into(), Value::Object(metadata));
        Value::Object(shown)
    }
}

impl From<SendError> for MetadataError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Blocked(blocked) => blocked.into(),
            SendError::Failed(details) | SendError::OwnFault(details) => Self::RequestFailed { details },
        }
    }
}

impl From<Blocked> for MetadataError {
    fn from(blocked: Blocked) -> Self {
        Self::DestinationBlocked { reason: blocked.to_string() }
    }
}

impl From<EndpointError> for MetadataError {
    fn from(error: EndpointError) -> Self {
        Self::InvalidRequest { details: error.to_string() }
    }
}

/// Asks an endpoint for its document. Ends after [`limits::METADATA_TIMEOUT`].
pub(crate) async fn fetch(client: &Client, url: &str, headers: &BTreeMap<String, String>) -> Result<Metadata, MetadataError> {
    let call = request(url, headers)?;
    let answered = tokio::time::timeout(limits::METADATA_TIMEOUT, exchange(client, call)).await;
    let (status, body) = answered.unwrap_or(Err(MetadataError::RequestTimedOut))?;
    if !status.is_success() {
        return Err(MetadataError::NonSuccessStatus { status_code: status.as_u16(), body: excerpt(&body) });
    }
    parse(&body)
}

fn request(url: &str, headers: &BTreeMap<String, String>) -> Result<Call, EndpointError> {
    let url: Url = endpoint::route(url, "metadata")?;
    let mut headers: HeaderMap = endpoint::headers(headers, &[ACCEPT, USER_AGENT])?;
    headers.append(ACCEPT, HeaderValue::from_static("*/*"));
    headers.append(USER_AGENT, USER_AGENT_HEADER);
    Ok(Call { method: Method::GET, url, headers, body: Bytes::new() })
}

async fn exchange(client: &Client, call: Call) -> Result<(StatusCode, Bytes), MetadataError> {
    let response = client.send(call).await?;
    let status = response.status();
    match body::read(response.into_body(), limits::METADATA_MAX_BYTES).await {
        Ok(body) => Ok((status, body)),
        // What an error says is cut anyway.
        Err(ReadError::TooLarge { beginning, .. }) if !status.is_success() => Ok((status, beginning)),
        Err(error) => Err(MetadataError::RequestFailed { details: error.to_string() }),
    }
}

/// The members of the document that mean something here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    runtime: String,
    version: String,
    envoy_protocol_version: Option<u16>,
    actor_names: Option<BTreeMap<String, DeclaredActor>>,
    envoy: Option<Application>,
}

#[derive(Deserialize)]
struct DeclaredActor {
    metadata: Option<Value>,
}

#[derive(Deserialize)]
struct Application {
    version: Option<u32>,
}

fn parse(body: &[u8]) -> Result<Metadata, MetadataError> {
    let document: Document = serde_json::from_slice(body)
        .map_err(|error| MetadataError::InvalidResponseJson { body: excerpt(body), parse_error: error.to_string() })?;
    let Document { runtime, version, envoy_protocol_version, actor_names, envoy } = document;
    if runtime != "rivetkit" || version.trim().is_empty() {
        let (runtime, version) = (cut(&runtime), cut(&version));
        return Err(MetadataError::InvalidResponseSchema { runtime, version });
    }
    if let Some(version) = envoy_protocol_version.filter(|version| !is_supported(*version)) {
        return Err(MetadataError::InvalidEnvoyProtocolVersion(version));
    }
    let declared = actor_names.unwrap_or_default().into_iter();
    let actor_names = declared.filter_map(|(name, actor)| match actor.metadata {
        Some(metadata @ Value::Object(_)) => Some((name, metadata.to_string())),
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) | None => None,
    });
    Ok(Metadata {
        version: cut(&version),
        protocol_version: envoy_protocol_version,
        actor_names: actor_names.collect(),
        application_version: envoy.and_then(|envoy| envoy.version),
    })
}

/// What is shown of an answer that cannot be used.
fn excerpt(body: &[u8]) -> String {
    // No character has more than four bytes.
    let enough = body.len().min(4 * limits::METADATA_EXCERPT_MAX_CHARS + 4);
    cut(&String::from_utf8_lossy(&body[..enough]))
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(limits::METADATA_EXCERPT_MAX_CHARS) {
        Some((end, _)) => format!("{}...[truncated]", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(document: Value) -> Vec<u8> {
        document.to_string().into_bytes()
    }

    #[test]
    fn the_document_of_the_published_sdk_is_read() {
        let document = json!({"actorNames": {"counter": {"metadata": {"icon": "x"}}, "bare": {}, "odd": {"metadata": 1}},
            "clientEndpoint": "http://h/", "envoy": {"kind": {"serverless": {}}, "version": 7}, "envoyProtocolVersion": 8,
            "runtime": "rivetkit", "version": "2.3.19"});
        let read = parse(&text(document)).unwrap();
        let expected = Metadata {
            version: "2.3.19".to_owned(),
            protocol_version: Some(8),
            actor_names: vec![("counter".to_owned(), "{\"icon\":\"x\"}".to_owned())],
            application_version: Some(7),
        };
        assert_eq!(read, expected);
        let least = parse(&text(json!({"runtime": "rivetkit", "version": "1"}))).unwrap();
        assert_eq!((least.protocol_version, least.application_version, least.actor_names.len()), (None, None, 0));
    }

    #[test]
    fn what_is_no_such_document_is_refused_in_the_known_words() {
        let shown = |body: &[u8]| parse(body).unwrap_err().to_json();
        assert_eq!(
            shown(b"<html>"),
            json!({"message": "serverless metadata response is not valid JSON", "metadata": {"kind": "invalid_response_json",
                "body": "<html>", "parse_error": "expected value at line 1 column 1"}})
        );
        let missing = shown(b"{}");
        assert_eq!(missing["metadata"]["parse_error"], "missing field `runtime` at line 1 column 2");
        assert_eq!(
            shown(&text(json!({"runtime": "zzz", "version": "1"}))),
            json!({"message": "serverless runtime zzz version 1 is unsupported",
                "metadata": {"kind": "invalid_response_schema", "runtime": "zzz", "version": "1"}})
        );
        assert_eq!(shown(&text(json!({"runtime": "rivetkit", "version": " "})))["metadata"]["kind"], "invalid_response_schema");
        for version in [0, 9] {
            let document = json!({"runtime": "rivetkit", "version": "1", "envoyProtocolVersion": version});
            let message = format!("envoy protocol version {version} is not supported (max supported: 8)");
            let metadata = json!({"kind": "invalid_envoy_protocol_version", "envoy_protocol_version": version,
                "max_supported_envoy_protocol_version": 8});
            assert_eq!(shown(&text(document)), json!({ "message": message, "metadata": metadata }));
        }
    }

    #[test]
    fn the_other_failures_have_their_words() {
        let shown = |error: MetadataError| error.to_json();
        assert_eq!(
            shown(MetadataError::NonSuccessStatus { status_code: 500, body: "b".to_owned() }),
            json!({"message": "serverless metadata request returned status 500",
                "metadata": {"kind": "non_success_status", "status_code": 500, "body": "b"}})
        );
        assert_eq!(
            shown(Blocked::Plaintext.into()),
            json!({"message": "serverless endpoint is not an allowed destination", "details": "plaintext http is not allowed, use https",
                "metadata": {"kind": "destination_blocked", "reason": "plaintext http is not allowed, use https"}})
        );
        assert_eq!(
            shown(MetadataError::RequestTimedOut),
            json!({"message": "serverless metadata request timed out", "metadata": {"kind": "request_timed_out"}})
        );
        assert_eq!(
            shown(SendError::Failed("why".to_owned()).into()),
            json!({"message": "failed to reach serverless endpoint", "details": "why", "metadata": {"kind": "request_failed"}})
        );
        let invalid = request("nope", &BTreeMap::new()).unwrap_err();
        assert_eq!(shown(invalid.into())["metadata"], json!({"kind": "invalid_request"}));
    }

    #[test]
    fn a_long_answer_is_cut_at_a_character() {
        let long = "ä".repeat(limits::METADATA_EXCERPT_MAX_CHARS + 1);
        let expected = format!("{}...[truncated]", "ä".repeat(limits::METADATA_EXCERPT_MAX_CHARS));
        assert_eq!(excerpt(long.as_bytes()), expected);
        let exact = "x".repeat(limits::METADATA_EXCERPT_MAX_CHARS);
        assert_eq!(excerpt(exact.as_bytes()), exact);
    }

    #[test]
    fn the_request_carries_the_pools_headers_first() {
        let headers = BTreeMap::from([("X-A".to_owned(), " v ".to_owned())]);
        let call = request("http://h/api/rivet//?x=1", &headers).unwrap();
        assert_eq!(call.url.as_str(), "http://h/api/rivet/metadata?x=1");
        let sent: Vec<_> = call.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(sent, [("x-a", "v"), ("accept", "*/*"), ("user-agent", "RivetEngine/2.3.19")]);
    }
}
