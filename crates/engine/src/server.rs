//! The listeners, and which part of the engine answers a request (`spec/gateway.md` 2 and 3).

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use bytes::Bytes;
use gateway::metrics::MeasuredBody;
use gateway::{ClientStream, Gateway, GatewayBody, GatewayError, RAY_ID_HEADER, RequestInfo, accept_ray_id};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use protocol::error::Coded;
use protocol::limits;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tower::ServiceExt;

use crate::catalog::new_id;
use crate::envoy::{self, EnvoyContext};
use crate::error::StartError;
use crate::metrics::{Destination, ListenerMetrics};
use crate::scheduler::Scheduler;

/// A client has this long to send the head of a request.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(30);
/// A silent connection is probed after this long, and ended when none of so many probes is answered: 30 s in all
/// (`spec/gateway.md` 18, connection ping timeout). There is no such limit while bytes of ours are unacknowledged: the kernel's
/// option for that, `TCP_USER_TIMEOUT`, also cuts off clients that are there and only pause to read.
const PROBE_AFTER: Duration = Duration::from_secs(15);
const PROBE_INTERVAL: Duration = Duration::from_secs(5);
const PROBES: u32 = 3;
/// After a failed accept (too many open files, say) the listener rests this long.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// What answers requests on the public port.
pub(crate) struct Routes {
    pub(crate) gateway: Gateway<Scheduler>,
    pub(crate) envoys: Arc<EnvoyContext>,
    pub(crate) api: Router,
    pub(crate) datacenter_label: u16,
    pub(crate) tcp_nodelay: bool,
    pub(crate) metrics: Arc<ListenerMetrics>,
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
        set_options(&tcp, routes.tcp_nodelay);
        let service = {
            let routes = routes.clone();
            service_fn(move |request| {
                let routes = routes.clone();
                async move { Ok::<_, Infallible>(routes.answer(request, peer.ip()).await) }
            })
        };
        let connection = server
            .serve_connection_with_upgrades(TokioIo::new(ClientStream::new(tcp).counted(routes.metrics.accepted())), service)
            .into_owned();
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

fn set_options(tcp: &TcpStream, nodelay: bool) {
    // A failure costs latency only.
    let _ = tcp.set_nodelay(nodelay);
    // And here, memory: a client that has vanished without a word stays until the kernel's own, longer times are up.
    let keepalive = TcpKeepalive::new().with_time(PROBE_AFTER).with_interval(PROBE_INTERVAL).with_retries(PROBES);
    let _ = SockRef::from(tcp).set_tcp_keepalive(&keepalive);
}

impl Routes {
    async fn answer(&self, request: Request<Incoming>, peer: IpAddr) -> Response<ServerBody> {
        let ray: Arc<str> = match accept_ray_id(request.headers()) {
            Some(ray) => ray.into(),
            None => new_id(self.datacenter_label).to_string().into(),
        };
        let request = match self.gateway.handle(request, RequestInfo { ray: ray.clone(), peer }).await {
            Ok(response) => {
                self.metrics.routed_to(Destination::Gateway);
                return response.map(ServerBody::Gateway);
            }
            Err(not_for_an_actor) => not_for_an_actor,
        };
        let path = request.uri().path();
        let mut response = if path == "/envoys/connect" || path == "/envoys/connect/" {
            self.metrics.routed_to(Destination::Envoy);
            self.connect_envoy(request, &ray)
        } else if path == "/runners/connect" || path == "/runners/connect/" {
            self.metrics.routed_to(Destination::Runner);
            text(StatusCode::NOT_FOUND, "legacy runners are not served; use rivetkit 2.3 or newer")
        } else if declares_too_much(request.headers()) {
            self.metrics.routed_to(Destination::Api);
            refusal(&GatewayError::InvalidRequestBody { reason: "length limit exceeded".into() })
        } else {
            self.metrics.routed_to(Destination::Api);
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
        let handshake = gateway::upgrade_response(&request);
        let access = self.envoys.access.check(&request, handshake.is_ok());
        match (handshake, access) {
            (Ok(handshake), access) => {
                envoy::accept(self.envoys.clone(), request, access, ray.clone());
                let mut response = text(StatusCode::SWITCHING_PROTOCOLS, "");
                *response.headers_mut() = handshake;
                response
            }
            (Err(_), Ok(())) => text(StatusCode::OK, "pegboard-envoy WebSocket endpoint"),
            (Err(_), Err(denied)) => refusal(&denied),
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
fn refusal(error: &dyn Coded) -> Response<ServerBody> {
    gateway::coded_response(error).map(|body| ServerBody::Gateway(body.into()))
}

fn text(status: StatusCode, body: &'static str) -> Response<ServerBody> {
    let body = Full::new(Bytes::from_static(body.as_bytes()));
    let mut response = Response::new(ServerBody::Gateway(GatewayBody::Whole(body).into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

/// The body of any answer.
pub(crate) enum ServerBody {
    Gateway(MeasuredBody),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn connections_that_are_dead_are_found_out_in_thirty_seconds() {
        let listener = bind("test", ([127, 0, 0, 1], 0).into()).await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (tcp, _) = listener.accept().await.unwrap();
        set_options(&tcp, true);
        let socket = SockRef::from(&tcp);
        assert!(socket.keepalive().unwrap());
        let probes = socket.tcp_keepalive_interval().unwrap() * socket.tcp_keepalive_retries().unwrap();
        assert_eq!(socket.tcp_keepalive_time().unwrap() + probes, Duration::from_secs(30));
    }
}
