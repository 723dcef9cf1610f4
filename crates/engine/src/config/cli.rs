//! The command line of `rivet-engine` (`spec/engine-api.md` 14).

use std::{net::IpAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand};

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
            Subcommands::Actor(ActorArgs { config, command: ActorCommands::Export(export) }) => {
                config_paths.extend(config.paths);
                config_paths.extend(export.config.paths);
                Ok(Command::Data { config_paths, task: DataTask::Export { actor: export.actor, file: export.file } })
            }
        }
    }
}
