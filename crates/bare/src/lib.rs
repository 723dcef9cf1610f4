//! BARE: a compact binary encoding without field names or tags (`spec/envoy-protocol.md` 3).
//!
//! [`Codec`] is implemented for the forms that the envoy protocol uses; messages put theirs together from these.
//! A [`Reader`] and a [`Writer`] carry a protocol version, so that fields and arms can depend on it.
//!
//! Reading is safe against hostile input by construction:
//!
//! * every length and count is checked against the bytes that are left before anything is allocated;
//! * the number of items in all lists of a message is bounded ([`Reader::new`]);
//! * nesting is bounded by the types: no type of a message contains itself, so no input makes the reader recurse
//!   deeper than the types do;
//! * whatever the bytes are, the outcome is a value or a [`DecodeError`].

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "an unwrap that fails is a test that fails"))]

mod arms;
mod codec;
mod map;
mod reader;
mod writer;

pub use arms::{Arm, Arms, NotInVersion};
pub use codec::Codec;
pub use map::Map;
pub use reader::{DecodeError, Reader};
pub use writer::Writer;
