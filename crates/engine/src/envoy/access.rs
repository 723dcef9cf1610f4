//! Who may connect as a host at all (`spec/gateway.md` 8). Pure.

use http::Request;
use http::header::SEC_WEBSOCKET_PROTOCOL;
use protocol::error::{Coded, Surface};
use serde_json::{Map, Value};
use subtle::ConstantTimeEq;

use crate::config::{Secret, Topology};

const TOKEN_HEADER: &str = "x-rivet-token";
/// The same in the list of subprotocols, where a WebSocket has it.
const TOKEN_PROTOCOL: &str = "rivet_token.";

/// What hosts must know to connect.
pub(crate) struct Access {
    datacenter: String,
    /// Names under which this datacenter is addressed; `None`: any will do.
    valid_hosts: Option<Vec<String>>,
    admin_token: Option<Secret>,
}

/// Why somebody may not connect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AccessDenied {
    /// The engine was addressed by a name that is not one of its datacenter.
    #[error("Invalid host {host} for datacenter {datacenter}. Please use one of the following hosts: {valid_hosts}")]
    MustUseRegionalHost { datacenter: String, host: String, valid_hosts: String },
    /// A token is configured, and there is none.
    #[error("Missing x-rivet-token header.")]
    MissingToken,
    /// The token is not the configured one.
    #[error("Access denied: Invalid token")]
    WrongToken,
}

impl Access {
    pub(crate) fn new(topology: &Topology, admin_token: Option<Secret>) -> Self {
        let own = topology.own();
        let datacenter = own.map_or("default", |(name, _)| name).to_owned();
        let valid_hosts = own.and_then(|(_, own)| own.valid_hosts.clone()).filter(|hosts| !hosts.is_empty());
        Self { datacenter, valid_hosts, admin_token }
    }

    /// Checks a request. `is_upgrade`: a WebSocket, which carries its token in a subprotocol.
    pub(crate) fn check<B>(&self, request: &Request<B>, is_upgrade: bool) -> Result<(), AccessDenied> {
        self.check_host(gateway::host_name(request).unwrap_or_default())?;
        let Some(wanted) = &self.admin_token else { return Ok(()) };
        let given = if is_upgrade { token_protocol(request) } else { text(request, TOKEN_HEADER) };
        let given = given.ok_or(AccessDenied::MissingToken)?;
        match bool::from(given.as_bytes().ct_eq(wanted.expose().as_bytes())) {
            true => Ok(()),
            false => Err(AccessDenied::WrongToken),
        }
    }

    fn check_host(&self, host: &str) -> Result<(), AccessDenied> {
        let Some(valid) = &self.valid_hosts else { return Ok(()) };
        if valid.iter().any(|valid| valid.eq_ignore_ascii_case(host)) {
            return Ok(());
        }
        Err(AccessDenied::MustUseRegionalHost {
            datacenter: self.datacenter.clone(),
            host: host.to_owned(),
            valid_hosts: valid.join(", "),
        })
    }
}

fn text<'a, B>(request: &'a Request<B>, name: &str) -> Option<&'a str> {
    request.headers().get(name).and_then(|value| value.to_str().ok())
}

fn token_protocol<B>(request: &Request<B>) -> Option<&str> {
    let offered = request.headers().get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    offered.flat_map(|list| list.split(',')).find_map(|entry| entry.trim().strip_prefix(TOKEN_PROTOCOL))
}

impl Coded for AccessDenied {
    fn group(&self) -> &'static str {
        match self {
            Self::MustUseRegionalHost { .. } | Self::MissingToken => "guard",
            Self::WrongToken => "api",
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::MustUseRegionalHost { .. } => "must_use_regional_host",
            Self::MissingToken => "missing_header",
            Self::WrongToken => "forbidden",
        }
    }

    fn status(&self, _surface: Surface) -> u16 {
        match self {
            Self::MustUseRegionalHost { .. } | Self::MissingToken => 400,
            Self::WrongToken => 403,
        }
    }

    fn metadata(&self) -> Map<String, Value> {
        let pairs: Vec<(&str, &str)> = match self {
            Self::MustUseRegionalHost { datacenter, host, valid_hosts } => {
                vec![("datacenter", datacenter), ("host", host), ("valid_hosts", valid_hosts)]
            }
            Self::MissingToken => vec![("header", TOKEN_HEADER)],
            Self::WrongToken => vec![("reason", "Invalid token")],
        };
        pairs.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `spec/scheduling.md` 6.1: a host's token is looked for in one place.
    #[test]
    fn the_token_of_a_host_is_in_its_subprotocols_and_nowhere_else() {
        let access = Access { datacenter: "default".to_owned(), valid_hosts: None, admin_token: Some(Secret::new("sesame")) };
        let check = |name: &str, value: &str| access.check(&Request::builder().header(name, value).body(()).unwrap(), true);
        assert_eq!(check("sec-websocket-protocol", "rivet, rivet_token.sesame"), Ok(()));
        assert_eq!(check("sec-websocket-protocol", "rivet, rivet_token.open"), Err(AccessDenied::WrongToken));
        assert_eq!(check("sec-websocket-protocol", "rivet"), Err(AccessDenied::MissingToken));
        assert_eq!(check(TOKEN_HEADER, "sesame"), Err(AccessDenied::MissingToken));
        let plain = Request::builder().header(TOKEN_HEADER, "sesame").body(()).unwrap();
        assert_eq!(access.check(&plain, false), Ok(()));
    }
}
