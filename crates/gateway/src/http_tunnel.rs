//! An HTTP request on its way to an actor and back (`spec/gateway.md` 14, `spec/envoy-protocol.md` 13).

mod exchange;
mod response;
mod upload;

use http::request::Parts;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::directory::Directory;
use crate::error::GatewayError;
use crate::handler::{GatewayBody, RequestInfo, Shared, ToActor};
use crate::headers::{self, HopByHop};
use exchange::{Exchange, Head, Outcome};
use upload::Upload;

pub(crate) use response::ActorBody;

/// Forwards a request. It is tried again, within the time that a request may wait for its actor, only while it is certain
/// that the actor has not seen it.
pub(crate) async fn forward<D: Directory>(
    shared: &Shared<D>,
    request: Request<Incoming>,
    to_actor: ToActor,
    info: &RequestInfo,
) -> Result<Response<GatewayBody>, GatewayError> {
    let (parts, body) = request.into_parts();
    // Looked at before anything is looked up or woken.
    let mut upload = Upload::new(&parts, body, shared.config.request_body_max_bytes)?;
    let answered = deliver(shared, &parts, &mut upload, to_actor, info).await;
    upload.drain();
    answered
}

async fn deliver<D: Directory>(
    shared: &Shared<D>,
    parts: &Parts,
    upload: &mut Upload,
    to_actor: ToActor,
    info: &RequestInfo,
) -> Result<Response<GatewayBody>, GatewayError> {
    if is_metrics(&to_actor.path) && !info.peer.to_canonical().is_loopback() {
        return Err(GatewayError::MetricsForbidden);
    }
    let mut watched = shared.find(to_actor.actor).await?;
    upload.read_if_small(shared.config.response_start_timeout).await?;
    let head = Head {
        actor: watched.actor,
        method: parts.method.clone(),
        path: to_actor.path,
        headers: headers::for_actor(&parts.headers, &parts.uri, &info.ray, info.peer, HopByHop::Remove),
    };
    let deadline = shared.ready_deadline();
    loop {
        let route = watched.ready(&*shared.directory, deadline).await?;
        match Exchange::new(shared, &head, route).run(upload).await? {
            Outcome::Answered(response) => return Ok(*response),
            Outcome::NotDelivered if Instant::now() < deadline => {}
            Outcome::NotDelivered => {
                return Err(GatewayError::ActorReadyTimeout { actor_id: watched.actor.to_string() });
            }
        }
        // The actor's host has just said that it does not run this generation any more; the news of that is on its way
        // here, so the retry waits for it instead of asking again and again.
        watched.changed_soon().await;
    }
}

/// The actor's framework exports the metrics of its whole process there, without asking who wants them (`decisions.md` 10).
fn is_metrics(path: &str) -> bool {
    path.split('?').next() == Some("/metrics")
}
