//! WebSockets while the network fails at any point. The host of a hibernatable socket keeps the index of the last message
//! and drops what it has already, as real hosts do; with that, every message arrives once and in order
//! (`spec/envoy-protocol.md` 14.2, 14.4 and 14.7).

use protocol::envoy::{ToEnvoy, ToEnvoyTunnelMessage, ToEnvoyTunnelMessageKind, ToRivetTunnelMessageKind};
use testkit::envoy::TunnelSocket;
use testkit::in_time;
use testkit::proxy::{Direction, Fault, Scope};
use testkit::websocket::ClientSocket;

use crate::faults::{CUTS, Scene};

const BURST: usize = 3;

/// What the actor's side knows of a hibernatable socket.
#[derive(Default)]
struct Heard {
    last_index: u16,
    texts: Vec<String>,
    repeated: usize,
}

impl Heard {
    fn take(&mut self, index: u16, data: &[u8]) {
        if index <= self.last_index {
            self.repeated += 1;
            return;
        }
        assert_eq!(index, self.last_index + 1, "a message is missing after {:?}", self.texts.last());
        self.last_index = index;
        self.texts.push(String::from_utf8(data.to_vec()).unwrap());
    }
}

fn message_in(message: &ToEnvoy) -> Option<&ToEnvoyTunnelMessage> {
    let ToEnvoy::TunnelMessage(message) = message else { return None };
    Some(message)
}

/// A scene with one open socket.
struct Open {
    scene: Scene,
    client: ClientSocket,
    socket: TunnelSocket,
    heard: Heard,
    /// Messages that the client has sent.
    sent: Vec<String>,
}

impl Open {
    async fn new(can_hibernate: bool) -> Self {
        let mut scene = Scene::new().await;
        let (client, socket) = open(&mut scene, can_hibernate).await;
        Self { scene, client, socket, heard: Heard::default(), sent: Vec::new() }
    }

    async fn send(&mut self, count: usize) {
        for _message in 0..count {
            let text = format!("message {:05}", self.sent.len());
            self.client.send_text(&text).await;
            self.sent.push(text);
        }
    }

    /// Takes what the host's connection still brings before its end.
    async fn hear_the_rest(&mut self) {
        while let Some(message) = in_time("the end of the host's connection", self.scene.envoy.any()).await {
            self.hear(&message);
        }
    }

    /// Takes messages until all that were sent are here.
    async fn hear_all(&mut self) {
        while self.heard.texts.len() < self.sent.len() {
            let (index, kind) = self.scene.envoy.expect_on(&self.socket, "a message").await;
            let ToEnvoyTunnelMessageKind::WebSocketMessage { data, .. } = kind else { panic!("{kind:?}") };
            self.heard.take(index, &data);
        }
        assert_eq!(self.heard.texts, self.sent);
    }

    fn hear(&mut self, message: &ToEnvoy) {
        let Some(ToEnvoyTunnelMessage { message_id, message_kind }) = message_in(message) else { return };
        if let ToEnvoyTunnelMessageKind::WebSocketMessage { data, .. } = message_kind {
            self.heard.take(message_id.message_index, data);
        }
    }

    fn acknowledge(&self) {
        let index = self.heard.last_index;
        self.scene.envoy.say(&self.socket, ToRivetTunnelMessageKind::WebSocketMessageAck { index });
    }

    /// A burst that arrives and is acknowledged, and a word back: after that nothing is on its way.
    async fn calm(&mut self) {
        self.send(BURST).await;
        self.hear_all().await;
        self.acknowledge();
        self.scene.envoy.say_text(&self.socket, "heard");
        assert_eq!(self.client.expect_text().await, "heard");
    }

    /// Bytes that a burst takes down the host's link, and its acknowledgement and the word take up.
    async fn calm_bytes(&mut self) -> (u64, u64) {
        let before = self.scene.host_bytes();
        self.calm().await;
        let after = self.scene.host_bytes();
        (after.1 - before.1, after.0 - before.0)
    }
}

/// Opens a socket. When the client is greeted, nothing is on its way any more.
async fn open(scene: &mut Scene, can_hibernate: bool) -> (ClientSocket, TunnelSocket) {
    let path = format!("/gateway/{}/websocket/", scene.actor);
    let mut client = ClientSocket::open(scene.to_client.address(), &path).await;
    let socket = scene.envoy.accept_socket(can_hibernate).await;
    scene.envoy.say_text(&socket, "welcome");
    assert_eq!(client.expect_text().await, "welcome");
    (client, socket)
}

#[tokio::test]
async fn messages_arrive_once_and_in_order_wherever_the_host_is_cut_off() {
    let mut open = Open::new(true).await;
    let (length, _) = open.calm_bytes().await;
    for fault in CUTS {
        for after_bytes in 0..=length {
            open.scene.to_host.set(Scope::Open, Direction::Down, fault(after_bytes));
            open.send(BURST).await;
            open.hear_the_rest().await;
            // Also what comes while the host is away.
            open.send(1).await;
            open.scene.rejoin().await;
            open.hear_all().await;
            open.acknowledge();
            open.calm().await;
        }
    }
    assert!(open.heard.repeated > 0, "what was not acknowledged is sent again");
}

#[tokio::test]
async fn messages_whose_acknowledgement_was_cut_off_are_dropped_as_known() {
    let mut open = Open::new(true).await;
    let (_, length) = open.calm_bytes().await;
    for fault in CUTS {
        for after_bytes in 0..=length {
            open.send(BURST).await;
            open.hear_all().await;
            open.scene.to_host.set(Scope::Open, Direction::Up, fault(after_bytes));
            open.acknowledge();
            open.scene.envoy.say_text(&open.socket, "heard");
            open.hear_the_rest().await;
            open.heard.repeated = 0;
            open.scene.rejoin().await;
            if after_bytes == length {
                // What a host says while it has no connection is lost; what has arrived is not.
                assert_eq!(open.client.expect_text().await, "heard");
            }
            open.calm().await;
            let repeated = open.heard.repeated;
            assert!(repeated == 0 || repeated == BURST && after_bytes < length, "{repeated} after {}", fault(after_bytes));
        }
    }
}

#[tokio::test]
async fn a_client_that_is_cut_off_anywhere_has_sent_whole_messages_and_is_reported() {
    let mut scene = Scene::new().await;
    let texts: Vec<String> = (0..BURST).map(|number| format!("message {number:05}")).collect();
    // Two bytes of head, four of mask, and the text.
    let each = 6 + texts[0].len() as u64;
    for can_hibernate in [false, true] {
        for fault in CUTS {
            for after_bytes in 0..=BURST as u64 * each {
                let (mut client, socket) = open(&mut scene, can_hibernate).await;
                scene.to_client.set(Scope::Open, Direction::Up, fault(after_bytes));
                for text in &texts {
                    client.try_send_text(text).await;
                }
                let mut heard = Heard::default();
                let end = loop {
                    let (index, kind) = scene.envoy.expect_on(&socket, "a message, or the end of a socket").await;
                    let ToEnvoyTunnelMessageKind::WebSocketMessage { data, .. } = &kind else { break kind };
                    heard.take(index, data);
                };
                let ToEnvoyTunnelMessageKind::WebSocketClose { code, reason } = end else { panic!("{end:?}") };
                assert_eq!((code, reason.as_deref()), (Some(1011), Some("ws.downstream_closed")));
                assert_eq!(heard.texts, texts[..(after_bytes / each) as usize], "{}", fault(after_bytes));
                scene.nothing_is_open().await;
            }
        }
    }
    scene.nothing_is_left().await;
}

#[tokio::test]
async fn a_stalled_host_gets_everything_later() {
    let mut open = Open::new(true).await;
    open.scene.to_host.set_both(Scope::Open, Fault::Stall);
    open.send(200).await;
    open.scene.to_host.set_both(Scope::Open, Fault::Pass);
    open.hear_all().await;
    assert_eq!(open.heard.repeated, 0);
}
