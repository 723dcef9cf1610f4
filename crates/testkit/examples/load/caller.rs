//! A client that keeps its connection.

use std::net::SocketAddr;

use bytes::Bytes;
use http::header::HOST;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

pub(crate) struct Caller {
    sender: SendRequest<Full<Bytes>>,
    host: String,
}

impl Caller {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("a connection");
        stream.set_nodelay(true).expect("a socket option");
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("a handshake");
        // Its errors reach the requests too.
        tokio::spawn(async move { drop(connection.await) });
        Self { sender, host: address.to_string() }
    }

    /// Sends a request and returns the body of its answer, which must be a success.
    pub(crate) async fn get(&mut self, path: &str) -> Bytes {
        self.call(Method::GET, path, Bytes::new()).await
    }

    /// As [`Self::get`], with a JSON body.
    pub(crate) async fn post(&mut self, path: &str, body: String) -> Bytes {
        self.call(Method::POST, path, Bytes::from(body)).await
    }

    async fn call(&mut self, method: Method, path: &str, body: Bytes) -> Bytes {
        let request = Request::builder().method(method).uri(path).header(HOST, &self.host);
        let request = request.header("content-type", "application/json").body(Full::from(body)).expect("a request");
        self.sender.ready().await.expect("an open connection");
        let response = self.sender.send_request(request).await.expect("a response");
        let status = response.status();
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        assert_eq!(status, StatusCode::OK, "{path}: {}", String::from_utf8_lossy(&body));
        body
    }
}
