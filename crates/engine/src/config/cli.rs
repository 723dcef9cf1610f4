//! The command line of `rivet-engine` (`spec/engine-api.md` 14).

use std::{net::IpAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand};

use super::time;

/// What `--version` prints after the name: our version, and the release of the reference whose clients we serve.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (compatible with rivet 2.3.19)");

/// The services of the reference, which its operators may name. Here all of them are one process.
const SERVICES: [&str; 10] = [
    "api_peer",
    "bootstrap",
    "cache_purge",
    "dynamic_config",
    "guard",
    "pegboard_outbound",
    "profiling",
    "tracing_reconfigure",
    "ups_broadcast",
    "workflow_worker",
];

/// Stateful actors: gateway, scheduler and storage in one process.
#[derive(Debug, Parser)]
#[command(name = "rivet-engine", version = VERSION)]
pub struct Cli {
    #[command(flatten)]
    config: ConfigPaths,
    #[command(subcommand)]
    command: Option<Subcommands>,
}

/// The `--config` option. Every level of commands has it, because it may stand before and after a subcommand.
#[derive(Debug, Default, Args)]
struct ConfigPaths {
    /// Configuration file (json, json5, jsonc, yaml) or a directory of them; repeatable, later ones win
    #[arg(long = "config", value_name = "PATH")]
    paths: Vec<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Subcommands {
    /// Run the engine (the default)
    Start(StartArgs),
    /// Look at the configuration
    Config(ConfigArgs),
    /// Copy the whole store to a folder, also while the engine serves
    Backup(BackupArgs),
    /// Fill the empty data folder from a backup; the engine must not be running
    Restore(RestoreArgs),
    /// Look for damage in everything that is stored, also while the engine serves
    Check(CheckArgs),
    /// Do something with one actor
    Actor(ActorArgs),
}

#[derive(Debug, Default, Args)]
struct StartArgs {
    #[command(flatten)]
    config: ConfigPaths,
    /// Address the public listener binds to, over everything the configuration says
    #[arg(long, value_name = "IP")]
    host: Option<IpAddr>,
    /// Accepted for compatibility: all services run in this one process
    #[arg(short, long, value_name = "NAME", conflicts_with = "except_services")]
    services: Vec<String>,
    /// Accepted for compatibility: all services run in this one process
    #[arg(long, value_name = "NAME")]
    except_services: Vec<String>,
}

#[derive(Debug, Args)]
struct ConfigArgs {
    #[command(flatten)]
    config: ConfigPaths,
    #[command(subcommand)]
    command: ConfigCommands,
}

#[derive(Debug, Subcommand)]
enum ConfigCommands {
    /// Print the merged configuration as JSON, with secrets masked
    Show(ConfigPaths),
}

#[derive(Debug, Args)]
struct BackupArgs {
    #[command(flatten)]
    config: ConfigPaths,
    /// Folder to make, or an empty one
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

#[derive(Debug, Args)]
struct RestoreArgs {
    #[command(flatten)]
    config: ConfigPaths,
    /// The backup
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Restore also what `check` finds damage in
    #[arg(long)]
    even_if_damaged: bool,
}

#[derive(Debug, Args)]
struct CheckArgs {
    #[command(flatten)]
    config: ConfigPaths,
    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
    /// A backup or another data folder, instead of the configured one
    #[arg(value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Look in this process, which damage may end
    #[arg(long, hide = true)]
    here: bool,
}

#[derive(Debug, Args)]
struct ActorArgs {
    #[command(flatten)]
    config: ConfigPaths,
    #[command(subcommand)]
    command: ActorCommands,
}

#[derive(Debug, Subcommand)]
enum ActorCommands {
    /// Write the SQLite database of an actor to a file, also while the engine serves
    Export(ExportArgs),
    /// Ask a running engine to put an actor's database back to an earlier time, and to start the actor anew
    Restore(ActorRestoreArgs),
    /// Ask a running engine for a new actor with the data of another one
    Fork(ActorForkArgs),
}

#[derive(Debug, Args)]
struct EngineArgs {
    /// Address of the engine; the one in the configuration if not given
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    /// Its admin token; the one in the configuration if not given
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
    /// Namespace of the actor
    #[arg(long, value_name = "NAME", default_value = "default")]
    namespace: String,
}

#[derive(Debug, Args)]
struct ActorRestoreArgs {
    #[command(flatten)]
    config: ConfigPaths,
    #[command(flatten)]
    engine: EngineArgs,
    /// Id of the actor
    #[arg(value_name = "ACTOR_ID")]
    actor: String,
    /// What the database was at this time: like 2026-11-21T19:38:24.5Z, or in milliseconds since 1970
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    at: i64,
}

#[derive(Debug, Args)]
struct ActorForkArgs {
    #[command(flatten)]
    config: ConfigPaths,
    #[command(flatten)]
    engine: EngineArgs,
    /// Id of the actor to copy
    #[arg(value_name = "ACTOR_ID")]
    actor: String,
    /// Key of the new actor, as the management API takes it
    #[arg(long, value_name = "KEY")]
    key: String,
    /// Name of the new actor; that of the other one if not given
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// With the database of this time: like 2026-11-21T19:38:24.5Z, or in milliseconds since 1970; as it is if not given
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    at: Option<i64>,
}

#[derive(Debug, Args)]
struct ExportArgs {
    #[command(flatten)]
    config: ConfigPaths,
    /// Id of the actor
    #[arg(value_name = "ACTOR_ID")]
    actor: String,
    /// File to make
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// Run the engine.
    Start(Start),
    /// Print the configuration made from these files and the environment.
    ShowConfig {
        /// As given with `--config`, in order.
        config_paths: Vec<PathBuf>,
    },
    /// Do something with the data folder that this configuration names.
    Data {
        /// As given with `--config`, in order.
        config_paths: Vec<PathBuf>,
        /// What.
        task: DataTask,
    },
    /// Ask a running engine for something.
    Remote {
        /// As given with `--config`, in order: where the engine is, if the request does not say.
        config_paths: Vec<PathBuf>,
        /// What.
        request: RemoteRequest,
    },
}

/// What a running engine is asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct RemoteRequest {
    /// Where it is; none: where the configuration says.
    pub endpoint: Option<String>,
    /// Admin token; none: that of the configuration.
    pub token: Option<String>,
    /// Name of the actor's namespace.
    pub namespace: String,
    /// Id of the actor, as given.
    pub actor: String,
    /// What is to be done with the actor.
    pub task: RemoteTask,
}

/// What a running engine is to do with an actor.
#[derive(Debug, PartialEq, Eq)]
pub enum RemoteTask {
    /// Put its database back to a time, in epoch milliseconds.
    Restore {
        /// The time.
        at: i64,
    },
    /// Make another one with its data.
    Fork {
        /// Key of the new one.
        key: String,
        /// Name of the new one; none: the same.
        name: Option<String>,
        /// What its database is to be: as it was at a time in epoch milliseconds, or as it is.
        at: Option<i64>,
    },
}

/// What can be done with a data folder without running the engine.
#[derive(Debug, PartialEq, Eq)]
pub enum DataTask {
    /// Copy everything to a folder.
    Backup {
        /// Where to.
        folder: PathBuf,
    },
    /// Fill the data folder from a backup.
    Restore {
        /// The backup.
        folder: PathBuf,
        /// Also if there is damage in it.
        even_if_damaged: bool,
    },
    /// Look for damage.
    Check {
        /// Another folder than the configured one.
        folder: Option<PathBuf>,
        /// In this process. Reading a file whose very structure is damaged may end it, so another one should be there to tell.
        here: bool,
        /// Answer in JSON.
        json: bool,
    },
    /// Write an actor's database to a file.
    Export {
        /// Id of the actor, as given.
        actor: String,
        /// Where to.
        file: PathBuf,
    },
}

/// How to run the engine.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Start {
    /// As given with `--config`, in order.
    pub config_paths: Vec<PathBuf>,
    /// As given with `--host`.
    pub host: Option<IpAddr>,
}

/// A name given with `--services` or `--except-services` that is no service of the reference.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("service \"{name}\" not found")]
pub struct UnknownService {
    /// As given.
    pub name: String,
}

impl ActorCommands {
    fn into_command(self, mut config_paths: Vec<PathBuf>) -> Command {
        let (config, engine, actor, task) = match self {
            Self::Export(ExportArgs { config, actor, file }) => {
                config_paths.extend(config.paths);
                return Command::Data { config_paths, task: DataTask::Export { actor, file } };
            }
            Self::Restore(ActorRestoreArgs { config, engine, actor, at }) => (config, engine, actor, RemoteTask::Restore { at }),
            Self::Fork(ActorForkArgs { config, engine, actor, key, name, at }) => {
                (config, engine, actor, RemoteTask::Fork { key, name, at })
            }
        };
        config_paths.extend(config.paths);
        let EngineArgs { endpoint, token, namespace } = engine;
        Command::Remote { config_paths, request: RemoteRequest { endpoint, token, namespace, actor, task } }
    }
}

impl Cli {
    /// What the command line asks for. Get the `Cli` from [`clap::Parser::parse`], which answers `--help`, `--version`
    /// and usage errors (exit code 2) by itself.
    ///
    /// # Errors
    /// [`UnknownService`], for exit code 1.
    pub fn into_command(self) -> Result<Command, UnknownService> {
        let mut config_paths = self.config.paths;
        match self.command.unwrap_or_else(|| Subcommands::Start(StartArgs::default())) {
            Subcommands::Start(start) => {
                for name in start.services.into_iter().chain(start.except_services) {
                    if !SERVICES.contains(&name.as_str()) {
                        return Err(UnknownService { name });
                    }
                }
                config_paths.extend(start.config.paths);
                Ok(Command::Start(Start { config_paths, host: start.host }))
            }
            Subcommands::Config(ConfigArgs { config, command: ConfigCommands::Show(show) }) => {
                config_paths.extend(config.paths);
                config_paths.extend(show.paths);
                Ok(Command::ShowConfig { config_paths })
            }
            Subcommands::Backup(BackupArgs { config, folder }) => {
                config_paths.extend(config.paths);
                Ok(Command::Data { config_paths, task: DataTask::Backup { folder } })
            }
            Subcommands::Restore(RestoreArgs { config, folder, even_if_damaged }) => {
                config_paths.extend(config.paths);
                Ok(Command::Data { config_paths, task: DataTask::Restore { folder, even_if_damaged } })
            }
            Subcommands::Check(CheckArgs { config, json, folder, here }) => {
                config_paths.extend(config.paths);
                Ok(Command::Data { config_paths, task: DataTask::Check { folder, here, json } })
            }
            Subcommands::Actor(ActorArgs { config, command }) => {
                config_paths.extend(config.paths);
                Ok(command.into_command(config_paths))
            }
        }
    }
}
