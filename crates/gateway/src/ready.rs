//! Waiting until an actor takes requests (`spec/gateway.md` 11).

use protocol::id::ActorId;
use protocol::limits;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::directory::{ActorView, Directory, Readiness};
use crate::error::GatewayError;
use crate::handler::Shared;
use crate::link::EnvoyLink;
use crate::metrics::ReadyWait;

/// Where a request is forwarded to.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    pub(crate) generation: u32,
    pub(crate) link: EnvoyLink,
    /// Whether the generation takes requests. If not, the request must not name it: hosts refuse requests for exactly a
    /// generation that they were told to stop (`spec/envoy-protocol.md` 12).
    pub(crate) is_ready: bool,
}

/// What a request waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WaitFor {
    /// The actor takes requests.
    Ready,
    /// Some host has the actor, be it starting or stopping: for requests that skip the wait for *ready*.
    Host,
    /// A generation after this one takes requests: for sockets that have outlived it.
    ReadyAfter(u32),
}

impl WaitFor {
    /// Whether a generation that takes requests is what is waited for.
    fn accepts(self, generation: u32) -> bool {
        match self {
            Self::Ready | Self::Host => true,
            Self::ReadyAfter(outlived) => generation > outlived,
        }
    }
}

/// An actor that is being watched for one request.
pub(crate) struct Watched {
    pub(crate) actor: ActorId,
    view: watch::Receiver<ActorView>,
}

impl Watched {
    pub(crate) async fn new<D: Directory>(directory: &D, actor: ActorId) -> Result<Self, GatewayError> {
        let view = directory.watch(actor).await?.ok_or(GatewayError::ActorNotFound)?;
        match view.borrow().readiness {
            Readiness::Destroyed => return Err(GatewayError::ActorNotFound),
            Readiness::NotReady | Readiness::Hosted { .. } | Readiness::Ready { .. } => {}
        }
        Ok(Self { actor, view })
    }

    /// Waits for the actor, waking it as often as it stops meanwhile, up to the limit. One absolute deadline.
    pub(crate) async fn ready<D: Directory>(
        &mut self,
        shared: &Shared<D>,
        wait_for: WaitFor,
        deadline: Instant,
    ) -> Result<Route, GatewayError> {
        let waiting = ReadyWait::new(&shared.metrics);
        let ready = self.wait(&*shared.directory, wait_for, deadline).await;
        waiting.ends(&ready);
        ready
    }

    async fn wait<D: Directory>(&mut self, directory: &D, wait_for: WaitFor, deadline: Instant) -> Result<Route, GatewayError> {
        let mut wakes = 0;
        let mut ended_when_woken = None;
        loop {
            let view = self.view.borrow_and_update().clone();
            match view.readiness {
                Readiness::Ready { generation, link: Some(link) } if wait_for.accepts(generation) && !link.is_closed() => {
                    return Ok(Route { generation, link, is_ready: true });
                }
                Readiness::Hosted { generation, link: Some(link) } if wait_for == WaitFor::Host && !link.is_closed() => {
                    return Ok(Route { generation, link, is_ready: false });
                }
                // The host is out of touch: it reconnects, or the actor will be declared lost and end. Or the generation has
                // been outlived although it still runs: it has announced its sleep.
                Readiness::Ready { .. } => {}
                Readiness::Hosted { .. } if wait_for == WaitFor::Host => {}
                Readiness::Destroyed => return Err(GatewayError::DestroyedWhileWaiting),
                Readiness::NotReady | Readiness::Hosted { .. } if ended_when_woken == Some(view.ended_generations) => {}
                Readiness::NotReady | Readiness::Hosted { .. } => {
                    if wakes > limits::WAKE_RETRIES_MAX {
                        let actor_id = self.actor.to_string();
                        return Err(GatewayError::WakeRetriesExceeded { actor_id, wake_retries: limits::WAKE_RETRIES_MAX });
                    }
                    wakes += 1;
                    ended_when_woken = Some(view.ended_generations);
                    directory.wake(self.actor);
                }
            }
            self.next_change(deadline).await?;
        }
    }

    /// Waits for any change of the actor's state, or the deadline.
    pub(crate) async fn next_change(&mut self, deadline: Instant) -> Result<(), GatewayError> {
        match timeout_at(deadline, self.view.changed()).await {
            Ok(Ok(())) => Ok(()),
            // The sender lives in the engine's table of actors, which outlives its watchers except at shutdown.
            Ok(Err(_)) => Err(GatewayError::GoingAway),
            Err(_) => Err(GatewayError::ActorReadyTimeout { actor_id: self.actor.to_string() }),
        }
    }

    /// Waits for the next change, however long it takes. `None` when the engine shuts down.
    pub(crate) async fn next_view(&mut self) -> Option<ActorView> {
        self.view.changed().await.ok()?;
        Some(self.view.borrow_and_update().clone())
    }

    /// The present state.
    pub(crate) fn view(&mut self) -> ActorView {
        self.view.borrow_and_update().clone()
    }
}

/// How long a retry waits for the news that made the previous attempt fail.
const NEWS_DELAY: std::time::Duration = std::time::Duration::from_millis(100);

impl Watched {
    /// Waits a little for the actor's state to change.
    pub(crate) async fn changed_soon(&mut self) {
        let _ = self.next_change(Instant::now() + NEWS_DELAY).await;
    }
}
