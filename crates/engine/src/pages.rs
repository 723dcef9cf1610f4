//! Reading a range of any size, a bounded part at a time.

use bytes::Bytes;
use store::{Scan, Store, StoreError};

/// Rows of one part.
const ROWS: usize = 1_024;

/// A walk over all rows of a range, in key order. Rows that are written meanwhile may be missed.
pub(crate) struct Pages {
    store: Store,
    start: Bytes,
    end: Bytes,
}

impl Pages {
    /// From `start` (inclusive) to `end` (exclusive).
    pub(crate) fn new(store: &Store, (start, end): (Bytes, Bytes)) -> Self {
        Self { store: store.clone(), start, end }
    }

    /// The next rows; `None` behind the last.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<(Bytes, Bytes)>>, StoreError> {
        let rows = self.store.scan(Scan::range(self.start.clone(), self.end.clone()).limit(ROWS)).await?;
        let Some((last, _)) = rows.last() else { return Ok(None) };
        // The smallest key above the last one.
        self.start = [last, &[0][..]].concat().into();
        Ok(Some(rows))
    }
}

#[cfg(test)]
mod tests {
    use store::Batch;

    use super::*;

    #[tokio::test]
    async fn every_row_is_read_once_whatever_their_number() {
        let row = |number: usize| Bytes::from([&[7], &(number as u32).to_be_bytes()[..]].concat());
        for count in [0, 1, ROWS - 1, ROWS, ROWS + 1, 2 * ROWS + 1] {
            let store = Store::memory();
            let mut batch = Batch::new();
            for number in 0..count {
                batch.put(row(number), Bytes::new());
            }
            // Neighbours that do not belong to the range.
            batch.put(Bytes::from_static(&[6, 0xff]), Bytes::new());
            batch.put(Bytes::from_static(&[8]), Bytes::new());
            store.write(batch).await.unwrap();
            let mut pages = Pages::new(&store, (Bytes::from_static(&[7]), Bytes::from_static(&[8])));
            let mut read = Vec::new();
            while let Some(rows) = pages.next().await.unwrap() {
                assert!(rows.len() <= ROWS);
                read.extend(rows.into_iter().map(|(key, _)| key));
            }
            assert_eq!(read, (0..count).map(row).collect::<Vec<_>>());
        }
    }
}
