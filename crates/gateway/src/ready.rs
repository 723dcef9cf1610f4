//! Waiting until an actor takes requests (`spec/gateway.md` 11).

use std::sync::Arc;
use std::time::Duration;

use protocol::id::ActorId;
use protocol::limits;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use crate::directory::{ActorView, Directory, Readiness};
use crate::error::GatewayError;
use crate::handler::Shared;
use crate::link::EnvoyLink;
use crate::metrics::ReadyWait;
use crate::obstacle::{GenerationEnd, Obstacle, VainWait};

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

/// The time that a request may wait for its actor, over all attempts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WaitTime {
    began: Instant,
    pub(crate) deadline: Instant,
}

impl WaitTime {
    /// Begins now.
    pub(crate) fn of(limit: Duration) -> Self {
        let began = Instant::now();
        Self { began, deadline: began + limit }
    }

    pub(crate) fn is_over(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// When to look next, after now, whether the actor's pool fails (`spec/scheduling.md` 5).
    fn next_look(&self) -> Instant {
        let waited = self.began.elapsed();
        let mut due = limits::POOL_ERROR_FIRST_LOOK;
        if waited >= due {
            let intervals = (waited - due).as_millis() / limits::POOL_ERROR_LOOK_INTERVAL.as_millis();
            due += limits::POOL_ERROR_LOOK_INTERVAL * (intervals as u32 + 1);
        }
        self.began + due
    }
}

/// A wait for an actor that is not ready.
struct Vigil {
    time: WaitTime,
    /// When to look whether the pool fails.
    look_at: Instant,
    wakes: u32,
    /// Generations that had ended when the actor was woken last.
    ended_when_woken: Option<u64>,
    /// Those that had ended when the wait began.
    ended_before: u64,
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

    /// Waits for the actor, waking it as often as it stops meanwhile, up to the limit. One absolute deadline. Fails early when
    /// the actor's pool is failing at one of the moments at which that is looked at.
    pub(crate) async fn ready<D: Directory>(
        &mut self,
        shared: &Shared<D>,
        wait_for: WaitFor,
        time: WaitTime,
    ) -> Result<Route, GatewayError> {
        let waiting = ReadyWait::new(&shared.metrics);
        let ready = self.wait(&*shared.directory, wait_for, time).await;
        waiting.ends(&ready);
        ready
    }

    async fn wait<D: Directory>(&mut self, directory: &D, wait_for: WaitFor, time: WaitTime) -> Result<Route, GatewayError> {
        let ended_before = self.view.borrow().ended_generations;
        let mut vigil = Vigil { time, look_at: time.next_look(), wakes: 0, ended_when_woken: None, ended_before };
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
                Readiness::NotReady | Readiness::Hosted { .. } if vigil.ended_when_woken == Some(view.ended_generations) => {}
                Readiness::NotReady | Readiness::Hosted { .. } => {
                    if vigil.wakes > limits::WAKE_RETRIES_MAX {
                        return Err(self.kept_ending(&vigil));
                    }
                    vigil.wakes += 1;
                    vigil.ended_when_woken = Some(view.ended_generations);
                    directory.wake(self.actor);
                }
            }
            self.next_change(directory, &mut vigil).await?;
        }
    }

    /// Waits for any change of the actor's state, or a reason to give up.
    async fn next_change<D: Directory>(&mut self, directory: &D, vigil: &mut Vigil) -> Result<(), GatewayError> {
        loop {
            let now = Instant::now();
            if now >= vigil.look_at {
                vigil.look_at = vigil.time.next_look();
                if let Some(failing @ Obstacle::PoolFailing { .. }) = directory.obstacle(self.actor) {
                    let in_vain = self.in_vain(vigil.time, Some(failing), self.last_end(vigil));
                    return Err(GatewayError::RunnerFailed(Box::new(in_vain)));
                }
            }
            if now >= vigil.time.deadline {
                return Err(self.timed_out(directory, vigil.time, self.last_end(vigil)));
            }
            match timeout_at(vigil.look_at.min(vigil.time.deadline), self.view.changed()).await {
                Ok(Ok(())) => return Ok(()),
                // The sender lives in the engine's table of actors, which outlives its watchers except at shutdown.
                Ok(Err(_)) => return Err(GatewayError::GoingAway),
                Err(_) => {}
            }
        }
    }

    fn kept_ending(&self, vigil: &Vigil) -> GatewayError {
        GatewayError::WakeRetriesExceeded {
            actor_id: self.actor.to_string(),
            wake_retries: limits::WAKE_RETRIES_MAX,
            last_end: self.last_end(vigil),
        }
    }

    /// The failure of a request whose time is over.
    pub(crate) fn timed_out<D: Directory>(
        &self,
        directory: &D,
        time: WaitTime,
        last_end: Option<Arc<GenerationEnd>>,
    ) -> GatewayError {
        let obstacle = directory.obstacle(self.actor);
        GatewayError::ActorReadyTimeout(Box::new(self.in_vain(time, obstacle, last_end)))
    }

    fn in_vain(&self, time: WaitTime, obstacle: Option<Obstacle>, last_end: Option<Arc<GenerationEnd>>) -> VainWait {
        VainWait { actor: self.actor, waited: time.began.elapsed(), obstacle, last_end }
    }

    /// How the last generation ended, if one did during the wait.
    fn last_end(&self, vigil: &Vigil) -> Option<Arc<GenerationEnd>> {
        let view = self.view.borrow();
        view.last_end.clone().filter(|_end| view.ended_generations > vigil.ended_before)
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

    /// Waits a little for the actor's state to change.
    pub(crate) async fn changed_soon(&mut self) {
        // Whoever asks again finds out what has become of the actor, be it nothing.
        let _ = timeout(NEWS_DELAY, self.view.changed()).await;
    }
}

/// How long a retry waits for the news that made the previous attempt fail.
const NEWS_DELAY: Duration = Duration::from_millis(100);
