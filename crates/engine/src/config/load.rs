//! From the text of all sources to a checked configuration.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
};

use super::{
    Config, FileSystem, Topology, deserialize, environment,
    error::{ConfigError, Origin},
    ineffective::{self, Ineffective},
    tree::{self, Node, Table, Value},
    validate,
};

/// Everything a configuration is made of.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// Files with their text, the more important later.
    pub files: Vec<(PathBuf, String)>,
    /// Environment variables; those without the `RIVET__` prefix are passed over.
    pub environment: Vec<(String, String)>,
    /// The `--host` option: `guard.host`, over everything else.
    pub host: Option<IpAddr>,
    /// The user's data directory, where the database goes unless told otherwise.
    pub user_data_dir: Option<PathBuf>,
}

/// A configuration that was loaded.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration, complete and checked.
    pub config: Config,
    /// Keys that were set and have no effect, in alphabetical order. For the log, at the level their class asks for.
    pub ineffective: Vec<Ineffective>,
    /// Whether `topology` was derived from the listeners. If it was, and a port was 0, make it anew with
    /// [`Topology::single`] once the listeners are bound.
    pub topology_is_derived: bool,
}

/// Merges all sources, reads them as a [`Config`], completes and checks it.
///
/// # Errors
/// The first thing that is wrong, with the key and where it was written.
pub fn load(sources: &Sources) -> Result<Loaded, ConfigError> {
    let mut tree = Node::new(Origin::BuiltIn, Value::Table(Table::new()));
    for (path, text) in &sources.files {
        tree.merge(tree::parse_file(path, text)?);
    }
    tree.merge(environment::layer(&sources.environment)?);

    let mut config: Config = deserialize::read(&tree)?;
    complete(&mut config, &tree, sources);
    let topology_is_derived = tree.find("topology").is_none();
    if topology_is_derived {
        let guard = SocketAddr::new(config.guard.host, config.guard.port);
        let api_peer = SocketAddr::new(config.api_peer.host, config.api_peer.port);
        config.topology = Topology::single(guard, api_peer);
    }
    validate::check(&config).map_err(|violation| violation.written_in(&tree))?;
    Ok(Loaded { config, ineffective: ineffective::found_in(&tree), topology_is_derived })
}

/// Fills in the defaults that follow from other keys. Nothing listens beyond this machine by accident: a listener opens
/// to the network only if something guards it or it was told to.
fn complete(config: &mut Config, tree: &Node, sources: &Sources) {
    let default_host = |open: bool| -> IpAddr { if open { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::LOCALHOST.into() } };
    if let Some(host) = sources.host {
        config.guard.host = host;
    } else if tree.find("guard.host").is_none() {
        config.guard.host = default_host(config.auth.admin_token.is_some());
    }
    if tree.find("api_peer.host").is_none() {
        config.api_peer.host = default_host(config.topology.datacenters.len() > 1);
    }
    if tree.find("metrics.host").is_none() {
        config.metrics.host = default_host(config.metrics.token.is_some());
    }
    if tree.find("file_system.path").is_none() {
        config.file_system.path = FileSystem::default_path(sources.user_data_dir.as_deref());
    }
}
