//! Maps with text keys.

use crate::{Codec, DecodeError, NotInVersion, Reader, Writer};

/// Texts and what belongs to them, in wire order; no key occurs twice. Meant for a few dozen entries, such as HTTP
/// headers: look-ups go through all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Map<V>(Vec<(String, V)>);

impl<V> Map<V> {
    /// No entries.
    pub fn new() -> Self {
        Self(Vec::new())
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&V> {
        self.iter().find(|(k, _)| *k == key).map(|(_, value)| value)
    }

    /// Sets the value of a key, at the end if the key is new. Returns the value that was there.
    pub fn insert(&mut self, key: String, value: V) -> Option<V> {
        match self.0.iter_mut().find(|(k, _)| *k == key) {
            Some((_, old)) => Some(std::mem::replace(old, value)),
            None => {
                self.0.push((key, value));
                None
            }
        }
    }

    /// The entries in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &V)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<V> Default for Map<V> {
    fn default() -> Self {
        Self::new()
    }
}

/// Of entries with the same key the last one stays.
impl<V> From<Vec<(String, V)>> for Map<V> {
    fn from(mut entries: Vec<(String, V)>) -> Self {
        // By sorting and not by look-ups: entries may come from a hostile frame and be many.
        let mut by_key: Vec<usize> = (0..entries.len()).collect();
        by_key.sort_by_key(|&position| &entries[position].0);
        let mut is_superseded = vec![false; entries.len()];
        for pair in by_key.windows(2) {
            // The sort is stable: of two equal keys the later one comes second.
            is_superseded[pair[0]] = entries[pair[0]].0 == entries[pair[1]].0;
        }
        let mut flags = is_superseded.into_iter();
        entries.retain(|_| flags.next() == Some(false));
        Self(entries)
    }
}

impl<V> FromIterator<(String, V)> for Map<V> {
    fn from_iter<I: IntoIterator<Item = (String, V)>>(entries: I) -> Self {
        Self::from(Vec::from_iter(entries))
    }
}

impl<V> IntoIterator for Map<V> {
    type Item = (String, V);
    type IntoIter = std::vec::IntoIter<(String, V)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<V: Codec> Codec for Map<V> {
    const MIN_SIZE: usize = 1;

    fn write(&self, writer: &mut Writer<'_>) -> Result<(), NotInVersion> {
        writer.length(self.len());
        self.0.iter().try_for_each(|(key, value)| {
            key.write(writer)?;
            value.write(writer)
        })
    }

    fn read(reader: &mut Reader) -> Result<Self, DecodeError> {
        let count = reader.items(String::MIN_SIZE + V::MIN_SIZE)?;
        let mut entries = Vec::with_capacity(count);
        for _ in 0..count {
            entries.push((String::read(reader)?, V::read(reader)?));
        }
        Ok(Self::from(entries))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn insert_keeps_the_place_of_a_key() {
        let mut map: Map<u32> = [("b".to_owned(), 1), ("a".to_owned(), 2)].into_iter().collect();
        assert_eq!(map.insert("b".to_owned(), 3), Some(1));
        assert_eq!(map.insert("c".to_owned(), 4), None);
        assert_eq!(Vec::from_iter(map.iter()), [("b", &3), ("a", &2), ("c", &4)]);
        assert_eq!((map.get("a"), map.get("d")), (Some(&2), None));
    }

    proptest! {
        #[test]
        fn the_last_of_equal_keys_stays(keys in proptest::collection::vec("[a-d]", 0..12)) {
            let entries: Vec<(String, usize)> = keys.iter().cloned().zip(0..).collect();
            let is_last = |(key, position): &(String, usize)| keys.iter().rposition(|k| k == key) == Some(*position);
            let expected: Vec<_> = entries.iter().filter(|entry| is_last(entry)).cloned().collect();
            prop_assert_eq!(Vec::from_iter(Map::from(entries)), expected);
        }
    }
}
