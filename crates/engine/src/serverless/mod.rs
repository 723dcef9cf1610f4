//! Serverless pools: hosts that the engine calls into being, with one HTTP request for each running actor (`spec/scheduling.md`
//! 9).
//!
//! `policy` says where requests may go, and `client` sends them. A start request is gathered by `payload`, made by `start`,
//! answered by a stream that `sse` reads, and looked after by `runner`; `turns` bounds how many are under way. `metadata` is what an endpoint says of itself, and
//! `poller` asks again and again.

mod body;
mod client;
mod endpoint;
mod metadata;
mod payload;
mod policy;
pub(crate) mod poller;
pub(crate) mod runner;
mod sse;
mod start;
mod turns;

use std::collections::BTreeMap;
use std::sync::Arc;

use actor_data::ActorData;
use lifecycle::pool::{PollRules, PoolError};
use protocol::id::NamespaceId;
use protocol::limits;
use url::Url;

use crate::catalog::pool_config::Serverless;
use crate::catalog::{Catalog, PoolKind};
use crate::clock::Clock;
use crate::config::{Outbound, Secret};
use crate::random::Randomness;
use crate::scheduler::Scheduler;
use client::Client;
pub(crate) use metadata::{Metadata, MetadataError};
use policy::Policy;
use turns::Turns;

/// What speaking with endpoints needs of the engine.
pub(crate) struct Parts {
    pub(crate) catalog: Catalog,
    pub(crate) scheduler: Scheduler,
    pub(crate) data: ActorData,
    pub(crate) clock: Clock,
    pub(crate) randomness: Randomness,
    /// Where hosts find this engine.
    pub(crate) public_url: String,
    /// With what they are let in, if that needs a token.
    pub(crate) admin_token: Option<Secret>,
    pub(crate) preload_max_bytes: u64,
    pub(crate) poll_rules: PollRules,
}

/// Speaks with the endpoints of serverless pools; clone freely.
#[derive(Clone)]
pub(crate) struct Endpoints(Arc<Shared>);

struct Shared {
    client: Client,
    /// For start requests.
    turns: Turns,
    catalog: Catalog,
    scheduler: Scheduler,
    data: ActorData,
    clock: Clock,
    randomness: Randomness,
    public_url: String,
    admin_token: Option<Secret>,
    preload_max_bytes: u64,
    poll_rules: PollRules,
}

impl Endpoints {
    pub(crate) fn new(rules: &Outbound, parts: Parts) -> Self {
        let Parts { catalog, scheduler, data, clock, randomness, public_url, admin_token, preload_max_bytes, poll_rules } = parts;
        Self(Arc::new(Shared {
            client: Client::new(Policy::new(rules)),
            turns: Turns::new(limits::SERVERLESS_STARTS_MAX, limits::SERVERLESS_STARTS_OF_POOL_MAX),
            catalog,
            scheduler,
            data,
            clock,
            randomness,
            public_url,
            admin_token,
            preload_max_bytes,
            poll_rules,
        }))
    }

    /// Why the URL of an endpoint cannot be used; `Ok` if nothing is wrong with what it says by itself.
    pub(crate) fn check_url(&self, url: &str) -> Result<(), String> {
        let url = Url::parse(url).map_err(|error| error.to_string())?;
        self.0.client.policy().check_url(&url).map_err(|blocked| blocked.to_string())
    }

    /// Asks an endpoint for its metadata, and does nothing with them.
    pub(crate) async fn metadata(&self, url: &str, headers: &BTreeMap<String, String>) -> Result<Metadata, MetadataError> {
        metadata::fetch(&self.0.client, url, headers).await
    }

    /// Asks the endpoint of a pool for its metadata, and lets the pool and its actors have what they say.
    pub(crate) async fn refresh(
        &self,
        namespace: NamespaceId,
        pool: &str,
        endpoint: &Serverless,
    ) -> Result<Metadata, MetadataError> {
        let metadata = self.metadata(&endpoint.url, &endpoint.headers).await?;
        self.declare(namespace, &metadata).await;
        self.take_versions(namespace, pool, endpoint, &metadata);
        Ok(metadata)
    }

    async fn declare(&self, namespace: NamespaceId, metadata: &Metadata) {
        if metadata.actor_names.is_empty() {
            return;
        }
        if let Err(error) = self.0.catalog.declare_actor_names(namespace, metadata.actor_names.clone()).await {
            tracing::error!(%error, "declared actor names cannot be stored");
        }
    }

    fn take_versions(&self, namespace: NamespaceId, pool: &str, endpoint: &Serverless, metadata: &Metadata) {
        let Some(known) = self.0.catalog.pool(namespace, pool) else { return };
        // The pool may have got another endpoint meanwhile.
        let is_its_endpoint = match &known.config.kind {
            PoolKind::Serverless(now) => now.url == endpoint.url && now.headers == endpoint.headers,
            PoolKind::Normal => false,
        };
        if !is_its_endpoint {
            return;
        }
        match metadata.protocol_version {
            Some(version) => self.0.catalog.saw_protocol_version(namespace, pool, version),
            None if known.protocol_version.is_some() => self.0.scheduler.pool_failed(namespace, pool, PoolError::Downgrade),
            None => {}
        }
        if let Some(version) = metadata.application_version {
            self.0.scheduler.pool_version_seen(namespace, pool, version);
        }
    }
}
