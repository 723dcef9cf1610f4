//! What waits for one request: a queue that takes no memory while it is empty, because most sockets are silent.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use crate::budget::Share;

/// Room that an empty queue keeps for what comes next, in entries.
const KEPT_CAPACITY: usize = 8;

/// The queue of one request, with any number of senders and one receiver.
pub(crate) struct Inbox<T> {
    state: Mutex<State<T>>,
}

struct State<T> {
    waiting: VecDeque<(T, u64)>,
    share: Share,
    max_bytes: u64,
    overflowed: bool,
    receiver: Option<Waker>,
}

impl<T> Inbox<T> {
    /// An empty queue for up to `max_bytes`, which also count towards a share of what may wait in the whole process.
    pub(crate) fn new(share: Share, max_bytes: u64) -> Self {
        let state = State { waiting: VecDeque::new(), share, max_bytes, overflowed: false, receiver: None };
        Self { state: Mutex::new(state) }
    }

    /// Adds something of a size that its sender chooses. When that is too much, `overflow` is added in its place, and all
    /// later ones are dropped.
    pub(crate) fn push(&self, entry: T, bytes: u64, overflow: T) {
        let mut state = self.state.lock();
        if state.overflowed {
            return;
        }
        let fits = state.share.bytes() + bytes <= state.max_bytes && state.share.grow(bytes).is_ok();
        let (entry, bytes) = if fits { (entry, bytes) } else { (overflow, 0) };
        state.overflowed = !fits;
        state.add(entry, bytes);
        let receiver = state.receiver.take();
        drop(state);
        wake(receiver);
    }

    /// Lets no more than so many bytes wait from now on. What waits already stays.
    pub(crate) fn let_wait_at_most(&self, max_bytes: u64) {
        self.state.lock().max_bytes = max_bytes;
    }

    /// Adds news that must not get lost, of which there are few.
    pub(crate) fn push_news(&self, news: T) {
        let mut state = self.state.lock();
        state.add(news, 0);
        let receiver = state.receiver.take();
        drop(state);
        wake(receiver);
    }

    /// The next entry, or a wake-up of this task when there is one.
    pub(crate) fn poll_take(&self, cx: &mut Context<'_>) -> Poll<T> {
        let mut state = self.state.lock();
        match state.take() {
            Some(entry) => Poll::Ready(entry),
            None => {
                state.receiver = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// The next entry, if there is one.
    pub(crate) fn try_take(&self) -> Option<T> {
        self.state.lock().take()
    }
}

impl<T> State<T> {
    fn add(&mut self, entry: T, bytes: u64) {
        self.waiting.push_back((entry, bytes));
    }

    fn take(&mut self) -> Option<T> {
        let (entry, bytes) = self.waiting.pop_front()?;
        self.share.shrink(bytes);
        if self.waiting.is_empty() && self.waiting.capacity() > KEPT_CAPACITY {
            self.waiting = VecDeque::new();
        }
        Some(entry)
    }
}

fn wake(receiver: Option<Waker>) {
    if let Some(receiver) = receiver {
        receiver.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Budget;

    #[test]
    fn what_is_too_much_is_replaced_and_what_follows_is_dropped_but_news_are_not() {
        let budget = Budget::new(u64::MAX);
        let inbox = Inbox::new(budget.share(), 10);
        inbox.push("a", 6, "overflow");
        inbox.push("b", 5, "overflow");
        inbox.push("c", 1, "overflow");
        inbox.push_news("ended");
        assert_eq!(budget.waiting_bytes(), 6);
        let all: Vec<_> = std::iter::from_fn(|| inbox.try_take()).collect();
        assert_eq!(all, ["a", "overflow", "ended"]);
        assert_eq!(budget.waiting_bytes(), 0);
    }

    #[test]
    fn the_budget_of_the_process_counts_too_and_gets_everything_back() {
        let budget = Budget::new(0);
        let inbox = Inbox::new(budget.share(), u64::MAX);
        inbox.push("fits", protocol::limits::WAITING_FREE_BYTES, "overflow");
        inbox.push("too much", 1, "overflow");
        assert_eq!(budget.waiting_bytes(), protocol::limits::WAITING_FREE_BYTES);
        assert_eq!((inbox.try_take(), inbox.try_take()), (Some("fits"), Some("overflow")));
        inbox.push("late", 1, "overflow");
        assert_eq!(inbox.try_take(), None);
        drop(inbox);
        assert_eq!(budget.waiting_bytes(), 0);
    }

    #[tokio::test]
    async fn the_receiver_is_woken_whichever_task_it_has_moved_to() {
        let inbox = std::sync::Arc::new(Inbox::new(Budget::new(0).share(), 10));
        let take = |inbox: std::sync::Arc<Inbox<u8>>| async move { std::future::poll_fn(|cx| inbox.poll_take(cx)).await };
        let first = tokio::spawn(take(inbox.clone()));
        tokio::task::yield_now().await;
        first.abort();
        let second = tokio::spawn(take(inbox.clone()));
        tokio::task::yield_now().await;
        inbox.push(7, 1, 0);
        assert_eq!(second.await.unwrap(), 7);
    }
}
