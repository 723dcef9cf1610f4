//! A host that does what a test tells it.

mod actors;
mod connection;
mod params;
mod requests;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use protocol::envoy::{GatewayId, ProtocolMetadata, RequestId, ToEnvoy, ToRivet};
use tokio::sync::mpsc;
use tokio_websockets::Message;

pub use actors::{Run, crashed, running, stopped};
pub use connection::{Closed, HandshakeFailed, UpgradeAnswer};
pub use params::EnvoyParams;
pub use requests::{TunnelRequest, TunnelSocket, headers_of};

use connection::{Order, Seen};

/// Messages quoted by a failed expectation.
const HISTORY: usize = 20;

/// One connection of a scripted host. What it receives stays in order until something expects it; what nobody expects
/// harms nobody. Pings are answered behind the scenes unless told otherwise.
pub struct FakeEnvoy {
    params: EnvoyParams,
    version: u16,
    upgrade: UpgradeAnswer,
    orders: mpsc::UnboundedSender<Order>,
    seen: mpsc::UnboundedReceiver<Seen>,
    /// Received and not yet expected; commands one by one.
    inbox: VecDeque<ToEnvoy>,
    closed: Option<Closed>,
    pings_answered: u64,
    history: VecDeque<String>,
    /// Next event index of each run.
    next_event: HashMap<Run, i64>,
    /// Next message index of each tunnelled request.
    next_message: HashMap<(GatewayId, RequestId), u16>,
}

impl FakeEnvoy {
    /// Connects. Refusals by close frame count as connected: see [`Self::expect_close`].
    ///
    /// # Errors
    /// The engine did not upgrade the connection.
    pub async fn connect(address: SocketAddr, params: &EnvoyParams) -> Result<Self, HandshakeFailed> {
        let opened = connection::open(address, params).await?;
        Ok(Self {
            params: params.clone(),
            version: params.codec_version(),
            upgrade: opened.upgrade,
            orders: opened.orders,
            seen: opened.seen,
            inbox: VecDeque::new(),
            closed: None,
            pings_answered: 0,
            history: VecDeque::new(),
            next_event: HashMap::new(),
            next_message: HashMap::new(),
        })
    }

    /// Connects and takes the init message.
    ///
    /// # Panics
    /// When the engine refuses.
    pub async fn join(address: SocketAddr, params: &EnvoyParams) -> Self {
        let mut envoy = Self::connect(address, params).await.expect("the engine upgrades connections of hosts");
        envoy.expect_init().await;
        envoy
    }

    /// The key it connected with.
    pub fn key(&self) -> &str {
        self.params.get("envoy_key").unwrap_or_default()
    }

    /// What it connected with, for another connection of the same host.
    pub fn params(&self) -> &EnvoyParams {
        &self.params
    }

    /// How the engine answered the upgrade.
    pub fn upgrade(&self) -> &UpgradeAnswer {
        &self.upgrade
    }

    /// Sends a message.
    ///
    /// # Panics
    /// When its protocol version cannot express it.
    pub fn send(&self, message: &ToRivet) {
        let frame = message.to_frame(self.version).unwrap_or_else(|error| panic!("{error}: {message:?}"));
        self.send_raw(frame);
    }

    /// Sends a binary frame, whatever it holds.
    pub fn send_raw(&self, frame: impl Into<Bytes>) {
        self.order(Order::Send(Message::binary(frame.into())));
    }

    /// Sends a text frame.
    pub fn send_text(&self, text: &str) {
        self.order(Order::Send(Message::text(text.to_owned())));
    }

    /// From here on pings arrive like other messages, and nobody answers them.
    pub fn leave_pings_alone(&self) {
        self.order(Order::LeavePingsAlone);
    }

    /// Closes with a frame, as a host does that has finished.
    pub fn close(&self, code: u16, reason: &str) {
        let code = code.try_into().expect("a close code");
        self.order(Order::Send(Message::close(Some(code), reason)));
    }

    /// Cuts the connection without a word, as a crash does. So does dropping it.
    pub fn cut(self) {
        drop(self);
    }

    fn order(&self, order: Order) {
        // A connection that is closed takes no orders; the expectation that follows will say so.
        let _ = self.orders.send(order);
    }

    /// The next message, whatever it is.
    ///
    /// # Panics
    /// When none comes in time, or the connection has ended; with `what` was waited for.
    pub async fn next(&mut self, what: &str) -> ToEnvoy {
        self.expect(what, |message| Some(message.clone())).await
    }

    /// The next message, however long it takes; `None` at the end of the connection. Can be cancelled without loss.
    pub async fn any(&mut self) -> Option<ToEnvoy> {
        loop {
            if let Some(message) = self.inbox.pop_front() {
                return Some(message);
            }
            if self.closed.is_some() {
                return None;
            }
            self.receive().await;
        }
    }

    /// The first message that `wanted` takes; the others stay for later.
    ///
    /// # Panics
    /// As [`Self::next`].
    pub async fn expect<T>(&mut self, what: &str, mut wanted: impl FnMut(&ToEnvoy) -> Option<T>) -> T {
        let deadline = tokio::time::Instant::now() + crate::PATIENCE;
        let mut looked_at = 0;
        loop {
            while let Some(message) = self.inbox.get(looked_at) {
                if let Some(found) = wanted(message) {
                    self.inbox.remove(looked_at);
                    return found;
                }
                looked_at += 1;
            }
            if let Some(closed) = &self.closed {
                panic!("{closed:?} instead of {what}; {}", self.so_far());
            }
            if tokio::time::timeout_at(deadline, self.receive()).await.is_err() {
                panic!("waited {:?} in vain for {what}; {}", crate::PATIENCE, self.so_far());
            }
        }
    }

    /// Watches for a while that no message comes that `unwanted` takes. Messages that it leaves stay for later.
    ///
    /// # Panics
    /// When one comes.
    pub async fn expect_none(&mut self, within: Duration, what: &str, unwanted: impl Fn(&ToEnvoy) -> bool) {
        let deadline = tokio::time::Instant::now() + within;
        while self.closed.is_none() && tokio::time::timeout_at(deadline, self.receive()).await.is_ok() {}
        if let Some(message) = self.inbox.iter().find(|message| unwanted(message)) {
            panic!("unexpected {what}: {message:?}; {}", self.so_far());
        }
    }

    /// The end of the connection.
    ///
    /// # Panics
    /// When it does not come in time.
    pub async fn expect_close(&mut self) -> Closed {
        let deadline = tokio::time::Instant::now() + crate::PATIENCE;
        loop {
            if let Some(closed) = &self.closed {
                return closed.clone();
            }
            if tokio::time::timeout_at(deadline, self.receive()).await.is_err() {
                panic!("waited {:?} in vain for the end of the connection; {}", crate::PATIENCE, self.so_far());
            }
        }
    }

    /// The engine's first message.
    ///
    /// # Panics
    /// When something else comes first.
    pub async fn expect_init(&mut self) -> ProtocolMetadata {
        let message = self.next("the init message").await;
        let ToEnvoy::Init(metadata) = message else { panic!("{message:?} instead of the init message") };
        metadata
    }

    /// Waits until the first ping of the connection was answered, which the engine sends without being asked.
    ///
    /// # Panics
    /// When none comes in time.
    pub async fn expect_ping(&mut self) {
        crate::in_time("a ping", async {
            while self.pings_answered == 0 && self.closed.is_none() {
                self.receive().await;
            }
        })
        .await;
    }

    /// Waits until another ping was answered: one that came after everything that was expected so far.
    ///
    /// # Panics
    /// When none comes in time.
    pub async fn expect_another_ping(&mut self) {
        let before = self.pings_answered;
        crate::in_time("another ping", async {
            while self.pings_answered == before && self.closed.is_none() {
                self.receive().await;
            }
        })
        .await;
    }

    async fn receive(&mut self) {
        match self.seen.recv().await {
            Some(Seen::Message(message)) => {
                self.note(format!("{message:?}"));
                self.inbox.extend(one_by_one(message));
            }
            Some(Seen::PingAnswered) => self.pings_answered += 1,
            Some(Seen::Undecodable(error)) => panic!("the engine sent what cannot be decoded: {error}; {}", self.so_far()),
            Some(Seen::Closed(closed)) => {
                self.note(format!("{closed:?}"));
                self.closed = Some(closed);
            }
            // The connection's task has ended after a cut.
            None => self.closed = Some(Closed { code: None, reason: String::new() }),
        }
    }

    fn note(&mut self, mut what: String) {
        if what.len() > 300 {
            what.truncate(what.floor_char_boundary(300));
        }
        self.history.push_back(what);
        if self.history.len() > HISTORY {
            self.history.pop_front();
        }
    }

    fn so_far(&self) -> String {
        let seen: Vec<&str> = self.history.iter().map(String::as_str).collect();
        format!("{} has seen:\n{}", self.key(), seen.join("\n"))
    }
}

/// Takes lists apart, so that each command can be expected for itself.
fn one_by_one(message: ToEnvoy) -> Vec<ToEnvoy> {
    let ToEnvoy::Commands(commands) = message else { return vec![message] };
    commands.into_iter().map(|command| ToEnvoy::Commands(vec![command])).collect()
}
