//! A segment of a staged commit: notes that the span of pages from some page on was staged.
//!
//! Key: `44`, actor id (18), number of the staged commit (8), first page of the span (4).
//!
//! | Value | Bytes | |
//! |---|---|---|
//! | version | 1 | 1 |
//! | seal | 4 | `record` |

use bytes::Bytes;
use protocol::id::Id;
use store::Batch;

use crate::record::{self, Damaged, Subspace};

const RECORD: &str = "segment";

/// The value without its seal.
const VALUE: [u8; 1] = [1];

pub(crate) fn key(actor: &Id, stage: u64, first_pgno: u32) -> Bytes {
    record::key(Subspace::Segment, actor, &[&stage.to_be_bytes(), &first_pgno.to_be_bytes()])
}

/// Notes a segment.
pub(crate) fn put(batch: &mut Batch, actor: &Id, stage: u64, first_pgno: u32) {
    record::put(batch, key(actor, stage, first_pgno), VALUE.to_vec());
}

/// First page of a segment.
pub(crate) fn decode(key: &[u8], value: &[u8]) -> Result<u32, Damaged> {
    let body = record::unseal(RECORD, key, value)?;
    let first_pgno = record::last_u32(key).filter(|_| body == VALUE);
    first_pgno.ok_or(Damaged { record: RECORD })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn round_trips(actor: [u8; 18], stage: u64, first_pgno: u32) {
            let key = key(&Id::from_bytes(actor), stage, first_pgno);
            prop_assert_eq!(decode(&key, &record::seal(&key, VALUE.to_vec())), Ok(first_pgno));
        }
    }

    #[test]
    fn another_version_is_damaged() {
        let key = key(&Id::NIL, 1, 64);
        assert!(decode(&key, &record::seal(&key, vec![2])).is_err());
    }
}
