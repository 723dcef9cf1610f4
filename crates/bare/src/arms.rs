//! Tags of unions, which differ between protocol versions.

/// One arm of a union.
#[derive(Debug, Clone, Copy)]
pub struct Arm<K> {
    /// For error texts.
    pub name: &'static str,
    /// First protocol version that has the arm.
    pub since: u16,
    /// What the reader returns for it.
    pub key: K,
}

/// All arms of a union in the order of their tags. The tag of an arm in some version is the number of arms before it
/// that the version has.
#[derive(Debug, Clone, Copy)]
pub struct Arms<K: 'static> {
    /// Name of the union, for error texts.
    pub union: &'static str,
    /// The arms.
    pub arms: &'static [Arm<K>],
}

/// A value cannot be expressed in the version of the protocol that the peer speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{union}::{arm} exists since protocol version {since}, the peer speaks {version}")]
pub struct NotInVersion {
    /// The union.
    pub union: &'static str,
    /// The arm that the version lacks.
    pub arm: &'static str,
    /// First version that has it.
    pub since: u16,
    /// The peer's version.
    pub version: u16,
}
