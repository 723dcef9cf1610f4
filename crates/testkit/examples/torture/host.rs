//! Hosts that speak the protocol themselves. They outlive the engine, or do not, as they are told.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use protocol::envoy::{
    ActorCheckpoint, Command, CommandWrapper, Event, EventWrapper, Headers, MessageId, ResponseStart, ToEnvoy,
    ToEnvoyTunnelMessage, ToEnvoyTunnelMessageKind, ToRivet, ToRivetAckCommands, ToRivetTunnelMessage, ToRivetTunnelMessageKind,
};
use testkit::envoy::{EnvoyParams, FakeEnvoy, Run, headers_of, running, stopped};
use testkit::in_time;
use tokio::sync::{mpsc, oneshot, watch};

/// Where an actor is, as its hosts know it.
#[derive(Clone)]
pub(crate) enum Place {
    Nowhere,
    Running(Running),
}

/// A generation of an actor on its host.
#[derive(Clone)]
pub(crate) struct Running {
    pub(crate) generation: u32,
    pub(crate) host: Line,
}

/// All actors of these hosts.
#[derive(Clone, Default)]
pub(crate) struct Actors(Arc<Mutex<HashMap<String, watch::Sender<Place>>>>);

impl Actors {
    /// Where the actor is, from now on.
    pub(crate) fn watch(&self, actor_id: &str) -> watch::Receiver<Place> {
        self.0.lock().entry(actor_id.to_owned()).or_insert_with(|| watch::Sender::new(Place::Nowhere)).subscribe()
    }

    fn set(&self, actor_id: &str, place: Place) {
        self.0.lock().entry(actor_id.to_owned()).or_insert_with(|| watch::Sender::new(Place::Nowhere)).send_replace(place);
    }

    fn runs(&self, run: &Run) -> bool {
        let actors = self.0.lock();
        let Some(place) = actors.get(&run.actor_id) else { return false };
        matches!(&*place.borrow(), Place::Running(running) if running.generation == run.generation)
    }
}

/// Waits until the actor runs.
pub(crate) async fn until_running(actor: &mut watch::Receiver<Place>) -> Running {
    let place = in_time("the actor to run", actor.wait_for(|place| matches!(place, Place::Running(_)))).await;
    match &*place.expect("the book of all actors") {
        Place::Running(running) => running.clone(),
        Place::Nowhere => unreachable!("waited for"),
    }
}

/// A host's connection, for those who ask the engine for something.
#[derive(Clone, Default)]
pub(crate) struct Line(Arc<Mutex<LineState>>);

#[derive(Default)]
struct LineState {
    /// While there is a connection.
    out: Option<mpsc::UnboundedSender<ToRivet>>,
    next_request: u32,
    waiting: HashMap<u32, oneshot::Sender<ToEnvoy>>,
}

impl Line {
    /// Sends a request with the next number. The answer never comes when the connection has ended, or ends before.
    pub(crate) fn ask(&self, request: impl FnOnce(u32) -> ToRivet) -> oneshot::Receiver<ToEnvoy> {
        let (tell, answer) = oneshot::channel();
        let mut state = self.0.lock();
        let request_id = state.next_request;
        state.next_request = state.next_request.wrapping_add(1);
        let message = request(request_id);
        if state.out.as_ref().is_some_and(|out| out.send(message).is_ok()) {
            state.waiting.insert(request_id, tell);
        }
        answer
    }

    fn open(&self, out: mpsc::UnboundedSender<ToRivet>) {
        self.0.lock().out = Some(out);
    }

    fn answered(&self, request_id: u32, answer: ToEnvoy) {
        let waiting = self.0.lock().waiting.remove(&request_id);
        // Whoever asked may have stopped listening.
        let _ = waiting.expect("the engine answers each request once").send(answer);
    }

    fn close(&self) {
        let mut state = self.0.lock();
        state.out = None;
        state.waiting.clear();
    }
}

/// A host process, in so far as the engine can tell.
pub(crate) struct RawHost {
    params: EnvoyParams,
    line: Line,
    actors: Actors,
    runs: BTreeMap<(String, u32), Reported>,
}

/// The events of a generation.
#[derive(Default)]
struct Reported {
    next_index: i64,
    unacknowledged: VecDeque<(i64, Event)>,
    has_stopped: bool,
}

impl RawHost {
    pub(crate) fn new(pool: &str, actors: &Actors) -> Self {
        let params = EnvoyParams::new().pool(pool);
        Self { params, line: Line::default(), actors: actors.clone(), runs: BTreeMap::new() }
    }

    /// Connects, says again what was not acknowledged, and serves until the connection has ended, or is to be cut. Says when it
    /// is connected.
    pub(crate) async fn serve(
        mut self,
        address: SocketAddr,
        connected: oneshot::Sender<()>,
        mut cut: watch::Receiver<bool>,
    ) -> Self {
        let mut envoy = FakeEnvoy::join(address, &self.params).await;
        let (out, mut to_send) = mpsc::unbounded_channel();
        for (run, reported) in &self.runs {
            for (index, event) in &reported.unacknowledged {
                envoy.event_at(&Run { actor_id: run.0.clone(), generation: run.1 }, *index, event.clone());
            }
        }
        self.line.open(out);
        // Nobody waits at the end of a run.
        let _ = connected.send(());
        loop {
            tokio::select! {
                // What is to be sent goes first: it was there before whatever is received now is obeyed.
                biased;
                Some(message) = to_send.recv() => envoy.send(&message),
                message = envoy.any() => match message {
                    Some(message) => self.take(&envoy, message),
                    None => break,
                },
                _ = cut.wait_for(|cut| *cut) => break,
            }
        }
        self.line.close();
        self
    }

    /// The host is gone, and so are its actors.
    pub(crate) fn die(self) {
        for (actor_id, generation) in self.runs.into_keys() {
            let run = Run { actor_id, generation };
            if self.actors.runs(&run) {
                self.actors.set(&run.actor_id, Place::Nowhere);
            }
        }
    }

    fn take(&mut self, envoy: &FakeEnvoy, message: ToEnvoy) {
        match message {
            ToEnvoy::Commands(commands) => {
                for CommandWrapper { checkpoint, inner } in commands {
                    self.obey(envoy, checkpoint, &inner);
                }
            }
            ToEnvoy::AckEvents(acknowledged) => {
                for ActorCheckpoint { actor_id, generation, index } in acknowledged.last_event_checkpoints {
                    if let Some(reported) = self.runs.get_mut(&(actor_id, generation)) {
                        reported.unacknowledged.retain(|(reported, _)| *reported > index);
                    }
                }
            }
            ToEnvoy::TunnelMessage(message) => self.answer_request(envoy, message),
            ToEnvoy::KvResponse { request_id, .. }
            | ToEnvoy::SqliteGetPages { request_id, .. }
            | ToEnvoy::SqliteCommit { request_id, .. }
            | ToEnvoy::SqliteCommitStageBegin { request_id, .. }
            | ToEnvoy::SqliteCommitStageSegment { request_id, .. }
            | ToEnvoy::SqliteCommitFinalize { request_id, .. }
            | ToEnvoy::SqliteExec { request_id, .. }
            | ToEnvoy::SqliteExecute { request_id, .. }
            | ToEnvoy::SqliteExecuteBatch { request_id, .. } => self.line.answered(request_id, message),
            ToEnvoy::Init(_) | ToEnvoy::Ping { .. } => {}
        }
    }

    fn obey(&mut self, envoy: &FakeEnvoy, checkpoint: ActorCheckpoint, command: &Command) {
        let run = Run { actor_id: checkpoint.actor_id.clone(), generation: checkpoint.generation };
        let last_command_checkpoints = vec![checkpoint];
        envoy.send(&ToRivet::AckCommands(ToRivetAckCommands { last_command_checkpoints }));
        let is_known = self.runs.contains_key(&(run.actor_id.clone(), run.generation));
        match command {
            // An acknowledgement may be lost, and the command comes again.
            Command::StartActor(_) if is_known => {}
            Command::StartActor(_) => {
                self.report(envoy, &run, running());
                let place = Running { generation: run.generation, host: self.line.clone() };
                self.actors.set(&run.actor_id, Place::Running(place));
            }
            Command::StopActor(_) => self.stop(envoy, &run),
        }
    }

    fn stop(&mut self, envoy: &FakeEnvoy, run: &Run) {
        let reported = self.runs.entry((run.actor_id.clone(), run.generation)).or_default();
        if reported.has_stopped {
            return;
        }
        reported.has_stopped = true;
        // Before it is reported: whoever is refused from then on knows why.
        if self.actors.runs(run) {
            self.actors.set(&run.actor_id, Place::Nowhere);
        }
        self.report(envoy, run, stopped());
    }

    fn report(&mut self, envoy: &FakeEnvoy, run: &Run, event: Event) {
        let reported = self.runs.entry((run.actor_id.clone(), run.generation)).or_default();
        let index = reported.next_index;
        reported.next_index += 1;
        reported.unacknowledged.push_back((index, event.clone()));
        let checkpoint = ActorCheckpoint { actor_id: run.actor_id.clone(), generation: run.generation, index };
        envoy.send(&ToRivet::Events(vec![EventWrapper { checkpoint, inner: event }]));
    }

    /// Every request to an actor that runs here is answered at once.
    fn answer_request(&self, envoy: &FakeEnvoy, ToEnvoyTunnelMessage { message_id, message_kind }: ToEnvoyTunnelMessage) {
        let ToEnvoyTunnelMessageKind::RequestStart(request) = message_kind else { return };
        let runs_here = self.runs.iter().any(|((actor_id, generation), reported)| {
            *actor_id == request.actor_id
                && !reported.has_stopped
                && request.actor_generation.is_none_or(|wanted| wanted == *generation)
        });
        let (status, headers) = match runs_here {
            true => (200, Headers::default()),
            false => (503, headers_of(&[("x-rivet-error", "envoy.actor_not_found")])),
        };
        let head = ResponseStart { status, headers, body: Some(Bytes::new()), stream: false };
        let message_id = MessageId { message_index: 0, ..message_id };
        let message_kind = ToRivetTunnelMessageKind::ResponseStart(head);
        envoy.send(&ToRivet::TunnelMessage(ToRivetTunnelMessage { message_id, message_kind }));
    }
}
