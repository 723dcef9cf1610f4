//! The configuration of a pool: as requests give it, as it is stored, and as lists show it (`spec/engine-api.md` 8).

use std::collections::BTreeMap;

use bytes::Bytes;
use lifecycle::eviction::{DEFAULT_RATE_PER_S, EvictionPace};
use protocol::limits;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::error::ApiError;
use crate::records::CorruptRow;

/// A pool's configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct PoolConfig {
    pub(crate) kind: PoolKind,
    pub(crate) drain_on_version_upgrade: bool,
    pub(crate) eviction: Eviction,
    /// How long changes of databases can be taken back, in seconds; 0: not at all. `None`: as the engine's configuration says.
    #[serde(default)]
    pub(crate) history_retention_s: Option<u32>,
    pub(crate) metadata: Option<Value>,
}

/// How the pool's hosts come to be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PoolKind {
    /// They connect by themselves.
    Normal,
    /// The engine calls them into being.
    Serverless(Serverless),
}

/// How fast hosts of the pool are emptied; `None` where the operator said nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Eviction {
    delay_s: u32,
    period_s: u32,
    rate_per_s: Option<f32>,
}

impl Eviction {
    pub(crate) fn pace(self) -> EvictionPace {
        EvictionPace { delay_s: self.delay_s, period_s: self.period_s, rate_per_s: self.rate_per_s }
    }
}

/// The options of a serverless pool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Serverless {
    pub(crate) url: String,
    pub(crate) headers: BTreeMap<String, String>,
    /// In seconds; longer than the grace period.
    pub(crate) request_lifespan: u32,
    pub(crate) max_concurrent_actors: u64,
    /// The last part of the lifespan, in seconds.
    pub(crate) drain_grace_period: u32,
    /// In milliseconds.
    pub(crate) metadata_poll_interval: Option<u64>,
    slots_per_runner: u32,
    min_runners: u32,
    max_runners: u32,
    runners_margin: u32,
}

const DEFAULT_MAX_RUNNERS: u32 = 1000;
const DEFAULT_DRAIN_GRACE_S: u32 = 1800;

/// One datacenter's entry of a request. Unknown members are ignored, as the reference does
/// (`spec/engine-api.md` 3.2).
#[derive(Debug, Deserialize)]
pub(crate) struct PoolConfigRequest {
    #[serde(flatten)]
    kind: RunnerConfigKind,
    metadata: Option<Value>,
    /// Deprecated place; wins over the one inside the variant.
    drain_on_version_upgrade: Option<bool>,
}

/// Of several, the first in the document counts. The name is known to callers: it is in the text of the error if there is none.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RunnerConfigKind {
    Normal(CommonRequest),
    Serverless(Box<ServerlessRequest>),
}

#[derive(Debug, Default, PartialEq, Deserialize)]
struct CommonRequest {
    drain_on_version_upgrade: Option<bool>,
    actor_eviction_delay: Option<u32>,
    actor_eviction_period: Option<u32>,
    actor_eviction_rate: Option<f32>,
    history_retention: Option<u32>,
}

#[derive(Debug, Deserialize)]
struct ServerlessRequest {
    #[serde(flatten)]
    common: CommonRequest,
    url: String,
    request_lifespan: u32,
    headers: Option<BTreeMap<String, String>>,
    max_concurrent_actors: Option<u64>,
    drain_grace_period: Option<u32>,
    metadata_poll_interval: Option<u64>,
    slots_per_runner: Option<u32>,
    min_runners: Option<u32>,
    max_runners: Option<u32>,
    runners_margin: Option<u32>,
}

/// The limits of the engine that a pool's options are checked against.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PoolRules {
    /// Reserved at the end of a request when the operator says nothing, in seconds.
    pub(crate) default_drain_grace_s: u32,
    /// The longest that the operator may ask for, in milliseconds.
    pub(crate) max_drain_grace_ms: u64,
}

impl PoolConfigRequest {
    /// Whether this is what the published SDK sends each time a host starts: a normal pool, nothing said about it but whether
    /// it is drained, and that in the deprecated place.
    pub(crate) fn is_of_starting_host(&self) -> bool {
        let says_nothing = match &self.kind {
            RunnerConfigKind::Normal(common) => *common == CommonRequest::default(),
            RunnerConfigKind::Serverless(_) => false,
        };
        says_nothing && self.drain_on_version_upgrade.is_some() && self.metadata.is_none()
    }

    /// The endpoint, if it is for a serverless pool.
    pub(crate) fn serverless_url(&self) -> Option<&str> {
        match &self.kind {
            RunnerConfigKind::Serverless(serverless) => Some(&serverless.url),
            RunnerConfigKind::Normal(_) => None,
        }
    }
}

impl PoolConfig {
    /// Checks a request, apart from where its URL leads, and fills in the defaults.
    pub(crate) fn from_request(request: PoolConfigRequest, rules: PoolRules) -> Result<Self, ApiError> {
        let (common, kind) = match request.kind {
            RunnerConfigKind::Normal(common) => (common, PoolKind::Normal),
            RunnerConfigKind::Serverless(serverless) => {
                let (common, serverless) = serverless.check(rules)?;
                (common, PoolKind::Serverless(serverless))
            }
        };
        let drain = request.drain_on_version_upgrade.or(common.drain_on_version_upgrade).unwrap_or(true);
        Ok(Self {
            kind,
            drain_on_version_upgrade: drain,
            eviction: Eviction {
                delay_s: common.actor_eviction_delay.unwrap_or(0),
                period_s: common.actor_eviction_period.unwrap_or(0),
                rate_per_s: common.actor_eviction_rate,
            },
            history_retention_s: common.history_retention,
            metadata: request.metadata,
        })
    }

    /// The same with the eviction pace and the metadata that the old configuration has, if both are of normal pools. The host
    /// that asks for this one knows nothing of them, and would undo an operator's wishes right before they matter.
    pub(super) fn with_wishes_of(self, old: Option<&Self>) -> Self {
        match (&self.kind, old) {
            (PoolKind::Normal, Some(old @ Self { kind: PoolKind::Normal, .. })) => {
                Self { drain_on_version_upgrade: self.drain_on_version_upgrade, ..old.clone() }
            }
            (PoolKind::Normal | PoolKind::Serverless(_), None | Some(_)) => self,
        }
    }

    /// The same with the history that the old configuration keeps, if this one does not say. The published clients know nothing
    /// of it, and what they send at each start must not end it.
    pub(super) fn with_history_of(self, old: Option<&Self>) -> Self {
        let history_retention_s = self.history_retention_s.or(old.and_then(|old| old.history_retention_s));
        Self { history_retention_s, ..self }
    }

    /// Whether the new configuration leads somewhere else than the old one (`spec/engine-api.md` 8.5).
    pub(super) fn endpoint_differs_from(&self, old: Option<&Self>) -> bool {
        match (&self.kind, old.map(|old| &old.kind)) {
            (PoolKind::Serverless(new), Some(PoolKind::Serverless(old))) => new.url != old.url || new.headers != old.headers,
            (PoolKind::Normal | PoolKind::Serverless(_), None | Some(PoolKind::Normal | PoolKind::Serverless(_))) => true,
        }
    }

    /// How long an actor of the pool may take to stop, as far as the pool has a wish, in milliseconds.
    pub(crate) fn drain_grace_ms(&self) -> i64 {
        match &self.kind {
            PoolKind::Normal => 0,
            PoolKind::Serverless(serverless) => i64::from(serverless.drain_grace_period) * 1000,
        }
    }

    pub(super) fn to_stored(&self) -> Bytes {
        // A configuration came from JSON or is made of plain numbers and texts, so it always becomes JSON again.
        serde_json::to_vec(self).unwrap_or_default().into()
    }

    pub(crate) fn from_stored(value: &[u8]) -> Result<Self, CorruptRow> {
        serde_json::from_slice(value).map_err(|error| CorruptRow { kind: "pool", reason: error.to_string() })
    }

    /// As lists show it: every default filled in.
    pub(crate) fn to_response(&self, protocol_version: Option<u16>) -> Value {
        let mut variant = match &self.kind {
            PoolKind::Normal => Map::new(),
            PoolKind::Serverless(serverless) => serverless.to_response(),
        };
        variant.insert("drain_on_version_upgrade".into(), self.drain_on_version_upgrade.into());
        variant.insert("actor_eviction_delay".into(), self.eviction.delay_s.into());
        variant.insert("actor_eviction_period".into(), self.eviction.period_s.into());
        variant.insert("actor_eviction_rate".into(), json!(self.eviction.rate_per_s.unwrap_or(DEFAULT_RATE_PER_S)));
        if let Some(retention) = self.history_retention_s {
            variant.insert("history_retention".into(), retention.into());
        }
        let name = match &self.kind {
            PoolKind::Normal => "normal",
            PoolKind::Serverless(_) => "serverless",
        };
        let mut response = Map::new();
        response.insert(name.into(), Value::Object(variant));
        if let Some(metadata) = &self.metadata {
            response.insert("metadata".into(), metadata.clone());
        }
        response.insert("protocol_version".into(), json!(protocol_version));
        Value::Object(response)
    }
}

impl ServerlessRequest {
    fn check(self, rules: PoolRules) -> Result<(CommonRequest, Serverless), ApiError> {
        let headers = self.headers.unwrap_or_default();
        check_headers(&headers)?;
        if self.slots_per_runner == Some(0) {
            return Err(invalid("`slots_per_runner` cannot be 0"));
        }
        let lifespan = self.request_lifespan;
        let drain_grace_period = match self.drain_grace_period {
            Some(given) => given,
            None if lifespan > DEFAULT_DRAIN_GRACE_S => DEFAULT_DRAIN_GRACE_S,
            None => rules.default_drain_grace_s.min(lifespan / 2).max(1),
        };
        if drain_grace_period >= lifespan {
            return Err(invalid(format!(
                "`drain_grace_period` must be less than `request_lifespan` ({drain_grace_period}s >= {lifespan}s)"
            )));
        }
        let grace_ms = u64::from(drain_grace_period) * 1000;
        if self.drain_grace_period.is_some() && grace_ms > rules.max_drain_grace_ms {
            return Err(invalid(format!(
                "`drain_grace_period` cannot be greater than `actor_stop_threshold` ({grace_ms}ms > {}ms). If \
                 `drain_grace_period` was omitted, the default is {DEFAULT_DRAIN_GRACE_S}s.",
                rules.max_drain_grace_ms
            )));
        }
        let max_runners = self.max_runners.unwrap_or(DEFAULT_MAX_RUNNERS);
        let serverless = Serverless {
            url: self.url,
            headers,
            request_lifespan: self.request_lifespan,
            max_concurrent_actors: self.max_concurrent_actors.unwrap_or(u64::from(max_runners)),
            drain_grace_period,
            metadata_poll_interval: self.metadata_poll_interval,
            slots_per_runner: self.slots_per_runner.unwrap_or(1),
            min_runners: self.min_runners.unwrap_or(0),
            max_runners,
            runners_margin: self.runners_margin.unwrap_or(0),
        };
        Ok((self.common, serverless))
    }
}

impl Serverless {
    fn to_response(&self) -> Map<String, Value> {
        let mut response = Map::new();
        response.insert("url".into(), self.url.as_str().into());
        response.insert("headers".into(), json!(self.headers));
        response.insert("request_lifespan".into(), self.request_lifespan.into());
        response.insert("max_concurrent_actors".into(), self.max_concurrent_actors.into());
        response.insert("drain_grace_period".into(), self.drain_grace_period.into());
        response.insert("slots_per_runner".into(), self.slots_per_runner.into());
        response.insert("min_runners".into(), self.min_runners.into());
        response.insert("max_runners".into(), self.max_runners.into());
        response.insert("runners_margin".into(), self.runners_margin.into());
        if let Some(interval) = self.metadata_poll_interval {
            response.insert("metadata_poll_interval".into(), interval.into());
        }
        response
    }
}

fn check_headers(headers: &BTreeMap<String, String>) -> Result<(), ApiError> {
    if headers.len() > limits::POOL_HEADERS_MAX {
        return Err(invalid(format!("too many headers (max {})", limits::POOL_HEADERS_MAX)));
    }
    for (name, value) in headers {
        if name.len() > limits::POOL_HEADER_NAME_MAX_BYTES {
            return Err(invalid(format!("invalid header name: too long (max {})", limits::POOL_HEADER_NAME_MAX_BYTES)));
        }
        if let Err(error) = http::HeaderName::from_bytes(name.as_bytes()) {
            return Err(invalid(format!("invalid header name: {error}")));
        }
        if value.len() > limits::POOL_HEADER_VALUE_MAX_BYTES {
            return Err(invalid(format!("invalid header value: too long (max {})", limits::POOL_HEADER_VALUE_MAX_BYTES)));
        }
        if let Err(error) = http::HeaderValue::from_str(value) {
            return Err(invalid(format!("invalid header value: {error}")));
        }
    }
    Ok(())
}

fn invalid(reason: impl Into<String>) -> ApiError {
    ApiError::RunnerConfigInvalid { reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(request: Value) -> Result<PoolConfig, ApiError> {
        let request = serde_json::from_value(request).unwrap();
        PoolConfig::from_request(request, PoolRules { default_drain_grace_s: 10, max_drain_grace_ms: 1_800_000 })
    }

    fn reason(request: Value) -> String {
        match check(request) {
            Err(ApiError::RunnerConfigInvalid { reason }) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn defaults_are_filled_in_and_survive_storage() {
        let config = check(json!({"normal": {}, "zzz": 1})).unwrap();
        let expected = json!({"normal": {"drain_on_version_upgrade": true, "actor_eviction_delay": 0,
            "actor_eviction_period": 0, "actor_eviction_rate": 1.0}, "protocol_version": null});
        assert_eq!(config.to_response(None), expected);
        assert_eq!(PoolConfig::from_stored(&config.to_stored()), Ok(config));

        let serverless = json!({"serverless": {"url": "http://127.0.0.1:9/api/rivet", "request_lifespan": 900,
            "max_runners": 7, "drain_on_version_upgrade": true}, "drain_on_version_upgrade": false, "metadata": [1]});
        let config = check(serverless).unwrap();
        let response = config.to_response(Some(8));
        assert_eq!(response["serverless"]["drain_grace_period"], 10);
        assert_eq!(response["serverless"]["max_concurrent_actors"], 7);
        assert_eq!(response["serverless"]["drain_on_version_upgrade"], false);
        assert_eq!((&response["metadata"], &response["protocol_version"]), (&json!([1]), &json!(8)));
        assert!(response["serverless"].get("metadata_poll_interval").is_none());
        assert_eq!(PoolConfig::from_stored(&config.to_stored()), Ok(config));
    }

    #[test]
    fn a_host_that_starts_keeps_what_the_operator_has_set() {
        let request = |value: Value| serde_json::from_value::<PoolConfigRequest>(value).unwrap();
        let of_host = json!({"drain_on_version_upgrade": true, "normal": {}});
        assert!(request(of_host.clone()).is_of_starting_host());
        for of_operator in [
            json!({"normal": {}}),
            json!({"normal": {"drain_on_version_upgrade": true}}),
            json!({"drain_on_version_upgrade": true, "normal": {"actor_eviction_rate": 1.0}}),
            json!({"drain_on_version_upgrade": true, "normal": {}, "metadata": {}}),
        ] {
            assert!(!request(of_operator.clone()).is_of_starting_host(), "{of_operator}");
        }
        let host = check(of_host).unwrap();
        let set = json!({"normal": {"actor_eviction_rate": 7.0, "drain_on_version_upgrade": false}, "metadata": 1});
        let set = check(set).unwrap();
        let kept = host.clone().with_wishes_of(Some(&set));
        assert_eq!(kept, PoolConfig { drain_on_version_upgrade: true, ..set });
        assert_eq!(host.clone().with_wishes_of(None), host);
        let serverless = check(json!({"serverless": {"url": "http://h/", "request_lifespan": 900}})).unwrap();
        assert_eq!(host.clone().with_wishes_of(Some(&serverless)), host);
    }

    #[test]
    fn history_is_kept_until_somebody_says_otherwise() {
        let with = |retention: Value| check(json!({"normal": {"history_retention": retention}})).unwrap();
        let hour = with(json!(3600));
        assert_eq!(hour.to_response(None)["normal"]["history_retention"], 3600);
        assert_eq!(PoolConfig::from_stored(&hour.to_stored()), Ok(hour.clone()));
        let silent = check(json!({"normal": {}})).unwrap();
        assert_eq!(silent.to_response(None)["normal"].get("history_retention"), None);
        assert_eq!(silent.clone().with_history_of(None), silent);
        assert_eq!(silent.with_history_of(Some(&hour)), hour);
        let serverless = check(json!({"serverless": {"url": "http://h/", "request_lifespan": 900}})).unwrap();
        assert_eq!(serverless.with_history_of(Some(&hour)).history_retention_s, Some(3600));
        let off = with(json!(0));
        assert_eq!(off.clone().with_history_of(Some(&hour)), off);
    }

    #[test]
    fn pools_stored_before_there_was_history_have_no_wish() {
        let config = check(json!({"normal": {"history_retention": 5}})).unwrap();
        let mut stored: Value = serde_json::from_slice(&config.to_stored()).unwrap();
        stored.as_object_mut().unwrap().remove("history_retention_s").unwrap();
        let read = PoolConfig::from_stored(stored.to_string().as_bytes()).unwrap();
        assert_eq!(read, PoolConfig { history_retention_s: None, ..config });
    }

    #[test]
    fn each_rule_has_its_reason() {
        let with = |name: &str, value: Value| {
            let mut serverless = json!({"url": "http://h/", "request_lifespan": 900});
            serverless[name] = value;
            json!({"serverless": serverless})
        };
        let many: BTreeMap<String, &str> = (0..17).map(|n| (format!("x-{n}"), "v")).collect();
        assert_eq!(reason(with("headers", json!(many))), "too many headers (max 16)");
        assert_eq!(reason(with("headers", json!({"x".repeat(129): "v"}))), "invalid header name: too long (max 128)");
        assert_eq!(reason(with("headers", json!({"ä": "v"}))), "invalid header name: invalid HTTP header name");
        assert_eq!(reason(with("headers", json!({"x": "v".repeat(4097)}))), "invalid header value: too long (max 4096)");
        assert_eq!(reason(with("headers", json!({"x": "\n"}))), "invalid header value: failed to parse header value");
        assert_eq!(reason(with("slots_per_runner", json!(0))), "`slots_per_runner` cannot be 0");
        assert_eq!(
            reason(with("drain_grace_period", json!(1800))),
            "`drain_grace_period` must be less than `request_lifespan` (1800s >= 900s)"
        );
        // Without time between the two, actors would move for ever.
        let reasons = [0, 1].map(|lifespan| reason(with("request_lifespan", json!(lifespan))));
        assert_eq!(reasons[1], "`drain_grace_period` must be less than `request_lifespan` (1s >= 1s)");
        assert!(reasons[0].ends_with("(1s >= 0s)"));
    }

    #[test]
    fn the_grace_period_is_no_longer_than_a_stop_may_take() {
        let with =
            |grace: Value| json!({"serverless": {"url": "http://h/", "request_lifespan": 3600, "drain_grace_period": grace}});
        assert!(check(with(json!(1800))).is_ok());
        let text = "`drain_grace_period` cannot be greater than `actor_stop_threshold` (1801000ms > 1800000ms). If \
                    `drain_grace_period` was omitted, the default is 1800s.";
        assert_eq!(reason(with(json!(1801))), text);
        assert!(reason(with(json!(u32::MAX - 1))).contains("must be less than"), "that comes first");
        // Only what the operator has said is checked.
        let rules = PoolRules { default_drain_grace_s: 10, max_drain_grace_ms: 1 };
        assert!(PoolConfig::from_request(serde_json::from_value(with(Value::Null)).unwrap(), rules).is_ok());
    }

    #[test]
    fn the_first_variant_counts_and_there_must_be_one() {
        let kind = |text: &str| serde_json::from_str::<PoolConfigRequest>(text).map(|request| request.serverless_url().is_some());
        let serverless = r#""serverless": {"url": "http://h/", "request_lifespan": 900}"#;
        assert!(!kind(&format!(r#"{{"metadata": 1, "normal": {{}}, {serverless}}}"#)).unwrap());
        assert!(kind(&format!(r#"{{{serverless}, "normal": {{}}}}"#)).unwrap());
        for none in ["{}", r#"{"metadata": {}, "zzz": 1}"#] {
            let error = kind(none).unwrap_err().to_string();
            assert!(error.starts_with("no variant of enum RunnerConfigKind found in flattened data"), "{error}");
        }
        assert!(kind(r#"{"normal": null}"#).is_err());
    }
}
