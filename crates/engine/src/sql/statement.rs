//! Running one statement, on a thread that may block.

use std::sync::Arc;
use std::time::Duration;

use gateway::metrics::Held;
use protocol::envoy::SqliteErrorResponse;
use protocol::id::ActorId;
use sqlite_vfs::{Charge, Session, SessionError};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::cancel::{Cancel, Reason};
use super::error::SqlError;
use super::pages::{ActorPages, Head};
use super::request::{SqlReply, SqlRequest};
use super::table::{Left, Loss, Owner};
use super::{Shared, close};

/// An open session.
pub(super) struct Open {
    // First: the place is free only when the database is closed, and no longer counted.
    session: Session,
    pub(super) head: Arc<Head>,
    _counted: Held,
    _place: OwnedSemaphorePermit,
}

/// An actor's session, or the right to open it, in the hands of one statement. Dropping it puts back whatever there is.
pub(super) struct Claim {
    pub(super) shared: Arc<Shared>,
    pub(super) actor: ActorId,
    pub(super) owner: Owner,
    pub(super) cancel: Arc<Cancel>,
    pub(super) session: Option<Open>,
    pub(super) head: Arc<Head>,
    /// What every later statement of this generation is answered.
    pub(super) poison: Option<SqliteErrorResponse>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        let session = self.session.take();
        let loss = session.as_ref().map_or(Loss::Nothing, |open| loss_of(&open.session));
        let left = Left { session, head: self.head.get(), loss, poison: self.poison.take() };
        let closed = self.shared.table.lock().put_back(self.actor, left, Instant::now());
        close(closed);
        self.shared.idle_changed.notify_one();
    }
}

fn loss_of(session: &Session) -> Loss {
    if session.in_transaction() {
        Loss::Transaction
    } else if session.has_own_state() {
        Loss::OwnState
    } else {
        Loss::Nothing
    }
}

/// A statement that may begin.
pub(super) struct Statement {
    pub(super) claim: Claim,
    /// Where its session may be opened, if it is not.
    pub(super) place: Option<OwnedSemaphorePermit>,
    pub(super) request: Arc<SqlRequest>,
    /// The version in which the answer is encoded.
    pub(super) protocol_version: u16,
    /// What it had in all.
    pub(super) timeout: Duration,
    pub(super) _thread: OwnedSemaphorePermit,
    pub(super) _counted: Held,
}

impl Statement {
    /// Runs it, and says what its reply takes of the memory for results. Blocks; must be called within a runtime.
    pub(super) fn run(mut self) -> Result<(SqlReply, Charge), SqlError> {
        // In nobody's hands but this function's: after a panic it is closed.
        let mut open = match self.claim.session.take() {
            Some(open) => open,
            None => self.open()?,
        };
        // What holds if the session is lost: an instance must not go on in the middle of a transaction that is gone.
        self.claim.poison = open.session.in_transaction().then(|| SqlError::TransactionLost.into());
        match self.run_on(&mut open.session) {
            Err(SessionError::Lost) => Err(SqlError::Failed(SessionError::Lost)),
            ran => {
                self.claim.session = Some(open);
                self.claim.poison = None;
                ran.map_err(|error| self.failed(error))
            }
        }
    }

    fn open(&mut self) -> Result<Open, SqlError> {
        let Claim { shared, actor, owner, head, .. } = &self.claim;
        let place = self.place.take().ok_or(SqlError::Over)?;
        let pages = ActorPages::new(shared.data.clone(), *actor, *owner, head.clone());
        let opened = Session::open(pages, shared.options.clone());
        let session = opened.map_err(|error| self.failed(error))?;
        let Claim { shared, head, .. } = &self.claim;
        shared.metrics.opened.inc();
        Ok(Open { session, head: head.clone(), _counted: shared.metrics.sessions.hold(), _place: place })
    }

    fn run_on(&self, session: &mut Session) -> Result<(SqlReply, Charge), SessionError> {
        let interrupter = session.interrupter();
        // Of an earlier statement: whoever has interrupted that one cannot mean this one.
        interrupter.clear();
        self.claim.cancel.arm(move || interrupter.interrupt());
        let message = self.request.run(session)?;
        Ok((SqlReply::new(message, session.result_bytes(), self.protocol_version), session.take_charge()))
    }

    fn failed(&mut self, error: SessionError) -> SqlError {
        match error {
            SessionError::Interrupted => match self.claim.cancel.reason() {
                Some(Reason::Timeout) => SqlError::Timeout(self.timeout),
                Some(Reason::Over) | None => SqlError::Over,
            },
            SessionError::Pages(failure) | SessionError::Poisoned(failure) if failure.is_fence => {
                tracing::warn!(actor_id = %self.claim.actor, error = %failure, "a database that is executed here was changed elsewhere");
                self.claim.poison = Some(failure.answer.clone());
                SqlError::Poisoned(failure.answer)
            }
            error @ (SessionError::Sql { .. }
            | SessionError::ResultTooLarge { .. }
            | SessionError::TransactionTooLarge { .. }
            | SessionError::NoRoomForResult
            | SessionError::Pages(_)
            | SessionError::Poisoned(_)
            | SessionError::Lost) => SqlError::Failed(error),
        }
    }
}
