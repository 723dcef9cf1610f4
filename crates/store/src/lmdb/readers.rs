//! The threads that read. A read may wait for the disk, which the threads of the async runtime must not.

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, unbounded};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::table::{Entries, Seen, Table};
use crate::read::read_all;
use crate::{Explorer, Found, Reads, StoreError, explore};

/// Threads that read: how many reads can wait for the disk at a time.
pub(super) const READER_THREADS: u32 = 4;
/// Reads that may wait for a thread; callers wait above it.
const QUEUE_MAX: usize = 1024;

#[derive(Clone)]
pub(super) struct Readers {
    queue: Sender<Message>,
    room: Arc<Semaphore>,
}

enum Message {
    Read(Request),
    Explore(Exploration, OwnedSemaphorePermit),
    Stop,
}

/// Explores a snapshot and answers; without a snapshot it answers why there is none.
type Exploration = Box<dyn FnOnce(Result<&Explorer<'_>, StoreError>) + Send>;

struct Request {
    reads: Reads,
    reply: oneshot::Sender<Result<Found, StoreError>>,
    _room: OwnedSemaphorePermit,
}

impl Readers {
    pub(super) fn start(table: &Arc<Table>) -> Result<(Self, Vec<JoinHandle<()>>), StoreError> {
        // Bounded by `room`.
        let (queue, messages) = unbounded();
        let mut threads = Vec::new();
        for number in 0..READER_THREADS {
            let (table, messages) = (table.clone(), messages.clone());
            let thread = thread::Builder::new().name(format!("store-reader-{number}"));
            threads.push(thread.spawn(move || serve(&table, &messages)).map_err(StoreError::failed)?);
        }
        Ok((Self { queue, room: Arc::new(Semaphore::new(QUEUE_MAX)) }, threads))
    }

    pub(super) async fn read(&self, reads: Reads) -> Result<Found, StoreError> {
        let room = self.wait_for_room().await?;
        let (reply, found) = oneshot::channel();
        let request = Request { reads, reply, _room: room };
        self.queue.send(Message::Read(request)).map_err(|_| StoreError::Closed)?;
        found.await.unwrap_or(Err(StoreError::Closed))
    }

    pub(super) async fn explore<T, F>(&self, explore: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Explorer<'_>) -> T + Send + 'static,
    {
        let room = self.wait_for_room().await?;
        let (reply, answer) = oneshot::channel();
        let exploration: Exploration = Box::new(move |explorer| {
            if !reply.is_closed() {
                let _ = reply.send(explorer.and_then(|explorer| explore::run(explore, explorer)));
            }
        });
        self.queue.send(Message::Explore(exploration, room)).map_err(|_| StoreError::Closed)?;
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    async fn wait_for_room(&self) -> Result<OwnedSemaphorePermit, StoreError> {
        self.room.clone().acquire_owned().await.map_err(|_| StoreError::Closed)
    }

    /// Answers what waits, then stops the threads.
    pub(super) fn close(&self) {
        self.room.close();
        for _ in 0..READER_THREADS {
            // Fails only if the threads are gone already.
            let _ = self.queue.send(Message::Stop);
        }
    }
}

/// Body of a reader thread.
fn serve(table: &Table, messages: &Receiver<Message>) {
    let entries = match table.entries() {
        Ok(entries) => entries,
        Err(error) => return tracing::error!(%error, "a store reader cannot start"),
    };
    loop {
        match messages.recv() {
            Ok(Message::Read(request)) => {
                // Nobody may be waiting any more.
                if !request.reply.is_closed() {
                    let _ = request.reply.send(read(table, &entries, &request.reads));
                }
            }
            Ok(Message::Explore(exploration, _room)) => match table.begin_read() {
                Ok(transaction) => exploration(Ok(&Explorer::new(&Seen { entries: &entries, transaction: &transaction }))),
                Err(error) => exploration(Err(error)),
            },
            Ok(Message::Stop) | Err(_) => return,
        }
    }
}

fn read(table: &Table, entries: &Entries<'_>, reads: &Reads) -> Result<Found, StoreError> {
    let transaction = table.begin_read()?;
    read_all(reads, &Seen { entries, transaction: &transaction })
}
