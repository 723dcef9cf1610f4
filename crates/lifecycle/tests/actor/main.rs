//! The actor machine against its specification: every cell of its table, every short sequence, many long ones.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed expectation is a failed test")]

mod alarms;
mod backoff;
mod invariants;
mod properties;
mod scene;
mod table;
mod walk;
