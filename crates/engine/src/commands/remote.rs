//! What a running engine is asked for over HTTP: restoring and forking an actor.

use std::io::{self, Write};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use protocol::limits;
use serde_json::{Value, json};

use crate::config::{Config, RemoteRequest, RemoteTask};

/// Why an engine did not do what it was asked for, or is not known to have done it.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// Its address is none.
    #[error("{endpoint:?} is no http or https address: {reason}")]
    BadEndpoint {
        /// As given.
        endpoint: String,
        /// Why.
        reason: String,
    },
    /// Its certificate could not be checked, because this machine's authorities cannot be read.
    #[error("the certificates of this machine cannot be read: {0}")]
    NoRoots(io::Error),
    /// It cannot be reached, or the connection broke.
    #[error("no answer from {endpoint}: {reason}")]
    NoAnswer {
        /// Its address.
        endpoint: String,
        /// Why.
        reason: String,
    },
    /// It has not answered in time (`remote_command_timeout`); it may still be at it.
    #[error("no answer from {endpoint} within {} s (remote_command_timeout); it may still be at it", limits::REMOTE_COMMAND_TIMEOUT.as_secs())]
    TimedOut {
        /// Its address.
        endpoint: String,
    },
    /// It refused.
    #[error("{message}")]
    Refused {
        /// `group.code` of its answer.
        code: String,
        /// Its words.
        message: String,
    },
    /// What it answered is not understood.
    #[error("{endpoint} answered with status {status}, and not as an engine does")]
    NotAnEngine {
        /// Its address.
        endpoint: String,
        /// Of the answer.
        status: StatusCode,
    },
    /// What there is to say cannot be written.
    #[error("cannot write the result: {0}")]
    Output(#[from] io::Error),
}

impl RemoteError {
    /// A stable name of the failure, `group.code`, for scripts.
    pub fn code(&self) -> String {
        match self {
            Self::BadEndpoint { .. } => "remote.bad_endpoint".into(),
            Self::NoRoots(_) => "remote.no_certificates".into(),
            Self::NoAnswer { .. } => "remote.no_answer".into(),
            Self::TimedOut { .. } => "remote.command_timeout".into(),
            Self::Refused { code, .. } => code.clone(),
            Self::NotAnEngine { .. } => "remote.not_an_engine".into(),
            Self::Output(_) => "output.not_writable".into(),
        }
    }
}

/// Asks the engine, and tells `out` about it.
///
/// # Errors
/// [`RemoteError`].
pub async fn ask(config: &Config, request: RemoteRequest, out: &mut dyn Write) -> Result<(), RemoteError> {
    let own = config.topology.own().map_or_else(String::new, |(_, own)| own.public_url.as_str().to_owned());
    let endpoint = request.endpoint.as_deref().unwrap_or(&own).trim_end_matches('/').to_owned();
    let token = request.token.as_deref().or(config.auth.admin_token.as_ref().map(|token| token.expose()));
    let (action, body) = match &request.task {
        RemoteTask::Restore { at } => ("restore", json!({ "at": at })),
        RemoteTask::Fork { key, name, at } => ("fork", json!({ "key": key, "name": name, "at": at })),
    };
    let escaped = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let url = format!("{endpoint}/actors/{}/{action}?namespace={}", escaped(&request.actor), escaped(&request.namespace));
    let mut call = Request::builder().method(Method::POST).uri(url).header(CONTENT_TYPE, "application/json");
    if let Some(token) = token {
        call = call.header(AUTHORIZATION, format!("Bearer {token}"));
    }
    let bad = |error: http::Error| RemoteError::BadEndpoint { endpoint: endpoint.clone(), reason: error.to_string() };
    let call = call.body(Full::new(Bytes::from(body.to_string()))).map_err(bad)?;
    let answered = tokio::time::timeout(limits::REMOTE_COMMAND_TIMEOUT, exchange(&endpoint, call));
    let (status, answer) = answered.await.map_err(|_| RemoteError::TimedOut { endpoint: endpoint.clone() })??;
    let shown: Value = serde_json::from_slice(&answer).unwrap_or_default();
    if status == StatusCode::OK
        && let Some(actor) = shown["actor"]["actor_id"].as_str()
    {
        match request.task {
            RemoteTask::Restore { at } => writeln!(out, "The database of {actor} is what it was at {at}.")?,
            RemoteTask::Fork { .. } => writeln!(out, "Forked {} as {actor}.", request.actor)?,
        }
        return Ok(());
    }
    match (shown["group"].as_str(), shown["code"].as_str(), shown["message"].as_str()) {
        (Some(group), Some(code), Some(message)) => {
            Err(RemoteError::Refused { code: format!("{group}.{code}"), message: message.to_owned() })
        }
        _ => Err(RemoteError::NotAnEngine { endpoint, status }),
    }
}

async fn exchange(endpoint: &str, call: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), RemoteError> {
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(limits::OUTBOUND_CONNECT_TIMEOUT));
    let client = Client::builder(TokioExecutor::new());
    let answered = match call.uri().scheme_str() {
        Some("http") => client.build(connector).request(call).await,
        Some("https") => {
            connector.enforce_http(false);
            let roots = HttpsConnectorBuilder::new().with_native_roots().map_err(RemoteError::NoRoots)?;
            client.build(roots.https_only().enable_http1().wrap_connector(connector)).request(call).await
        }
        Some(_) | None => {
            let reason = "it must begin with http:// or https://".to_owned();
            return Err(RemoteError::BadEndpoint { endpoint: endpoint.to_owned(), reason });
        }
    };
    let no_answer = |error: &(dyn std::error::Error + 'static)| RemoteError::NoAnswer {
        endpoint: endpoint.to_owned(),
        reason: innermost(error).to_string(),
    };
    let answer = answered.map_err(|error| no_answer(&error))?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), limits::API_BODY_MAX_BYTES).collect().await;
    Ok((status, body.map_err(|error| no_answer(&*error))?.to_bytes()))
}

/// The cause of all causes says most.
fn innermost<'e>(mut error: &'e (dyn std::error::Error + 'static)) -> &'e (dyn std::error::Error + 'static) {
    while let Some(cause) = error.source() {
        error = cause;
    }
    error
}
