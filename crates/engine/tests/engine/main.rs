//! The engine as its clients and hosts see it: over sockets, with a scripted host on one side and a plain HTTP client on
//! the other. Every test has an engine and a data folder of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed expectation is a failed test")]

mod api;
mod bad_input;
mod churn;
mod creation;
mod drain;
mod gateway_http;
mod gateway_upload;
mod handshake;
mod lifecycle;
mod loss;
mod process;
mod races;
mod scene;
