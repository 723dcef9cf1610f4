//! An HTTP request on its way to an actor and back (`spec/gateway.md` 14, `spec/envoy-protocol.md` 13).

mod call;
mod exchange;
mod flow;
mod head;
mod response;
mod rest;
mod upload;

use http::request::Parts;
use http::{Request, Response};
use hyper::body::Incoming;

use crate::actor_metrics;
use crate::admission::Slot;
use crate::claim::ToActor;
use crate::directory::Directory;
use crate::error::GatewayError;
use crate::handler::{GatewayBody, RequestInfo, Shared};
use crate::headers::{self, HopByHop};
use crate::metrics::RequestKind;
use crate::resolve::Caller;
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
    slot: &mut Slot,
) -> Result<Response<GatewayBody>, GatewayError> {
    let caller = Caller::of(&request, info, &shared.admission);
    let (parts, body) = request.into_parts();
    // Looked at before anything is looked up or woken.
    let mut upload = Upload::new(&parts, body, shared.config.request_body_max_bytes, &shared.metrics)?;
    let answered = deliver(shared, &parts, &mut upload, to_actor, info, &caller, slot).await;
    // All that is not thrown away already, while a streamed answer is on its way.
    drop(upload.discard_rest());
    answered
}

async fn deliver<D: Directory>(
    shared: &Shared<D>,
    parts: &Parts,
    upload: &mut Upload,
    to_actor: ToActor,
    info: &RequestInfo,
    caller: &Caller,
    slot: &mut Slot,
) -> Result<Response<GatewayBody>, GatewayError> {
    actor_metrics::check(&to_actor.path, &parts.headers, caller.client.is_local, shared.config.admin_token.as_ref())?;
    let mut watched = shared.find(to_actor.actor, caller, slot).await?;
    upload.read_if_small(shared.config.response_start_timeout).await?;
    let head = Head {
        actor: watched.actor,
        ray: info.ray.clone(),
        method: parts.method.clone(),
        path: to_actor.path,
        headers: headers::for_actor(&parts.headers, &parts.uri, &info.ray, info.peer, HopByHop::Remove),
    };
    let time = shared.ready_time();
    loop {
        let route = watched.ready(shared, to_actor.wait_for, time).await?;
        match Exchange::new(shared, &head, route).run(upload).await? {
            Outcome::Answered(response) => return Ok(*response),
            Outcome::NotDelivered if time.is_over() => return Err(watched.timed_out(&*shared.directory, time, None)),
            Outcome::NotDelivered => shared.metrics.retries.get(RequestKind::Http).inc(),
        }
        // The actor's host has just said that it does not run this generation any more; the news of that is on its way
        // here, so the retry waits for it instead of asking again and again.
        watched.changed_soon().await;
    }
}
