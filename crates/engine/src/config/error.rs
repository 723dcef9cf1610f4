//! What can be wrong with a configuration, and where it was written.

use std::{fmt, io, path::PathBuf};

/// Where a setting was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// Nowhere: the engine's own default.
    #[default]
    BuiltIn,
    /// In this file.
    File(PathBuf),
    /// In this environment variable, spelled as it was found.
    Variable(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn => f.write_str("configuration"),
            Self::File(path) => write!(f, "config file {}", path.display()),
            Self::Variable(name) => write!(f, "environment variable {name}"),
        }
    }
}

/// A configuration the engine refuses to start with. Every variant says where it was written and what was
/// expected there; none quotes a value that may be secret.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A path given with `--config` does not exist.
    #[error("config file {}: no such file or directory", path.display())]
    FileNotFound {
        /// The path as given.
        path: PathBuf,
    },
    /// A configuration file or directory exists but cannot be read, or is not UTF-8.
    #[error("config file {}: cannot be read", path.display())]
    Unreadable {
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A file whose name ends in none of the known extensions.
    #[error("config file {}: Unsupported file format, expected .json, .json5, .jsonc, .yaml or .yml", path.display())]
    UnsupportedFormat {
        /// The path as given.
        path: PathBuf,
    },
    /// A file that is not well-formed.
    #[error("config file {}: {reason}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong, with its line and column where known.
        reason: String,
    },
    /// A key that does not exist.
    #[error("{origin}: unknown key `{key}`, {hint}")]
    UnknownKey {
        /// Where it was written.
        origin: Origin,
        /// Its full path, for example `guard.prot`.
        key: String,
        /// The nearest key that exists, or a list of those that do.
        hint: String,
    },
    /// A value of the wrong type.
    #[error("{origin}: `{key}` must be {expected}, found {found}")]
    WrongType {
        /// Where it was written.
        origin: Origin,
        /// Its full path.
        key: String,
        /// The type that is needed, in words.
        expected: String,
        /// The kind of value that was found, in words.
        found: &'static str,
    },
    /// A required key is missing from an object that is otherwise there.
    #[error("{origin}: `{key}` is missing")]
    MissingKey {
        /// Where the surrounding object was written.
        origin: Origin,
        /// Full path of the missing key.
        key: String,
    },
    /// A value of the right type that is out of range or contradicts another one.
    #[error("{origin}: `{key}`: {reason}")]
    InvalidValue {
        /// Where it was written.
        origin: Origin,
        /// Its full path.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A variable with the `RIVET__` prefix whose name or value is not UTF-8.
    #[error("environment variable {name}: its name or value is not UTF-8")]
    VariableNotUtf8 {
        /// Its name, with what is not UTF-8 replaced.
        name: String,
    },
}

impl ConfigError {
    /// The stable code of this error, `config.<what>`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::FileNotFound { .. } => "config.file_not_found",
            Self::Unreadable { .. } => "config.unreadable",
            Self::UnsupportedFormat { .. } => "config.unsupported_format",
            Self::Parse { .. } => "config.parse",
            Self::UnknownKey { .. } => "config.unknown_key",
            Self::WrongType { .. } => "config.wrong_type",
            Self::MissingKey { .. } => "config.missing_key",
            Self::InvalidValue { .. } => "config.invalid_value",
            Self::VariableNotUtf8 { .. } => "config.variable_not_utf8",
        }
    }
}
