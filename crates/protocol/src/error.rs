//! The one error model. Every failure a client can see has a group, a code, an HTTP status and a message;
//! each room defines its own closed enums (with `thiserror`) and implements [`Coded`] for them.
//!
//! Nothing here captures a back-trace, and nothing is formatted until somebody reads the error: on the hot
//! path an error is a small enum value. (`spec/engine-api.md` 5, `spec/gateway.md` 21.)

use serde_json::{Map, Value};

/// Who asks. A few codes have another HTTP status on the management API than on the gateway
/// (`spec/engine-api.md` 5.2 and 5.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Surface {
    /// The management API.
    Api,
    /// Traffic to actors.
    Gateway,
}

/// A failure that clients may see.
///
/// The `Display` text of the implementor is the message.
pub trait Coded: std::error::Error {
    /// First half of the stable name, for example `guard`. Holds neither `.` nor `#`.
    fn group(&self) -> &'static str;
    /// Second half of the stable name, for example `actor_ready_timeout`. Holds neither `.` nor `#`.
    fn code(&self) -> &'static str;
    /// HTTP status on the given surface.
    fn status(&self, surface: Surface) -> u16;
    /// Machine-readable details; an empty map is left out of the body.
    fn metadata(&self) -> Map<String, Value> {
        Map::new()
    }
    /// After how many seconds the same request may succeed, for the header `retry-after`; `None` when time alone changes
    /// nothing.
    fn retry_after_seconds(&self) -> Option<u64> {
        None
    }
}

/// The JSON body of an error answer: `{"group","code","message","metadata"?}`.
pub fn body(error: &dyn Coded) -> Value {
    let mut body = Map::new();
    body.insert("group".into(), error.group().into());
    body.insert("code".into(), error.code().into());
    body.insert("message".into(), error.to_string().into());
    let metadata = error.metadata();
    if !metadata.is_empty() {
        body.insert("metadata".into(), Value::Object(metadata));
    }
    Value::Object(body)
}

/// Longest close reason a WebSocket frame can carry, in bytes (RFC 6455: 125 less the code).
pub const MAX_CLOSE_REASON_BYTES: usize = 123;

/// The reason of an engine-made WebSocket close: `group.code#ray`, cut to [`MAX_CLOSE_REASON_BYTES`].
pub fn close_reason(error: &dyn Coded, ray: &str) -> String {
    cut_close_reason(format!("{}.{}#{ray}", error.group(), error.code()))
}

/// Cuts a close reason at a character boundary so that it fits a close frame.
pub fn cut_close_reason(mut reason: String) -> String {
    reason.truncate(reason.floor_char_boundary(MAX_CLOSE_REASON_BYTES));
    reason
}

/// An unexpected fault of the engine itself. The cause is logged where it happens and never shown to clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("An internal error occurred")]
pub struct InternalError;

impl Coded for InternalError {
    fn group(&self) -> &'static str {
        "core"
    }
    fn code(&self) -> &'static str {
        "internal_error"
    }
    fn status(&self, _surface: Surface) -> u16 {
        500
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn body_leaves_out_empty_metadata() {
        assert_eq!(
            body(&InternalError).to_string(),
            r#"{"group":"core","code":"internal_error","message":"An internal error occurred"}"#
        );
    }

    #[test]
    fn close_reason_is_cut_at_a_character_boundary() {
        let reason = cut_close_reason("ü".repeat(100));
        assert_eq!(reason.len(), 122);
        assert_eq!(close_reason(&InternalError, "r1"), "core.internal_error#r1");
    }
}
