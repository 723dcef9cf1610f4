//! Transactions: declared reads, then a decision.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::read::{Entry, Snapshot};
use crate::{Batch, Reads, StoreError};

/// How often one update may ask for more reads.
pub const MAX_READ_ROUNDS: usize = 32;

/// What an update sees: the values of everything it declared, in the order in which it was declared.
#[derive(Debug, Default)]
pub struct View<'a> {
    names: Vec<Bytes>,
    values: Vec<Option<&'a [u8]>>,
    ranges: Vec<Vec<Entry<'a>>>,
}

impl<'a> View<'a> {
    /// Value of the `index`th key. Keys of [`Decision::ReadMore`] count on from those before.
    ///
    /// # Panics
    /// If there is no such key; the update then fails with [`StoreError::DecidePanicked`].
    pub fn get(&self, index: usize) -> Option<&'a [u8]> {
        self.values[index]
    }

    /// Value of a declared key. Searches in sequence: for long lists use [`View::get`].
    ///
    /// # Panics
    /// If the key was not declared; the update then fails with [`StoreError::DecidePanicked`].
    pub fn key(&self, key: &[u8]) -> Option<&'a [u8]> {
        let index = self.names.iter().position(|name| name == key);
        assert!(index.is_some(), "an update looked at a key that it did not declare");
        index.and_then(|index| self.values[index])
    }

    /// Entries of the `index`th range. Ranges of [`Decision::ReadMore`] count on from those before.
    ///
    /// # Panics
    /// If there is no such range; the update then fails with [`StoreError::DecidePanicked`].
    pub fn range(&self, index: usize) -> &[(&'a [u8], &'a [u8])] {
        &self.ranges[index]
    }

    /// Number of keys declared so far.
    pub fn key_count(&self) -> usize {
        self.values.len()
    }

    /// Number of ranges declared so far.
    pub fn range_count(&self) -> usize {
        self.ranges.len()
    }

    fn extend(&mut self, reads: &Reads, snapshot: &dyn Snapshot<'a>) -> Result<(), StoreError> {
        for key in &reads.keys {
            self.values.push(snapshot.get(key)?);
            self.names.push(key.clone());
        }
        for scan in &reads.ranges {
            self.ranges.push(snapshot.scan(scan)?);
        }
        Ok(())
    }
}

/// What an update wants.
#[derive(Debug)]
pub enum Decision<T> {
    /// Write this, and answer that.
    Commit(Batch, T),
    /// Write nothing, and answer that.
    Skip(T),
    /// Call `decide` again with these reads added to the view.
    ReadMore(Reads),
}

/// Reads and decides. The batch is checked, and empty if nothing is to be written.
pub(crate) fn decide<'a, T>(
    reads: &Reads,
    decide: &mut impl FnMut(&View<'_>) -> Decision<T>,
    snapshot: &dyn Snapshot<'a>,
) -> Result<(Batch, T), StoreError> {
    let mut view = View::default();
    view.extend(reads, snapshot)?;
    for _ in 0..MAX_READ_ROUNDS {
        // Unwind safe: after a panic nobody uses the closure, the view or the answer any more.
        let decision = catch_unwind(AssertUnwindSafe(|| decide(&view))).map_err(|_| StoreError::DecidePanicked)?;
        match decision {
            Decision::Commit(batch, answer) => {
                batch.check()?;
                return Ok((batch, answer));
            }
            Decision::Skip(answer) => return Ok((Batch::new(), answer)),
            Decision::ReadMore(more) => view.extend(&more, snapshot)?,
        }
    }
    Err(StoreError::TooManyReads)
}

/// An update without its types, so that different ones can stand in one queue.
pub(crate) trait UpdateJob: Send {
    /// Decides what to write, and keeps the answer. May be called again.
    fn run(&mut self, snapshot: &dyn Snapshot<'_>) -> Result<Batch, StoreError>;
    /// Gives the kept answer, or the error, to the caller.
    fn complete(self: Box<Self>, outcome: Result<(), StoreError>);
}

struct TypedJob<T, F> {
    reads: Reads,
    decide: F,
    answer: Option<T>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

/// An update for a queue, and where its answer will come.
pub(crate) fn job<T, F>(reads: Reads, decide: F) -> (Box<dyn UpdateJob>, oneshot::Receiver<Result<T, StoreError>>)
where
    T: Send + 'static,
    F: FnMut(&View<'_>) -> Decision<T> + Send + 'static,
{
    let (reply, answer) = oneshot::channel();
    (Box::new(TypedJob { reads, decide, answer: None, reply }), answer)
}

impl<T, F> UpdateJob for TypedJob<T, F>
where
    T: Send,
    F: FnMut(&View<'_>) -> Decision<T> + Send,
{
    fn run(&mut self, snapshot: &dyn Snapshot<'_>) -> Result<Batch, StoreError> {
        let (batch, answer) = decide(&self.reads, &mut self.decide, snapshot)?;
        self.answer = Some(answer);
        Ok(batch)
    }

    fn complete(self: Box<Self>, outcome: Result<(), StoreError>) {
        // An answer is there whenever `run` succeeded; without one the caller sees the store as closed.
        let reply = match outcome {
            Ok(()) => self.answer.ok_or(StoreError::Closed),
            Err(error) => Err(error),
        };
        // The caller may have stopped waiting.
        let _ = self.reply.send(reply);
    }
}
