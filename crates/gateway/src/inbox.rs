//! What waits for one request: a queue that takes no memory while it is empty, because most sockets are silent.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use protocol::envoy::ToRivetTunnelMessageKind;

use crate::budget::Share;

/// What a waiting frame takes besides its payload, in bytes, roughly.
const FRAME_OVERHEAD_BYTES: usize = 256;
/// Room that an empty queue keeps for what comes next, in entries.
const KEPT_CAPACITY: usize = 8;

/// The queue of one request, with any number of senders and one receiver.
pub(crate) struct Inbox<T> {
    state: Mutex<State<T>>,
}

/// What an entry costs, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cost {
    /// Of what its sender may let wait in this queue.
    pub(crate) counted: u64,
    /// Memory, roughly: of what may wait in the whole process. A sender within its bound can make this far more than
    /// `counted`, with a million chunks of one byte.
    pub(crate) held: u64,
}

impl Cost {
    const NOTHING: Self = Self { counted: 0, held: 0 };

    /// Of a frame from an actor's host.
    pub(crate) fn of_frame(kind: &ToRivetTunnelMessageKind) -> Self {
        let mut is_bounded_by_credit = false;
        let payload = match kind {
            ToRivetTunnelMessageKind::ResponseStart(start) => {
                let of_header = |(name, value): (&str, &String)| name.len() + value.len() + size_of::<(String, String)>();
                start.body.as_ref().map_or(0, bytes::Bytes::len) + start.headers.iter().map(of_header).sum::<usize>()
            }
            ToRivetTunnelMessageKind::ResponseChunk(chunk) => {
                // An empty one needs no credit.
                is_bounded_by_credit = !chunk.body.is_empty();
                chunk.body.len()
            }
            ToRivetTunnelMessageKind::ResponseAbort(abort) => abort.reason.detail.as_ref().map_or(0, String::len),
            ToRivetTunnelMessageKind::WebSocketMessage { data, .. } => data.len(),
            ToRivetTunnelMessageKind::WebSocketClose { reason, .. } => reason.as_ref().map_or(0, String::len),
            ToRivetTunnelMessageKind::RequestBodyWindowUpdate { .. }
            | ToRivetTunnelMessageKind::RequestBodyCancel
            | ToRivetTunnelMessageKind::WebSocketOpen { .. }
            | ToRivetTunnelMessageKind::WebSocketMessageAck { .. } => 0,
        };
        let held = (payload + FRAME_OVERHEAD_BYTES) as u64;
        // A host has been promised its whole window, however small its chunks are (`spec/gateway.md` 14.2).
        Self { counted: if is_bounded_by_credit { payload as u64 } else { held }, held }
    }
}

struct State<T> {
    waiting: VecDeque<(T, Cost)>,
    counted: u64,
    share: Share,
    max_bytes: u64,
    overflowed: bool,
    receiver: Option<Waker>,
}

impl<T> Inbox<T> {
    /// An empty queue that counts up to `max_bytes`. What it holds comes out of a share of what may wait in the whole process.
    pub(crate) fn new(share: Share, max_bytes: u64) -> Self {
        let state = State { waiting: VecDeque::new(), counted: 0, share, max_bytes, overflowed: false, receiver: None };
        Self { state: Mutex::new(state) }
    }

    /// Adds something of a size that its sender chooses. When that is too much, `overflow` is added in its place, and all
    /// later ones are dropped.
    pub(crate) fn push(&self, entry: T, cost: Cost, overflow: T) {
        let mut state = self.state.lock();
        if state.overflowed {
            return;
        }
        let fits = state.counted + cost.counted <= state.max_bytes && state.share.grow(cost.held).is_ok();
        let (entry, cost) = if fits { (entry, cost) } else { (overflow, Cost::NOTHING) };
        state.overflowed = !fits;
        state.add(entry, cost);
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
        state.add(news, Cost::NOTHING);
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
    fn add(&mut self, entry: T, cost: Cost) {
        self.counted += cost.counted;
        self.waiting.push_back((entry, cost));
    }

    fn take(&mut self) -> Option<T> {
        let (entry, cost) = self.waiting.pop_front()?;
        self.counted -= cost.counted;
        self.share.shrink(cost.held);
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
    use protocol::envoy::{BodyChunk, HttpStreamAbortReason, HttpStreamAbortReasonKind, ResponseAbort, ResponseStart};

    use super::*;
    use crate::budget::Budget;

    fn bytes(bytes: u64) -> Cost {
        Cost { counted: bytes, held: bytes }
    }

    #[test]
    fn what_is_too_much_is_replaced_and_what_follows_is_dropped_but_news_are_not() {
        let budget = Budget::new(u64::MAX);
        let inbox = Inbox::new(budget.share(), 10);
        inbox.push("a", bytes(6), "overflow");
        inbox.push("b", bytes(5), "overflow");
        inbox.push("c", bytes(1), "overflow");
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
        inbox.push("fits", bytes(protocol::limits::WAITING_FREE_BYTES), "overflow");
        inbox.push("too much", bytes(1), "overflow");
        assert_eq!(budget.waiting_bytes(), protocol::limits::WAITING_FREE_BYTES);
        assert_eq!((inbox.try_take(), inbox.try_take()), (Some("fits"), Some("overflow")));
        inbox.push("late", bytes(1), "overflow");
        assert_eq!(inbox.try_take(), None);
        drop(inbox);
        assert_eq!(budget.waiting_bytes(), 0);
    }

    #[test]
    fn frames_cost_what_a_host_can_make_large() {
        let text = "x".repeat(1_000);
        let chunk = |body: &'static str| ToRivetTunnelMessageKind::ResponseChunk(BodyChunk { body: body.into(), finish: false });
        assert_eq!(Cost::of_frame(&chunk("")), bytes(256));
        assert_eq!(Cost::of_frame(&chunk("x")), Cost { counted: 1, held: 257 });
        let message = ToRivetTunnelMessageKind::WebSocketMessage { data: "x".into(), binary: false };
        assert_eq!(Cost::of_frame(&message), bytes(257));
        let close = ToRivetTunnelMessageKind::WebSocketClose { code: None, reason: Some(text.clone()), hibernate: false };
        assert_eq!(Cost::of_frame(&close), bytes(1_256));
        let reason = HttpStreamAbortReason { kind: HttpStreamAbortReasonKind::Cancelled, detail: Some(text.clone()) };
        let abort = ToRivetTunnelMessageKind::ResponseAbort(ResponseAbort { reason });
        assert_eq!(Cost::of_frame(&abort), bytes(1_256));
        let headers = [("a".to_owned(), text)].into_iter().collect();
        let start = ResponseStart { status: 200, headers, body: Some("body".into()), stream: true };
        assert_eq!(Cost::of_frame(&ToRivetTunnelMessageKind::ResponseStart(start)), bytes(1_256 + 1 + 48 + 4));
    }

    #[test]
    fn what_is_held_is_bounded_by_the_budget_and_what_is_counted_by_the_queue() {
        let cost = Cost { counted: 1, held: 1_000 };
        let budget = Budget::new(34_464);
        let inbox = Inbox::new(budget.share(), 200);
        for entry in 0..101 {
            inbox.push(Some(entry), cost, None);
        }
        // 64 KiB are free, and 34,464 bytes more are there.
        assert_eq!(budget.waiting_bytes(), 100_000);
        let all: Vec<_> = std::iter::from_fn(|| inbox.try_take()).collect();
        assert_eq!((all.len(), all[99], all[100]), (101, Some(99), None));

        let inbox = Inbox::new(Budget::new(u64::MAX).share(), 3);
        for entry in 0..1_000 {
            inbox.push(Some(entry), cost, None);
            if entry < 996 {
                assert_eq!(inbox.try_take(), Some(Some(entry)), "what was taken counts no more");
            }
        }
        let all: Vec<_> = std::iter::from_fn(|| inbox.try_take()).collect();
        assert_eq!(all, [Some(996), Some(997), Some(998), None]);
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
        inbox.push(7, bytes(1), 0);
        assert_eq!(second.await.unwrap(), 7);
    }
}
