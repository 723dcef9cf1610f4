//! The listeners, and which part of the engine answers a request (`spec/gateway.md` 2 and 3).

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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

use crate::envoy::{self, EnvoyContext};
use crate::error::StartError;
use crate::metrics::{Destination, ListenerMetrics};
use crate::random::Randomness;
use crate::scheduler::Scheduler;

/// After a failed accept (too many open files, say) the listener rests this long.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// What answers requests on the public port.
pub(crate) struct Routes {
    pub(crate) gateway: Gateway<Scheduler>,
    pub(crate) envoys: Arc<EnvoyContext>,
    pub(crate) api: Router,
    pub(crate) datacenter_label: u16,
    pub(crate) randomness: Randomness,
    pub(crate) tcp_nodelay: bool,
    /// Largest request body that is read at all, in bytes.
    pub(crate) request_body_max_bytes: u64,
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
    let server = http_server();
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
        let has_asked = Arc::new(AtomicBool::new(false));
        let service = {
            let (routes, has_asked) = (routes.clone(), has_asked.clone());
            service_fn(move |request| {
                has_asked.store(true, Ordering::Relaxed);
                let routes = routes.clone();
                async move { Ok::<_, Infallible>(routes.answer(request, peer.ip()).await) }
            })
        };
        let connection = server
            .serve_connection_with_upgrades(TokioIo::new(ClientStream::new(tcp).counted(routes.metrics.accepted())), service)
            .into_owned();
        let connection = graceful.watch(connection);
        connections.spawn(async move {
            match unless_silent(connection, &has_asked).await {
                Some(Ok(())) => {}
                Some(Err(error)) => tracing::debug!(%peer, %error, "client connection ended"),
                None => tracing::debug!(%peer, "client connection cut: no request came"),
            }
        });
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    graceful.shutdown().await;
}

/// Serves a connection to its end, or cuts it when there was no request in the time for one: `None`. The limits of HTTP/1 and
/// HTTP/2 begin only when a connection has shown which of them it speaks, and a silent one never does.
async fn unless_silent<C: Future>(connection: C, has_asked: &AtomicBool) -> Option<C::Output> {
    let silent = async {
        tokio::time::sleep(limits::HTTP_HEAD_READ_TIMEOUT).await;
        if has_asked.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        biased;
        ended = connection => Some(ended),
        () = silent => None,
    }
}

/// Both versions of HTTP with their limits. HTTP/2 has none on the number of headers; [`Routes::answer`] counts them.
fn http_server() -> auto::Builder<TokioExecutor> {
    let mut server = auto::Builder::new(TokioExecutor::new());
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::HTTP_HEAD_READ_TIMEOUT)
        .max_buf_size(limits::HTTP_HEAD_MAX_BYTES)
        .max_headers(limits::HTTP_HEADERS_MAX);
    server
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(limits::HTTP_HEAD_MAX_BYTES as u32)
        .max_concurrent_streams(limits::HTTP2_STREAMS_MAX)
        .keep_alive_interval(limits::HTTP2_PING_INTERVAL)
        .keep_alive_timeout(limits::HTTP2_PING_TIMEOUT);
    server
}

fn set_options(tcp: &TcpStream, nodelay: bool) {
    // A failure costs latency only.
    let _ = tcp.set_nodelay(nodelay);
    // And here, memory: a client that has vanished without a word stays until the kernel's own, longer times are up.
    let keepalive = TcpKeepalive::new()
        .with_time(limits::TCP_PROBE_AFTER)
        .with_interval(limits::TCP_PROBE_INTERVAL)
        .with_retries(limits::TCP_PROBES);
    let _ = SockRef::from(tcp).set_tcp_keepalive(&keepalive);
}

impl Routes {
    async fn answer(&self, request: Request<Incoming>, peer: IpAddr) -> Response<ServerBody> {
        if request.headers().len() > limits::HTTP_HEADERS_MAX {
            return text(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "");
        }
        let ray: Arc<str> = match accept_ray_id(request.headers()) {
            Some(ray) => ray.into(),
            None => self.randomness.id(self.datacenter_label).to_string().into(),
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
        } else if declares_more(request.headers(), self.request_body_max_bytes) {
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
fn declares_more(headers: &HeaderMap, max_bytes: u64) -> bool {
    let declared = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()).and_then(|text| text.parse::<u64>().ok());
    declared.is_some_and(|bytes| bytes > max_bytes)
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
    use tokio::time::Instant;

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

    /// A connection that begins like this, and how long the request that it may bring takes to be answered.
    async fn begin(said: &'static [u8], answer_after: Duration) -> (DuplexStream, tokio::task::JoinHandle<Option<()>>) {
        let (mut client, served) = tokio::io::duplex(65_536);
        let has_asked = Arc::new(AtomicBool::new(false));
        let asks = has_asked.clone();
        let connection = tokio::spawn(async move {
            let service = service_fn(move |_: Request<Incoming>| {
                asks.store(true, Ordering::Relaxed);
                async move {
                    tokio::time::sleep(answer_after).await;
                    Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
                }
            });
            let server = http_server();
            let connection = server.serve_connection_with_upgrades(TokioIo::new(served), service);
            unless_silent(async { drop(connection.await) }, &has_asked).await
        });
        client.write_all(said).await.unwrap();
        (client, connection)
    }

    #[tokio::test(start_paused = true)]
    async fn connections_that_ask_for_nothing_are_cut() {
        const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        const PREFACE_AND_SETTINGS: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
        for said in [b"", &b"PRI * HT"[..], PREFACE, PREFACE_AND_SETTINGS, b"GET / HT"] {
            let (mut client, connection) = begin(said, Duration::ZERO).await;
            let begun = Instant::now();
            client.read_to_end(&mut Vec::new()).await.unwrap();
            assert_eq!(begun.elapsed().as_secs(), 30, "{said:?}");
            connection.await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn connections_that_have_asked_are_left_alone() {
        let (mut client, connection) =
            begin(b"GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n", Duration::from_secs(300)).await;
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 200 "), "{answer:?}");
        assert_eq!(connection.await.unwrap(), Some(()));
    }

    const SETTINGS: u8 = 4;
    const PING: u8 = 6;
    const ACK: u8 = 1;

    /// The next HTTP/2 frame: kind, flags, payload. `None` at the end of the connection.
    async fn next_frame(client: &mut DuplexStream) -> Option<(u8, u8, Vec<u8>)> {
        let mut head = [0; 9];
        client.read_exact(&mut head).await.ok()?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        client.read_exact(&mut payload).await.ok()?;
        Some((head[3], head[4], payload))
    }

    #[tokio::test(start_paused = true)]
    async fn http_2_has_limits_and_silent_connections_end_fifty_seconds_later() {
        let (mut client, served) = tokio::io::duplex(65_536);
        let connection = tokio::spawn(async move {
            let service = service_fn(async |_: Request<Incoming>| Ok::<_, Infallible>(Response::new(Full::<Bytes>::default())));
            http_server().serve_connection(TokioIo::new(served), service).await
        });
        client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        client.write_all(&[0, 0, 0, SETTINGS, 0, 0, 0, 0, 0]).await.unwrap();
        let Some((SETTINGS, 0, settings)) = next_frame(&mut client).await else { panic!("no settings") };
        let settings: Vec<(u16, u32)> = settings
            .chunks_exact(6)
            .map(|pair| (u16::from_be_bytes([pair[0], pair[1]]), u32::from_be_bytes([pair[2], pair[3], pair[4], pair[5]])))
            .collect();
        let (streams_max, head_max_bytes) = (3, 6);
        assert!(settings.contains(&(streams_max, 200)) && settings.contains(&(head_max_bytes, 417_792)), "{settings:?}");

        let silent_since = Instant::now();
        for answered in [true, false] {
            let ping = loop {
                match next_frame(&mut client).await.expect("a ping before the end") {
                    (PING, 0, payload) => break payload,
                    // Window updates, and the answer to our settings.
                    (_kind, _flags, _payload) => {}
                }
            };
            if answered {
                client.write_all(&[&[0, 0, 8, PING, ACK, 0, 0, 0, 0][..], &ping].concat()).await.unwrap();
            }
        }
        assert_eq!(silent_since.elapsed().as_secs(), 40);
        while next_frame(&mut client).await.is_some() {}
        assert_eq!(silent_since.elapsed().as_secs(), 70);
        assert!(connection.await.unwrap().is_err());
    }
}
