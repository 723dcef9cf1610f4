//! What a host says of itself when it connects.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use protocol::envoy::{PROTOCOL_VERSION, is_supported};

/// Query parameters, subprotocols and path of a connection; right by default, and as wrong as a test wants them.
#[derive(Debug, Clone)]
pub struct EnvoyParams {
    pub(super) path: String,
    query: Vec<(String, String)>,
    pub(super) subprotocols: Vec<String>,
}

impl Default for EnvoyParams {
    fn default() -> Self {
        let query = [
            ("protocol_version", PROTOCOL_VERSION.to_string()),
            ("namespace", "default".to_owned()),
            ("envoy_key", uuid::Uuid::new_v4().to_string()),
            ("version", "1".to_owned()),
            ("pool_name", "default".to_owned()),
        ];
        Self {
            path: "/envoys/connect".to_owned(),
            query: query.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            subprotocols: vec!["rivet".to_owned()],
        }
    }
}

impl EnvoyParams {
    /// A host of its own, with everything right.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets or replaces a query parameter; its value is escaped.
    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.query.retain(|(other, _)| other != name);
        self.query.push((name.to_owned(), value.to_string()));
        self
    }

    /// Leaves a query parameter out.
    pub fn without(mut self, name: &str) -> Self {
        self.query.retain(|(other, _)| other != name);
        self
    }

    /// The version of the application on it.
    pub fn version(self, version: u32) -> Self {
        self.with("version", version)
    }

    /// The pool it belongs to.
    pub fn pool(self, pool: &str) -> Self {
        self.with("pool_name", pool)
    }

    /// Offers a token, the way hosts do.
    pub fn token(mut self, token: &str) -> Self {
        self.subprotocols.push(format!("rivet_token.{token}"));
        self
    }

    /// Offers exactly these subprotocols.
    pub fn subprotocols(mut self, offered: &[&str]) -> Self {
        self.subprotocols = offered.iter().map(|&text| text.to_owned()).collect();
        self
    }

    /// Connects to another path.
    pub fn path(mut self, path: &str) -> Self {
        self.path = path.to_owned();
        self
    }

    /// A query parameter's value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// The version that messages are coded for; the newest if the parameter names none that exists.
    pub(super) fn codec_version(&self) -> u16 {
        let asked = self.get("protocol_version").and_then(|text| text.parse().ok());
        asked.filter(|version| is_supported(*version)).unwrap_or(PROTOCOL_VERSION)
    }

    pub(super) fn query(&self) -> String {
        let escape = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let pairs: Vec<String> = self.query.iter().map(|(name, value)| format!("{}={}", escape(name), escape(value))).collect();
        pairs.join("&")
    }
}
