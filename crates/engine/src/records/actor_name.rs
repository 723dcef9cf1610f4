//! The index of actor names that hosts have declared.
//!
//! * `04` namespace id, actor name -> JSON object, the name's metadata

use bytes::Bytes;
use protocol::id::NamespaceId;

pub(crate) const KIND: u8 = 0x04;

pub(crate) fn key(namespace: NamespaceId, name: &str) -> Bytes {
    let mut key = vec![KIND];
    key.extend_from_slice(namespace.as_bytes());
    key.extend_from_slice(name.as_bytes());
    key.into()
}

/// First key, and the key behind the last, of a namespace's names after `after`.
pub(crate) fn range_after(namespace: NamespaceId, after: Option<&str>) -> (Bytes, Bytes) {
    let start = match after {
        // The smallest key that is greater than the name's own.
        Some(after) => [key(namespace, after).as_ref(), &[0]].concat().into(),
        None => key(namespace, ""),
    };
    (start, store::prefix_end(&key(namespace, "")))
}

/// The name in a key.
pub(crate) fn name(key: &[u8]) -> String {
    String::from_utf8_lossy(key.get(19..).unwrap_or_default()).into_owned()
}
