//! A pool's error as operators see it, and as clients of its actors do (`spec/scheduling.md` 1.5).

use gateway::PoolFault;
use lifecycle::pool::PoolError;
use serde_json::{Value, json};

/// As the management API shows it.
pub(crate) fn error_json(error: &PoolError) -> Value {
    match error {
        PoolError::HttpError { status_code, body } => {
            json!({ "serverless_http_error": { "status_code": status_code, "body": body } })
        }
        PoolError::StreamEndedEarly => json!("serverless_stream_ended_early"),
        // There is no name for a request that was not made.
        PoolError::ConnectionError { message: text } | PoolError::NotAsked { reason: text } => {
            json!({ "serverless_connection_error": { "message": text } })
        }
        PoolError::DestinationBlocked { reason } => json!({ "serverless_destination_blocked": { "reason": reason } }),
        PoolError::Downgrade => json!("downgrade"),
        PoolError::InternalError => json!("internal_error"),
    }
}

/// As clients of actors see it: what an endpoint says, and where it is, are for operators only. The words are a part of a
/// sentence: "the pool's ...".
pub(crate) fn error_for_clients(error: &PoolError) -> PoolFault {
    let (words, details) = match error {
        PoolError::HttpError { status_code, .. } => {
            (format!("endpoint answered {status_code}"), json!({ "serverless_http_error": { "status_code": status_code } }))
        }
        PoolError::StreamEndedEarly => {
            ("endpoint ended the start request before the actor had stopped".to_owned(), error_json(error))
        }
        PoolError::ConnectionError { .. } => ("endpoint cannot be used".to_owned(), json!({ "serverless_connection_error": {} })),
        PoolError::NotAsked { .. } => (
            "endpoint was not asked, because the start request cannot be made".to_owned(),
            json!({ "serverless_connection_error": {} }),
        ),
        PoolError::DestinationBlocked { .. } => {
            ("endpoint is not allowed".to_owned(), json!({ "serverless_destination_blocked": {} }))
        }
        PoolError::Downgrade => {
            ("endpoint runs an application that no longer speaks the envoy protocol".to_owned(), error_json(error))
        }
        PoolError::InternalError => ("configuration is missing".to_owned(), error_json(error)),
    };
    PoolFault { words, details }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_not_told_what_endpoints_say_or_where_they_are() {
        let secret = || "http://10.0.0.5/secret".to_owned();
        let errors = [
            (PoolError::HttpError { status_code: 502, body: secret() }, "endpoint answered 502"),
            (PoolError::ConnectionError { message: secret() }, "endpoint cannot be used"),
            (PoolError::DestinationBlocked { reason: secret() }, "endpoint is not allowed"),
            (PoolError::NotAsked { reason: secret() }, "endpoint was not asked, because the start request cannot be made"),
        ];
        for (error, words) in errors {
            let fault = error_for_clients(&error);
            assert_eq!(fault.words, words);
            assert!(!fault.details.to_string().contains("secret"), "{}", fault.details);
            let (for_operators, kind) = (error_json(&error), fault.details.as_object().unwrap().keys().next().unwrap());
            assert!(for_operators[kind].to_string().contains(&secret()), "{for_operators}");
        }
    }
}
