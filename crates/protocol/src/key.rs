//! Actor keys: lists of text components (`spec/gateway.md` 6). Their limits are in [`crate::limits`]; nothing is
//! checked here.

/// The whole text of a key without components.
const EMPTY_KEY: &str = "/";

/// The one text of a key, as it is stored, compared and given to the actor's host: components joined by `/`, with
/// `\` and `/` escaped by `\`, an empty component as `\0`, and no component at all as `/`.
pub fn serialize<S: AsRef<str>>(components: &[S]) -> String {
    if components.is_empty() {
        return EMPTY_KEY.to_owned();
    }
    let mut text = String::new();
    for (position, component) in components.iter().map(AsRef::as_ref).enumerate() {
        if position > 0 {
            text.push('/');
        }
        if component.is_empty() {
            text.push_str(r"\0");
        }
        for character in component.chars() {
            if matches!(character, '\\' | '/') {
                text.push('\\');
            }
            text.push(character);
        }
    }
    text
}

/// The components of a serialised key. Every text has some reading: an escaped character stands for itself, `\0` for
/// nothing, and a lone `\` at the end for itself.
pub fn parse(text: &str) -> Vec<String> {
    if text.is_empty() || text == EMPTY_KEY {
        return Vec::new();
    }
    let mut components = Vec::new();
    let mut component = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '/' => components.push(std::mem::take(&mut component)),
            '\\' => match characters.next() {
                Some('0') => {}
                Some(escaped) => component.push(escaped),
                None => component.push('\\'),
            },
            plain => component.push(plain),
        }
    }
    components.push(component);
    components
}

/// The components of the (percent-decoded) query parameter `rvt-key`: joined by `,` without escapes, so that no
/// component can hold a comma, and a single empty component reads as none at all.
pub fn parse_query(value: &str) -> Vec<String> {
    if value.is_empty() { Vec::new() } else { value.split(',').map(str::to_owned).collect() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn table_of_the_specification() {
        let rows: [(&[&str], &str); 8] = [
            (&[], "/"),
            (&["a"], "a"),
            (&["a", "b"], "a/b"),
            (&["a/b"], r"a\/b"),
            (&["/"], r"\/"),
            (&[""], r"\0"),
            (&[r"a\b"], r"a\\b"),
            (&["a/b", "", "c/d"], r"a\/b/\0/c\/d"),
        ];
        for (components, text) in rows {
            assert_eq!(serialize(components), text);
            assert_eq!(parse(text), components);
        }
    }

    #[test]
    fn texts_that_serialize_does_not_make() {
        let rows: [(&str, &[&str]); 6] =
            [("", &[]), ("a/", &["a", ""]), ("//", &["", "", ""]), (r"a\", &[r"a\"]), (r"\x", &["x"]), (r"a\0b", &["ab"])];
        for (text, components) in rows {
            assert_eq!(parse(text), components, "{text}");
        }
    }

    #[test]
    fn query_parameter() {
        let rows: [(&str, &[&str]); 6] =
            [("", &[]), ("a,b", &["a", "b"]), ("a/b", &["a/b"]), (",", &["", ""]), ("a,", &["a", ""]), ("ü", &["ü"])];
        for (value, components) in rows {
            assert_eq!(parse_query(value), components, "{value}");
        }
    }

    proptest! {
        #[test]
        fn round_trip(components in proptest::collection::vec(r"[a0,/\\\PC]{0,6}", 0..5)) {
            prop_assert_eq!(parse(&serialize(&components)), components);
        }
    }
}
