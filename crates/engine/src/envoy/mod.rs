//! The connections of hosts: `/envoys/connect` (`spec/envoy-protocol.md` 2 and 7).
//!
//! Two tasks per connection carry the traffic: [`connection`] reads and hands each frame on, [`writer`] drains the queue. A
//! third one ([`pump`]) turns waiting commands and acknowledgements into messages.

mod access;
mod connection;
mod error;
mod events;
mod params;
mod pump;
#[cfg(feature = "simulation")]
mod simulated;
mod storage;
mod storage_metrics;
#[cfg(test)]
mod tests;
mod writer;

pub(crate) use access::Access;
pub(crate) use connection::{EnvoyContext, accept};
#[cfg(feature = "simulation")]
pub use simulated::{FromEngine, HostEnd};
#[cfg(feature = "simulation")]
pub(crate) use simulated::{believe_blindly, connect, start_command};
pub(crate) use storage_metrics::StorageMetrics;
