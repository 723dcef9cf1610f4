//! What the executor of SQL counts, under the names by which it is exported. `docs/metrics.md` has the same table.

use std::fmt;

use super::families::Families;
use crate::sql::SqlMetrics;

pub(super) fn encode(families: &mut Families<'_>, sql: &SqlMetrics) -> fmt::Result {
    families.gauges("sqlite_remote_session_active", "Databases open to execute SQL for hosts", &sql.sessions)?;
    families.counters("sqlite_remote_session_open", "Databases that were opened to execute SQL for hosts", &sql.opened)?;
    families.gauges("sqlite_remote_request_active", "Requests of hosts to execute SQL that run at this moment", &sql.running)?;
    families.histograms(
        "sqlite_remote_request_duration_seconds",
        "From the arrival of a request to execute SQL to its answer",
        &sql.requests,
    )
}
