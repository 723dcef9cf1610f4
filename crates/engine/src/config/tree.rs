//! The layers of a configuration as one untyped tree, in which every value remembers where it was written.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt,
    path::Path,
};

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::error::{ConfigError, Origin};

/// One value and its origin.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) origin: Origin,
    pub(super) value: Value,
}

/// An untyped value. `Null` is "not set here" and vanishes on merging, so that a YAML section whose keys are all
/// commented out changes nothing.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Unsigned(u64),
    Negative(i64),
    Float(f64),
    Text(String),
    /// Text from the environment, to be read as whatever type its place asks for.
    Loose(String),
    List(Vec<Node>),
    Table(Table),
}

/// The keys of an object.
pub(super) type Table = BTreeMap<String, Node>;

impl Value {
    /// The kind of value, in words for an error message.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "true or false",
            Self::Unsigned(_) | Self::Negative(_) => "a number",
            Self::Float(_) => "a decimal number",
            Self::Text(_) | Self::Loose(_) => "text",
            Self::List(_) => "a list",
            Self::Table(_) => "an object",
        }
    }
}

impl Node {
    pub(super) fn new(origin: Origin, value: Value) -> Self {
        Self { origin, value }
    }

    /// Lays `upper` over this tree: objects are merged key by key, everything else (lists too) is replaced.
    pub(super) fn merge(&mut self, upper: Node) {
        match (&mut self.value, upper) {
            (_, Node { value: Value::Null, .. }) => {}
            (Value::Table(lower), Node { value: Value::Table(upper), .. }) => {
                for (key, node) in upper {
                    match lower.entry(key) {
                        Entry::Occupied(slot) => slot.into_mut().merge(node),
                        Entry::Vacant(slot) => {
                            slot.insert(node);
                        }
                    }
                }
            }
            (_, upper) => *self = upper,
        }
    }

    /// The node at a dotted path, if it was set. Keys that contain a dot themselves are not found.
    pub(super) fn find(&self, path: &str) -> Option<&Node> {
        let mut node = self;
        for key in path.split('.') {
            let Value::Table(table) = &node.value else { return None };
            node = table.get(key)?;
        }
        if matches!(node.value, Value::Null) { None } else { Some(node) }
    }

    /// Gives the whole tree one origin.
    fn stamp(&mut self, origin: &Origin) {
        self.origin = origin.clone();
        match &mut self.value {
            Value::Table(table) => table.values_mut().for_each(|node| node.stamp(origin)),
            Value::List(nodes) => nodes.iter_mut().for_each(|node| node.stamp(origin)),
            Value::Null
            | Value::Bool(_)
            | Value::Unsigned(_)
            | Value::Negative(_)
            | Value::Float(_)
            | Value::Text(_)
            | Value::Loose(_) => {}
        }
    }
}

/// Reads one configuration file. Its extension decides the format: `json` is strict, `json5` and `jsonc` allow
/// comments, unquoted keys and trailing commas, `yaml` and `yml` are YAML 1.2, where `on` and `no` are text.
pub(super) fn parse_file(path: &Path, text: &str) -> Result<Node, ConfigError> {
    let parsed: Result<Node, String> = match Format::of(path) {
        Some(Format::Json) => serde_json::from_str(text).map_err(|error| error.to_string()),
        Some(Format::Json5) => json5::from_str(text).map_err(|error| error.to_string()),
        Some(Format::Yaml) => {
            // No snippet: it would print the lines around the mistake, and with them secrets.
            let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
            serde_saphyr::from_str_with_options(text, options).map_err(|error| yaml_reason(&error))
        }
        None => return Err(ConfigError::UnsupportedFormat { path: path.to_owned() }),
    };
    let mut tree = parsed.map_err(|reason| ConfigError::Parse { path: path.to_owned(), reason })?;
    if !matches!(tree.value, Value::Table(_) | Value::Null) {
        let reason = format!("must hold an object, found {}", tree.value.kind());
        return Err(ConfigError::Parse { path: path.to_owned(), reason });
    }
    tree.stamp(&Origin::File(path.to_owned()));
    Ok(tree)
}

/// The parser's own words, except for a key given twice, where it talks about its options.
fn yaml_reason(error: &serde_saphyr::Error) -> String {
    if let serde_saphyr::Error::DuplicateMappingKey { key, location } = error {
        let key = key.as_deref().unwrap_or("a key");
        return format!("`{key}` is given twice at line {} column {}", location.line(), location.column());
    }
    error.to_string()
}

/// A file format the engine reads.
#[derive(Clone, Copy)]
pub(super) enum Format {
    Json,
    Json5,
    Yaml,
}

impl Format {
    /// The format that belongs to the extension of `path`.
    pub(super) fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "json" => Some(Self::Json),
            "json5" | "jsonc" => Some(Self::Json5),
            "yaml" | "yml" => Some(Self::Yaml),
            _ => None,
        }
    }
}

/// Builds nodes from any of the formats, and refuses a key that is given twice, which the JSON parsers would let
/// pass with the first value lost.
impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

fn node<E>(value: Value) -> Result<Node, E> {
    Ok(Node::new(Origin::BuiltIn, value))
}

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a configuration value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        node(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        node(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        node(Value::Unsigned(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        node(u64::try_from(value).map_or(Value::Negative(value), Value::Unsigned))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        node(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        node(Value::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        node(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut table = Table::new();
        while let Some((key, value)) = entries.next_entry::<String, Node>()? {
            match table.entry(key) {
                Entry::Vacant(slot) => slot.insert(value),
                Entry::Occupied(slot) => return Err(de::Error::custom(format!("`{}` is given twice", slot.key()))),
            };
        }
        node(Value::Table(table))
    }
}
