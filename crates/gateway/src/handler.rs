//! The front door: decides what a request addresses and answers it.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, ORIGIN, RETRY_AFTER};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use protocol::error::{Coded, Surface};

use crate::admission::{Admission, AdmissionCounts, Slot};
use crate::claim::{Claim, ToActor, claim};
use crate::config::GatewayConfig;
use crate::directory::Directory;
use crate::error::GatewayError;
use crate::headers::{ERROR_HEADER, RAY_ID_HEADER};
use crate::http_tunnel::{self, ActorBody};
use crate::metrics::{MeasuredBody, Metrics, OpenRequest, RequestResult};
use crate::ready::WaitTime;
use crate::tunnel::Tunnels;
use crate::websocket::Sockets;
use crate::{cors, websocket};

/// What the listener knows of a request besides its bytes.
#[derive(Debug, Clone)]
pub struct RequestInfo {
    /// Trace id, already checked or made.
    pub ray: Arc<str>,
    /// Address of the socket's other end.
    pub peer: IpAddr,
}

/// The gateway; clone freely.
pub struct Gateway<D> {
    shared: Arc<Shared<D>>,
}

impl<D> Clone for Gateway<D> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

pub(crate) struct Shared<D> {
    pub(crate) directory: Arc<D>,
    pub(crate) tunnels: Tunnels,
    pub(crate) config: GatewayConfig,
    pub(crate) admission: Arc<Admission>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) sockets: Sockets,
}

impl<D: Directory> Gateway<D> {
    /// A gateway over the engine's directory and its table of tunnels.
    pub fn new(directory: Arc<D>, tunnels: Tunnels, config: GatewayConfig) -> Self {
        let admission = Admission::new(config.admission.clone());
        Self {
            shared: Arc::new(Shared {
                directory,
                tunnels,
                config,
                admission,
                metrics: Arc::default(),
                sockets: Sockets::default(),
            }),
        }
    }

    /// Closes all WebSockets of clients with `ws.going_away` and tells their hosts; those that are opened later are closed at
    /// once, too. This begins at once. What it returns ends when none is left: a client has a second to close its end.
    pub fn close_websockets(&self) -> impl Future<Output = ()> {
        self.shared.sockets.close()
    }

    /// What this gateway counts.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.shared.metrics
    }

    /// How many requests count towards limits of their clients, and how many exceeded them.
    pub fn admission_counts(&self) -> AdmissionCounts {
        self.shared.admission.counts()
    }

    /// Answers a request that addresses an actor; gives any other one back.
    pub async fn handle(
        &self,
        request: Request<Incoming>,
        info: RequestInfo,
    ) -> Result<Response<MeasuredBody>, Request<Incoming>> {
        let origin = request.headers().get(ORIGIN).cloned();
        let ray = info.ray.clone();
        let mut response = match claim(&request, self.shared.config.websocket_health_route) {
            Ok(Claim::NotMine) => return Err(request),
            Ok(Claim::Preflight) => {
                let mut response = empty_response(StatusCode::NO_CONTENT);
                cors::preflight(request.headers(), response.headers_mut());
                set_ray(&mut response, &ray);
                return Ok(response.map(MeasuredBody::from));
            }
            Ok(Claim::HealthSocket) => websocket::health::answer(&self.shared, request).map(MeasuredBody::from),
            Ok(Claim::ToActor(to_actor)) => self.answer(request, Ok(to_actor), info).await,
            Err(error) => self.answer(request, Err(error), info).await,
        };
        cors::decorate(origin.as_ref(), response.headers_mut());
        set_ray(&mut response, &ray);
        Ok(response)
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        target: Result<ToActor, GatewayError>,
        info: RequestInfo,
    ) -> Response<MeasuredBody> {
        if websocket::is_upgrade(&request) {
            return websocket::accept(self.shared.clone(), request, target, info).map(MeasuredBody::from);
        }
        let mut open = OpenRequest::http(&self.shared.metrics);
        // Held until the client has the whole answer.
        let mut slot = Slot::default();
        let answered = match target {
            Ok(to_actor) => http_tunnel::forward(&self.shared, request, to_actor, &info, &mut slot).await,
            Err(error) => Err(error),
        };
        let response = match answered {
            Ok(response) => {
                open.answered();
                response
            }
            Err(error) => {
                open.ends((&error).into());
                error_response(&error)
            }
        };
        response.map(|body| MeasuredBody::answering(body, open, slot))
    }
}

impl<D: Directory> Shared<D> {
    /// How long a request that comes in now may wait for its actor.
    pub(crate) fn ready_time(&self) -> WaitTime {
        WaitTime::of(self.config.actor_ready_timeout)
    }
}

/// A failure of the gateway as HTTP answer.
pub(crate) fn error_response(error: &GatewayError) -> Response<GatewayBody> {
    let mut response = coded_response(error);
    if let Some(seconds) = error.retry_after_seconds() {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}

/// An error as HTTP answer: JSON body, and its name in a header (`spec/gateway.md` 21.1).
pub fn coded_response(error: &dyn Coded) -> Response<GatewayBody> {
    let body = Bytes::from(protocol::error::body(error).to_string());
    let mut response = Response::new(GatewayBody::Whole(Full::new(body)));
    *response.status_mut() = StatusCode::from_u16(error.status(Surface::Gateway)).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Ok(name) = HeaderValue::from_str(&format!("{}.{}", error.group(), error.code())) {
        response.headers_mut().insert(ERROR_HEADER, name);
    }
    response
}

pub(crate) fn empty_response(status: StatusCode) -> Response<GatewayBody> {
    let mut response = Response::new(GatewayBody::Whole(Full::default()));
    *response.status_mut() = status;
    response
}

fn set_ray<B>(response: &mut Response<B>, ray: &str) {
    if let Ok(ray) = HeaderValue::from_str(ray) {
        response.headers_mut().insert(RAY_ID_HEADER, ray);
    }
}

/// The body of an answer.
pub enum GatewayBody {
    /// Known as a whole.
    Whole(Full<Bytes>),
    /// Streamed by the actor.
    Streamed(Box<ActorBody>),
}

impl Body for GatewayBody {
    type Data = Bytes;
    type Error = StreamCut;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        match &mut *self {
            Self::Whole(whole) => Pin::new(whole).poll_frame(cx).map_err(|never| match never {}),
            Self::Streamed(streamed) => streamed.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(whole) => whole.is_end_stream(),
            Self::Streamed(streamed) => streamed.has_ended(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(whole) => whole.size_hint(),
            Self::Streamed(_) => SizeHint::default(),
        }
    }
}

/// A streamed response ended before its end; the client sees a cut connection, never a clean end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the response stream was cut: {why}")]
pub struct StreamCut {
    pub(crate) why: &'static str,
    pub(crate) result: RequestResult,
}
