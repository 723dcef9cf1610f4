//! Pool configurations.
//!
//! * `03` namespace id, pool name -> JSON of the configuration (written and read by the same types as the API's)

use bytes::Bytes;
use protocol::id::NamespaceId;

use super::CorruptRow;

pub(crate) const KIND: u8 = 0x03;
const ID_BYTES: usize = 18;

pub(crate) fn key(namespace: NamespaceId, pool: &str) -> Bytes {
    let mut key = vec![KIND];
    key.extend_from_slice(namespace.as_bytes());
    key.extend_from_slice(pool.as_bytes());
    key.into()
}

/// First key, and the key behind the last, of all pools.
pub(crate) fn all() -> (Bytes, Bytes) {
    (Bytes::from_static(&[KIND]), Bytes::from_static(&[KIND + 1]))
}

pub(crate) fn parse_key(key: &[u8]) -> Result<(NamespaceId, String), CorruptRow> {
    let corrupt = |reason: &str| CorruptRow { kind: "pool", reason: reason.into() };
    let id: [u8; ID_BYTES] =
        key.get(1..=ID_BYTES).and_then(|id| id.try_into().ok()).ok_or_else(|| corrupt("its key is too short"))?;
    let name = std::str::from_utf8(&key[ID_BYTES + 1..]).map_err(|_| corrupt("its name is not UTF-8"))?;
    Ok((NamespaceId::from_bytes(id), name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_round_trip() {
        let namespace = NamespaceId::from_parts([9; 16], 1);
        assert_eq!(parse_key(&key(namespace, "pöol")), Ok((namespace, "pöol".to_owned())));
        assert!(parse_key(&[KIND, 1]).is_err());
    }
}
