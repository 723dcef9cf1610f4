//! Why a key-value request failed, in the words of `spec/storage.md` 3.5.

use store::StoreError;

use crate::Damaged;
use crate::limits::KV_LIST_MAX_BYTES;

/// Why a key-value request failed. The text is all that hosts get.
#[derive(Debug, Clone, thiserror::Error)]
pub enum KvError {
    /// Get or delete of too many keys.
    #[error("a maximum of 128 keys is allowed")]
    TooManyKeys,
    /// Put of too many entries.
    #[error("A maximum of 128 key-value entries is allowed")]
    TooManyEntries,
    /// Put with lists of different length.
    #[error("Keys list length != values list length")]
    LengthMismatch,
    /// Put of too many bytes.
    #[error("total payload is too large (max 976 KiB)")]
    PutTooLarge,
    /// A key is too long.
    #[error("key is too long (max 2048 bytes)")]
    KeyTooLong,
    /// The prefix of a list is too long.
    #[error("prefix key is too long (max 2048 bytes)")]
    PrefixTooLong,
    /// The start of a range is too long.
    #[error("start key is too long (max 2048 bytes)")]
    StartTooLong,
    /// The end of a range is too long.
    #[error("end key is too long (max 2048 bytes)")]
    EndTooLong,
    /// A value is too large.
    #[error("value is too large (max 128 KiB)")]
    ValueTooLarge,
    /// The actor's storage is full.
    #[error("Not enough space left in storage.")]
    QuotaExceeded,
    /// A list would be too large.
    #[error("the list is too large (max {KV_LIST_MAX_BYTES} bytes), ask for fewer entries at a time")]
    ListTooLarge,
    /// The actor never started, or is destroyed.
    #[error("actor does not exist")]
    NoActor,
    /// A newer generation of the actor has started.
    #[error("actor generation {generation} is not current")]
    NotCurrent {
        /// The generation that asked.
        generation: u32,
    },
    /// What is stored cannot be decoded.
    #[error(transparent)]
    Damaged(#[from] Damaged),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl KvError {
    /// Whether it is the engine's fault, and news for its operator: of a lack of room the store tells once for all.
    pub fn is_internal(&self) -> bool {
        match self {
            Self::Damaged(_) => true,
            Self::Store(error) => !error.may_pass(),
            Self::TooManyKeys
            | Self::TooManyEntries
            | Self::LengthMismatch
            | Self::PutTooLarge
            | Self::KeyTooLong
            | Self::PrefixTooLong
            | Self::StartTooLong
            | Self::EndTooLong
            | Self::ValueTooLarge
            | Self::QuotaExceeded
            | Self::ListTooLarge
            | Self::NoActor
            | Self::NotCurrent { .. } => false,
        }
    }
}
