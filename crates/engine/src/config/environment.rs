//! Environment variables as a layer of the configuration (`spec/engine-api.md` 13.2).

use super::{
    error::{ConfigError, Origin},
    tree::{Node, Table, Value},
};

/// What the name of every variable that is configuration begins with, in any case.
pub(super) const PREFIX: &str = "RIVET__";

/// Turns `RIVET__GUARD__PORT=1` into `{guard: {port: 1}}`. Variables without the prefix are passed over. Keys are
/// lower-cased; the text of a value is read later as the type its key has.
///
/// # Errors
/// [`ConfigError::WrongType`] if one variable sets an object and another a key inside it.
pub(super) fn layer(variables: &[(String, String)]) -> Result<Node, ConfigError> {
    let mut settings: Vec<(Vec<String>, &str, &str)> = Vec::new();
    for (name, value) in variables {
        if let Some(path) = key_path(name) {
            settings.push((path, name, value));
        }
    }
    // Sorted, so that the outcome does not depend on the order of the environment (of two names that differ only in
    // case the later one in this order wins), and a key comes before those inside it.
    settings.sort();

    let mut root = Node::new(Origin::BuiltIn, Value::Table(Table::new()));
    for (path, name, value) in settings {
        insert(&mut root, &path, Origin::Variable(name.to_owned()), value)?;
    }
    Ok(root)
}

/// The key path in a variable's name, or none if the variable is not configuration.
pub(super) fn key_path(name: &str) -> Option<Vec<String>> {
    let (prefix, rest) = name.split_at_checked(PREFIX.len())?;
    if !prefix.eq_ignore_ascii_case(PREFIX) {
        return None;
    }
    Some(rest.split("__").map(str::to_ascii_lowercase).collect())
}

fn insert(root: &mut Node, path: &[String], origin: Origin, text: &str) -> Result<(), ConfigError> {
    let mut node = root;
    for (depth, key) in path.iter().enumerate() {
        let found = node.value.kind();
        let Value::Table(table) = &mut node.value else {
            return Err(ConfigError::WrongType {
                origin: node.origin.clone(),
                key: path[..depth].join("."),
                expected: "an object".to_owned(),
                found,
            });
        };
        node = table.entry(key.clone()).or_insert_with(|| Node::new(origin.clone(), Value::Table(Table::new())));
    }
    *node = Node::new(origin, Value::Loose(text.to_owned()));
    Ok(())
}
