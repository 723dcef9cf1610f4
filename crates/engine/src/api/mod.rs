//! The management API (`spec/engine-api.md` 3 to 10).

mod actors;
mod cors;
mod history;
mod hosts;
mod namespaces;
mod pools;
mod request;
mod system;

use std::sync::Arc;

use actor_data::ActorData;
use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use protocol::error::{Coded, Surface};
use store::Store;
use subtle::ConstantTimeEq;

use crate::catalog::Catalog;
use crate::catalog::pool_config::PoolRules;
use crate::config::{Secret, Topology};
use crate::error::ApiError;
use crate::hosts::Hosts;
use crate::scheduler::Scheduler;
use crate::serverless::Endpoints;

/// What the API needs of the engine.
pub(crate) struct ApiContext {
    pub(crate) catalog: Catalog,
    pub(crate) scheduler: Scheduler,
    pub(crate) hosts: Hosts,
    pub(crate) data: ActorData,
    pub(crate) store: Store,
    pub(crate) topology: Topology,
    pub(crate) admin_token: Option<Secret>,
    pub(crate) pool_rules: PoolRules,
    pub(crate) endpoints: Endpoints,
}

type Context = axum::extract::State<Arc<ApiContext>>;
type Answer = Result<axum::Json<serde_json::Value>, ApiError>;

/// The routes, built once.
pub(crate) fn router(context: Arc<ApiContext>) -> Router {
    let api = Router::new()
        .route("/metadata", get(system::metadata))
        .route("/datacenters", get(system::datacenters))
        .route("/namespaces", get(namespaces::list).post(namespaces::create))
        .route("/runner-configs", get(pools::list))
        .route("/runner-configs/{pool}", put(pools::upsert).delete(pools::remove))
        .route("/runner-configs/serverless-health-check", post(pools::serverless_health_check))
        .route("/runner-configs/{pool}/refresh-metadata", post(pools::refresh_metadata))
        .route("/actors", get(actors::list).post(actors::create).put(actors::get_or_create))
        .route("/actors/names", get(actors::names))
        .route("/actors/{actor_id}", delete(actors::destroy))
        .route("/actors/{actor_id}/sleep", post(actors::sleep))
        .route("/actors/{actor_id}/reschedule", post(actors::reschedule))
        .route("/actors/{actor_id}/kv/keys/{key}", get(actors::kv_get))
        .route("/actors/{actor_id}/history", get(history::show))
        .route("/actors/{actor_id}/restore", post(history::restore))
        .route("/actors/{actor_id}/fork", post(history::fork))
        .route("/envoys", get(hosts::envoys))
        .route("/runners", get(hosts::runners))
        .route("/runners/names", get(hosts::runner_names))
        .layer(middleware::from_fn(cors::mirror));
    let open = Router::new()
        .route("/", get(system::root))
        .route("/health", get(system::health))
        .route("/ui", get(system::ui))
        .route("/ui/", get(system::ui))
        .route("/ui/{*path}", get(system::ui))
        .fallback(not_found)
        .layer(middleware::from_fn(cors::permissive));
    api.merge(open).with_state(context)
}

async fn not_found() -> ApiError {
    ApiError::NotFound
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status(Surface::Api)).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, axum::Json(protocol::error::body(&self))).into_response()
    }
}

impl ApiContext {
    /// Checks the token of a request, if one is configured (`spec/engine-api.md` 4). `x-rivet-token` counts too, because the
    /// published Rust client sends its token there.
    fn authorize(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let Some(wanted) = &self.admin_token else { return Ok(()) };
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let bearer = text("authorization").and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then_some(token)
        });
        let given = bearer.or_else(|| text("x-rivet-token")).filter(|token| !token.is_empty());
        let given = given.ok_or(ApiError::Forbidden { reason: "Token not provided" })?;
        match bool::from(given.as_bytes().ct_eq(wanted.expose().as_bytes())) {
            true => Ok(()),
            false => Err(ApiError::Forbidden { reason: "Invalid token" }),
        }
    }

    /// Name of this engine's datacenter.
    fn datacenter_name(&self) -> &str {
        self.topology.own().map_or("default", |(name, _)| name)
    }
}

/// A handler's last layer, kept here so that both CORS policies look alike.
async fn with_headers(request: Request, next: Next, set: impl FnOnce(&mut HeaderMap)) -> Response {
    let mut response = next.run(request).await;
    set(response.headers_mut());
    response
}
