//! The client side of the engine: how HTTP and WebSocket traffic reaches an actor (`spec/gateway.md`).
//!
//! A request is parsed ([`target`]), resolved to an actor and a host through the [`Directory`] (the only thing the gateway
//! knows of the engine), and then tunnelled over the host's connection ([`EnvoyLink`]) as frames of the envoy protocol.
//! Before anything is created or woken for it, the limits of its client are checked (`admission`). Answers come back through
//! the table of open tunnels ([`Tunnels`]): the reader of a host's connection hands each frame straight to the request that
//! waits for it.
//!
//! Absences that hold this crate up: it never opens the store, never decides a lifecycle transition, holds no lock across
//! an await, and keeps no body longer than its window.

mod actor_metrics;
mod admission;
mod budget;
mod claim;
mod client_address;
mod config;
mod cors;
mod directory;
mod error;
mod frames;
mod handler;
mod headers;
mod http_tunnel;
mod inbox;
mod io;
mod journal;
mod link;
pub mod metrics;
mod obstacle;
mod query;
mod ready;
mod resolve;
pub mod target;
mod throttle;
mod tunnel;
mod websocket;

pub use actor_metrics::AdminToken;
pub use admission::{AdmissionConfig, AdmissionCounts, ClientLimits, RateLimit};
pub use config::GatewayConfig;
pub use cors::{decorate as add_cors_headers, preflight as cors_preflight};
pub use directory::{ActorQuery, ActorView, Directory, QueryMethod, Readiness, Refusal};
pub use error::GatewayError;
pub use handler::{Gateway, GatewayBody, RequestInfo, coded_response};
pub use headers::{RAY_ID_HEADER, accept_ray_id, host_name};
pub use io::ClientStream;
pub use journal::{SocketId, SocketJournal, downstream_closed};
pub use link::{Content, EnvoyLink, HostId, LinkClosed, Outbox, Outgoing, SessionId, UnansweredPing};
pub use obstacle::{GenerationEnd, Obstacle, PoolFault, VainWait};
pub use throttle::{MessageRate, Throttle};
pub use tunnel::{Tunnels, WaitingLimits};
pub use websocket::{upgrade_response, websocket_stream};
