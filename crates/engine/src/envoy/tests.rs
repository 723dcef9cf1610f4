//! A host's connection in virtual time, with the default thresholds: what a test over real sockets would wait for.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::stream;
use gateway::{Content, Outbox};
use protocol::envoy::{
    ActorCheckpoint, ActorState, Event, EventWrapper, GatewayId, KvRequestData, KvResponseData, PROTOCOL_VERSION, ToEnvoy,
    ToRivet, ToRivetKvRequest,
};
use protocol::id::ActorId;
use protocol::limits;
use store::Store;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_websockets::{Error, Message};

use super::connection::{End, EnvoyContext, admit, serve};
use super::error::EnvoyClose;
use crate::catalog::pool_config::{Eviction, PoolConfig, PoolKind};
use crate::clock::Clock;
use crate::config::{Config, Micros};
use crate::control_plane::{self, Surroundings};
use crate::random::Randomness;

/// An engine without sockets, and a host that is connected to it.
struct Scene {
    context: Arc<EnvoyContext>,
    outbox: Outbox,
    to_engine: mpsc::UnboundedSender<Result<Message, Error>>,
    served: JoinHandle<End>,
    shutdown: watch::Sender<bool>,
}

const QUERY: &str = "protocol_version=8&namespace=default&envoy_key=a-host&version=1&pool_name=default";

impl Scene {
    async fn new(config: Config) -> Self {
        let (shutdown, told) = watch::channel(false);
        let (alive, _) = mpsc::channel(1);
        let surroundings = Surroundings {
            store: Store::memory(),
            clock: Clock::system(),
            randomness: Randomness::system(),
            gateway_id: GatewayId([1; 4]),
            topology: config.topology.clone(),
            shutdown: told,
            alive,
        };
        let context = control_plane::assemble(&config, surroundings).await.unwrap().envoys;
        let namespace = context.catalog.namespace("default").unwrap().namespace_id;
        let eviction = Eviction::default();
        let pool = PoolConfig {
            kind: PoolKind::Normal,
            drain_on_version_upgrade: true,
            eviction,
            history_retention_s: None,
            metadata: None,
        };
        context.catalog.put_pool(namespace, "default", pool).await.unwrap();

        let arrived = admit(&context, QUERY).unwrap_or_else(|why| panic!("{why}")).arrive(&context);
        let (link, outbox) = arrived.link(&context);
        let (to_engine, mut received) = mpsc::unbounded_channel();
        let stream = stream::poll_fn(move |cx| received.poll_recv(cx));
        let served = tokio::spawn(serve(context.clone(), arrived, link, stream));
        let mut scene = Self { context, outbox, to_engine, served, shutdown };
        assert!(matches!(scene.next().await, ToEnvoy::Init(_)));
        scene
    }

    /// The next message that the engine sends.
    async fn next(&mut self) -> ToEnvoy {
        let outgoing = timeout(Duration::from_secs(600), self.outbox.messages.recv()).await.unwrap().unwrap();
        let Content::Message(message) = outgoing.content else { panic!("{outgoing:?} is encoded") };
        message
    }

    async fn next_ping(&mut self) -> i64 {
        loop {
            if let ToEnvoy::Ping { ts } = self.next().await {
                return ts;
            }
        }
    }

    fn send(&self, message: &ToRivet) {
        let mut frame = BytesMut::new();
        message.encode(PROTOCOL_VERSION, &mut frame).unwrap();
        self.to_engine.send(Ok(Message::binary(frame.freeze()))).unwrap();
    }

    /// Asks for something that is answered as soon as it is read.
    fn ask(&self, request_id: u32) {
        self.ask_about("nobody", request_id);
    }

    fn ask_about(&self, actor_id: &str, request_id: u32) {
        let data = KvRequestData::Get { keys: Vec::new() };
        self.send(&ToRivet::KvRequest(ToRivetKvRequest { actor_id: actor_id.to_owned(), request_id, data }));
    }

    /// When the next answer comes, counted from `began`, and to which request. Pings are answered on the way.
    async fn answered(&mut self, began: Instant) -> (u32, Duration) {
        loop {
            let message = self.next().await;
            if let ToEnvoy::Ping { ts } = message {
                self.send(&ToRivet::Pong { ts });
                continue;
            }
            let ToEnvoy::KvResponse { request_id, data: KvResponseData::Error { .. } } = message else { panic!("{message:?}") };
            return (request_id, began.elapsed());
        }
    }

    /// Reports something of so many generations that there have never been.
    fn make_up_events(&self, count: usize) {
        let event = |number| {
            let actor_id = ActorId::from_parts((number as u128).to_be_bytes(), 1).to_string();
            let checkpoint = ActorCheckpoint { actor_id, generation: 1, index: 0 };
            EventWrapper { checkpoint, inner: Event::ActorStateUpdate { state: ActorState::Running } }
        };
        self.send(&ToRivet::Events((0..count).map(event).collect()));
    }

    /// How many generations the engine acknowledges events of in its next acknowledgement.
    async fn acknowledged(&mut self) -> usize {
        loop {
            if let ToEnvoy::AckEvents(acks) = self.next().await {
                return acks.last_event_checkpoints.len();
            }
        }
    }

    async fn ended(self) -> EnvoyClose {
        match timeout(Duration::from_secs(600), self.served).await.unwrap().unwrap() {
            End::ByEngine(why) => why,
            End::ByHost => panic!("the host has not ended the connection"),
        }
    }
}

fn limited(burst: u32, drip: Duration) -> Config {
    let mut config = Config::default();
    config.pegboard.envoy_websocket_rate_limit_requests = Some(burst);
    config.pegboard.envoy_websocket_rate_limit_drip_rate_us = Micros::of(drip);
    config
}

/// Item 28.
#[tokio::test(start_paused = true)]
async fn pings_come_every_three_seconds_and_silence_ends_the_connection_in_time() {
    let mut scene = Scene::new(Config::default()).await;
    let mut last = Instant::now();
    let ts = scene.next_ping().await;
    assert_eq!(last.elapsed(), Duration::ZERO, "the first ping comes at once");
    scene.send(&ToRivet::Pong { ts });
    for _ping in 0..20 {
        let ts = scene.next_ping().await;
        let gap = last.elapsed();
        assert!((Duration::from_millis(3_000)..Duration::from_millis(3_200)).contains(&gap), "{gap:?}");
        last = Instant::now();
        scene.send(&ToRivet::Pong { ts });
    }
    assert_eq!(scene.ended().await, EnvoyClose::TimedOut);
    let silent_for = last.elapsed();
    assert!((Duration::from_secs(15)..Duration::from_secs(19)).contains(&silent_for), "{silent_for:?}");
}

/// What is under way for an old connection of the host holds up its actor, and no other.
#[tokio::test(start_paused = true)]
async fn a_request_waits_for_its_turn_with_its_actor_and_others_do_not() {
    let mut scene = Scene::new(Config::default()).await;
    let began = Instant::now();
    let [one, other] = [1, 2].map(|number| ActorId::from_parts([number; 16], 1));
    let turns = scene.context.hosts.all()[0].turns.clone();
    let turn = turns.take(one).await;
    scene.ask_about(&one.to_string(), 1);
    scene.ask_about(&other.to_string(), 2);
    assert_eq!(scene.answered(began).await.0, 2);
    drop(turn);
    assert_eq!(scene.answered(began).await.0, 1);
}

#[tokio::test(start_paused = true)]
async fn a_host_may_send_as_fast_as_it_likes_unless_it_is_limited() {
    let mut scene = Scene::new(Config::default()).await;
    let began = Instant::now();
    (0..20_000).for_each(|request| scene.ask(request));
    for request in 0..20_000 {
        assert_eq!(scene.answered(began).await, (request, Duration::ZERO));
    }
}

#[tokio::test(start_paused = true)]
async fn a_limited_host_gets_its_burst_and_then_its_drip() {
    let mut scene = Scene::new(limited(5, Duration::from_secs(2))).await;
    let began = Instant::now();
    (0..20).for_each(|request| scene.ask(request));
    for request in 0..5 {
        assert_eq!(scene.answered(began).await, (request, Duration::ZERO));
    }
    // The host's pongs stand behind its requests for half a minute, and it is not taken for a dead one.
    let mut last = Duration::ZERO;
    for request in 5..20 {
        let (answered, after) = scene.answered(began).await;
        assert_eq!(answered, request);
        let gap = after - last;
        assert!(gap >= Duration::from_secs(2) && gap.subsec_millis() < 50, "request {request} after {after:?}");
        last = after;
    }
    assert!(!scene.served.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_pause_holds_up_neither_pings_nor_the_end() {
    let mut scene = Scene::new(limited(1, Duration::from_secs(3_600))).await;
    scene.ask(0);
    scene.ask(1);
    let began = Instant::now();
    assert_eq!(scene.answered(began).await.0, 0);
    scene.next_ping().await;
    scene.next_ping().await;
    assert!(began.elapsed() < Duration::from_millis(6_500), "{:?}", began.elapsed());
    let told = Instant::now();
    scene.shutdown.send(true).unwrap();
    assert_eq!(scene.ended().await, EnvoyClose::GoingAway);
    assert_eq!(told.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_too_long_ends_the_connection() {
    let scene = Scene::new(Config::default()).await;
    scene.to_engine.send(Err(Error::PayloadTooLong { len: 1, max_len: 0 })).unwrap();
    assert_eq!(scene.ended().await, EnvoyClose::Internal);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_remembered_of_a_host_whose_connection_never_opened() {
    let scene = Scene::new(Config::default()).await;
    let other = QUERY.replace("a-host", "another");
    let admitted = admit(&scene.context, &other);
    assert!(admitted.is_ok());
    drop(admitted);
    assert_eq!(scene.context.hosts.all().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn acknowledgements_of_what_a_host_makes_up_have_a_bound() {
    let mut scene = Scene::new(Config::default()).await;
    for _time in 0..2 {
        scene.make_up_events(3 * limits::HOST_STRAY_ACKS_MAX);
        assert_eq!(scene.acknowledged().await, limits::HOST_STRAY_ACKS_MAX);
    }
    // Nor do they pile up while the host does not read: they have a share of what may wait for it.
    let link = scene.context.hosts.all()[0].link().unwrap();
    let before = link.queued_bytes();
    scene.make_up_events(limits::HOST_STRAY_ACKS_MAX);
    sleep(Duration::from_millis(150)).await;
    assert!(link.queued_bytes() - before > limits::HOST_STRAY_ACKS_MAX * 60, "{} {before}", link.queued_bytes());
}
