//! Namespaces.
//!
//! * `01` namespace id -> name str, display name str, created i64

use bytes::Bytes;
use lifecycle::Ts;
use protocol::id::NamespaceId;

use super::{CorruptRow, decode, encode, read, write};

pub(crate) const KIND: u8 = 0x01;

/// A namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Namespace {
    /// Its id.
    pub(crate) namespace_id: NamespaceId,
    /// Its unique name.
    pub(crate) name: String,
    /// What people see.
    pub(crate) display_name: String,
    /// When it was created.
    pub(crate) create_ts: Ts,
}

pub(crate) fn key(namespace: NamespaceId) -> Bytes {
    let mut key = vec![KIND];
    key.extend_from_slice(namespace.as_bytes());
    key.into()
}

/// First key, and the key behind the last, of all namespaces.
pub(crate) fn all() -> (Bytes, Bytes) {
    (Bytes::from_static(&[KIND]), Bytes::from_static(&[KIND + 1]))
}

pub(crate) fn value(namespace: &Namespace) -> Bytes {
    encode(|writer| {
        write(writer, &namespace.name)?;
        write(writer, &namespace.display_name)?;
        write(writer, &namespace.create_ts)
    })
}

pub(crate) fn parse(key: &[u8], value: Bytes) -> Result<Namespace, CorruptRow> {
    let id: [u8; 18] = key
        .get(1..)
        .and_then(|id| id.try_into().ok())
        .ok_or_else(|| CorruptRow { kind: "namespace", reason: "its key has the wrong length".into() })?;
    decode("namespace", value, |reader| {
        Ok(Namespace {
            namespace_id: NamespaceId::from_bytes(id),
            name: read(reader)?,
            display_name: read(reader)?,
            create_ts: read(reader)?,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        let namespace = Namespace {
            namespace_id: NamespaceId::from_parts([7; 16], 1),
            name: "default".into(),
            display_name: "Default ü".into(),
            create_ts: 1_795_225_270_314,
        };
        assert_eq!(parse(&key(namespace.namespace_id), value(&namespace)), Ok(namespace));
        assert!(parse(&[KIND], Bytes::from_static(&[1])).is_err());
    }
}
