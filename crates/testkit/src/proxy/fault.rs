//! What can go wrong on the way.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What happens to the bytes of one direction of one connection. Written `pass`, `cut:100`, `reset:0`, `stall`,
/// `half_open`, `delay:200`, `overtaken:50` and `limit:65536` where text is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: bytes and ends go on as they come.
    Pass,
    /// After so many more bytes both ends see a clean end of the connection; the rest is thrown away.
    Cut {
        /// Bytes of this direction that still arrive; 0 cuts at once.
        after_bytes: u64,
    },
    /// As [`Self::Cut`], but both ends see a reset.
    Reset {
        /// Bytes of this direction that still arrive; 0 resets at once.
        after_bytes: u64,
    },
    /// Nothing moves: the sender is not read from, the receiver gets nothing. Another fault ends it without loss.
    Stall,
    /// The direction is dead without a word: bytes are taken and thrown away, and no end is passed on. It stays that way
    /// until `cut:0` or `reset:0` ends the connection: TCP does not lose bytes and go on.
    HalfOpen,
    /// Every byte arrives so much later.
    Delay(Duration),
    /// Bytes wait until others, which came later on another connection, have overtaken them, but no longer than this. The
    /// order within the connection is kept.
    Overtaken {
        /// Longest wait when nobody overtakes.
        at_most: Duration,
    },
    /// At most so many bytes a second.
    Limit {
        /// At least 1.
        bytes_per_second: u64,
    },
}

/// A direction of a connection through the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// From the side that connected to the side that listens.
    Up,
    /// Back.
    Down,
}

/// Which connections a fault is meant for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// All that are open.
    Open,
    /// The one that is opened next, and no other.
    Next,
    /// All that are opened from now on.
    Future,
    /// All that are open, and all that are opened from now on.
    All,
    /// This one.
    One(u64),
}

/// A text that names no fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownFault(String);

impl fmt::Display for UnknownFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is no fault", self.0)
    }
}

impl std::error::Error for UnknownFault {}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pass => write!(f, "pass"),
            Self::Cut { after_bytes } => write!(f, "cut:{after_bytes}"),
            Self::Reset { after_bytes } => write!(f, "reset:{after_bytes}"),
            Self::Stall => write!(f, "stall"),
            Self::HalfOpen => write!(f, "half_open"),
            Self::Delay(by) => write!(f, "delay:{}", by.as_millis()),
            Self::Overtaken { at_most } => write!(f, "overtaken:{}", at_most.as_millis()),
            Self::Limit { bytes_per_second } => write!(f, "limit:{bytes_per_second}"),
        }
    }
}

impl std::str::FromStr for Fault {
    type Err = UnknownFault;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = || UnknownFault(text.to_owned());
        let (name, number) = match text.split_once(':') {
            Some((name, number)) => (name, Some(number.parse::<u64>().map_err(|_| unknown())?)),
            None => (text, None),
        };
        match (name, number) {
            ("pass", None) => Ok(Self::Pass),
            ("stall", None) => Ok(Self::Stall),
            ("half_open", None) => Ok(Self::HalfOpen),
            ("cut", Some(after_bytes)) => Ok(Self::Cut { after_bytes }),
            ("reset", Some(after_bytes)) => Ok(Self::Reset { after_bytes }),
            ("delay", Some(ms)) => Ok(Self::Delay(Duration::from_millis(ms))),
            ("overtaken", Some(ms)) => Ok(Self::Overtaken { at_most: Duration::from_millis(ms) }),
            ("limit", Some(bytes_per_second @ 1..)) => Ok(Self::Limit { bytes_per_second }),
            _ => Err(unknown()),
        }
    }
}

impl Serialize for Fault {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Fault {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_have_a_text_form() {
        for text in ["pass", "cut:100", "reset:0", "stall", "half_open", "delay:200", "overtaken:50", "limit:65536"] {
            assert_eq!(text.parse::<Fault>().map(|fault| fault.to_string()).as_deref(), Ok(text));
        }
        for text in ["", "passes", "cut", "cut:", "cut:-1", "stall:1", "limit:0"] {
            assert_eq!(text.parse::<Fault>(), Err(UnknownFault(text.to_owned())));
        }
    }
}
