//! What the engine, the hosts and the clients agree on: the envoy protocol, ids, actor keys, limits and the error
//! model. No input or output, no clock, no randomness.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "an unwrap that fails is a test that fails"))]

pub mod envoy;
pub mod error;
pub mod id;
pub mod key;
pub mod limits;
