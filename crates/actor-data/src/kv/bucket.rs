//! A bucket: where the entries are whose keys are too long for the store and begin alike.
//!
//! Key: as `kv::place` says.
//!
//! | Value | Bytes | |
//! |---|---|---|
//! | version | 1 | 1 |
//! | number | 8 | of the bucket, never used again within the actor |
//! | entries | 8 | how many are in it; the bucket goes with the last one |

use crate::Damaged;
use crate::record::Fields;

const VERSION: u8 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bucket {
    pub(super) number: u64,
    pub(super) entries: u64,
}

impl Bucket {
    pub(super) fn encode(self) -> Vec<u8> {
        let mut value = vec![VERSION];
        value.extend(self.number.to_be_bytes());
        value.extend(self.entries.to_be_bytes());
        value
    }

    pub(super) fn decode(value: &[u8]) -> Result<Self, Damaged> {
        Self::parse(Fields(value)).ok_or(Damaged { record: "key-value bucket" })
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
            prop_assert_eq!(Bucket::decode(&bucket.encode()), Ok(bucket));
            prop_assert!(Bucket::decode(&bucket.encode()[..cut]).is_err());
        }
    }
}
