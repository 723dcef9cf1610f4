//! Reads the sources of the configuration from the disk and the environment. Nothing else does.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs, io,
    path::{Path, PathBuf},
};

use super::{environment, error::ConfigError, load::Sources, tree::Format};

/// Reads the configuration files and the environment of this process.
///
/// A path is a file, or a directory of which every file with a known extension counts, in the order of their names.
/// Without paths the system's own directory is read, if there is one: `/etc/rivet` on Linux,
/// `/Library/Application Support/rivet` on macOS, `C:\ProgramData\rivet` on Windows.
///
/// # Errors
/// A path that does not exist or cannot be read, or a `RIVET__` variable that is not UTF-8.
pub fn read_sources(config_paths: &[PathBuf]) -> Result<Sources, ConfigError> {
    let mut files = Vec::new();
    for path in config_paths {
        read_path(path, &mut files)?;
    }
    let default_dir = default_dir();
    if config_paths.is_empty() && default_dir.is_dir() {
        read_path(default_dir, &mut files)?;
    }
    let variables = process_environment();
    let user_data_dir = user_data_dir(&variables);
    Ok(Sources { files, environment: utf8_settings(variables)?, host: None, user_data_dir })
}

fn default_dir() -> &'static Path {
    Path::new(if cfg!(target_os = "macos") {
        "/Library/Application Support/rivet"
    } else if cfg!(target_os = "windows") {
        r"C:\ProgramData\rivet"
    } else {
        "/etc/rivet"
    })
}

/// The variables of this process by name.
type Variables = BTreeMap<OsString, OsString>;

#[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
fn process_environment() -> Variables {
    std::env::vars_os().collect()
}

/// Where the operating system wants a user's data to be: `$XDG_DATA_HOME` or `~/.local/share` on Linux,
/// `~/Library/Application Support` on macOS, `%LOCALAPPDATA%` on Windows. None if the environment does not say.
pub(super) fn user_data_dir(variables: &Variables) -> Option<PathBuf> {
    let absolute = |name: &str| variables.get(OsStr::new(name)).map(PathBuf::from).filter(|path| path.is_absolute());
    if cfg!(target_os = "windows") {
        absolute("LOCALAPPDATA")
    } else if cfg!(target_os = "macos") {
        Some(absolute("HOME")?.join("Library/Application Support"))
    } else {
        absolute("XDG_DATA_HOME").or_else(|| Some(absolute("HOME")?.join(".local/share")))
    }
}

/// Keeps the variables that are configuration. Any other may hold what it likes.
pub(super) fn utf8_settings(variables: Variables) -> Result<Vec<(String, String)>, ConfigError> {
    let mut settings = Vec::new();
    for (name, value) in variables {
        let readable_name = name.to_string_lossy();
        if environment::key_path(&readable_name).is_none() {
            continue;
        }
        match (name.to_str(), value.into_string()) {
            (Some(name), Ok(value)) => settings.push((name.to_owned(), value)),
            (None, _) | (_, Err(_)) => {
                return Err(ConfigError::VariableNotUtf8 { name: readable_name.into_owned() });
            }
        }
    }
    Ok(settings)
}

fn read_path(path: &Path, files: &mut Vec<(PathBuf, String)>) -> Result<(), ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
    let kind = match fs::metadata(path) {
        Ok(kind) => kind,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(ConfigError::FileNotFound { path: path.to_owned() });
        }
        Err(error) => return Err(unreadable(error)),
    };
    if !kind.is_dir() {
        if Format::of(path).is_none() {
            return Err(ConfigError::UnsupportedFormat { path: path.to_owned() });
        }
        files.push((path.to_owned(), fs::read_to_string(path).map_err(unreadable)?));
        return Ok(());
    }
    let mut members = Vec::new();
    for entry in fs::read_dir(path).map_err(unreadable)? {
        let member = entry.map_err(unreadable)?.path();
        if Format::of(&member).is_some() && member.is_file() {
            members.push(member);
        }
    }
    members.sort();
    for member in members {
        read_path(&member, files)?;
    }
    Ok(())
}
