//! Each fault of the proxy really happens, and nothing else does.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed expectation is a failed test")]

use std::io::ErrorKind;
use std::time::Duration;

use testkit::proxy::{Direction, Ending, Event, Fault, FaultyProxy, Scope};
use testkit::{eventually, in_time};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use tokio::time::{Instant, timeout};

const A_WHILE: Duration = Duration::from_millis(100);

/// A proxy, and both ends of connections through it.
struct Scene {
    proxy: FaultyProxy,
    server: TcpListener,
    events: broadcast::Receiver<Event>,
}

impl Scene {
    async fn new() -> Self {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = FaultyProxy::start(server.local_addr().unwrap()).await.unwrap();
        let events = proxy.events();
        Self { proxy, server, events }
    }

    /// The client's end and the server's.
    async fn connect(&self) -> (TcpStream, TcpStream) {
        let client = TcpStream::connect(self.proxy.address()).await.unwrap();
        let (server, _) = in_time("a connection at the server", self.server.accept()).await.unwrap();
        (client, server)
    }

    async fn ended(&mut self) -> (Ending, u64, u64) {
        loop {
            let event = in_time("the end of a connection", self.events.recv()).await.unwrap();
            if let Event::Ended { ending, up_bytes, down_bytes, .. } = event {
                assert!(self.proxy.open().is_empty());
                return (ending, up_bytes, down_bytes);
            }
        }
    }
}

async fn expect(socket: &mut TcpStream, wanted: &str) {
    let mut buffer = vec![0; wanted.len()];
    in_time("bytes", socket.read_exact(&mut buffer)).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&buffer), wanted);
}

async fn expect_silence(socket: &mut TcpStream) {
    let mut byte = [0];
    let read = timeout(A_WHILE, socket.read(&mut byte)).await;
    assert!(read.is_err(), "silence was expected: {read:?}, {byte:?}");
}

/// Reads to the end; the error, if it is none.
async fn rest(socket: &mut TcpStream) -> (String, Option<ErrorKind>) {
    let mut bytes = Vec::new();
    let error = in_time("the end of a connection", socket.read_to_end(&mut bytes)).await.err();
    (String::from_utf8(bytes).unwrap(), error.map(|error| error.kind()))
}

#[tokio::test]
async fn without_a_fault_it_is_a_wire() {
    let mut scene = Scene::new().await;
    let (mut client, mut server) = scene.connect().await;
    client.write_all(b"question").await.unwrap();
    expect(&mut server, "question").await;
    server.write_all(b"answer").await.unwrap();
    expect(&mut client, "answer").await;
    // One direction may end before the other.
    client.shutdown().await.unwrap();
    assert_eq!(rest(&mut server).await, (String::new(), None));
    server.write_all(b"after all").await.unwrap();
    drop(server);
    assert_eq!(rest(&mut client).await, ("after all".to_owned(), None));
    assert_eq!(scene.ended().await, (Ending::Finished, 8, 15));
}

#[tokio::test]
async fn what_a_side_does_reaches_the_other() {
    let mut scene = Scene::new().await;
    let (client, mut server) = scene.connect().await;
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    assert_eq!(rest(&mut server).await, (String::new(), Some(ErrorKind::ConnectionReset)));
    assert_eq!(scene.ended().await, (Ending::Reset, 0, 0));
}

#[tokio::test]
async fn a_server_that_is_not_there_resets_the_client() {
    let Scene { proxy, server, mut events } = Scene::new().await;
    drop(server);
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(rest(&mut client).await.1, Some(ErrorKind::ConnectionReset));
    assert_eq!(events.recv().await, Ok(Event::Opened { connection: 1 }));
    let ended = Event::Ended { connection: 1, ending: Ending::Unreachable, up_bytes: 0, down_bytes: 0 };
    assert_eq!(events.recv().await, Ok(ended));
}

#[tokio::test]
async fn a_cut_lets_exactly_so_many_bytes_through() {
    let mut scene = Scene::new().await;
    for after_bytes in [0, 1, 5] {
        scene.proxy.set(Scope::Next, Direction::Up, Fault::Cut { after_bytes });
        let (mut client, mut server) = scene.connect().await;
        client.write_all(b"hello").await.unwrap();
        let wanted = "hello"[..after_bytes as usize].to_owned();
        assert_eq!(rest(&mut server).await, (wanted, None));
        assert_eq!(rest(&mut client).await, (String::new(), None));
        drop((client, server));
        assert_eq!(scene.ended().await, (Ending::Cut, after_bytes, 0));
    }
    let (mut client, mut server) = scene.connect().await;
    client.write_all(b"unharmed").await.unwrap();
    expect(&mut server, "unharmed").await;
}

#[tokio::test]
async fn a_reset_is_one_on_both_sides() {
    let mut scene = Scene::new().await;
    scene.proxy.set(Scope::Next, Direction::Down, Fault::Reset { after_bytes: 3 });
    let (mut client, mut server) = scene.connect().await;
    server.write_all(b"hello").await.unwrap();
    assert_eq!(rest(&mut client).await, ("hel".to_owned(), Some(ErrorKind::ConnectionReset)));
    assert_eq!(rest(&mut server).await.1, Some(ErrorKind::ConnectionReset));
    assert_eq!(scene.ended().await, (Ending::Reset, 0, 3));
}

#[tokio::test]
async fn a_stall_holds_back_the_sender_and_loses_nothing() {
    let scene = Scene::new().await;
    let (mut client, mut server) = scene.connect().await;
    assert_eq!(scene.proxy.set(Scope::Open, Direction::Up, Fault::Stall), 1);
    let body: Vec<u8> = (0..32 * 1024 * 1024_u32).map(|position| (position / 97) as u8).collect();
    let sent = tokio::spawn({
        let body = body.clone();
        async move {
            client.write_all(&body).await.unwrap();
            client
        }
    });
    expect_silence(&mut server).await;
    assert!(!sent.is_finished(), "32 MiB fit nowhere");
    scene.proxy.set(Scope::Open, Direction::Up, Fault::Pass);
    let mut arrived = vec![0; body.len()];
    in_time("all of it", server.read_exact(&mut arrived)).await.unwrap();
    assert!(arrived == body);
    // The other direction has never stood still.
    server.write_all(b"thanks").await.unwrap();
    expect(&mut sent.await.unwrap(), "thanks").await;
}

#[tokio::test]
async fn a_half_open_connection_says_nothing() {
    let mut scene = Scene::new().await;
    let (mut client, mut server) = scene.connect().await;
    scene.proxy.set(Scope::Open, Direction::Up, Fault::HalfOpen);
    client.write_all(b"into the void").await.unwrap();
    expect_silence(&mut server).await;
    server.write_all(b"heard").await.unwrap();
    expect(&mut client, "heard").await;
    // The server hears nothing of the client's end, and may go on for as long as it likes.
    drop(client);
    for _message in 0..3 {
        server.write_all(b"nobody").await.unwrap();
        expect_silence(&mut server).await;
    }
    assert_eq!(scene.proxy.open().len(), 1);
    drop(server);
    let (ending, up_bytes, _) = scene.ended().await;
    assert_eq!((ending, up_bytes), (Ending::Finished, 0));
}

#[tokio::test]
async fn a_delay_is_one() {
    let scene = Scene::new().await;
    let delay = Duration::from_millis(200);
    scene.proxy.set_both(Scope::All, Fault::Delay(delay));
    let (mut client, mut server) = scene.connect().await;
    let started = Instant::now();
    client.write_all(b"one ").await.unwrap();
    client.write_all(b"two").await.unwrap();
    expect(&mut server, "one two").await;
    let arrived = started.elapsed();
    assert!(arrived >= delay, "{arrived:?}");
    server.write_all(b"back").await.unwrap();
    expect(&mut client, "back").await;
    assert!(started.elapsed() >= 2 * delay, "{:?}", started.elapsed());
    drop(client);
    rest(&mut server).await;
    assert!(started.elapsed() >= 3 * delay, "the end is delayed too: {:?}", started.elapsed());
}

#[tokio::test]
async fn later_bytes_of_another_connection_overtake() {
    let scene = Scene::new().await;
    let patience = Duration::from_secs(30);
    let (mut first_client, mut first_server) = scene.connect().await;
    let (mut second_client, mut second_server) = scene.connect().await;
    scene.proxy.set(Scope::Open, Direction::Up, Fault::Overtaken { at_most: patience });
    first_client.write_all(b"first").await.unwrap();
    expect_silence(&mut first_server).await;
    second_client.write_all(b"second").await.unwrap();
    expect(&mut second_server, "second").await;
    expect(&mut first_server, "first").await;
    assert_eq!(scene.proxy.overtaken(), 1);

    // With nobody else there, the wait has an end.
    scene.proxy.set(Scope::Open, Direction::Up, Fault::Overtaken { at_most: A_WHILE });
    let started = Instant::now();
    second_client.write_all(b"alone").await.unwrap();
    expect(&mut second_server, "alone").await;
    assert!(started.elapsed() >= A_WHILE, "{:?}", started.elapsed());
    assert_eq!(scene.proxy.overtaken(), 1);
}

#[tokio::test]
async fn a_limit_is_kept() {
    let scene = Scene::new().await;
    scene.proxy.set(Scope::Future, Direction::Down, Fault::Limit { bytes_per_second: 100_000 });
    let (mut client, mut server) = scene.connect().await;
    let started = Instant::now();
    server.write_all(&[7; 50_000]).await.unwrap();
    let mut arrived = vec![0; 50_000];
    in_time("all of it", client.read_exact(&mut arrived)).await.unwrap();
    assert!(started.elapsed() >= Duration::from_millis(400), "{:?}", started.elapsed());
}

#[tokio::test]
async fn scopes_mean_what_they_say() {
    let scene = Scene::new().await;
    let (mut first, mut first_server) = scene.connect().await;
    let (mut second, mut second_server) = scene.connect().await;
    assert_eq!(scene.proxy.set_both(Scope::Future, Fault::Cut { after_bytes: 0 }), 0);
    assert_eq!(scene.proxy.set_both(Scope::Next, Fault::Pass), 0);
    let (mut third, mut third_server) = scene.connect().await;
    assert_eq!(scene.proxy.set_both(Scope::One(1), Fault::Reset { after_bytes: 0 }), 1);
    assert_eq!(rest(&mut first).await.1, Some(ErrorKind::ConnectionReset));
    assert_eq!(rest(&mut first_server).await.1, Some(ErrorKind::ConnectionReset));
    for (client, server) in [(&mut second, &mut second_server), (&mut third, &mut third_server)] {
        client.write_all(b"here").await.unwrap();
        expect(server, "here").await;
    }
    let (mut fourth, _server) = scene.connect().await;
    assert_eq!(rest(&mut fourth).await, (String::new(), None));
    assert_eq!(scene.proxy.set_both(Scope::All, Fault::Cut { after_bytes: 0 }), scene.proxy.open().len());
    assert_eq!(rest(&mut second).await, (String::new(), None));
    assert_eq!(rest(&mut third).await, (String::new(), None));
}

#[tokio::test]
async fn shutdown_closes_everything() {
    let Scene { proxy, server, .. } = Scene::new().await;
    let address = proxy.address();
    let mut client = TcpStream::connect(address).await.unwrap();
    let (mut at_server, _) = server.accept().await.unwrap();
    proxy.set_both(Scope::All, Fault::HalfOpen);
    proxy.shutdown().await;
    assert_eq!(rest(&mut client).await, (String::new(), None));
    assert_eq!(rest(&mut at_server).await, (String::new(), None));
    assert_eq!(TcpStream::connect(address).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn random_faults_end_and_leave_nothing_behind() {
    let scene = Scene::new().await;
    let mut kept = Vec::new();
    for _connection in 0..10 {
        kept.push(scene.connect().await);
    }
    let mut steps = Vec::new();
    scene.proxy.disturb(3, Duration::from_secs(1), |step| steps.push(*step)).await;
    assert!(steps.len() > 1, "{steps:?}");
    for open in scene.proxy.open() {
        for direction in [Direction::Up, Direction::Down] {
            let fault = scene.proxy.fault(open.connection, direction);
            assert!(matches!(fault, None | Some(Fault::Pass | Fault::Reset { after_bytes: 0 })), "{fault:?}");
        }
    }
    drop(kept);
    eventually("the end of all connections", async || scene.proxy.open().is_empty().then_some(())).await;
}
