//! What goes wrong while the world is wild.

use super::host::Mood;
use super::settings::{NORMAL, PACED};
use super::world::{Due, HostId, World};

/// Hosts of a pool that are started for no other reason than that more may come.
const HOSTS_MAX: usize = 3;

impl World {
    /// Something goes wrong, and the next thing is planned.
    pub(super) fn fault(&mut self) {
        if self.mood == Mood::Calm {
            return;
        }
        let next_ms = self.chance.between(100, 3_000);
        self.plan(next_ms, Due::Fault);
        let alive: Vec<HostId> =
            self.processes.iter().enumerate().filter(|(_, process)| process.is_alive).map(|(id, _)| id).collect();
        let host = self.chance.pick(&alive).copied();
        match (self.chance.below(20), host) {
            (0..6, Some(host)) => self.break_connection(host),
            (6..9, Some(host)) => self.freeze(host),
            (9..11, Some(host)) => self.replace(host, |world, host| world.kill_host(host)),
            (11..13, Some(host)) => self.replace(host, |world, host| {
                world.note(format_args!("{} shuts down", world.processes[host].host.name));
                world.with_host(host, |host, _around| host.shut_down());
            }),
            (13..16, _) => self.crash(),
            (16..17, _) => self.upgrade(),
            (17, _) => self.break_request(),
            (18, _) => {
                let by = if self.chance.one_in(2) {
                    self.chance.between(1, 20_000) as i64
                } else {
                    -(self.chance.between(1, 800) as i64)
                };
                self.books().step_time_of_day(by);
            }
            (_, _) => {
                let pool = if self.chance.one_in(2) { NORMAL } else { PACED };
                if self.hosts_of(pool).len() < HOSTS_MAX {
                    self.spawn_host(pool, self.newest_version);
                }
            }
        }
    }

    fn break_connection(&mut self, host: HostId) {
        let Some(connection) = self.processes[host].connection else { return };
        let late_ms = |world: &mut Self| if world.chance.one_in(2) { 0 } else { world.chance.between(0, 7_000) };
        let (engine_ms, host_ms) = (late_ms(self), late_ms(self));
        // The engine notices by itself that nobody answers; a host never does, so somebody must tell it.
        let engine_notices = (!self.chance.one_in(3)).then_some(engine_ms);
        self.note(format_args!("c{connection} of {} is cut", self.processes[host].host.name));
        self.cut(connection, engine_notices, Some(host_ms));
    }

    /// A host stands still for a while, as under a debugger or a starved machine.
    fn freeze(&mut self, host: HostId) {
        if self.processes[host].frozen.is_some() {
            return;
        }
        let for_ms = self.chance.between(50, 6_000);
        self.note(format_args!("{} stands still for {for_ms} ms", self.processes[host].host.name));
        self.processes[host].frozen = Some(Vec::new());
        self.plan(for_ms, Due::Thaw(host));
    }

    /// Ends a host in some way; mostly another takes its place.
    fn replace(&mut self, host: HostId, end: impl FnOnce(&mut Self, HostId)) {
        let pool = self.processes[host].host.pool;
        if self.processes[host].frozen.is_some() || self.processes[host].host.stopping {
            return;
        }
        end(self, host);
        if pool != super::settings::SERVERLESS && !self.chance.one_in(3) {
            self.spawn_host(pool, self.newest_version);
        }
    }

    /// A new version of the application is rolled out, host by host.
    fn upgrade(&mut self) {
        self.newest_version += 1;
        for pool in [NORMAL, PACED] {
            if self.chance.one_in(2) {
                self.spawn_host(pool, self.newest_version);
            }
        }
    }
}
