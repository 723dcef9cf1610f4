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

/// Reads the actor out of the raw name segment and the raw query; also returns the query without the gateway's parts.
pub(crate) fn parse(name: &str, query: &str) -> Result<(ActorQuery, String), GatewayError> {
    let name = actor_name(name)?;
    let (params, kept) = collect(query)?;
    let namespace = params.namespace.ok_or_else(|| missing("namespace"))?;
    let method = params.method.ok_or_else(|| missing("method"))?;
    check_flags(params.crash_policy.as_deref(), params.skip_ready_wait.as_deref())?;
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
    Ok((ActorQuery { namespace, name, key, method }, kept))
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

fn check_flags(crash_policy: Option<&str>, skip_ready_wait: Option<&str>) -> Result<(), GatewayError> {
    if let Some(policy) = crash_policy
        && !["restart", "sleep", "destroy"].contains(&policy)
    {
        return Err(invalid(format!("unknown crash policy: {policy}, expected restart, sleep or destroy")));
    }
    if let Some(flag) = skip_ready_wait
        && !["true", "1", "false", "0"].contains(&flag)
    {
        return Err(invalid(format!("invalid skip-ready-wait: {flag}, expected true, 1, false or 0")));
    }
    Ok(())
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
    use protocol::error::Coded;

    use super::*;

    fn code(name: &str, query: &str) -> &'static str {
        parse(name, query).unwrap_err().code()
    }

    #[test]
    fn every_rule_has_its_code() {
        let get = "rvt-namespace=d&rvt-method=get";
        let create = "rvt-namespace=d&rvt-method=getOrCreate&rvt-pool=p";
        assert_eq!(code("a@b", get), "query_path_token_syntax");
        assert_eq!(code("", get), "query_empty_actor_name");
        assert_eq!(code("%ff", get), "query_invalid_percent_encoding");
        assert_eq!(code("a", "rvt-method=get"), "query_invalid_params");
        assert_eq!(code("a", "rvt-namespace=d"), "query_invalid_params");
        assert_eq!(code("a", "rvt-namespace=d&rvt-method=create"), "query_invalid_params");
        assert_eq!(code("a", &format!("{get}&rvt-zzz=1")), "query_invalid_params");
        assert_eq!(code("a", &format!("{get}&rvt-key=1&rvt-key=2")), "query_duplicate_param");
        assert_eq!(code("a", &format!("{get}&rvt-key=%ff")), "query_invalid_percent_encoding");
        for disallowed in ["rvt-runner=p", "rvt-input=9g", "rvt-region=r", "rvt-crash-policy=sleep"] {
            assert_eq!(code("a", &format!("{get}&{disallowed}")), "query_get_disallowed_params");
        }
        assert!(parse("a", &format!("{get}&rvt-pool=p&rvt-skip-ready-wait=1")).is_ok());
        assert_eq!(code("a", "rvt-namespace=d&rvt-method=getOrCreate"), "query_missing_pool");
        assert_eq!(code("a", &format!("{create}&rvt-input=a%2B")), "query_invalid_base64_input");
        assert_eq!(code("a", &format!("{create}&rvt-input=a")), "query_invalid_base64_input");
        // Two CBOR items, and a truncated one.
        assert_eq!(code("a", &format!("{create}&rvt-input=9vY")), "query_invalid_cbor_input");
        assert_eq!(code("a", &format!("{create}&rvt-input=gg")), "query_invalid_cbor_input");
        assert_eq!(code("a", &format!("{create}&rvt-skip-ready-wait=yes")), "query_invalid_params");
    }

    #[test]
    fn pool_wins_over_runner_and_values_are_form_decoded() {
        let query = "rvt-namespace=d&rvt-method=getOrCreate&rvt-runner=r&rvt-pool=p+q%zz&rvt-input=9g&rvt-key=a%2Cb,c";
        let (actor, kept) = parse("n%20m", query).unwrap();
        assert_eq!(kept, "");
        assert_eq!(actor.name, "n m");
        assert_eq!(actor.key, ["a", "b", "c"]);
        let input = Some(Bytes::from_static(&[0xf6]));
        assert_eq!(actor.method, QueryMethod::GetOrCreate { pool: "p q%zz".into(), input, region: None });
    }
}
