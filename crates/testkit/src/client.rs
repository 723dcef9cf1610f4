//! A plain HTTP client: one connection per request, nothing hidden.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::channel::{Channel, Sender};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::in_time;

/// Why a body never comes, or breaks off.
pub type Broken = Box<dyn std::error::Error + Send + Sync>;

/// A whole response.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("no JSON ({error}): {self:?}"))
    }

    /// The body as text, replacing what is no UTF-8.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header as text; empty when it is missing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Status and `group.code` of an error answer, for comparison in one go.
    pub fn error(&self) -> (u16, String) {
        let body = self.json();
        let text = |member: &str| body[member].as_str().unwrap_or("?").to_owned();
        (self.status.as_u16(), format!("{}.{}", text("group"), text("code")))
    }
}

/// One connection with one request on it. Dropping it is a client that walks away.
pub struct Exchange {
    response: Response<Incoming>,
    _connection: Connection,
}

/// Closes the socket when dropped.
struct Connection(JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Exchange {
    /// The response's status.
    pub fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// The response's headers.
    pub fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// The next piece of the body; `None` at its clean end.
    pub async fn chunk(&mut self) -> Option<Result<Bytes, hyper::Error>> {
        loop {
            let frame = in_time("a piece of the response body", self.response.body_mut().frame()).await?;
            match frame.map(http_body::Frame::into_data) {
                Ok(Ok(data)) => return Some(Ok(data)),
                Ok(Err(_trailers)) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// The rest of the body, all of it.
    pub async fn finish(self) -> Result<Answer, hyper::Error> {
        let Self { response, _connection } = self;
        let (head, body) = response.into_parts();
        let body = in_time("the end of the response body", body.collect()).await?.to_bytes();
        Ok(Answer { status: head.status, headers: head.headers, body })
    }
}

/// Sends a request and waits for the response's head. The request needs no `host` header.
pub async fn begin<B>(address: SocketAddr, mut request: Request<B>) -> Result<Exchange, Broken>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Broken>,
{
    let stream = in_time("a TCP connection", TcpStream::connect(address)).await?;
    stream.set_nodelay(true).expect("a socket option");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Its errors reach the request too.
    let connection = Connection(tokio::spawn(async move { drop(connection.await) }));
    let host = address.to_string().parse().expect("an address is a header value");
    request.headers_mut().entry(http::header::HOST).or_insert(host);
    let response = in_time("a response", sender.send_request(request)).await?;
    Ok(Exchange { response, _connection: connection })
}

/// Sends a request and reads the whole response.
///
/// # Panics
/// When the connection breaks.
pub async fn send(address: SocketAddr, request: Request<Full<Bytes>>) -> Answer {
    let about = format!("{} {}", request.method(), request.uri());
    try_send(address, request).await.unwrap_or_else(|error| panic!("{about}: {error}"))
}

/// Sends a request and reads the whole response, if the connection lasts that long.
pub async fn try_send(address: SocketAddr, request: Request<Full<Bytes>>) -> Result<Answer, Broken> {
    Ok(begin(address, request).await?.finish().await?)
}

/// Sends a request by HTTP/2 without TLS, as a client does that knows what the server speaks. Its URI names the host.
///
/// # Panics
/// When the connection breaks.
pub async fn send_http2(address: SocketAddr, request: Request<Full<Bytes>>) -> Answer {
    let stream = in_time("a TCP connection", TcpStream::connect(address)).await.expect("a TCP connection");
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = in_time("a handshake", handshake).await.expect("a handshake");
    // Its errors reach the request too.
    let connection = Connection(tokio::spawn(async move { drop(connection.await) }));
    let response = in_time("a response", sender.send_request(request)).await.expect("a response");
    Exchange { response, _connection: connection }.finish().await.expect("a whole response")
}

/// Sends a request without a body.
pub async fn call(address: SocketAddr, method: Method, path: &str) -> Answer {
    send(address, empty(method, path)).await
}

/// Sends a request with a JSON body.
pub async fn call_with(address: SocketAddr, method: Method, path: &str, body: &Value) -> Answer {
    let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    send(address, request.body(Full::from(body.to_string())).expect("a request")).await
}

/// A request without a body.
pub fn empty(method: Method, path: &str) -> Request<Full<Bytes>> {
    Request::builder().method(method).uri(path).body(Full::default()).expect("a request")
}

/// A body that is written piece by piece, without a declared length. Dropping the sender without `close` breaks it off.
pub fn streamed_body() -> (Sender<Bytes, Broken>, BoxBody<Bytes, Broken>) {
    let (sender, body) = Channel::new(1);
    (sender, BodyExt::boxed(body))
}
