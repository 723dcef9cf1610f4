//! What is counted of storage requests and of the store, under the names by which it is exported. `docs/metrics.md` has the same
//! table.

use std::fmt;

use store::Store;

use super::families::Families;
use crate::envoy::StorageMetrics;

/// Codes of the troubles that a store can have.
const TROUBLES: [&str; 4] = ["full", "read_only", "failed", "damaged"];

pub(super) fn encode(families: &mut Families<'_>, requests: &StorageMetrics, store: &Store) -> fmt::Result {
    let trouble = store.trouble();
    let refuses = TROUBLES.map(|code| (code, u64::from(trouble.as_ref().is_some_and(|trouble| trouble.code() == code))));
    families.values("store_refuses_writes", "1 while the store refuses writes for this reason", "reason", &refuses)?;
    families.histograms(
        "envoy_storage_request_duration_seconds",
        "From the arrival of a storage request to its answer",
        &requests.durations,
    )?;
    families.counters("envoy_storage_request_error", "Storage requests that were refused, or failed", &requests.errors)
}
