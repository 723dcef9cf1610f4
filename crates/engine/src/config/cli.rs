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
        }
    }
}
