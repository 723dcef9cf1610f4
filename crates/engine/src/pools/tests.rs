//! What a pool makes of its endpoint's failures, in virtual time.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use lifecycle::envoy::EnvoyRules;
use serde_json::{Value, json};
use store::Store;
use tokio::time::{Instant, advance};

use super::*;
use crate::catalog::PoolConfig;
use crate::catalog::pool_config::PoolRules as ConfigRules;
use crate::random::Randomness;

const DAY: Ts = 1_800_000_000_000;

struct Scene {
    pools: Pools,
    catalog: Catalog,
    clock: Clock,
    time_of_day: Arc<AtomicI64>,
    namespace: NamespaceId,
}

impl Scene {
    /// With a serverless pool `p`.
    async fn new() -> Self {
        let time_of_day = Arc::new(AtomicI64::new(DAY));
        let clock = Clock::simulated(Instant::now(), time_of_day.clone());
        let catalog = Catalog::load(Store::memory(), 1, clock.clone(), Randomness::system()).await.unwrap();
        let rules = EnvoyRules { ping_timeout_ms: 1, lost_threshold_ms: 1, eligible_threshold_ms: 1 };
        let hosts = Hosts::new(rules, clock.clone(), Randomness::system());
        let breaker = BreakerRules { base_ms: 100, max_ms: 5_000, probe_patience_ms: 30_000 };
        let rules = PoolRules { breaker, successes_to_clear_error: 3 };
        let pools = Pools::new(catalog.clone(), hosts, clock.clone(), rules);
        let namespace = catalog.namespace("default").unwrap().namespace_id;
        let scene = Self { pools, catalog, clock, time_of_day, namespace };
        scene.configure(json!({ "serverless": { "url": "http://h/", "request_lifespan": 900 } })).await;
        scene
    }

    async fn configure(&self, config: Value) {
        let rules = ConfigRules { default_drain_grace_s: 1, max_drain_grace_ms: 1_000 };
        let config = PoolConfig::from_request(serde_json::from_value(config).unwrap(), rules).unwrap();
        let changed = self.catalog.put_pool(self.namespace, "p", config).await.unwrap();
        assert!(changed);
        self.pools.start_over(self.namespace, "p");
    }

    fn offer(&self, actor: u8) -> Offer {
        let actor_id = ActorId::from_parts([actor; 16], 1);
        let (name, pool) = ("counter".to_owned(), "p".to_owned());
        self.pools.offer(&Identity { actor_id, namespace_id: self.namespace, name, key: None, pool, create_ts: 1 })
    }

    fn start_fails(&self, error: PoolError) {
        self.pools.start_failed(self.namespace, "p", self.clock.uptime(), error);
    }

    fn shown(&self) -> Option<PoolError> {
        self.pools.error(self.namespace, "p")
    }
}

fn refused() -> PoolError {
    PoolError::HttpError { status_code: 502, body: String::new() }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_back_stops_no_pool() {
    let scene = Scene::new().await;
    scene.start_fails(refused());
    let hour = 3_600_000;
    scene.time_of_day.fetch_sub(hour, Ordering::Relaxed);
    let Offer::None(Shortage::PoolFailing { retry_at, .. }) = scene.offer(1) else { panic!("it has just failed") };
    assert_eq!(retry_at - scene.clock.now(), 100);
    advance(Duration::from_millis(100)).await;
    assert!(matches!(scene.offer(1), Offer::Outbound { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_breaker_knows_why_it_is_open_when_the_pool_shows_no_error_any_more() {
    let scene = Scene::new().await;
    scene.start_fails(refused());
    for _host in 0..3 {
        scene.pools.succeeded(scene.namespace, "p");
    }
    assert_eq!(scene.shown(), None);
    let Offer::None(Shortage::PoolFailing { error, .. }) = scene.offer(1) else { panic!("nothing was asked since") };
    assert_eq!(error, refused());
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_became_normal_has_no_endpoint_that_fails() {
    let scene = Scene::new().await;
    scene.start_fails(refused());
    scene.configure(json!({ "normal": {} })).await;
    assert_eq!(scene.shown(), None);
    // Requests that were under way end late.
    scene.start_fails(refused());
    scene.pools.failed(scene.namespace, "p", PoolError::StreamEndedEarly);
    assert_eq!(scene.shown(), None);
    assert!(matches!(scene.offer(1), Offer::None(Shortage::NoHosts)));
}

#[tokio::test(start_paused = true)]
async fn a_start_that_was_not_made_lets_others_go_but_only_if_they_waited_for_it() {
    let scene = Scene::new().await;
    assert!(matches!(scene.offer(1), Offer::Outbound { .. }));
    let first = scene.clock.uptime();
    advance(Duration::from_millis(1)).await;
    scene.start_fails(refused());
    assert_eq!(scene.pools.trouble_since(scene.namespace, "p", first), Some(refused()));
    advance(Duration::from_millis(100)).await;
    assert!(matches!(scene.offer(2), Offer::Outbound { is_probe: true }));
    let probe = scene.clock.uptime();
    assert_eq!(scene.pools.trouble_since(scene.namespace, "p", probe), None);

    scene.pools.start_not_made(scene.namespace, "p", first);
    assert!(matches!(scene.offer(3), Offer::None(Shortage::PoolFailing { .. })));
    scene.pools.start_not_made(scene.namespace, "p", probe);
    assert!(matches!(scene.offer(3), Offer::Outbound { .. }));
    assert_eq!(scene.shown(), Some(refused()), "nothing new is known of the endpoint");
}
