//! Value types of configuration keys: time spans that carry their unit, secrets, addresses.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize, Serializer};
use url::Url;

/// Longest span accepted anywhere, 100 years in microseconds. It keeps every later sum of a clock
/// reading and a configured span, and every product of a back-off, far from overflow.
const LONGEST_SPAN_MICROS: u64 = 100 * 365 * 24 * 3600 * 1_000_000;

/// A time span counted in units of `MICROS` microseconds, as it is written in the configuration.
/// Use the names [`Micros`], [`Millis`] and [`Secs`]. At most 100 years.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u64")]
pub struct Span<const MICROS: u64>(u64);

/// A time span in microseconds.
pub type Micros = Span<1>;
/// A time span in milliseconds.
pub type Millis = Span<1_000>;
/// A time span in seconds.
pub type Secs = Span<1_000_000>;

impl<const MICROS: u64> Span<MICROS> {
    /// The longest span of this unit, in that unit.
    pub const MAX: Self = Self(LONGEST_SPAN_MICROS / MICROS);

    /// A span of `count` units; anything longer than [`Self::MAX`] becomes that.
    pub const fn new(count: u64) -> Self {
        if count > Self::MAX.0 { Self::MAX } else { Self(count) }
    }

    /// The span in whole units, rounded down; anything longer than [`Self::MAX`] becomes that.
    pub const fn of(span: Duration) -> Self {
        let count = span.as_micros() / MICROS as u128;
        if count > Self::MAX.0 as u128 { Self::MAX } else { Self(count as u64) }
    }

    /// The number of units, for use where the unit is part of the receiver's name.
    pub const fn count(self) -> u64 {
        self.0
    }

    /// The span itself. Never overflows, because the count is bounded.
    pub const fn duration(self) -> Duration {
        Duration::from_micros(self.0 * MICROS)
    }
}

impl<const MICROS: u64> TryFrom<u64> for Span<MICROS> {
    type Error = String;

    fn try_from(count: u64) -> Result<Self, String> {
        if count > Self::MAX.0 {
            return Err(format!("must be at most {} (100 years)", Self::MAX.0));
        }
        Ok(Self(count))
    }
}

/// Text that must not be seen: `Debug` and serialisation show `***`, and no error message quotes it.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// What is shown in place of a secret.
    pub const MASK: &str = "***";

    /// Wraps a secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself. Compare tokens in constant time, and never log the result.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::MASK)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(Self::MASK)
    }
}

/// A network in CIDR notation (`10.0.0.0/8`, `fc00::/7`), or one address, meaning just that address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Network(IpNet);

impl Network {
    /// The network itself.
    pub fn net(self) -> IpNet {
        self.0
    }

    /// Whether `address` lies in this network. An IPv4 address in its IPv6-mapped form counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl From<IpNet> for Network {
    fn from(net: IpNet) -> Self {
        Self(net)
    }
}

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let text = text.trim();
        if let Ok(net) = text.parse::<IpNet>() {
            return Ok(Self(net));
        }
        match text.parse::<IpAddr>() {
            Ok(address) => Ok(Self(IpNet::from(address))),
            Err(_) => Err(format!("`{text}` is neither a network like 10.0.0.0/8 nor an IP address")),
        }
    }
}

/// An absolute `http` or `https` URL without user name and password.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct HttpUrl(Url);

impl HttpUrl {
    /// The URL of a plain HTTP listener.
    #[expect(clippy::expect_used, reason = "an address without a scope and a port always make a URL")]
    pub(super) fn of_listener(host: IpAddr, port: u16) -> Self {
        let address = SocketAddr::new(host, port);
        Self(Url::parse(&format!("http://{address}")).expect("an address and a port make a URL"))
    }

    /// The URL in normal form, so with a `/` after a bare host, as `GET /datacenters` shows it
    /// (`spec/engine-api.md` 7.4).
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl TryFrom<String> for HttpUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let url = Url::parse(&text).map_err(|error| format!("not a URL: {error}"))?;
        if url.scheme() != "http" && url.scheme() != "https" {
            return Err(format!("a URL with http or https is needed, not {}", url.scheme()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("a URL must not contain a user name or password".to_owned());
        }
        Ok(Self(url))
    }
}

impl Serialize for HttpUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}
