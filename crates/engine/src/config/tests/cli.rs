//! The command line.

use clap::{CommandFactory, Parser, error::ErrorKind};

use super::*;

fn parse(arguments: &str) -> Result<Command, String> {
    let cli = Cli::try_parse_from(arguments.split(' ')).map_err(|error| error.kind().to_string())?;
    cli.into_command().map_err(|error| error.to_string())
}

fn start(config_paths: &[&str]) -> Result<Command, String> {
    Ok(Command::Start(Start { config_paths: config_paths.iter().map(PathBuf::from).collect(), host: None }))
}

#[test]
fn commands() {
    Cli::command().debug_assert();
    assert_eq!(parse("rivet-engine"), start(&[]));
    assert_eq!(parse("rivet-engine start"), start(&[]));
    assert_eq!(parse("rivet-engine --config a --config b start --config c"), start(&["a", "b", "c"]));
    let show = |paths: &[&str]| Ok(Command::ShowConfig { config_paths: paths.iter().map(PathBuf::from).collect() });
    assert_eq!(parse("rivet-engine config show"), show(&[]));
    assert_eq!(parse("rivet-engine --config a config --config b show --config c"), show(&["a", "b", "c"]));
    let host = Some("::1".parse().unwrap());
    assert_eq!(parse("rivet-engine start --host ::1"), Ok(Command::Start(Start { host, ..Start::default() })));
}

#[test]
fn services_are_checked_and_otherwise_ignored() {
    assert_eq!(parse("rivet-engine start -s guard --services api_peer"), start(&[]));
    assert_eq!(parse("rivet-engine start --except-services bootstrap"), start(&[]));
    assert_eq!(parse("rivet-engine start -s guard -s nope"), Err("service \"nope\" not found".to_owned()));
}

#[test]
fn usage_errors_and_version() {
    for arguments in ["stop", "config", "start -s guard --except-services guard", "start --host localhost"] {
        let arguments = format!("rivet-engine {arguments}");
        let error = Cli::try_parse_from(arguments.split(' ')).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{arguments}");
    }
    let version = Cli::try_parse_from(["rivet-engine", "--version"]).unwrap_err();
    assert_eq!(version.kind(), ErrorKind::DisplayVersion);
    let expected = format!("rivet-engine {} (compatible with rivet 2.3.19)\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(version.to_string(), expected);
}
