//! The front door: decides what a request addresses and answers it.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, ORIGIN};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;
use protocol::error::{Coded, Surface};
use protocol::id::ActorId;
use tokio::time::{Instant, timeout};

use crate::config::GatewayConfig;
use crate::directory::{ActorQuery, Directory};
use crate::error::GatewayError;
use crate::headers::{ERROR_HEADER, RAY_ID_HEADER};
use crate::http_tunnel::{self, ActorBody};
use crate::ready::Watched;
use crate::target::{self, Addressed, GatewayPath};
use crate::tunnel::Tunnels;
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
}

/// Where hosts connect: the engine's own business, whatever the headers say.
const CONNECT_PATHS: [&str; 2] = ["/envoys/connect", "/runners/connect"];
/// Names the destination of a request that has no gateway path (`spec/gateway.md` 3).
const TARGET_HEADER: &str = "x-rivet-target";
const ACTOR_HEADER: &str = "x-rivet-actor";
/// The same for WebSockets, as entries of the subprotocol list.
const TARGET_PROTOCOL: &str = "rivet_target.";
const ACTOR_PROTOCOL: &str = "rivet_actor.";

/// A request for an actor, as far as it can be understood without looking anything up.
pub(crate) struct ToActor {
    pub(crate) actor: Addressed,
    pub(crate) path: String,
}

enum Claim {
    Mine(ToActor),
    Preflight,
    NotMine,
}

impl<D: Directory> Gateway<D> {
    /// A gateway over the engine's directory and its table of tunnels.
    pub fn new(directory: Arc<D>, tunnels: Tunnels, config: GatewayConfig) -> Self {
        Self { shared: Arc::new(Shared { directory, tunnels, config }) }
    }

    /// Answers a request that addresses an actor; gives any other one back.
    pub async fn handle(
        &self,
        request: Request<Incoming>,
        info: RequestInfo,
    ) -> Result<Response<GatewayBody>, Request<Incoming>> {
        let origin = request.headers().get(ORIGIN).cloned();
        let ray = info.ray.clone();
        let mut response = match claim(&request) {
            Ok(Claim::NotMine) => return Err(request),
            Ok(Claim::Preflight) => {
                let mut response = empty_response(StatusCode::NO_CONTENT);
                cors::preflight(request.headers(), response.headers_mut());
                set_ray(&mut response, &ray);
                return Ok(response);
            }
            Ok(Claim::Mine(to_actor)) if websocket::is_upgrade(&request) => {
                websocket::accept(self.shared.clone(), request, Ok(to_actor), info)
            }
            Err(error) if websocket::is_upgrade(&request) => websocket::accept(self.shared.clone(), request, Err(error), info),
            Ok(Claim::Mine(to_actor)) => {
                http_tunnel::forward(&self.shared, request, to_actor, &info).await.unwrap_or_else(|error| error_response(&error))
            }
            Err(error) => error_response(&error),
        };
        cors::decorate(origin.as_ref(), response.headers_mut());
        set_ray(&mut response, &ray);
        Ok(response)
    }
}

impl<D: Directory> Shared<D> {
    /// Resolves what a request addresses to an actor that is being watched.
    pub(crate) async fn find(&self, addressed: Addressed) -> Result<Watched, GatewayError> {
        let actor = match addressed {
            Addressed::Direct { actor_id } => actor_id.parse::<ActorId>().map_err(|_| GatewayError::ActorNotFound)?,
            Addressed::Query(query) => self.resolve(query).await?,
        };
        Watched::new(&*self.directory, actor).await
    }

    async fn resolve(&self, query: ActorQuery) -> Result<ActorId, GatewayError> {
        let limit = self.config.resolve_timeout;
        match timeout(limit, self.directory.resolve(query)).await {
            Ok(resolved) => Ok(resolved?),
            Err(_) => Err(GatewayError::ResolveTimeout { elapsed_ms: limit.as_millis() as u64 }),
        }
    }

    /// When a request that comes in now gives up waiting for its actor.
    pub(crate) fn ready_deadline(&self) -> Instant {
        Instant::now() + self.config.actor_ready_timeout
    }
}

fn claim(request: &Request<Incoming>) -> Result<Claim, GatewayError> {
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    let header_target = request.headers().get(TARGET_HEADER).and_then(|value| value.to_str().ok());
    let is_upgrade = websocket::is_upgrade(request);
    let preflight = *request.method() == Method::OPTIONS && !is_upgrade;
    if preflight && (target::is_gateway_path(request.uri().path()) || header_target == Some("actor")) {
        return Ok(Claim::Preflight);
    }
    if let Some(GatewayPath { actor, path }) = target::parse(target)? {
        return Ok(Claim::Mine(ToActor { actor, path }));
    }
    if CONNECT_PATHS.contains(&request.uri().path().trim_end_matches('/')) {
        return Ok(Claim::NotMine);
    }
    let wanted = if is_upgrade { websocket::protocol_entry(request.headers(), TARGET_PROTOCOL) } else { header_target };
    match wanted {
        // Only actors and hosts speak over WebSockets here.
        None | Some("api-public" | "envoy" | "runner") if is_upgrade => Err(GatewayError::WebSocketNotSupported),
        None | Some("api-public" | "envoy" | "runner") => Ok(Claim::NotMine),
        Some("actor") => {
            let path = request.uri().path();
            if !is_upgrade && path != "/request" && !path.starts_with("/request/") {
                return Err(no_route(request));
            }
            let actor_id = named_actor(request.headers(), is_upgrade)?;
            Ok(Claim::Mine(ToActor { actor: Addressed::Direct { actor_id }, path: target.to_owned() }))
        }
        Some(_unknown) => Err(no_route(request)),
    }
}

fn named_actor(headers: &HeaderMap, is_upgrade: bool) -> Result<String, GatewayError> {
    let named = if is_upgrade {
        // A subprotocol has no room for every character, so clients escape the id there.
        websocket::protocol_entry(headers, ACTOR_PROTOCOL)
            .and_then(|id| Some(percent_decode_str(id).decode_utf8().ok()?.into_owned()))
    } else {
        headers.get(ACTOR_HEADER).and_then(|value| value.to_str().ok()).map(str::to_owned)
    };
    named.ok_or(GatewayError::MissingHeader { header: ACTOR_HEADER })
}

fn no_route(request: &Request<Incoming>) -> GatewayError {
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let host = host.rsplit_once(':').map_or(host, |(name, _port)| name);
    GatewayError::NoRoute { host: host.to_owned(), path: request.uri().path().to_owned() }
}

/// An error as HTTP answer: JSON body, and its name in a header.
pub(crate) fn error_response(error: &GatewayError) -> Response<GatewayBody> {
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

fn set_ray(response: &mut Response<GatewayBody>, ray: &str) {
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
            Self::Streamed(_) => false,
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
#[error("the response stream was cut: {0}")]
pub struct StreamCut(pub(crate) &'static str);
