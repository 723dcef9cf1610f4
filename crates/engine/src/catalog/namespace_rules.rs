//! What a namespace may be called (`spec/engine-api.md` 2.3 and 7.5). Pure.

use protocol::limits;

use crate::error::ApiError;

pub(super) fn check(name: &str, display_name: &str) -> Result<(), ApiError> {
    let refuse = |reason| Err(ApiError::NamespaceFailedToCreate { reason });
    if name.is_empty() {
        return refuse("name too short");
    }
    if name.len() > limits::NAMESPACE_NAME_MAX_BYTES {
        return refuse("name too long");
    }
    let legal = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if !legal || name.starts_with('-') || name.ends_with('-') || name.contains("--") {
        return refuse("invalid name");
    }
    if display_name.is_empty() {
        return refuse("display name too short");
    }
    if display_name.len() > limits::NAMESPACE_DISPLAY_NAME_MAX_BYTES {
        return refuse("display name too long");
    }
    let odd_space = display_name.chars().any(|character| character.is_whitespace() && character != ' ');
    if odd_space || display_name.starts_with(' ') || display_name.ends_with(' ') || display_name.contains("  ") {
        return refuse("invalid display name");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_has_its_reason() {
        let reason = |name: &str, display_name: &str| match check(name, display_name) {
            Ok(()) => "",
            Err(ApiError::NamespaceFailedToCreate { reason }) => reason,
            Err(other) => panic!("{other:?}"),
        };
        assert_eq!(reason(&"a".repeat(64), &"D".repeat(128)), "");
        assert_eq!(reason("1-a", "A b"), "");
        assert_eq!(reason("", "D"), "name too short");
        assert_eq!(reason(&"a".repeat(65), "D"), "name too long");
        for name in ["-a", "a-", "a--b", "A", "ä", "a b"] {
            assert_eq!(reason(name, "D"), "invalid name", "{name}");
        }
        assert_eq!(reason("a", ""), "display name too short");
        assert_eq!(reason("a", &"D".repeat(129)), "display name too long");
        for display_name in [" D", "D ", "D  E", "D\tE"] {
            assert_eq!(reason("a", display_name), "invalid display name", "{display_name}");
        }
    }
}
