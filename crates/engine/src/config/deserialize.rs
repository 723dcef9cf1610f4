//! Reads typed sections out of the untyped tree, and turns every mismatch into an error that names the key, what was
//! expected there and where it was written.
//!
//! The types say what they want through serde's hints, which is how text from the environment becomes a number, a
//! switch or a list only where one is wanted, and stays text everywhere else (an admin token of digits, say).

use std::{collections::btree_map, fmt, iter, slice};

use serde::{
    Deserializer,
    de::{self, DeserializeOwned, DeserializeSeed, Expected, IntoDeserializer, Unexpected, Visitor},
    forward_to_deserialize_any,
};

use super::{
    error::{ConfigError, Origin},
    tree::{Node, Table, Value},
};

/// Reads a `T` from `tree`.
pub(super) fn read<T: DeserializeOwned>(tree: &Node) -> Result<T, ConfigError> {
    T::deserialize(Reader(tree)).map_err(|fault| fault.seen_at(tree).into())
}

/// A mismatch on its way up from where it was noticed. Every level it passes adds its key.
#[derive(Debug)]
struct Fault {
    problem: Problem,
    /// Keys from the innermost outwards.
    path: Vec<String>,
    /// Origin and kind of the innermost node around the mismatch.
    place: Option<(Origin, &'static str)>,
}

#[derive(Debug)]
enum Problem {
    UnknownKey { known: &'static [&'static str] },
    WrongType { expected: String },
    MissingKey,
    Invalid { reason: String },
}

impl Fault {
    fn new(problem: Problem) -> Self {
        Self { problem, path: Vec::new(), place: None }
    }

    fn inside(mut self, key: impl Into<String>) -> Self {
        self.path.push(key.into());
        self
    }

    fn seen_at(mut self, node: &Node) -> Self {
        self.place.get_or_insert_with(|| (node.origin.clone(), node.value.kind()));
        self
    }
}

impl From<Fault> for ConfigError {
    fn from(fault: Fault) -> Self {
        let (origin, found) = fault.place.unwrap_or((Origin::BuiltIn, "nothing"));
        let mut path = fault.path;
        path.reverse();
        let key = path.join(".");
        match fault.problem {
            Problem::UnknownKey { known } => {
                let hint = hint(&key, known);
                Self::UnknownKey { origin, key, hint }
            }
            Problem::WrongType { expected } => Self::WrongType { origin, key, expected, found },
            Problem::MissingKey => Self::MissingKey { origin, key },
            Problem::Invalid { reason } => Self::InvalidValue { origin, key, reason },
        }
    }
}

/// Proposes the key that was probably meant in place of `key`, or lists what there is.
fn hint(key: &str, known: &[&str]) -> String {
    let (parent, given) = key.rsplit_once('.').map_or((None, key), |(parent, given)| (Some(parent), given));
    let mut nearest: Option<(usize, &str)> = None;
    for name in known {
        let distance = strsim::damerau_levenshtein(given, name);
        if nearest.is_none_or(|(best, _)| distance < best) {
            nearest = Some((distance, name));
        }
    }
    // With more than a third of its letters changed it is a different word.
    let Some((_, name)) = nearest.filter(|(distance, name)| *distance <= (name.len() / 3).max(1)) else {
        return format!("expected one of {}", known.join(", "));
    };
    match parent {
        Some(parent) => format!("did you mean `{parent}.{name}`?"),
        None => format!("did you mean `{name}`?"),
    }
}

/// Says in words what serde calls by its Rust type.
fn in_words(expected: &dyn Expected) -> String {
    let name = expected.to_string();
    match name.as_str() {
        "u8" => "a whole number from 0 to 255".to_owned(),
        "u16" => "a whole number from 0 to 65535".to_owned(),
        "u32" => "a whole number from 0 to 4294967295".to_owned(),
        "u64" => "a whole number, 0 or more".to_owned(),
        "i64" => "a whole number".to_owned(),
        "f64" => "a number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" | "newtype variant" => "an object".to_owned(),
        "a string" | "path string" => "text".to_owned(),
        name if name.starts_with("struct ") => "an object".to_owned(),
        name => name.to_owned(),
    }
}

/// Never shown, as every fault becomes a [`ConfigError`]; serde asks for it.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::error::Error for Fault {}

/// None of these keeps the value that was found: it may be secret.
impl de::Error for Fault {
    fn custom<T: fmt::Display>(reason: T) -> Self {
        Self::new(Problem::Invalid { reason: reason.to_string() })
    }

    fn invalid_type(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(Problem::WrongType { expected: in_words(expected) })
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(Problem::Invalid { reason: format!("must be {}", in_words(expected)) })
    }

    fn unknown_variant(_: &str, known: &'static [&'static str]) -> Self {
        Self::new(Problem::Invalid { reason: format!("must be one of {}", known.join(", ")) })
    }

    fn unknown_field(_: &str, known: &'static [&'static str]) -> Self {
        Self::new(Problem::UnknownKey { known })
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(Problem::MissingKey).inside(field)
    }
}

/// Offers one node to serde.
struct Reader<'a>(&'a Node);

impl<'a> Reader<'a> {
    /// Offers text from the environment as the number it spells, anything else as it is.
    fn number<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let Value::Loose(text) = &self.0.value else { return self.deserialize_any(visitor) };
        let text = text.trim();
        if let Ok(number) = text.parse::<u64>() {
            return visitor.visit_u64(number);
        }
        if let Ok(number) = text.parse::<i64>() {
            return visitor.visit_i64(number);
        }
        match text.parse::<f64>() {
            Ok(number) => visitor.visit_f64(number),
            Err(_) => self.deserialize_any(visitor),
        }
    }
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.0.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Unsigned(value) => visitor.visit_u64(*value),
            Value::Negative(value) => visitor.visit_i64(*value),
            Value::Float(value) => visitor.visit_f64(*value),
            Value::Text(text) | Value::Loose(text) => visitor.visit_str(text),
            Value::List(nodes) => read_list(nodes, visitor),
            Value::Table(table) => visitor.visit_map(TableReader::new(table)),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let Value::Loose(text) = &self.0.value else { return self.deserialize_any(visitor) };
        match text.trim().to_ascii_lowercase().as_str() {
            "true" | "1" => visitor.visit_bool(true),
            "false" | "0" => visitor.visit_bool(false),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_u8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.number(visitor)
    }

    fn deserialize_u16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.number(visitor)
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.number(visitor)
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.number(visitor)
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.number(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.number(visitor)
    }

    /// A list in the environment is text with commas; empty text is the empty list.
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let Value::Loose(text) = &self.0.value else { return self.deserialize_any(visitor) };
        let mut items = Vec::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            items.push(Node::new(self.0.origin.clone(), Value::Loose(part.to_owned())));
        }
        read_list(&items, visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        if let Value::Text(text) | Value::Loose(text) = &self.0.value {
            return visitor.visit_enum(text.as_str().into_deserializer());
        }
        if let Value::Table(table) = &self.0.value {
            if table.len() != 1 {
                return Err(de::Error::custom("must have exactly one key"));
            }
            return visitor.visit_enum(de::value::MapAccessDeserializer::new(TableReader::new(table)));
        }
        self.deserialize_any(visitor)
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i128 u128 f32 char str string bytes byte_buf unit unit_struct tuple tuple_struct map struct
        identifier ignored_any
    }
}

/// Offers a list to serde, and refuses items beyond those it takes.
fn read_list<'de, V: Visitor<'de>>(nodes: &[Node], visitor: V) -> Result<V::Value, Fault> {
    let mut reader = ListReader { items: nodes.iter().enumerate() };
    let value = visitor.visit_seq(&mut reader)?;
    match reader.items.next() {
        Some(_) => Err(de::Error::custom(format!("has {} items, which is too many", nodes.len()))),
        None => Ok(value),
    }
}

struct ListReader<'a> {
    items: iter::Enumerate<slice::Iter<'a, Node>>,
}

impl<'de> de::SeqAccess<'de> for ListReader<'_> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        let Some((index, node)) = self.items.next() else { return Ok(None) };
        seed.deserialize(Reader(node)).map(Some).map_err(|fault| fault.seen_at(node).inside(index.to_string()))
    }
}

/// Offers the entries of an object, passing over those without a value.
struct TableReader<'a> {
    entries: btree_map::Iter<'a, String, Node>,
    current: Option<(&'a String, &'a Node)>,
}

impl<'a> TableReader<'a> {
    fn new(table: &'a Table) -> Self {
        Self { entries: table.iter(), current: None }
    }
}

impl<'de> de::MapAccess<'de> for TableReader<'_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        self.current = self.entries.by_ref().find(|(_, node)| !matches!(node.value, Value::Null));
        let Some((key, node)) = self.current else { return Ok(None) };
        let key_reader: de::value::StrDeserializer<'_, Fault> = key.as_str().into_deserializer();
        seed.deserialize(key_reader).map(Some).map_err(|fault| fault.seen_at(node).inside(key))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let Some((key, node)) = self.current.take() else { return Err(de::Error::custom("value read before its key")) };
        seed.deserialize(Reader(node)).map_err(|fault| fault.seen_at(node).inside(key))
    }
}
