//! What the real binary does when it cannot start: a coded message in one line, and a failure for the shell.

use std::net::TcpListener;

use crate::process::{Ended, Process};

/// Runs the binary with settings that it refuses; returns what it said, after checking its form.
async fn refused(arguments: &[&str], settings: &[(&str, &str)], code: &str) -> String {
    let ended = Process::start(arguments, settings).ended().await;
    let Ended { status, stdout, stderr } = &ended;
    assert_eq!(status.code(), Some(1), "{ended:?}");
    assert_eq!(stdout, "", "{ended:?}");
    let expected = format!("Error: [{code}] ");
    let message = stderr.strip_prefix(&expected).unwrap_or_else(|| panic!("{expected:?} expected: {ended:?}"));
    assert_eq!(message.trim_end().lines().count(), 1, "{ended:?}");
    message.trim_end().to_owned()
}

#[tokio::test]
async fn a_folder_that_cannot_be_used() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    for path in [file.clone(), file.join("below")] {
        let said = refused(&[], &[("RIVET__FILE_SYSTEM__PATH", path.to_str().unwrap())], "store.not_writable").await;
        assert!(said.contains(path.to_str().unwrap()), "{said}");
    }
}

#[tokio::test]
async fn a_folder_that_another_engine_uses() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let store = store::Store::open_lmdb(store::LmdbOptions::new(folder.path())).unwrap();
    let said = refused(&[], &[("RIVET__FILE_SYSTEM__PATH", path)], "store.in_use").await;
    assert_eq!(said, format!("the data folder {path} is in use by another process"));
    store.close().await;
}

#[tokio::test]
async fn data_of_something_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap().to_owned();
    std::fs::write(folder.path().join("FORMAT"), "999\n").unwrap();
    refused(&[], &[("RIVET__FILE_SYSTEM__PATH", &path)], "store.newer_format").await;
    std::fs::write(folder.path().join("FORMAT"), "one\n").unwrap();
    refused(&[], &[("RIVET__FILE_SYSTEM__PATH", &path)], "store.unknown_format").await;
}

#[tokio::test]
async fn a_port_that_is_taken() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for (key, listener) in
        [("RIVET__GUARD__PORT", "public"), ("RIVET__API_PEER__PORT", "api-peer"), ("RIVET__METRICS__PORT", "metrics")]
    {
        let folder = tempfile::tempdir().unwrap();
        let settings = [("RIVET__FILE_SYSTEM__PATH", folder.path().to_str().unwrap()), (key, port.as_str())];
        let said = refused(&[], &settings, "listener.address_in_use").await;
        assert!(said.contains(listener) && said.contains(&port), "{said}");
    }
}

#[tokio::test]
async fn settings_that_do_not_exist_or_make_no_sense() {
    let folder = tempfile::tempdir().unwrap();
    let said = refused(&[], &[("RIVET__BOGUS", "1")], "config.unknown_key").await;
    assert!(said.contains("RIVET__BOGUS") && said.contains("`bogus`"), "{said}");
    let said = refused(&[], &[("RIVET__GUARD__PROT", "1")], "config.unknown_key").await;
    assert!(said.contains("`guard.prot`") && said.contains("guard.port"), "{said}");
    refused(&[], &[("RIVET__GUARD__PORT", "many")], "config.wrong_type").await;
    refused(&[], &[("RIVET__PEGBOARD__ENVOY_UPDATE_PING_INTERVAL", "0")], "config.invalid_value").await;
    refused(&[], &[("RIVET__NATS__ADDRESSES", "a:1,b:2")], "config.not_implemented").await;

    let file = folder.path().join("engine.json");
    std::fs::write(&file, r#"{ "guard": { "port": 0, "colour": "red" } }"#).unwrap();
    let path = file.to_str().unwrap();
    let said = refused(&["--config", path], &[], "config.unknown_key").await;
    assert!(said.contains(path) && said.contains("`guard.colour`"), "{said}");
    std::fs::write(&file, "{").unwrap();
    refused(&["start", "--config", path], &[], "config.parse").await;
    let missing = folder.path().join("missing.json");
    refused(&["--config", missing.to_str().unwrap()], &[], "config.file_not_found").await;
    refused(&["start", "--services", "bogus"], &[], "cli.unknown_service").await;
}

#[tokio::test]
async fn a_command_line_that_cannot_be_read() {
    let ended = Process::start(&["--bogus"], &[]).ended().await;
    assert_eq!(ended.status.code(), Some(2), "{ended:?}");
    assert!(ended.stderr.contains("--bogus"), "{ended:?}");
}
