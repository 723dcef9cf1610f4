//! Reading requests strictly: what is unknown or malformed is refused with its name (`spec/engine-api.md` 3.1 and 3.2).

use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use http_body_util::{BodyExt, Limited};
use protocol::id::Id;
use serde::de::DeserializeOwned;

use crate::error::ApiError;

/// The query parameters of a request, taken out one by one.
pub(super) struct Query {
    pairs: Vec<(String, String)>,
    known: Vec<&'static str>,
}

impl Query {
    pub(super) fn parse(query: Option<String>) -> Self {
        let query = query.unwrap_or_default();
        let pairs = url::form_urlencoded::parse(query.as_bytes());
        Self { pairs: pairs.map(|(name, value)| (name.into_owned(), value.into_owned())).collect(), known: Vec::new() }
    }

    /// A parameter that must be there; it may be empty.
    pub(super) fn required(&mut self, name: &'static str) -> Result<String, ApiError> {
        self.take(name)?.ok_or_else(|| bad_query(format!("missing field `{name}`")))
    }

    /// A parameter that may be there; an empty one counts as absent.
    pub(super) fn optional(&mut self, name: &'static str) -> Result<Option<String>, ApiError> {
        Ok(self.take(name)?.filter(|value| !value.is_empty()))
    }

    /// A number that may be there.
    pub(super) fn number<T: std::str::FromStr>(&mut self, name: &'static str) -> Result<Option<T>, ApiError> {
        let value = self.optional(name)?;
        value.map(|value| value.parse().map_err(|_| bad_query(format!("{name}: invalid number `{value}`")))).transpose()
    }

    /// `true` or `false`; absent means false.
    pub(super) fn flag(&mut self, name: &'static str) -> Result<bool, ApiError> {
        match self.optional(name)?.as_deref() {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => Err(bad_query(format!("{name}: invalid value `{other}`, expected true or false"))),
        }
    }

    /// A parameter that may be there any number of times.
    pub(super) fn list(&mut self, name: &'static str) -> Vec<String> {
        self.known.push(name);
        let (taken, rest) = std::mem::take(&mut self.pairs).into_iter().partition(|(key, _)| key == name);
        self.pairs = rest;
        let taken: Vec<(String, String)> = taken;
        taken.into_iter().map(|(_, value)| value).filter(|value| !value.is_empty()).collect()
    }

    fn take(&mut self, name: &'static str) -> Result<Option<String>, ApiError> {
        self.known.push(name);
        let (mut taken, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.pairs).into_iter().partition(|(key, _)| key == name);
        self.pairs = rest;
        if taken.len() > 1 {
            return Err(bad_query(format!("{name}: unsupported value")));
        }
        Ok(taken.pop().map(|(_, value)| value))
    }

    /// Refuses what nobody took.
    pub(super) fn finish(self) -> Result<(), ApiError> {
        let Some((unknown, _)) = self.pairs.first() else { return Ok(()) };
        let known: Vec<String> = self.known.iter().map(|name| format!("`{name}`")).collect();
        Err(bad_query(format!("{unknown}: unknown field `{unknown}`, expected one of {}", known.join(", "))))
    }
}

fn bad_query(detail: String) -> ApiError {
    ApiError::BadRequest { reason: format!("Failed to deserialize query string: {detail}") }
}

/// Reads a JSON body of at most `max_bytes`.
pub(super) async fn json<T: DeserializeOwned>(headers: &HeaderMap, body: Body, max_bytes: usize) -> Result<T, ApiError> {
    if !is_json(headers) {
        let reason = "Expected request with `Content-Type: application/json`".to_owned();
        return Err(ApiError::BadRequest { reason });
    }
    let collected = Limited::new(body, max_bytes).collect().await.map_err(|error| {
        let too_long = error.downcast_ref::<http_body_util::LengthLimitError>().is_some();
        let why = if too_long { "length limit exceeded".to_owned() } else { error.to_string() };
        ApiError::BadRequest { reason: format!("Failed to buffer the request body: {why}") }
    })?;
    parse_json(&collected.to_bytes()).map_err(|error| {
        let what = match error.inner().classify() {
            serde_json::error::Category::Data => "Failed to deserialize the JSON body into the target type",
            serde_json::error::Category::Io | serde_json::error::Category::Syntax | serde_json::error::Category::Eof => {
                "Failed to parse the request body as JSON"
            }
        };
        ApiError::BadRequest { reason: format!("{what}: {error}") }
    })
}

/// The error names the member that is wrong.
fn parse_json<T: DeserializeOwned>(text: &[u8]) -> Result<T, serde_path_to_error::Error<serde_json::Error>> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let mut track = serde_path_to_error::Track::new();
    let value = T::deserialize(serde_path_to_error::Deserializer::new(&mut deserializer, &mut track));
    let whole = value.and_then(|value| deserializer.end().map(|()| value));
    whole.map_err(|error| serde_path_to_error::Error::new(track.path(), error))
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(content_type) = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()) else { return false };
    let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    media_type == "application/json" || (media_type.starts_with("application/") && media_type.ends_with("+json"))
}

/// An id in a path.
pub(super) fn path_id(text: &str) -> Result<Id, ApiError> {
    text.parse().map_err(|error| ApiError::BadRequest { reason: format!("Invalid URL: {error}") })
}

/// The cursor of a list in order of creation.
pub(super) fn ts_cursor(query: &mut Query) -> Result<Option<lifecycle::Ts>, ApiError> {
    query.number("cursor")
}
