//! A bucket: where the entries are whose keys are too long for the store and begin alike.
//!
//! Key: as `kv::place` says.
//!
//! | Value | Bytes | |
//! |---|---|---|
//! | version | 1 | 1 |
//! | number | 8 | of the bucket, never used again within the actor |
//! | entries | 8 | how many are in it; the bucket goes with the last one |
//! | seal | 4 | `record` |

use bytes::Bytes;

use crate::Damaged;
use crate::record::{self, Fields};

const RECORD: &str = "key-value bucket";
const VERSION: u8 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bucket {
    pub(super) number: u64,
    pub(super) entries: u64,
}

impl Bucket {
    /// The value of a bucket's row.
    pub(super) fn row(self, key: &[u8]) -> Bytes {
        record::seal(key, self.encode())
    }

    fn encode(self) -> Vec<u8> {
        let mut value = vec![VERSION];
        value.extend(self.number.to_be_bytes());
        value.extend(self.entries.to_be_bytes());
        value
    }

    pub(super) fn decode(key: &[u8], row: &[u8]) -> Result<Self, Damaged> {
        let body = record::unseal(RECORD, key, row)?;
        Self::parse(Fields(body)).ok_or(Damaged { record: RECORD })
    }

    fn parse(mut fields: Fields<'_>) -> Option<Self> {
        let (version, number, entries) = (fields.u8()?, fields.u64()?, fields.u64()?);
        fields.end()?;
        (version == VERSION).then_some(Self { number, entries })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn round_trips(number: u64, entries: u64, cut in 0..17usize) {
            let bucket = Bucket { number, entries };
            let decode = |body: &[u8]| Bucket::decode(b"key", &record::seal(b"key", body.to_vec()));
            prop_assert_eq!(decode(&bucket.encode()), Ok(bucket));
            prop_assert!(decode(&bucket.encode()[..cut]).is_err());
        }
    }
}
