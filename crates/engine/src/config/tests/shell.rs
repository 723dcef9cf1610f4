//! Reading files and directories.

use std::{collections::BTreeMap, ffi::OsString, fs};

use super::{super::shell, *};

#[test]
fn a_directory_contributes_its_files_in_the_order_of_their_names() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("b.yaml"), "guard: {port: 2}").unwrap();
    fs::write(dir.path().join("a.json"), r#"{"guard": {"port": 1}}"#).unwrap();
    fs::write(dir.path().join("notes.txt"), "no configuration").unwrap();
    fs::create_dir(dir.path().join("c.json")).unwrap();
    let single = dir.path().join("a.json");

    let sources = read_sources(&[dir.path().to_owned(), single.clone()]).unwrap();
    let names: Vec<&Path> = sources.files.iter().map(|(path, _)| path.as_path()).collect();
    assert_eq!(names, [single.as_path(), &dir.path().join("b.yaml"), &single]);
    assert_eq!(load(&Sources { environment: Vec::new(), ..sources }).unwrap().config.guard.port, 1);
}

#[test]
fn a_named_path_must_be_readable_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing.json");
    let notes = dir.path().join("notes.txt");
    let latin1 = dir.path().join("latin1.json");
    fs::write(&notes, "no configuration").unwrap();
    fs::write(&latin1, [0xe9]).unwrap();
    let cases = [(missing, "config.file_not_found"), (notes, "config.unsupported_format"), (latin1, "config.unreadable")];
    for (path, code) in cases {
        let error = read_sources(std::slice::from_ref(&path)).unwrap_err();
        assert_eq!(error.code(), code);
        assert!(error.to_string().contains(&*path.to_string_lossy()), "{error}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn the_user_data_directory_comes_from_the_environment() {
    let found = |variables: &[(&str, &str)]| {
        shell::user_data_dir(&variables.iter().map(|(name, value)| (name.into(), value.into())).collect())
    };
    assert_eq!(found(&[("XDG_DATA_HOME", "/data"), ("HOME", "/home/ann")]), Some("/data".into()));
    assert_eq!(found(&[("XDG_DATA_HOME", ""), ("HOME", "/home/ann")]), Some("/home/ann/.local/share".into()));
    assert_eq!(found(&[("HOME", "")]), None);
}

#[test]
#[cfg(unix)]
fn variables_must_be_utf8_only_if_they_are_configuration() {
    use std::os::unix::ffi::OsStringExt;

    let garbage = || OsString::from_vec(vec![0xff]);
    let other = BTreeMap::from([("OTHER".into(), garbage()), (garbage(), "x".into())]);
    assert_eq!(shell::utf8_settings(other).unwrap(), []);
    let error = shell::utf8_settings(BTreeMap::from([("rivet__guard__port".into(), garbage())])).unwrap_err();
    assert_eq!(error.code(), "config.variable_not_utf8");
    assert!(error.to_string().contains("rivet__guard__port"), "{error}");
}
