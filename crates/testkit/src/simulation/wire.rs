//! Host processes and their connections: messages take their time, get lost with their connection, and never overtake each
//! other within one.

use engine::simulation::{FromEngine, HostEnd};
use protocol::envoy::{Command, CommandWrapper, EventWrapper, PROTOCOL_VERSION, ToEnvoy, ToRivet};
use protocol::id::ActorId;

use super::Planted;
use super::host::{Around, Effect, Host, HostTimer};
use super::settings::LOST_THRESHOLD_MS;
use super::world::{Connection, ConnectionId, Due, HostId, News, Process, World};

impl World {
    /// Starts a host process.
    pub(super) fn spawn_host(&mut self, pool: &'static str, version: u32) -> HostId {
        let id = self.processes.len();
        let host = Host::new(format!("host-{id}"), pool, version);
        self.note(format_args!("{} of pool {pool} starts with version {version}", host.name));
        self.processes.push(Process { host, is_alive: true, connection: None, attempts: 0, frozen: None });
        let starts_ms = self.chance.between(1, 50);
        self.plan(starts_ms, Due::Connect(id));
        id
    }

    pub(super) fn connect(&mut self, id: HostId) {
        let process = &mut self.processes[id];
        if !process.is_alive || process.connection.is_some() {
            return;
        }
        if let Some(frozen) = &mut process.frozen {
            frozen.push(Due::Connect(id));
            return;
        }
        let name = process.host.name.clone();
        let connected = self.engine.as_ref().map(|engine| engine.connect(&process.host.query()));
        match connected {
            Some(Ok(end)) => {
                process.attempts = 0;
                let connection = self.open(id, end);
                self.note(format_args!("{name} connects (c{connection})"));
                self.books().in_touch(&name);
            }
            Some(Err(refusal)) => self.books().violated(format!("{name} was refused: {refusal}")),
            None => self.connect_later(id),
        }
    }

    fn connect_later(&mut self, id: HostId) {
        let attempts = self.processes[id].attempts;
        self.processes[id].attempts += 1;
        let least_ms = 100 << attempts.min(4);
        let in_ms = self.chance.between(least_ms, least_ms + least_ms / 4);
        self.plan(in_ms, Due::Connect(id));
    }

    fn open(&mut self, host: HostId, end: HostEnd) -> ConnectionId {
        let id = self.connections.len();
        let HostEnd { frames, mut messages } = end;
        let delay_ms = if self.chance.one_in(5) { self.chance.between(20, 400) } else { self.chance.between(0, 5) };
        self.connections.push(Connection { host, frames: Some(frames), is_cut: false, latest_ms: [0; 2], delay_ms });
        self.processes[host].connection = Some(id);
        let news = self.news.clone();
        tokio::spawn(async move {
            while let Some(message) = messages.recv().await {
                if news.send(News::FromEngine(id, message)).is_err() {
                    return;
                }
            }
        });
        id
    }

    /// When a message arrives that is sent now; after all that were sent before it in the same direction.
    fn arrival_ms(&mut self, id: ConnectionId, direction: usize) -> u64 {
        let delay_ms = self.connections[id].delay_ms;
        let under_way_ms = self.chance.between(delay_ms / 2, delay_ms + delay_ms / 2);
        let now_ms = self.now_ms();
        let latest = &mut self.connections[id].latest_ms[direction];
        *latest = (*latest).max(now_ms + under_way_ms);
        *latest
    }

    pub(super) fn engine_sends(&mut self, id: ConnectionId, message: FromEngine) {
        let host = self.connections[id].host;
        let name = self.processes[host].host.name.clone();
        match &message {
            FromEngine::Message(ToEnvoy::Commands(commands)) => self.note_commands(&name, commands),
            FromEngine::Message(_) => {}
            FromEngine::Closed(reason) => {
                self.note(format_args!("the engine ends c{id} of {name}: {reason:?}"));
                self.engine_loses(id);
            }
        }
        if !self.connections[id].is_cut {
            let at_ms = self.arrival_ms(id, 1);
            self.plan_at(at_ms, Due::AtHost(id, message));
        }
    }

    pub(super) fn note_commands(&mut self, name: &str, commands: &[CommandWrapper]) {
        let mut books = self.ledger.lock();
        for CommandWrapper { checkpoint, inner } in commands {
            let Ok(actor) = checkpoint.actor_id.parse::<ActorId>() else { continue };
            let run = (actor, checkpoint.generation);
            let short = books.log.actor(actor);
            let (generation, index) = (checkpoint.generation, checkpoint.index);
            match inner {
                Command::StartActor(_) => {
                    books.note(format_args!("to {name}: start {short} g{generation} #{index}"));
                    books.start_sent(run, name, index == 0);
                }
                Command::StopActor(stop) => {
                    books.note(format_args!("to {name}: stop {short} g{generation} #{index} {:?}", stop.reason));
                    books.stop_sent(run, index);
                }
            }
        }
    }

    pub(super) async fn arrive_at_engine(&mut self, id: ConnectionId, message: ToRivet) {
        if self.connections[id].is_cut {
            return;
        }
        if let (Some(Planted::StaleEventsBelieved), ToRivet::Events(events)) = (self.planted, &message) {
            self.believe_stale(events).await;
        }
        let frame = message.to_frame(PROTOCOL_VERSION).expect("every message can be expressed in the newest version");
        if let Some(frames) = &self.connections[id].frames {
            // The engine may have ended the connection in the meantime.
            let _ = frames.send(frame);
        }
    }

    async fn believe_stale(&mut self, events: &[EventWrapper]) {
        let Some(engine) = &self.engine else { return };
        for event in events {
            let Ok(actor) = event.checkpoint.actor_id.parse::<ActorId>() else { continue };
            let is_stale = event.checkpoint.generation < self.ledger.lock().generation(actor);
            if is_stale {
                engine.believe_blindly(event).await;
            }
        }
    }

    pub(super) fn arrive_at_host(&mut self, id: ConnectionId, message: FromEngine) {
        let host = self.connections[id].host;
        let process = &mut self.processes[host];
        if !process.is_alive || self.connections[id].is_cut {
            return;
        }
        if let Some(frozen) = &mut process.frozen {
            frozen.push(Due::AtHost(id, message));
            return;
        }
        match message {
            FromEngine::Message(message) => {
                if process.connection == Some(id) {
                    self.with_host(host, |host, around| host.receive(message, around));
                }
            }
            FromEngine::Closed(reason) => {
                let is_eviction = reason.is_some_and(|reason| reason.starts_with("ws.eviction"));
                if is_eviction && self.processes[host].connection == Some(id) {
                    let name = self.processes[host].host.name.clone();
                    self.books().violated(format!("{name} was told to go for good over its only connection"));
                }
                self.host_loses(id);
            }
        }
    }

    /// Lets something happen to a host, and sees to what follows.
    pub(super) fn with_host(&mut self, id: HostId, happen: impl FnOnce(&mut Host, &mut Around<'_>) -> Vec<Effect>) {
        let ledger = self.ledger.clone();
        let effects = {
            let mut around =
                Around { ledger: &mut ledger.lock(), chance: &mut self.chance, mood: self.mood, alarms: &mut self.alarms };
            happen(&mut self.processes[id].host, &mut around)
        };
        for effect in effects {
            match effect {
                Effect::Send(message) => self.send(id, message),
                Effect::After(in_ms, timer) => self.plan(in_ms, Due::Host(id, timer)),
                Effect::Leave => self.leave(id),
            }
        }
        self.endpoint_watches(id);
    }

    fn send(&mut self, id: HostId, message: ToRivet) {
        let Some(connection) = self.processes[id].connection else { return };
        if self.connections[connection].is_cut {
            return;
        }
        if let ToRivet::Events(events) = &message {
            let mut books = self.ledger.lock();
            for event in events {
                let Ok(actor) = event.checkpoint.actor_id.parse::<ActorId>() else { continue };
                let (short, place) = (books.log.actor(actor), &event.checkpoint);
                let name = &self.processes[id].host.name;
                books.note(format_args!("from {name}: {short} g{} #{} {:?}", place.generation, place.index, event.inner));
            }
        }
        let at_ms = self.arrival_ms(connection, 0);
        self.plan_at(at_ms, Due::AtEngine(connection, message));
    }

    pub(super) fn host_timer(&mut self, id: HostId, timer: HostTimer) {
        let process = &mut self.processes[id];
        if !process.is_alive {
            return;
        }
        match &mut process.frozen {
            Some(frozen) => frozen.push(Due::Host(id, timer)),
            None => self.with_host(id, |host, around| host.timer(timer, around)),
        }
    }

    /// A host has stopped in order: it closes its connection and ends.
    fn leave(&mut self, id: HostId) {
        self.note(format_args!("{} leaves", self.processes[id].host.name));
        self.processes[id].is_alive = false;
        if let Some(connection) = self.processes[id].connection.take() {
            let at_ms = self.arrival_ms(connection, 0);
            self.plan_at(at_ms, Due::EngineNotices(connection));
        }
    }

    /// A host process dies. Its machine may live, and then the engine hears of the end of the connection at once.
    pub(super) fn kill_host(&mut self, id: HostId) {
        self.note(format_args!("{} dies", self.processes[id].host.name));
        self.processes[id].is_alive = false;
        self.endpoint_lost(id);
        if let Some(connection) = self.processes[id].connection.take() {
            let notices_ms = if self.chance.one_in(3) { self.chance.between(0, 6_000) } else { 0 };
            self.cut(connection, Some(notices_ms), None);
        }
    }

    /// Cuts a connection. What is under way is lost. Each end notices after a time of its own, if it notices at all.
    pub(super) fn cut(&mut self, id: ConnectionId, engine_notices_ms: Option<u64>, host_notices_ms: Option<u64>) {
        self.connections[id].is_cut = true;
        if let Some(in_ms) = engine_notices_ms {
            self.plan(in_ms, Due::EngineNotices(id));
        }
        if let Some(in_ms) = host_notices_ms {
            self.plan(in_ms, Due::HostNotices(id));
        }
    }

    pub(super) fn engine_loses(&mut self, id: ConnectionId) {
        if self.connections[id].frames.take().is_none() {
            return;
        }
        let host = self.connections[id].host;
        let is_last = !self.connections.iter().any(|other| other.host == host && other.frames.is_some());
        if is_last {
            let name = self.processes[host].host.name.clone();
            self.note(format_args!("the engine has no connection to {name} any more"));
            self.books().out_of_touch(&name);
        }
    }

    pub(super) fn host_loses(&mut self, id: ConnectionId) {
        let host = self.connections[id].host;
        let process = &mut self.processes[host];
        if !process.is_alive || process.connection != Some(id) {
            return;
        }
        if let Some(frozen) = &mut process.frozen {
            frozen.push(Due::HostNotices(id));
            return;
        }
        process.connection = None;
        self.note(format_args!("{} has lost c{id}", self.processes[host].host.name));
        self.with_host(host, |host, _around| host.connection_lost(LOST_THRESHOLD_MS));
        // Who shuts down does not come back (`spec/envoy-protocol.md` 7.6).
        if self.processes[host].host.stopping {
            self.processes[host].is_alive = false;
            self.endpoint_lost(host);
        } else {
            self.connect_later(host);
        }
    }

    pub(super) fn thaw(&mut self, id: HostId) {
        let Some(frozen) = self.processes[id].frozen.take() else { return };
        self.note(format_args!("{} goes on", self.processes[id].host.name));
        for due in frozen {
            self.plan(0, due);
        }
    }
}
