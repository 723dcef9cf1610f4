//! A signal to stop: clients are let go in good order, and before the hosts (`runtime.guard_shutdown_duration`).

use std::net::SocketAddr;
use std::time::Duration;

use http::Method;
use protocol::envoy::ToEnvoyTunnelMessageKind;
use testkit::client;
use testkit::envoy::{EnvoyParams, FakeEnvoy};
use testkit::in_time;
use testkit::websocket::ClientSocket;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::process::{Process, create, put_pool};

/// A process with a host that runs one actor.
struct Play {
    process: Process,
    address: SocketAddr,
    envoy: FakeEnvoy,
    actor: String,
    _folder: tempfile::TempDir,
}

impl Play {
    async fn begin(guard_shutdown_seconds: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (process, address) = Process::start_and_listen(&[
            ("RIVET__FILE_SYSTEM__PATH", folder.path().to_str().unwrap()),
            ("RIVET__RUNTIME__GUARD_SHUTDOWN_DURATION", guard_shutdown_seconds),
        ]);
        put_pool(address).await;
        let mut envoy = FakeEnvoy::join(address, &EnvoyParams::new()).await;
        let actor = create(address, None).await;
        envoy.start_actor().await;
        Self { process, address, envoy, actor, _folder: folder }
    }

    fn request(&self) -> http::Request<http_body_util::Full<bytes::Bytes>> {
        client::empty(Method::GET, &format!("/gateway/{}/request/x", self.actor))
    }
}

#[tokio::test]
async fn requests_finish_sockets_get_a_close_frame_and_hosts_hear_of_it_last() {
    let mut play = Play::begin("60").await;
    let mut socket = ClientSocket::open(play.address, &format!("/gateway/{}/websocket/", play.actor)).await;
    let on_host = play.envoy.accept_socket(false).await;
    let answer = tokio::spawn(client::send(play.address, play.request()));
    let request = play.envoy.expect_request().await;
    let mut idle = TcpStream::connect(play.address).await.unwrap();
    idle.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert!(idle.read(&mut [0; 4096]).await.unwrap() > 0);

    play.process.terminate();
    let (code, reason) = socket.expect_close().await;
    assert!(code == 1011 && reason.starts_with("ws.going_away#"), "{code} {reason}");
    let (_, close) = play.envoy.expect_on(&on_host, "the end of the socket").await;
    assert!(matches!(close, ToEnvoyTunnelMessageKind::WebSocketClose { code: Some(1011), .. }), "{close:?}");
    let mut rest = Vec::new();
    in_time("the end of an idle connection", idle.read_to_end(&mut rest)).await.unwrap();
    assert!(TcpStream::connect(play.address).await.is_err(), "nobody new is let in");
    // The host is still there for what was begun.
    play.envoy.respond(&request, 200, &[], "in time");
    assert_eq!(answer.await.unwrap().text(), "in time");
    assert_eq!(play.envoy.expect_close().await.code_and_cause(), (1011, "ws.going_away"));
    assert_eq!(play.process.ended().await.status.code(), Some(0));
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let mut play = Play::begin("600").await;
    let endless = tokio::spawn(client::try_send(play.address, play.request()));
    play.envoy.expect_request().await;
    let begun = Instant::now();
    play.process.terminate();
    // Its first effect: the listener is closed.
    testkit::eventually("a closed listener", async || TcpStream::connect(play.address).await.is_err().then_some(())).await;
    play.process.terminate();
    assert_eq!(play.process.ended().await.status.code(), Some(0));
    assert!(endless.await.unwrap().is_err());
    assert!(begun.elapsed() < Duration::from_secs(30));
}
