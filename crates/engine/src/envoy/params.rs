//! The query parameters of a host's connection (`spec/envoy-protocol.md` 2.1). Pure.

use protocol::limits;

use super::error::EnvoyClose;

/// What a host says when it connects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ConnectParams {
    pub(super) protocol_version: u16,
    pub(super) namespace: String,
    pub(super) envoy_key: String,
    /// Build number of the application.
    pub(super) version: u32,
    pub(super) pool_name: String,
}

/// Reads and checks them. Unknown parameters are ignored.
pub(super) fn parse(query: &str) -> Result<ConnectParams, EnvoyClose> {
    let mut params: [(&'static str, Option<String>); 5] =
        [("protocol_version", None), ("namespace", None), ("envoy_key", None), ("version", None), ("pool_name", None)];
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        if let Some((_, slot)) = params.iter_mut().find(|(known, _)| *known == name) {
            *slot = Some(value.into_owned());
        }
    }
    let [protocol_version, namespace, envoy_key, version, pool_name] = params;
    let protocol_version = required(protocol_version)?
        .parse()
        .ok()
        .filter(|version| protocol::envoy::is_supported(*version))
        .ok_or(invalid("protocol_version", "a version from 6 to 8 is supported"))?;
    let namespace = required(namespace)?;
    let envoy_key = required(envoy_key)?;
    if !is_legal_key(&envoy_key) {
        let expected = "3 to 128 of 0-9 a-z A-Z - _, no hyphen at the ends";
        return Err(invalid("envoy_key", expected));
    }
    let version = required(version)?.parse().map_err(|_| invalid("version", "a number from 0 to 4294967295"))?;
    let pool_name = required(pool_name)?;
    if pool_name.is_empty() || pool_name.len() > limits::POOL_NAME_MAX_BYTES {
        return Err(invalid("pool_name", "1 to 128 bytes"));
    }
    Ok(ConnectParams { protocol_version, namespace, envoy_key, version, pool_name })
}

fn required((parameter, value): (&'static str, Option<String>)) -> Result<String, EnvoyClose> {
    value.ok_or(invalid(parameter, "it is required"))
}

fn invalid(parameter: &'static str, expected: &'static str) -> EnvoyClose {
    EnvoyClose::InvalidRequest { parameter, expected }
}

fn is_legal_key(key: &str) -> bool {
    (limits::ENVOY_KEY_MIN_BYTES..=limits::ENVOY_KEY_MAX_BYTES).contains(&key.len())
        && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        && !key.starts_with('-')
        && !key.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "protocol_version=8&namespace=default&envoy_key=abc&version=1&pool_name=p%20q&extra=1";

    fn refused(from: &str, to: &str) -> Option<&'static str> {
        match parse(&GOOD.replace(from, to)) {
            Ok(_) => None,
            Err(EnvoyClose::InvalidRequest { parameter, .. }) => Some(parameter),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn good_parameters() {
        let params = parse(GOOD).unwrap();
        let expected = ConnectParams {
            protocol_version: 8,
            namespace: "default".into(),
            envoy_key: "abc".into(),
            version: 1,
            pool_name: "p q".into(),
        };
        assert_eq!(params, expected);
    }

    #[test]
    fn each_parameter_is_checked_at_its_edges() {
        assert_eq!(refused("protocol_version=", "other="), Some("protocol_version"));
        for parameter in ["namespace", "envoy_key", "version", "pool_name"] {
            assert_eq!(refused(&format!("&{parameter}="), "&other="), Some(parameter));
        }
        for version in ["0", "5", "9", "-1", "x", "65536"] {
            let to = format!("protocol_version={version}");
            assert_eq!(refused("protocol_version=8", &to), Some("protocol_version"), "{version}");
        }
        assert_eq!(refused("protocol_version=8", "protocol_version=6"), None);
        for key in ["ab", "-abc", "abc-", "a.b", &"a".repeat(129)] {
            assert_eq!(refused("envoy_key=abc", &format!("envoy_key={key}")), Some("envoy_key"), "{key}");
        }
        assert_eq!(refused("envoy_key=abc", &format!("envoy_key={}", "a".repeat(128))), None);
        assert_eq!(refused("&version=1", "&version=4294967296"), Some("version"));
        assert_eq!(refused("p%20q", &"p".repeat(129)), Some("pool_name"));
        assert_eq!(refused("p%20q", &"p".repeat(128)), None);
    }
}
