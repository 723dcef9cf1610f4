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
fn commands_on_the_data_folder() {
    let data =
        |paths: &[&str], task: DataTask| Ok(Command::Data { config_paths: paths.iter().map(PathBuf::from).collect(), task });
    let backup = DataTask::Backup { folder: "to".into() };
    assert_eq!(parse("rivet-engine --config a backup to --config b"), data(&["a", "b"], backup));
    let restore = |even_if_damaged| DataTask::Restore { folder: "from".into(), even_if_damaged };
    assert_eq!(parse("rivet-engine restore from"), data(&[], restore(false)));
    assert_eq!(parse("rivet-engine restore --even-if-damaged from"), data(&[], restore(true)));
    assert_eq!(parse("rivet-engine check"), data(&[], DataTask::Check { folder: None, here: false, json: false }));
    let elsewhere = DataTask::Check { folder: Some("folder".into()), here: false, json: true };
    assert_eq!(parse("rivet-engine check --json folder"), data(&[], elsewhere));
    let export = DataTask::Export { actor: "abc".to_owned(), file: "db".into() };
    assert_eq!(parse("rivet-engine actor --config a export abc db --config b"), data(&["a", "b"], export));
}

#[test]
fn a_running_engine_is_asked() {
    let ask = |config: &[&str], endpoint: Option<&str>, namespace: &str, task: RemoteTask| {
        let (endpoint, namespace) = (endpoint.map(str::to_owned), namespace.to_owned());
        let token = endpoint.as_ref().map(|_| "t".to_owned());
        let request = RemoteRequest { endpoint, token, namespace, actor: "abc".to_owned(), task };
        Ok(Command::Remote { config_paths: config.iter().map(PathBuf::from).collect(), request })
    };
    let restore = RemoteTask::Restore { at: 1500 };
    assert_eq!(
        parse("rivet-engine actor --config a restore abc --at 1970-01-01T00:00:01.5Z"),
        ask(&["a"], None, "default", restore)
    );
    let fork = |name: Option<&str>, at| RemoteTask::Fork { key: "k".to_owned(), name: name.map(str::to_owned), at };
    assert_eq!(parse("rivet-engine actor fork abc --key k"), ask(&[], None, "default", fork(None, None)));
    assert_eq!(
        parse("rivet-engine actor fork abc --key k --name n --at 7 --endpoint http://h --token t --namespace ns"),
        ask(&[], Some("http://h"), "ns", fork(Some("n"), Some(7)))
    );
}

#[test]
fn services_are_checked_and_otherwise_ignored() {
    assert_eq!(parse("rivet-engine start -s guard --services api_peer"), start(&[]));
    assert_eq!(parse("rivet-engine start --except-services bootstrap"), start(&[]));
    assert_eq!(parse("rivet-engine start -s guard -s nope"), Err("service \"nope\" not found".to_owned()));
}

#[test]
fn usage_errors_and_version() {
    for arguments in [
        "stop",
        "config",
        "backup",
        "restore",
        "actor",
        "actor export abc",
        "actor restore abc",
        "actor restore abc --at yesterday",
        "actor fork abc",
        "start -s guard --except-services guard",
        "start --host localhost",
    ] {
        let arguments = format!("rivet-engine {arguments}");
        let error = Cli::try_parse_from(arguments.split(' ')).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{arguments}");
    }
    let version = Cli::try_parse_from(["rivet-engine", "--version"]).unwrap_err();
    assert_eq!(version.kind(), ErrorKind::DisplayVersion);
    let expected = format!("rivet-engine {} (compatible with rivet 2.3.19)\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(version.to_string(), expected);
}
