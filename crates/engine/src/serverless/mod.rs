//! Serverless pools: hosts that the engine calls into being, with one HTTP request for each running actor (`spec/scheduling.md`
//! 9).
//!
//! `policy` says where requests may go, `client` sends them. `start` and `sse` are the request that starts an actor and the
//! stream that answers it, `metadata` what an endpoint says of itself.

mod body;
pub(crate) mod client;
mod endpoint;
pub(crate) mod metadata;
pub(crate) mod policy;
mod sse;
mod start;
