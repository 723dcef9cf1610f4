//! The engine as its clients and hosts see it: over sockets, with a scripted host on one side and a plain HTTP client on
//! the other. Every test has an engine and a data folder of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed expectation is a failed test")]

mod addressing;
mod admission;
mod alarms;
mod api;
mod bad_input;
mod churn;
mod commands;
mod creation;
mod damage;
mod deletion;
mod drain;
mod envoys;
#[cfg(target_os = "linux")]
mod failing_disk;
mod fault_placement;
mod fault_sockets;
mod faults;
mod full_disk;
mod gateway_http;
mod gateway_upload;
mod gateway_websocket;
mod handshake;
mod history;
mod lifecycle;
mod listener;
mod loss;
mod lost_replies;
mod metrics;
mod one_actor;
mod page_host;
mod page_requests;
mod process;
mod races;
mod remote_sql;
mod remote_sql_bounds;
mod scene;
mod serverless;
mod shutdown;
mod sockets;
mod sql_differential;
mod sql_host;
mod waiting;
