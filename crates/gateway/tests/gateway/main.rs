//! The gateway as a whole, between clients on in-memory connections and a scripted host, with virtual time: limits of half a
//! minute cost nothing here, and nothing depends on how busy the machine is.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed expectation is a failed test")]

mod addressing;
mod cors;
mod scene;
mod waiting;

mod admission;
mod hibernation;
mod http_tunnel;
mod logs;
mod metrics;
mod reasons;
mod websocket;
