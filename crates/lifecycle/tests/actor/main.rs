//! The actor machine against its specification: every cell of its tables, every state that it can reach, many long histories.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed expectation is a failed test")]

mod alarms;
mod backoff;
mod futures;
mod invariants;
mod properties;
mod scene;
mod stop_procedure;
mod table;
mod timestamps;
mod walk;
