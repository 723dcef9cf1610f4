//! The small sections: `auth`, `api_peer`, `metrics`, `logs` and `outbound` (`spec/engine-api.md` 8.4 and 13.3).

use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

use super::values::{Network, Secret};

/// Who may use the management API.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// Token every API request must carry; not empty. Without it the API is open.
    pub admin_token: Option<Secret>,
}

/// The listener for other datacenters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApiPeer {
    /// Address to bind. If not set: all interfaces (`::`) with several datacenters, else loopback.
    pub host: IpAddr,
    /// TCP port; 0 lets the system choose.
    pub port: u16,
}

impl Default for ApiPeer {
    fn default() -> Self {
        Self { host: IpAddr::V4(Ipv4Addr::LOCALHOST), port: 6421 }
    }
}

/// The listener for metrics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// Address to bind. If not set: all interfaces (`::`) when `token` is set, else loopback.
    pub host: IpAddr,
    /// TCP port; 0 lets the system choose.
    pub port: u16,
    /// Bearer token a scrape must carry; not empty. Without it only clients on loopback are answered.
    pub token: Option<Secret>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self { host: IpAddr::V4(Ipv4Addr::LOCALHOST), port: 6430, token: None }
    }
}

/// Where logs go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Logs {
    /// Directory for log files, which are kept 7 days; standard output if unset.
    pub redirect_logs_dir: Option<PathBuf>,
}

/// Where the engine itself may send requests, on behalf of serverless pools. Link-local addresses, and with them cloud
/// metadata services, are reached only if listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Outbound {
    /// Public addresses over https only: overrules the three switches below, but not the lists.
    pub strict: bool,
    /// Allows loopback addresses. See [`Outbound::loopback_allowed`].
    pub allow_loopback: bool,
    /// Allows private networks. See [`Outbound::private_networks_allowed`].
    pub allow_private_networks: bool,
    /// Allows plain http. See [`Outbound::insecure_scheme_allowed`].
    pub allow_insecure_scheme: bool,
    /// Networks allowed whatever their class.
    pub allow_cidrs: Vec<Network>,
    /// Networks never allowed. Beats everything.
    pub deny_cidrs: Vec<Network>,
    /// Host names, as written in the URL, whose addresses are not checked.
    pub allow_hosts: Vec<String>,
    /// Redirects that are followed.
    pub max_redirects: u32,
}

impl Outbound {
    /// Whether loopback addresses are allowed.
    pub fn loopback_allowed(&self) -> bool {
        self.allow_loopback && !self.strict
    }

    /// Whether private networks are allowed.
    pub fn private_networks_allowed(&self) -> bool {
        self.allow_private_networks && !self.strict
    }

    /// Whether plain http is allowed.
    pub fn insecure_scheme_allowed(&self) -> bool {
        self.allow_insecure_scheme && !self.strict
    }
}

impl Default for Outbound {
    fn default() -> Self {
        Self {
            strict: false,
            allow_loopback: true,
            allow_private_networks: true,
            allow_insecure_scheme: true,
            allow_cidrs: Vec::new(),
            deny_cidrs: Vec::new(),
            allow_hosts: Vec::new(),
            max_redirects: 4,
        }
    }
}
