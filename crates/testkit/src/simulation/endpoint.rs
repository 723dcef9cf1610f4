//! The endpoint of the serverless pool: start requests lead to hosts, or to nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use engine::simulation::StartOrder;
use lifecycle::Ts;
use lifecycle::actor::Identity;
use lifecycle::pool::PoolError;
use protocol::envoy::CommandWrapper;

use super::host::Mood;
use super::ledger::Run;
use super::settings::{REQUEST_LIFESPAN_MS, SERVERLESS};
use super::world::{Due, HostId, News, World};

/// A step of a start request.
#[derive(Debug, Clone)]
pub(super) enum Request {
    /// It arrives at the endpoint.
    Arrives { identity: Arc<Identity>, generation: u32, began: Ts },
    /// It waits for its host to be connected, which it must be before it takes orders.
    Waits { identity: Arc<Identity>, generation: u32, host: HostId },
    /// Its lifespan is nearly over.
    Ends { run: Run },
}

/// What the endpoint remembers.
#[derive(Debug, Default)]
pub(super) struct Endpoint {
    /// Requests that are open, with the host that holds them; none as long as they are on their way.
    open: BTreeMap<Run, Open>,
}

#[derive(Debug)]
struct Open {
    identity: Arc<Identity>,
    /// When it was made.
    began: Ts,
    host: Option<HostId>,
    /// The host has begun with it.
    has_begun: bool,
}

impl Endpoint {
    /// All requests break with the process that has made them. Hosts go on with what they have.
    pub(super) fn engine_died(&mut self) {
        self.open.clear();
    }
}

impl World {
    /// The engine wants something of the endpoint.
    pub(super) fn ordered(&mut self, order: StartOrder) {
        match order {
            StartOrder::Start { identity, generation } => {
                let run = (identity.actor_id, generation);
                let short = self.books().log.actor(run.0);
                self.note(format_args!("a start request for {short} g{generation}"));
                if self.books().generation(run.0) < generation {
                    self.books().violated(format!("{short}: a request for g{generation} was made before it was durable"));
                }
                let began = self.books().now_ms() as Ts;
                self.endpoint.open.insert(run, Open { identity: identity.clone(), began, host: None, has_begun: false });
                let takes_ms = self.chance.between(1, 60);
                self.plan(takes_ms, Due::Endpoint(Request::Arrives { identity, generation, began }));
            }
            StartOrder::Over { actor, generation } => {
                self.endpoint.open.remove(&(actor, generation));
            }
        }
    }

    pub(super) fn endpoint_acts(&mut self, request: Request) {
        match request {
            Request::Arrives { identity, generation, began } => self.request_arrives(identity, generation, began),
            Request::Waits { identity, generation, host } => self.request_waits(identity, generation, host),
            Request::Ends { run } => {
                if let (Some(engine), true) = (&self.engine, self.endpoint.open.contains_key(&run)) {
                    engine.lifespan_ends(run.0, run.1);
                }
            }
        }
    }

    fn request_arrives(&mut self, identity: Arc<Identity>, generation: u32, began: Ts) {
        let run = (identity.actor_id, generation);
        if !self.endpoint.open.contains_key(&run) {
            return;
        }
        let wild = self.mood == Mood::Wild;
        if wild && self.chance.one_in(8) {
            let short = self.books().log.actor(run.0);
            self.note(format_args!("the endpoint refuses {short} g{generation}"));
            self.books().outbound_failed(run);
            self.endpoint.open.remove(&run);
            if let Some(engine) = &self.engine {
                let error = PoolError::HttpError { status_code: 500, body: String::new() };
                engine.outbound_failed(&identity, generation, began, error);
            }
            return;
        }
        if let Some(engine) = &self.engine {
            engine.outbound_accepted(&identity);
        }
        let hosts: Vec<HostId> = self.hosts_of(SERVERLESS);
        let cold = hosts.len() < 3 && self.chance.one_in(3);
        let host = match self.chance.pick(&hosts).copied() {
            Some(host) if !cold => host,
            Some(_) | None => self.spawn_host(SERVERLESS, self.newest_version),
        };
        if let Some(open) = self.endpoint.open.get_mut(&run) {
            open.host = Some(host);
        }
        self.plan(REQUEST_LIFESPAN_MS - 2_000, Due::Endpoint(Request::Ends { run }));
        self.request_waits(identity, generation, host);
    }

    /// The SDK answers a start only when it is connected.
    fn request_waits(&mut self, identity: Arc<Identity>, generation: u32, host: HostId) {
        let run = (identity.actor_id, generation);
        let process = &self.processes[host];
        if !self.endpoint.open.contains_key(&run) || !process.is_alive {
            return;
        }
        let Some(engine) = self.engine.as_ref().filter(|_| process.connection.is_some() && process.frozen.is_none()) else {
            self.plan(20, Due::Endpoint(Request::Waits { identity, generation, host }));
            return;
        };
        let command = engine.start_command(identity.actor_id, generation);
        let (news, epoch) = (self.news.clone(), self.epoch);
        let request = Request::Waits { identity, generation, host };
        tokio::spawn(async move {
            // None: the generation is over.
            if let Some(command) = command.await {
                let _ = news.send(News::StartCommand(epoch, host, request, command));
            }
        });
    }

    pub(super) fn start_request_arrived(&mut self, host: HostId, request: Request, command: CommandWrapper) {
        let Request::Waits { identity, generation, .. } = request else { return };
        let run = (identity.actor_id, generation);
        let Some(open) = self.endpoint.open.get_mut(&run).filter(|_| self.processes[host].is_alive) else { return };
        open.has_begun = true;
        let name = self.processes[host].host.name.clone();
        self.note_commands(&name, std::slice::from_ref(&command));
        self.with_host(host, |host, around| host.commands(vec![command], around));
    }

    /// A start request ends well when its actor has stopped.
    pub(super) fn endpoint_watches(&mut self, id: HostId) {
        let host = &self.processes[id].host;
        let runs: Vec<Run> = host.runs().collect();
        self.endpoint.open.retain(|run, open| !(open.has_begun && open.host == Some(id)) || runs.contains(run));
    }

    /// A host has died, and the requests that it held break.
    pub(super) fn endpoint_lost(&mut self, id: HostId) {
        let lost: Vec<Run> = self.endpoint.open.iter().filter(|(_, open)| open.host == Some(id)).map(|(run, _)| *run).collect();
        for run in lost {
            let Some(open) = self.endpoint.open.remove(&run) else { continue };
            self.books().outbound_failed(run);
            if let Some(engine) = &self.engine {
                let error = PoolError::ConnectionError { message: "reset".into() };
                engine.outbound_failed(&open.identity, run.1, open.began, error);
            }
        }
    }

    /// A start request ends, and its host goes on with the actor all the same.
    pub(super) fn break_request(&mut self) {
        let runs: Vec<Run> = self.endpoint.open.keys().copied().collect();
        let Some(run) = self.chance.pick(&runs).copied() else { return };
        let Some(open) = self.endpoint.open.remove(&run) else { return };
        let short = self.books().log.actor(run.0);
        self.note(format_args!("the start request for {short} g{} ends early", run.1));
        self.books().outbound_failed(run);
        if let Some(engine) = &self.engine {
            engine.outbound_failed(&open.identity, run.1, open.began, PoolError::StreamEndedEarly);
        }
    }

    /// Host processes of a pool that live and do not shut down.
    pub(super) fn hosts_of(&self, pool: &str) -> Vec<HostId> {
        let fit = |(_, process): &(usize, &super::world::Process)| {
            process.is_alive && !process.host.stopping && process.host.pool == pool
        };
        self.processes.iter().enumerate().filter(fit).map(|(id, _)| id).collect()
    }
}
