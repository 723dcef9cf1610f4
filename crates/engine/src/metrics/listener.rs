//! What the public listener counts.

use std::fmt;

use gateway::metrics::{Counter, Gauge, Held};

use super::families::Families;

/// Counters of the public port.
#[derive(Debug, Default)]
pub(crate) struct ListenerMetrics {
    connections: Counter,
    connections_open: Gauge,
    routed: Routed,
}

/// Requests by which part of the engine answered them.
#[derive(Debug, Default)]
struct Routed {
    gateway: Counter,
    envoy: Counter,
    runner: Counter,
    api: Counter,
}

/// Which part of the engine answers a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Destination {
    /// It addresses an actor.
    Gateway,
    /// A host connects.
    Envoy,
    /// A host of a kind that is not served.
    Runner,
    /// Anything else.
    Api,
}

impl ListenerMetrics {
    /// A connection was accepted; it is open until the result is dropped.
    pub(crate) fn accepted(&self) -> Held {
        self.connections.inc();
        self.connections_open.hold()
    }

    /// A request was routed.
    pub(crate) fn routed_to(&self, destination: Destination) {
        match destination {
            Destination::Gateway => self.routed.gateway.inc(),
            Destination::Envoy => self.routed.envoy.inc(),
            Destination::Runner => self.routed.runner.inc(),
            Destination::Api => self.routed.api.inc(),
        }
    }

    pub(super) fn encode(&self, families: &mut Families<'_>) -> fmt::Result {
        families.counters("guard_tcp_connection", "TCP connections accepted on the public port", &self.connections)?;
        families.gauges(
            "guard_tcp_connection_pending",
            "TCP connections open on the public port, those of hosts included",
            &self.connections_open,
        )?;
        let routed = &self.routed;
        let counts = [
            ("gateway", routed.gateway.get()),
            ("envoy", routed.envoy.get()),
            ("runner", routed.runner.get()),
            ("api", routed.api.get()),
        ];
        families.counts("guard_route", "Requests on the public port", "router", &counts)
    }
}
