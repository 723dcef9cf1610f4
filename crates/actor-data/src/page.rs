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
//! | seal | 4 | `record` |
//!
//! Rows are small because fresh databases are mostly zeros, and because LMDB gives each value that does not fit into a
//! leaf whole pages of its own: up to 4,080 bytes take one, 4,096 take two.

use bytes::Bytes;
use protocol::id::Id;

use crate::limits::PAGE_BYTES;
use crate::record::{self, Damaged, Fields, SEAL_BYTES, Subspace};

const RECORD: &str = "page";

const ZEROS: u8 = 1;

/// The body of the row of a page of zeros.
pub(crate) const ZEROS_BODY: &[u8] = &[ZEROS];
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

/// Whether a key is that of a staged page.
pub(crate) fn is_staged(key: &[u8]) -> bool {
    key.first() == Some(&(Subspace::StagedPage as u8))
}

/// A page of zeros.
pub(crate) fn zeros() -> Bytes {
    Bytes::from_static(&ZERO_PAGE)
}

/// The row of a page under this key. Takes some microseconds.
pub(crate) fn encode(key: &[u8], page: &[u8]) -> Bytes {
    debug_assert_eq!(page.len(), PAGE_BYTES);
    if page == ZERO_PAGE {
        return record::seal(key, vec![ZEROS]);
    }
    let mut row = vec![0; 1 + lz4_flex::block::get_maximum_output_size(PAGE_BYTES)];
    // The output has room for the worst case, so an error cannot be; if it were, the page would go as it is.
    match lz4_flex::block::compress_into(page, &mut row[1..]) {
        Ok(length) if 1 + length + SEAL_BYTES <= COMPRESSED_MAX_BYTES => {
            row[0] = LZ4;
            row.truncate(1 + length);
        }
        Ok(_) | Err(_) => {
            row.clear();
            row.push(RAW);
            row.extend_from_slice(page);
        }
    }
    let seal = record::seal_of(key, &row);
    row.extend(seal);
    // A copy, because the buffer is larger than most rows.
    Bytes::copy_from_slice(&row)
}

/// A row of a page, to be stored under another key.
pub(crate) fn reseal(key: &[u8], row: &[u8], new_key: &[u8]) -> Result<Bytes, Damaged> {
    let body = record::unseal(RECORD, key, row)?;
    let mut resealed = Vec::with_capacity(row.len());
    resealed.extend_from_slice(body);
    Ok(record::seal(new_key, resealed))
}

/// The page of a row. Takes a microsecond or two.
pub(crate) fn decode(key: &[u8], row: &Bytes) -> Result<Bytes, Damaged> {
    let body = row.slice_ref(record::unseal(RECORD, key, row)?);
    parse(&body).ok_or(Damaged { record: RECORD })
}

fn parse(body: &Bytes) -> Option<Bytes> {
    let mut fields = Fields(body);
    match fields.u8()? {
        ZEROS => fields.end().map(|()| zeros()),
        RAW => (fields.0.len() == PAGE_BYTES).then(|| body.slice(1..)),
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
            let row = encode(b"one", &page);
            prop_assert!(row.len() <= 1 + PAGE_BYTES + SEAL_BYTES);
            prop_assert_eq!(decode(b"one", &row).unwrap(), &page);
            prop_assert!(decode(b"other", &row).is_err());
            let moved = reseal(b"one", &row, b"other").unwrap();
            prop_assert_eq!(decode(b"other", &moved).unwrap(), page);
        }

        #[test]
        fn anything_else_is_damaged(body in prop::collection::vec(any::<u8>(), 0..100)) {
            // All zeros is the only page with so short a row that is not compressed.
            if let Ok(page) = decode(b"key", &record::seal(b"key", body.clone())) {
                prop_assert!(body[0] == LZ4 || body == [ZEROS]);
                prop_assert_eq!(page.len(), PAGE_BYTES);
            }
        }
    }

    #[test]
    fn rows_have_the_expected_form() {
        let encode = |page: &[u8]| encode(b"key", page);
        assert_eq!(encode(&ZERO_PAGE)[..1], [ZEROS]);
        assert_eq!(encode(&ZERO_PAGE).len(), 1 + SEAL_BYTES);
        assert!(encode(&[7; PAGE_BYTES]).len() < 50);
        let mut number = 1u32;
        let noise: Vec<u8> = (0..PAGE_BYTES)
            .map(|_| {
                number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                number.to_be_bytes()[0]
            })
            .collect();
        assert_eq!(encode(&noise)[0], RAW);
        assert_eq!(encode(&noise).len(), 1 + PAGE_BYTES + SEAL_BYTES);
    }
}
