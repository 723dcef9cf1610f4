//! How each simulation ends: the faults stop, and everything must come to rest where it belongs.

use lifecycle::actor::Phase;
use protocol::id::ActorId;

use super::clients::Call;
use super::host::Mood;
use super::ledger::{Known, phase_in_words};
use super::settings::{MAX_CONCURRENT_ACTORS, NORMAL, PACED, SERVERLESS};
use super::world::World;

/// How long the world is wild.
const WILD_MS: u64 = 30_000;
/// How long it may take to come to rest: what hangs and what is lost has to be given up first.
const REST_MS: u64 = 15_000;
/// How long requests and destructions may take in a world without faults.
const ANSWER_MS: u64 = 7_000;
/// What may be under way at any time, even in a world without faults, in milliseconds.
const UNDER_WAY_MS: u64 = 3_000;
/// How long it takes at most until the engine hears that something is durable, in milliseconds.
const HEARD_MS: u64 = 5;
/// How late an alarm may be.
const ALARM_LATE_MS: i64 = 2_000;

/// A part of the story.
#[derive(Debug, Clone, Copy)]
enum Act {
    /// Things go wrong.
    Wild,
    /// They do not any more.
    Rest,
    /// Every actor is asked for.
    Requests,
    /// Half of them are destroyed.
    Ends,
}

impl World {
    /// The whole story.
    pub(super) async fn play(&mut self) {
        self.boot();
        for pool in [NORMAL, PACED] {
            for _ in 0..2 {
                self.spawn_host(pool, 1);
            }
        }
        self.plan(500, super::world::Due::Client);
        self.plan(2_000, super::world::Due::Fault);
        let mut end_ms = 0;
        for (act, lasts_ms) in [(Act::Wild, WILD_MS), (Act::Rest, REST_MS), (Act::Requests, ANSWER_MS), (Act::Ends, ANSWER_MS)] {
            end_ms += lasts_ms;
            self.run_until(end_ms).await;
            if self.books().violation().is_some() {
                return;
            }
            self.end_act(act);
        }
    }

    fn end_act(&mut self, act: Act) {
        match act {
            Act::Wild => self.calm_down(),
            Act::Rest => {
                self.check_rest();
                self.ask_for_all();
            }
            Act::Requests => {
                self.check_answers();
                self.destroy_half();
            }
            Act::Ends => {
                self.check_answers();
                self.check_rest();
            }
        }
    }

    fn calm_down(&mut self) {
        self.note(format_args!("the faults stop"));
        self.mood = Mood::Calm;
        for pool in [NORMAL, PACED] {
            self.newest_version += 1;
            self.spawn_host(pool, self.newest_version);
        }
    }

    /// Asks for every actor; those of pools with room for all must be ready in time.
    fn ask_for_all(&mut self) {
        for (actor, pool) in self.living() {
            self.request(actor, Self::is_unlimited(pool));
        }
    }

    fn destroy_half(&mut self) {
        for (actor, _) in self.living().into_iter().step_by(2) {
            self.call(Call::Destroy, actor);
        }
    }

    fn check_answers(&mut self) {
        let owed: Vec<ActorId> = self.clients.owed().collect();
        for actor in owed {
            let short = self.books().log.actor(actor);
            self.books().violated(format!("{short}: a client still waits for an answer"));
        }
    }

    /// Everything is where it belongs.
    fn check_rest(&mut self) {
        if self.engine.is_none() {
            return self.books().violated("the engine is not up".into());
        }
        self.books().check_keys();
        let actors: Vec<(ActorId, Known)> = self.books().actors.iter().map(|(actor, known)| (*actor, known.clone())).collect();
        for (actor, known) in &actors {
            if let Some(wrong) = self.wrong_place(*actor, known) {
                let short = self.books().log.actor(*actor);
                self.books().violated(format!("{short}: {wrong}"));
            }
        }
        self.check_zombies();
        let placed = self.books().placed_in_serverless();
        let counted = self.engine.as_ref().map_or(0, |engine| engine.places(SERVERLESS));
        // What has just become durable is counted when the engine hears of it.
        let is_under_way = actors.iter().any(|(_, known)| known.since_ms + HEARD_MS >= self.now_ms());
        if (counted != placed && !is_under_way) || placed > MAX_CONCURRENT_ACTORS {
            self.books().violated(format!("{placed} actors have a place in the serverless pool, and {counted} are counted"));
        }
    }

    fn wrong_place(&self, actor: ActorId, known: &Known) -> Option<String> {
        let record = &known.record;
        let age_ms = self.now_ms() - known.since_ms;
        let waits_in_vain = || Some(format!("{} for {age_ms} ms", phase_in_words(record)));
        match &record.phase {
            Phase::Destroyed => None,
            Phase::Sleeping => {
                let is_late = record.alarm_ts.is_some_and(|alarm| alarm + ALARM_LATE_MS < self.books().day());
                if is_late { Some(format!("its alarm {:?} did not fire", record.alarm_ts)) } else { None }
            }
            Phase::Running { host } => {
                let runs = self.processes.iter().any(|process| {
                    process.is_alive
                        && process.host.name == host.as_str()
                        && process.host.runs().any(|run| run == (actor, record.generation))
                });
                // What it has just said may be on its way.
                if runs || age_ms < UNDER_WAY_MS { None } else { Some(format!("it does not run on {host}")) }
            }
            Phase::Starting { .. } | Phase::Stopping { .. } if age_ms > UNDER_WAY_MS => waits_in_vain(),
            Phase::Reallocating { .. } if age_ms > UNDER_WAY_MS => {
                let is_full = record.identity.pool == SERVERLESS && self.books().placed_in_serverless() >= MAX_CONCURRENT_ACTORS;
                if is_full { None } else { waits_in_vain() }
            }
            Phase::Starting { .. } | Phase::Stopping { .. } | Phase::Reallocating { .. } => None,
        }
    }

    /// No host has a generation that the engine does not know to be there.
    fn check_zombies(&mut self) {
        let mut zombies = Vec::new();
        for process in self.processes.iter().filter(|process| process.is_alive) {
            for run in process.host.runs() {
                let books = self.books();
                let Some(known) = books.actors.get(&run.0) else { continue };
                let belongs = known.record.generation == run.1
                    && known.record.host().is_none_or(|host| host.as_str() == process.host.name)
                    && known.record.is_placed();
                if !belongs && self.now_ms() - known.since_ms > UNDER_WAY_MS {
                    zombies.push((run, process.host.name.clone()));
                }
            }
        }
        for ((actor, generation), host) in zombies {
            let short = self.books().log.actor(actor);
            self.books().violated(format!("{short}: g{generation} lives on {host}, and the engine knows nothing of it"));
        }
    }
}
