//! `topology`: the datacenters and how they are reached (`spec/engine-api.md` 13.3).

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, MapAccess, SeqAccess, Visitor},
};

use super::values::HttpUrl;

/// All datacenters, and which one this is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topology {
    /// Label of this engine's datacenter; it is part of every id made here.
    pub datacenter_label: u16,
    /// By name. In a file also a list of objects with a `name`.
    #[serde(deserialize_with = "map_or_list")]
    pub datacenters: BTreeMap<String, Datacenter>,
}

/// One datacenter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Datacenter {
    /// Label, unique among the datacenters.
    pub datacenter_label: u16,
    /// Whether this one leads. Exactly one does.
    pub is_leader: bool,
    /// Where clients and serverless hosts reach it.
    pub public_url: HttpUrl,
    /// Where the other datacenters reach its api-peer listener.
    pub peer_url: HttpUrl,
    /// Where the other datacenters send client requests; `public_url` if unset.
    pub proxy_url: Option<HttpUrl>,
    /// Host names under which hosts may address it, without ports; any if unset. Required when there are several datacenters.
    pub valid_hosts: Option<Vec<String>>,
    /// Only in the list form, and only while reading; the map's key afterwards.
    #[serde(skip_serializing)]
    name: Option<String>,
}

impl Topology {
    /// One datacenter, `default`, with label 1, reached at the addresses its listeners are bound to (loopback where
    /// they are bound to all).
    pub fn single(guard: SocketAddr, api_peer: SocketAddr) -> Self {
        let datacenter = Datacenter {
            datacenter_label: 1,
            is_leader: true,
            public_url: HttpUrl::of_listener(reachable(guard.ip()), guard.port()),
            peer_url: HttpUrl::of_listener(reachable(api_peer.ip()), api_peer.port()),
            proxy_url: None,
            valid_hosts: None,
            name: None,
        };
        Self { datacenter_label: 1, datacenters: BTreeMap::from([("default".to_owned(), datacenter)]) }
    }

    /// Name and entry of this engine's own datacenter. None only in a topology that was not checked by loading it.
    pub fn own(&self) -> Option<(&str, &Datacenter)> {
        let mut named = self.datacenters.iter();
        let (name, datacenter) = named.find(|(_, datacenter)| datacenter.datacenter_label == self.datacenter_label)?;
        Some((name, datacenter))
    }
}

/// An address at which a listener bound to `host` is reached from this machine.
fn reachable(host: IpAddr) -> IpAddr {
    if host.is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { host }
}

/// Reads datacenters in either form.
fn map_or_list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, Datacenter>, D::Error> {
    deserializer.deserialize_any(DatacentersVisitor)
}

struct DatacentersVisitor;

impl<'de> Visitor<'de> for DatacentersVisitor {
    type Value = BTreeMap<String, Datacenter>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of datacenters by name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut datacenters = BTreeMap::new();
        while let Some((name, datacenter)) = entries.next_entry::<String, Datacenter>()? {
            if datacenter.name.is_some() {
                return Err(A::Error::custom(format!(
                    "datacenter '{name}' cannot have the `name` property set because it is automatically derived from key"
                )));
            }
            datacenters.insert(name, datacenter);
        }
        Ok(datacenters)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut datacenters = BTreeMap::new();
        let mut index = 0;
        while let Some(mut datacenter) = items.next_element::<Datacenter>()? {
            let Some(name) = datacenter.name.take() else {
                return Err(A::Error::custom(format!("datacenter at index {index} must have a name")));
            };
            if datacenters.contains_key(&name) {
                return Err(A::Error::custom(format!("datacenter '{name}' is listed twice")));
            }
            datacenters.insert(name, datacenter);
            index += 1;
        }
        Ok(datacenters)
    }
}
