//! Checks that the database has enough connections for the whole fleet.

use super::Finding;
use crate::outbox::ServerDiagnostics;

/// Warns if the live workers need more connections than the server, the role or the database allows: a worker that restarts
/// would then wait for a connection. Assumes that each worker uses as many connections as this one. None if no worker is
/// alive.
pub(crate) fn fleet_connections(
    facts: &ServerDiagnostics,
    own: u32,
    alive_workers: i64,
) -> Option<Finding> {
    const SUBJECT: &str = "fleet";
    if alive_workers == 0 {
        return None;
    }
    let needed = alive_workers.saturating_mul(i64::from(own));
    let limits = [
        (
            Some(facts.server_limit),
            "max_connections, without the reserved ones, allows",
        ),
        (facts.role_limit, "the role's connection limit is"),
        (facts.database_limit, "the database's connection limit is"),
    ];
    let text = format!("{alive_workers} workers alive, which take up to {needed} connections");
    let short = limits
        .into_iter()
        .filter_map(|(limit, name)| Some((limit?, name)))
        .filter(|(limit, _)| *limit < needed)
        .min_by_key(|(limit, _)| *limit);
    Some(match short {
        None => Finding::ok(SUBJECT, text),
        Some((limit, name)) => Finding::warn(
            SUBJECT,
            format!("{text}, and {name} {limit}"),
            "raise the limit, or lower WORKER_DATABASE_CONNECTIONS of the workers",
        ),
    })
}
