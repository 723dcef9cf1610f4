//! A file that lives only as long as it is open: SQLite's journals and its temporary files.

use std::sync::Arc;

use crate::blocks::{BLOCK_BYTES, Block, Blocks, Trouble};

/// A file made of blocks.
pub(crate) struct Scratch {
    content: Vec<Block>,
    /// In bytes.
    length: u64,
    blocks: Arc<Blocks>,
}

impl Scratch {
    pub(crate) fn new(blocks: Arc<Blocks>) -> Self {
        Self { content: Vec::new(), length: 0, blocks }
    }

    /// In bytes.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Fills `into` from `offset` on, and what is behind the end with zeros. Returns how many bytes are of the file.
    pub(crate) fn read(&self, into: &mut [u8], offset: u64) -> Result<usize, Trouble> {
        let within = usize::try_from(self.length.saturating_sub(offset)).unwrap_or(usize::MAX).min(into.len());
        let (found, missing) = into.split_at_mut(within);
        missing.fill(0);
        let mut done = 0;
        while done < found.len() {
            let (block, start) = place(offset + done as u64);
            let count = (BLOCK_BYTES - start).min(found.len() - done);
            self.blocks.read(&self.content[block], start, &mut found[done..done + count])?;
            done += count;
        }
        Ok(within)
    }

    /// Writes `bytes` at `offset`; a gap before it is zeros.
    pub(crate) fn write(&mut self, bytes: &[u8], offset: u64) -> Result<(), Trouble> {
        let end = offset.checked_add(bytes.len() as u64).ok_or(Trouble::NoRoom)?;
        while (self.content.len() as u64) * (BLOCK_BYTES as u64) < end {
            self.content.push(self.blocks.put(&[0; BLOCK_BYTES])?);
        }
        let mut done = 0;
        while done < bytes.len() {
            let (block, start) = place(offset + done as u64);
            let count = (BLOCK_BYTES - start).min(bytes.len() - done);
            self.blocks.write(&mut self.content[block], start, &bytes[done..done + count])?;
            done += count;
        }
        self.length = self.length.max(end);
        Ok(())
    }

    /// Cuts the file off at `length`. SQLite never makes a file longer this way.
    pub(crate) fn truncate(&mut self, length: u64) -> Result<(), Trouble> {
        if length >= self.length {
            return Ok(());
        }
        self.length = length;
        let (block, start) = place(length);
        for block in self.content.drain((block + usize::from(start > 0)).min(self.content.len())..) {
            self.blocks.give_back(block);
        }
        match self.content.get_mut(block) {
            // What is written behind a later gap must not show what was here.
            Some(last) if start > 0 => self.blocks.write(last, start, &[0; BLOCK_BYTES][start..]),
            Some(_) | None => Ok(()),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        for block in self.content.drain(..) {
            self.blocks.give_back(block);
        }
    }
}

/// Which block, and where in it. The number of a block that exists fits: it is an index of a vector.
fn place(offset: u64) -> (usize, usize) {
    ((offset / BLOCK_BYTES as u64) as usize, (offset % BLOCK_BYTES as u64) as usize)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::blocks::{Budget, Room};

    #[derive(Debug, Clone)]
    enum Step {
        Write(usize, usize, u8),
        Truncate(usize),
        Read(usize, usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let near = 0..9 * BLOCK_BYTES;
        let length = 0..2 * BLOCK_BYTES;
        let step = prop_oneof![
            (near.clone(), length.clone(), any::<u8>()).prop_map(|(at, length, byte)| Step::Write(at, length, byte)),
            near.clone().prop_map(Step::Truncate),
            (near, length).prop_map(|(at, length)| Step::Read(at, length)),
        ];
        prop::collection::vec(step, 1..30)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_scratch_file_is_like_a_vector(steps in steps(), in_memory in 0..10_u64) {
            let (memory, files) = (Budget::new(in_memory * BLOCK_BYTES as u64), Budget::default());
            let room = Room {
                memory_max_bytes: 5 * BLOCK_BYTES as u64,
                memory: memory.clone(),
                folder: Some(std::env::temp_dir()),
                file_max_bytes: u64::MAX,
                files: files.clone(),
            };
            let blocks = Arc::new(Blocks::new(room));
            let mut scratch = Scratch::new(Arc::clone(&blocks));
            let mut model: Vec<u8> = Vec::new();
            for step in steps {
                match step {
                    Step::Write(at, length, byte) => {
                        scratch.write(&vec![byte; length], at as u64).unwrap();
                        model.resize(model.len().max(at + length), 0);
                        model[at..at + length].fill(byte);
                    }
                    Step::Truncate(length) => {
                        scratch.truncate(length as u64).unwrap();
                        model.truncate(length);
                    }
                    Step::Read(at, length) => {
                        let mut found = vec![1; length];
                        let count = scratch.read(&mut found, at as u64).unwrap();
                        let end = model.len().min(at + length);
                        let mut expected = if at < end { model[at..end].to_vec() } else { Vec::new() };
                        prop_assert_eq!(count, expected.len());
                        expected.resize(length, 0);
                        prop_assert!(found == expected);
                    }
                }
                prop_assert_eq!(scratch.length(), model.len() as u64);
                prop_assert!(blocks.used() <= 5 * BLOCK_BYTES as u64 && memory.used() == blocks.used());
            }
            drop(scratch);
            prop_assert_eq!((blocks.used(), memory.used(), files.used()), (0, 0, 0));
        }
    }

    #[test]
    fn without_a_folder_a_file_ends_at_the_bound() {
        let room = Room { memory_max_bytes: BLOCK_BYTES as u64, file_max_bytes: u64::MAX, ..Room::default() };
        let blocks = Arc::new(Blocks::new(room));
        let mut scratch = Scratch::new(Arc::clone(&blocks));
        scratch.write(&[1; 10], 0).unwrap();
        assert!(matches!(scratch.write(&[2; 10], BLOCK_BYTES as u64 - 5), Err(Trouble::NoRoom)));
        assert_eq!((scratch.length(), blocks.used()), (10, BLOCK_BYTES as u64));
    }

    #[test]
    fn what_is_put_aside_ends_at_the_bound_of_the_session_and_at_that_of_all() {
        const BLOCK: u64 = BLOCK_BYTES as u64;
        let files = Budget::new(5 * BLOCK);
        let scratch = || {
            let folder = Some(std::env::temp_dir());
            let room = Room { folder, file_max_bytes: 3 * BLOCK, files: files.clone(), ..Room::default() };
            Scratch::new(Arc::new(Blocks::new(room)))
        };
        let (mut first, mut second) = (scratch(), scratch());
        first.write(&[1; 3 * BLOCK_BYTES], 0).unwrap();
        assert!(matches!(first.write(&[1], 3 * BLOCK), Err(Trouble::NoRoom)), "its own");
        second.write(&[2; 2 * BLOCK_BYTES], 0).unwrap();
        assert!(matches!(second.write(&[2], 2 * BLOCK), Err(Trouble::NoRoom)), "that of all");
        // What is free in a file is of use to its session, and to others when the file goes.
        first.truncate(BLOCK).unwrap();
        first.write(&[3; BLOCK_BYTES], BLOCK).unwrap();
        assert_eq!(files.used(), 5 * BLOCK);
        drop(first);
        assert_eq!(files.used(), 2 * BLOCK);
        second.write(&[2], 2 * BLOCK).unwrap();
    }
}
