//! The listeners, and which part of the engine answers a request (`spec/gateway.md` 2 and 3).

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use bytes::Bytes;
use gateway::{ClientStream, Gateway, GatewayBody, GatewayError, RAY_ID_HEADER, RequestInfo, accept_ray_id};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use protocol::error::{Coded, Surface};
use protocol::limits;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tower::ServiceExt;

use crate::catalog::new_id;
use crate::envoy::{self, EnvoyContext};
use crate::error::StartError;
use crate::scheduler::Scheduler;

/// A client has this long to send the head of a request.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(30);
/// After a failed accept (too many open files, say) the listener rests this long.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// What answers requests on the public port.
pub(crate) struct Routes {
    pub(crate) gateway: Gateway<Scheduler>,
    pub(crate) envoys: Arc<EnvoyContext>,
    pub(crate) api: Router,
    pub(crate) datacenter_label: u16,
    pub(crate) tcp_nodelay: bool,
}

/// Binds a listener.
pub(crate) async fn bind(listener: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Bind { listener, address, source })
}

/// Serves the public port until shutdown, then lets open requests finish.
pub(crate) async fn serve(routes: Arc<Routes>, listener: TcpListener, mut shutdown: watch::Receiver<bool>) {
    let graceful = hyper_util::server::graceful::GracefulShutdown::new();
    // Those that are still open when the time is up end with this task, and not with the process: an embedded engine has
    // none of its own.
    let mut connections = JoinSet::new();
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_READ_TIMEOUT).max_headers(limits::HTTP_HEADERS_MAX);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = crate::engine::stopping(&mut shutdown) => break,
        };
        let (tcp, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be accepted");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
                continue;
            }
        };
        set_nodelay(&routes, &tcp);
        let service = {
            let routes = routes.clone();
            service_fn(move |request| {
                let routes = routes.clone();
                async move { Ok::<_, Infallible>(routes.answer(request, peer.ip()).await) }
            })
        };
        let connection = server.serve_connection_with_upgrades(TokioIo::new(ClientStream::new(tcp)), service).into_owned();
        let connection = graceful.watch(connection);
        connections.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%peer, %error, "client connection ended");
            }
        });
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    graceful.shutdown().await;
}

fn set_nodelay(routes: &Routes, tcp: &TcpStream) {
    // A failure costs latency only.
    let _ = tcp.set_nodelay(routes.tcp_nodelay);
}

impl Routes {
    async fn answer(&self, request: Request<Incoming>, peer: IpAddr) -> Response<ServerBody> {
        let ray: Arc<str> = match accept_ray_id(request.headers()) {
            Some(ray) => ray.into(),
            None => new_id(self.datacenter_label).to_string().into(),
        };
        let request = match self.gateway.handle(request, RequestInfo { ray: ray.clone(), peer }).await {
            Ok(response) => return response.map(ServerBody::Gateway),
            Err(not_for_an_actor) => not_for_an_actor,
        };
        let path = request.uri().path();
        let mut response = if path == "/envoys/connect" || path == "/envoys/connect/" {
            self.connect_envoy(request, &ray)
        } else if path == "/runners/connect" || path == "/runners/connect/" {
            text(StatusCode::NOT_FOUND, "legacy runners are not served; use rivetkit 2.3 or newer")
        } else if declares_too_much(request.headers()) {
            refusal(&GatewayError::InvalidRequestBody { reason: "length limit exceeded".into() })
        } else {
            // The router cannot fail: its error type has no values.
            match self.api.clone().oneshot(request).await {
                Ok(response) => response.map(ServerBody::Api),
                Err(never) => match never {},
            }
        };
        if let Ok(ray) = HeaderValue::from_str(&ray) {
            response.headers_mut().insert(RAY_ID_HEADER, ray);
        }
        response
    }

    fn connect_envoy(&self, request: Request<Incoming>, ray: &Arc<str>) -> Response<ServerBody> {
        match gateway::upgrade_response(&request) {
            Ok(handshake) => {
                envoy::accept(self.envoys.clone(), request, ray.clone());
                let mut response = text(StatusCode::SWITCHING_PROTOCOLS, "");
                *response.headers_mut() = handshake;
                response
            }
            Err(_) => text(StatusCode::OK, "pegboard-envoy WebSocket endpoint"),
        }
    }
}

/// Whether a management call announces more than any request may have (`spec/engine-api.md` 3.1). What it sends without an
/// announcement is cut off by the route's own, lower limit.
fn declares_too_much(headers: &HeaderMap) -> bool {
    let declared = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()).and_then(|text| text.parse::<u64>().ok());
    declared.is_some_and(|bytes| bytes > limits::HTTP_REQUEST_BODY_MAX_BYTES)
}

/// A failure that the listener itself answers with.
fn refusal(error: &GatewayError) -> Response<ServerBody> {
    let body = Full::new(Bytes::from(protocol::error::body(error).to_string()));
    let mut response = Response::new(ServerBody::Gateway(GatewayBody::Whole(body)));
    *response.status_mut() = StatusCode::from_u16(error.status(Surface::Gateway)).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn text(status: StatusCode, body: &'static str) -> Response<ServerBody> {
    let body = Full::new(Bytes::from_static(body.as_bytes()));
    let mut response = Response::new(ServerBody::Gateway(GatewayBody::Whole(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

/// The body of any answer.
pub(crate) enum ServerBody {
    Gateway(GatewayBody),
    Api(axum::body::Body),
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl Body for ServerBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut *self {
            Self::Gateway(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Self::Api(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Gateway(body) => body.is_end_stream(),
            Self::Api(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Gateway(body) => body.size_hint(),
            Self::Api(body) => body.size_hint(),
        }
    }
}
