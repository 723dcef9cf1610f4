//! What a client still sends although its answer is on the way.

use protocol::limits;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::upload::FromClient;
use crate::metrics::Metrics;

/// As long as this exists, the answer is on its way to the client.
pub(super) type Answering = oneshot::Sender<()>;

/// Reads the rest of a request's body and throws it away. A connection that closes before its client has sent everything
/// takes the answer with it, and some clients read no answer before they have sent everything; so this begins at once, and
/// goes on for a while after the answer was written.
pub(super) fn discard(rest: FromClient, metrics: &Metrics) -> Answering {
    let task = metrics.tasks.hold();
    let (answering, answered) = oneshot::channel();
    tokio::spawn(async move {
        let _task = task;
        read_on(rest, answered).await;
    });
    answering
}

async fn read_on(mut rest: FromClient, mut answered: oneshot::Receiver<()>) {
    rest.allow_a_whole_body_more();
    let end = loop {
        tokio::select! {
            biased;
            _ = &mut answered => break Instant::now() + limits::EARLY_ANSWER_LINGER,
            read = rest.read() => if !matches!(read, Ok(Some(_))) {
                // It has ended, or has no end that anybody waits for. Letting go of it closes the connection, so the
                // answer comes first.
                let _ = answered.await;
                return;
            },
        }
    };
    while let Ok(Ok(Some(_))) = timeout_at(end.min(Instant::now() + limits::EARLY_ANSWER_SILENCE), rest.read()).await {}
}
