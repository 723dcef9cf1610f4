//! A page of an actor's SQLite database, in the database or staged for it.
//!
//! Key in the database: `42`, actor id (18), page number (4). A page that has no row, but a number within the size of
//! the database, is all zeros.
//!
//! Key if staged: `43`, actor id (18), number of the staged commit (8), page number (4).
//!
//! | Value | Bytes | |
//! |---|---|---|
//! | form | 1 | 1 all zeros, 2 as it is, 3 LZ4 block; other numbers are free for newer versions |
//! | page | 0, 4096, or less | |
//!
//! Rows are small because fresh databases are mostly zeros, and because LMDB gives each value that does not fit into a
//! leaf whole pages of its own: up to 4,080 bytes take one, 4,096 take two.

use bytes::Bytes;
use protocol::id::Id;

use crate::limits::PAGE_BYTES;
use crate::record::{self, Damaged, Fields, Subspace};

const ZEROS: u8 = 1;
const RAW: u8 = 2;
const LZ4: u8 = 3;

/// Longest row that is worth decompressing, in bytes: what fits into one page of LMDB.
const COMPRESSED_MAX_BYTES: usize = 4080;

static ZERO_PAGE: [u8; PAGE_BYTES] = [0; PAGE_BYTES];

pub(crate) fn key(actor: &Id, pgno: u32) -> Bytes {
    record::key(Subspace::Page, actor, &[&pgno.to_be_bytes()])
}

pub(crate) fn staged_key(actor: &Id, stage: u64, pgno: u32) -> Bytes {
    record::key(Subspace::StagedPage, actor, &[&stage.to_be_bytes(), &pgno.to_be_bytes()])
}

/// A page of zeros.
pub(crate) fn zeros() -> Bytes {
    Bytes::from_static(&ZERO_PAGE)
}

/// The row of a page. Takes some microseconds.
pub(crate) fn encode(page: &[u8]) -> Bytes {
    debug_assert_eq!(page.len(), PAGE_BYTES);
    if page == ZERO_PAGE {
        return Bytes::from_static(&[ZEROS]);
    }
    let mut row = vec![0; 1 + lz4_flex::block::get_maximum_output_size(PAGE_BYTES)];
    // The output has room for the worst case, so an error cannot be; if it were, the page would go as it is.
    match lz4_flex::block::compress_into(page, &mut row[1..]) {
        Ok(length) if length < COMPRESSED_MAX_BYTES => {
            row[0] = LZ4;
            // A copy, because the buffer is larger than most rows.
            Bytes::copy_from_slice(&row[..=length])
        }
        Ok(_) | Err(_) => {
            row.clear();
            row.push(RAW);
            row.extend_from_slice(page);
            row.into()
        }
    }
}

/// The page of a row. Takes a microsecond or two.
pub(crate) fn decode(row: &Bytes) -> Result<Bytes, Damaged> {
    parse(row).ok_or(Damaged { record: "page" })
}

fn parse(row: &Bytes) -> Option<Bytes> {
    let mut fields = Fields(row);
    match fields.u8()? {
        ZEROS => fields.end().map(|()| zeros()),
        RAW => (fields.0.len() == PAGE_BYTES).then(|| row.slice(1..)),
        LZ4 => {
            let mut page = vec![0; PAGE_BYTES];
            let length = lz4_flex::block::decompress_into(fields.0, &mut page).ok()?;
            (length == PAGE_BYTES).then(|| page.into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Pages with a random beginning and the rest of one byte, from all zeros to incompressible.
    fn page() -> impl Strategy<Value = Vec<u8>> {
        (prop::collection::vec(any::<u8>(), 0..=PAGE_BYTES), any::<u8>()).prop_map(|(mut page, rest)| {
            page.resize(PAGE_BYTES, rest);
            page
        })
    }

    proptest! {
        #[test]
        fn round_trips(page in page()) {
            let row = encode(&page);
            prop_assert!(row.len() <= 1 + PAGE_BYTES);
            prop_assert_eq!(decode(&row).unwrap(), page);
        }

        #[test]
        fn anything_else_is_damaged(row in prop::collection::vec(any::<u8>(), 0..100)) {
            // All zeros is the only page with so short a row that is not compressed.
            if let Ok(page) = decode(&row.clone().into()) {
                prop_assert!(row[0] == LZ4 || row == [ZEROS]);
                prop_assert_eq!(page.len(), PAGE_BYTES);
            }
        }
    }

    #[test]
    fn rows_have_the_expected_form() {
        assert_eq!(encode(&ZERO_PAGE), [ZEROS][..]);
        assert!(encode(&[7; PAGE_BYTES]).len() < 50);
        let mut number = 1u32;
        let noise: Vec<u8> = (0..PAGE_BYTES)
            .map(|_| {
                number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                number.to_be_bytes()[0]
            })
            .collect();
        assert_eq!(encode(&noise)[0], RAW);
        assert_eq!(encode(&noise).len(), 1 + PAGE_BYTES);
    }
}
