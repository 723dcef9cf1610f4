//! The engine as a library: gateway, scheduler, storage and management API in one process.
//!
//! [`Engine::start`] runs it with a [`config::Config`]; `rivet-engine` (`main.rs`) is the same behind a command line.
//! A map of the inside is in `ARCHITECTURE.md`.

mod api;
mod catalog;
mod clock;
pub mod commands;
pub mod config;
mod control_plane;
mod engine;
mod envoy;
mod error;
mod gateway_settings;
mod hosts;
mod metrics;
mod pages;
mod pools;
mod random;
mod records;
mod scheduler;
mod server;
mod serverless;
#[cfg(feature = "simulation")]
pub mod simulation;
mod sockets;
mod sql;

pub use engine::Engine;
pub use error::StartError;
pub use records::CorruptRow;
