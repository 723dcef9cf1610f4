//! A pool's error as lists show it and as people read it (`spec/scheduling.md` 1.5).

use lifecycle::pool::PoolError;
use serde_json::{Value, json};

/// As lists show it.
pub(crate) fn error_json(error: &PoolError) -> Value {
    match error {
        PoolError::HttpError { status_code, body } => {
            json!({ "serverless_http_error": { "status_code": status_code, "body": body } })
        }
        PoolError::StreamEndedEarly => json!("serverless_stream_ended_early"),
        PoolError::ConnectionError { message } => json!({ "serverless_connection_error": { "message": message } }),
        PoolError::DestinationBlocked { reason } => json!({ "serverless_destination_blocked": { "reason": reason } }),
        PoolError::Downgrade => json!("downgrade"),
        PoolError::InternalError => json!("internal_error"),
    }
}

/// As part of a sentence: "the pool's ...".
pub(crate) fn error_in_words(error: &PoolError) -> String {
    match error {
        PoolError::HttpError { status_code, body } if body.is_empty() => format!("endpoint answered {status_code}"),
        PoolError::HttpError { status_code, body } => format!("endpoint answered {status_code}: {body}"),
        PoolError::StreamEndedEarly => "endpoint ended the start request before the actor had stopped".to_owned(),
        PoolError::ConnectionError { message } => format!("endpoint cannot be used: {message}"),
        PoolError::DestinationBlocked { reason } => format!("endpoint is not allowed: {reason}"),
        PoolError::Downgrade => "endpoint runs an application that no longer speaks the envoy protocol".to_owned(),
        PoolError::InternalError => "configuration is missing".to_owned(),
    }
}
