//! What all writers have in common: they write to one actor, wherever it runs, until the engine is killed.

use std::collections::VecDeque;

use protocol::envoy::{SqliteResult, ToEnvoy};
use tokio::sync::{oneshot, watch};

use crate::host::{Place, Running, until_running};
use crate::ledger::{Checked, Content, Counts, Ledger, Violation};

/// Requests of a writer that wait for their answers at the same time.
const IN_FLIGHT: usize = 4;

/// An answer to come; an error once it never will.
pub(crate) type Pending = oneshot::Receiver<ToEnvoy>;

/// Writes to one part of an actor.
pub(crate) trait Writer {
    /// What was asked and is not answered.
    type Asked;
    type Content: Content;

    fn counts(&self) -> Counts;

    fn ledger(&mut self) -> &mut Ledger<Self::Content>;

    /// Where the actor is.
    fn actor(&mut self) -> &mut watch::Receiver<Place>;

    /// A generation begins: what was planned for the last one is forgotten.
    fn begin(&mut self);

    /// Asks for something.
    fn ask_next(&mut self, running: &Running) -> (Self::Asked, Pending);

    /// What an answer means. A refusal without need is an error, unless the generation has stopped meanwhile.
    fn take(&mut self, asked: Self::Asked, answer: ToEnvoy) -> Result<Taken, Violation>;

    /// Reads all that is stored, in one go or in several: as many answers as questions.
    fn ask_all(&self, running: &Running) -> Vec<Pending>;

    /// What the answers to [`Self::ask_all`] say; or why one of them says nothing.
    fn found(answers: Vec<ToEnvoy>) -> Result<Self::Content, String>;
}

/// What an answer was.
pub(crate) enum Taken {
    AsItShould,
    /// Something was refused that could be done, for this reason.
    Refused(String),
}

/// Compares all that is stored with the books.
pub(crate) async fn audit(writer: &mut impl Writer) -> Checked {
    loop {
        let running = until_running(writer.actor()).await;
        let mut answers = Vec::new();
        for answer in writer.ask_all(&running) {
            answers.extend(answer.await.ok());
        }
        match found(writer, answers) {
            Ok(found) => return writer.ledger().audit(found),
            Err(why) => may_be_refused(writer, &running, &why)?,
        }
    }
}

fn found<W: Writer>(_: &W, answers: Vec<ToEnvoy>) -> Result<W::Content, String> {
    W::found(answers)
}

/// Writes until the connection ends. A new generation goes on where the last one was.
pub(crate) async fn load(writer: &mut impl Writer, mut down: watch::Receiver<bool>) -> Checked {
    loop {
        let running = tokio::select! {
            running = until_running(writer.actor()) => running,
            _ = down.wait_for(|down| *down) => return Ok(()),
        };
        writer.begin();
        if load_generation(writer, &running).await? {
            return Ok(());
        }
    }
}

/// Whether the connection has ended; otherwise the generation has.
async fn load_generation(writer: &mut impl Writer, running: &Running) -> Result<bool, Violation> {
    let mut asked = VecDeque::new();
    let mut is_lost = false;
    loop {
        let goes_on = !is_lost && is_current(writer, running);
        while goes_on && asked.len() < IN_FLIGHT {
            asked.push_back(writer.ask_next(running));
        }
        let Some((what, pending)) = asked.pop_front() else { return Ok(is_lost) };
        match pending.await {
            Ok(_) if is_lost => return Err(writer.ledger().violation("a request was answered before the one before it")),
            Ok(answer) => match writer.take(what, answer)? {
                Taken::AsItShould => {}
                Taken::Refused(why) => may_be_refused(writer, running, &why)?,
            },
            Err(_) => is_lost = true,
        }
    }
}

fn is_current(writer: &mut impl Writer, running: &Running) -> bool {
    matches!(&*writer.actor().borrow(), Place::Running(now) if now.generation == running.generation)
}

/// What could be done is refused only to a generation that has stopped.
fn may_be_refused(writer: &mut impl Writer, running: &Running, why: &str) -> Checked {
    match is_current(writer, running) {
        true => Err(writer.ledger().violation(&format!("cannot be done: {why}"))),
        false => Ok(()),
    }
}

/// The answer to a request about a database, or the refusal in words.
pub(crate) fn or_refusal<T>(data: SqliteResult<T>) -> Result<T, String> {
    data.map_err(|error| format!("{}.{}: {}", error.group, error.code, error.message))
}
