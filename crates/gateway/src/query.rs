//! The `rvt-` parameters of a query path (`spec/gateway.md` 4.2). Pure.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use percent_encoding::percent_decode;

use crate::directory::{ActorQuery, QueryMethod};
use crate::error::GatewayError;

const PREFIX: &str = "rvt-";

/// Whether a path with this query names its actor by key: any raw parameter name with the prefix decides.
pub(crate) fn is_query_style(query: &str) -> bool {
    query.split('&').any(|pair| pair.starts_with(PREFIX))
}

/// The parameters as given; each at most once.
#[derive(Default)]
struct Params {
    namespace: Option<String>,
    method: Option<String>,
    runner: Option<String>,
    pool: Option<String>,
    key: Option<String>,
    input: Option<String>,
    region: Option<String>,
    crash_policy: Option<String>,
    token: Option<String>,
    skip_ready_wait: Option<String>,
}

impl Params {
    fn slot(&mut self, name: &str) -> Option<&mut Option<String>> {
        match name {
            "namespace" => Some(&mut self.namespace),
            "method" => Some(&mut self.method),
            "runner" => Some(&mut self.runner),
            "pool" => Some(&mut self.pool),
            "key" => Some(&mut self.key),
            "input" => Some(&mut self.input),
            "region" => Some(&mut self.region),
            "crash-policy" => Some(&mut self.crash_policy),
            "token" => Some(&mut self.token),
            "skip-ready-wait" => Some(&mut self.skip_ready_wait),
            _unknown => None,
        }
    }
}

/// What a query path says.
#[derive(Debug)]
pub(crate) struct QueryPath {
    pub(crate) actor: ActorQuery,
    /// The query without the gateway's parts.
    pub(crate) kept: String,
    /// Whether the request wants to be delivered before the actor is ready.
    pub(crate) skip_ready_wait: bool,
}

/// Reads a query path out of its raw name segment and its raw query.
pub(crate) fn parse(name: &str, query: &str) -> Result<QueryPath, GatewayError> {
    let name = actor_name(name)?;
    let (params, kept) = collect(query)?;
    let namespace = params.namespace.ok_or_else(|| missing("namespace"))?;
    let method = params.method.ok_or_else(|| missing("method"))?;
    check_crash_policy(params.crash_policy.as_deref())?;
    let skip_ready_wait = params.skip_ready_wait.as_deref().map(skip_ready_wait).transpose()?.unwrap_or(false);
    let method = match method.as_str() {
        "get" => {
            if params.input.is_some() || params.region.is_some() || params.crash_policy.is_some() || params.runner.is_some() {
                return Err(GatewayError::QueryGetDisallowedParams);
            }
            QueryMethod::Get
        }
        "getOrCreate" => QueryMethod::GetOrCreate {
            pool: params.pool.or(params.runner).ok_or(GatewayError::QueryMissingPool)?,
            input: params.input.as_deref().map(input).transpose()?,
            region: params.region,
        },
        other => return Err(invalid(format!("unknown method: {other}, expected get or getOrCreate"))),
    };
    let key = protocol::key::parse_query(params.key.as_deref().unwrap_or_default());
    Ok(QueryPath { actor: ActorQuery { namespace, name, key, method }, kept, skip_ready_wait })
}

fn actor_name(raw: &str) -> Result<String, GatewayError> {
    if raw.contains('@') {
        return Err(GatewayError::QueryPathTokenSyntax);
    }
    let name = percent_decode(raw.as_bytes())
        .decode_utf8()
        .map_err(|_| GatewayError::QueryInvalidPercentEncoding { name: "name".into() })?;
    if name.is_empty() {
        return Err(GatewayError::QueryEmptyActorName);
    }
    Ok(name.into_owned())
}

fn collect(query: &str) -> Result<(Params, String), GatewayError> {
    let mut params = Params::default();
    let mut kept = String::with_capacity(query.len());
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let Some(own) = pair.strip_prefix(PREFIX) else {
            if !kept.is_empty() {
                kept.push('&');
            }
            kept.push_str(pair);
            continue;
        };
        let (name, value) = own.split_once('=').unwrap_or((own, ""));
        let Some(slot) = params.slot(name) else {
            return Err(invalid(format!(
                "unknown field `{name}`, expected one of `namespace`, `method`, `runner`, `pool`, `key`, `input`, `region`, `crash-policy`, `token`, `skip-ready-wait`"
            )));
        };
        if slot.is_some() {
            return Err(GatewayError::QueryDuplicateParam { name: format!("{PREFIX}{name}") });
        }
        *slot = Some(form_value(name, value)?);
    }
    Ok((params, kept))
}

/// Decodes as forms do: `+` is a space, a malformed escape stays as it is.
fn form_value(name: &str, value: &str) -> Result<String, GatewayError> {
    let spaced: Vec<u8> = value.bytes().map(|byte| if byte == b'+' { b' ' } else { byte }).collect();
    let decoded = percent_decode(&spaced).collect::<Vec<u8>>();
    String::from_utf8(decoded).map_err(|_| GatewayError::QueryInvalidPercentEncoding { name: format!("{PREFIX}{name}") })
}

fn check_crash_policy(policy: Option<&str>) -> Result<(), GatewayError> {
    match policy {
        None | Some("restart" | "sleep" | "destroy") => Ok(()),
        Some(other) => Err(invalid(format!("unknown crash policy: {other}, expected restart, sleep or destroy"))),
    }
}

fn skip_ready_wait(text: &str) -> Result<bool, GatewayError> {
    flag(text).ok_or_else(|| invalid(format!("invalid skip-ready-wait: {text}, expected true, 1, false or 0")))
}

/// A yes or no in any of the four spellings that clients use.
pub(crate) fn flag(text: &str) -> Option<bool> {
    match text {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _other => None,
    }
}

/// Checks that the input is base64url without padding of exactly one CBOR item, and returns its bytes.
fn input(text: &str) -> Result<Bytes, GatewayError> {
    let cbor = URL_SAFE_NO_PAD.decode(text).map_err(|_| GatewayError::QueryInvalidBase64Input)?;
    let mut reader = cbor4ii::core::utils::SliceReader::new(&cbor);
    let mut deserializer = cbor4ii::serde::Deserializer::new(&mut reader);
    let item: Result<serde::de::IgnoredAny, _> = serde::Deserialize::deserialize(&mut deserializer);
    let rest = cbor4ii::core::dec::Read::fill(&mut reader, 1).map(|rest| rest.as_ref().len()).unwrap_or(0);
    if item.is_err() || rest != 0 {
        return Err(GatewayError::QueryInvalidCborInput);
    }
    Ok(cbor.into())
}

fn missing(field: &str) -> GatewayError {
    invalid(format!("missing field `{field}`"))
}

fn invalid(detail: String) -> GatewayError {
    GatewayError::QueryInvalidParams { detail }
}

#[cfg(test)]
mod tests {
    use protocol::error::{Coded, Surface};

    use super::*;

    /// Code and message of a refusal.
    fn refusal(name: &str, query: &str) -> (&'static str, String) {
        let error = parse(name, query).expect_err(query);
        assert_eq!((error.group(), error.status(Surface::Gateway)), ("guard", 400));
        (error.code(), error.to_string())
    }

    const GET: &str = "rvt-namespace=d&rvt-method=get";
    const CREATE: &str = "rvt-namespace=d&rvt-method=getOrCreate&rvt-pool=p";

    #[test]
    fn every_rule_has_its_code_and_message() {
        let get = |more: &str| format!("{GET}&{more}");
        let create = |more: &str| format!("{CREATE}&{more}");
        let params = |detail: &str| ("query_invalid_params", format!("invalid query gateway params: {detail}"));
        let token = ("query_path_token_syntax", "query gateway paths must not use @token syntax".to_owned());
        let name = ("query_empty_actor_name", "query gateway actor name must not be empty".to_owned());
        let escape =
            |name: &str| ("query_invalid_percent_encoding", format!("invalid percent-encoding for query gateway param '{name}'"));
        let twice = |name: &str| ("query_duplicate_param", format!("duplicate query gateway param: {name}"));
        let base64 = ("query_invalid_base64_input", "invalid base64url in query gateway input".to_owned());
        let cbor = ("query_invalid_cbor_input", "invalid query gateway input cbor: invalid cbor".to_owned());
        let pool = ("query_missing_pool", "query gateway method=getOrCreate requires rvt-pool param".to_owned());
        let unknown = "unknown field `zzz`, expected one of `namespace`, `method`, `runner`, `pool`, `key`, `input`, `region`, \
                       `crash-policy`, `token`, `skip-ready-wait`";
        for (subject, query, expected) in [
            ("a@b", GET, token),
            ("", GET, name),
            ("%ff", GET, escape("name")),
            ("a", "rvt-method=get", params("missing field `namespace`")),
            ("a", "rvt-namespace=d", params("missing field `method`")),
            ("a", "rvt-namespace=d&rvt-method=create", params("unknown method: create, expected get or getOrCreate")),
            ("a", "rvt-namespace=d&rvt-method=getForId", params("unknown method: getForId, expected get or getOrCreate")),
            ("a", &get("rvt-zzz=1"), params(unknown)),
            // The prefix counts as it is written.
            ("a", &get("rvt-Key=1"), params(&unknown.replace("zzz", "Key"))),
            ("a", &get("rvt-key=1&rvt-key=2"), twice("rvt-key")),
            ("a", &get("rvt-key=%ff"), escape("rvt-key")),
            ("a", "rvt-namespace=d&rvt-method=getOrCreate", pool),
            ("a", &create("rvt-input=a%2B"), base64.clone()),
            ("a", &create("rvt-input=9g=="), base64.clone()),
            ("a", &create("rvt-input=a"), base64),
            // Two items, a truncated one, and none.
            ("a", &create("rvt-input=9vY"), cbor.clone()),
            ("a", &create("rvt-input=gg"), cbor.clone()),
            ("a", &create("rvt-input="), cbor),
            (
                "a",
                &create("rvt-crash-policy=explode"),
                params("unknown crash policy: explode, expected restart, sleep or destroy"),
            ),
            ("a", &create("rvt-skip-ready-wait=yes"), params("invalid skip-ready-wait: yes, expected true, 1, false or 0")),
        ] {
            assert_eq!(refusal(subject, query), expected, "{subject} {query}");
        }
    }

    #[test]
    fn a_lookup_takes_nothing_that_only_a_creation_needs() {
        let message = "query gateway method=get does not allow rvt-input, rvt-region, rvt-crash-policy, or rvt-pool params";
        for disallowed in ["rvt-runner=p", "rvt-input=9g", "rvt-region=r", "rvt-crash-policy=sleep"] {
            let expected = ("query_get_disallowed_params", message.to_owned());
            assert_eq!(refusal("a", &format!("{GET}&{disallowed}")), expected, "{disallowed}");
        }
        let tolerated = parse("a", &format!("{GET}&rvt-pool=p&rvt-skip-ready-wait=1&rvt-token=t")).unwrap();
        assert_eq!((tolerated.actor.method, tolerated.skip_ready_wait), (QueryMethod::Get, true));
    }

    #[test]
    fn only_a_raw_name_makes_a_query_path() {
        for query in ["rvt-x", "a=1&rvt-key=2", "&&rvt-"] {
            assert!(is_query_style(query), "{query}");
        }
        for query in ["", "a=rvt-", "rvt%2Dkey=1", "RVT-key=1", "xrvt-key=1"] {
            assert!(!is_query_style(query), "{query}");
        }
    }

    #[test]
    fn pool_wins_over_runner_and_values_are_form_decoded() {
        let query = "rvt-namespace=d&rvt-method=getOrCreate&rvt-runner=r&rvt-pool=p+q%zz&rvt-input=9g&rvt-key=a%2Cb,c";
        let QueryPath { actor, kept, .. } = parse("n%20m", query).unwrap();
        assert_eq!(kept, "");
        assert_eq!(actor.name, "n m");
        assert_eq!(actor.key, ["a", "b", "c"]);
        let input = Some(Bytes::from_static(&[0xf6]));
        assert_eq!(actor.method, QueryMethod::GetOrCreate { pool: "p q%zz".into(), input, region: None });
    }
}
