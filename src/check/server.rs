//! Judges the server, its hosts, connections and clock.

use std::time::Duration;

use super::{Finding, list};
use crate::outbox::{ConnectionLimit, DatabaseLatency, ServerDiagnostics};

/// The oldest supported version, as `server_version_num`.
const MIN_VERSION: i32 = 140_000;
/// A longer round trip slows claims down.
const FAR_AWAY: Duration = Duration::from_millis(20);
/// Beyond this difference, the API may reject a token as expired or not yet valid.
const CLOCKS_DIFFER: Duration = Duration::from_secs(60);

pub(crate) fn server(
    address: &str,
    facts: &ServerDiagnostics,
    latency: DatabaseLatency,
    pooler: bool,
) -> Finding {
    const SUBJECT: &str = "database";
    let session = match &facts.tls_version {
        _ if pooler => "through a pooler in transaction mode, so that workers poll every 200 ms",
        Some(version) => version,
        None => "without TLS",
    };
    let found = format!(
        "PostgreSQL {} at {address}, {session}, {:.2} ms away",
        facts.version,
        latency.round_trip.as_secs_f64() * 1e3
    );
    if facts.version_num < MIN_VERSION {
        Finding::fail(SUBJECT, found, "use PostgreSQL 14 or newer")
    } else if facts.is_read_only {
        Finding::fail(
            SUBJECT,
            format!("{found}: read-only"),
            "if this server is a standby, set DATABASE_URL to the primary server; otherwise switch default_transaction_read_only off for the server, the database and the role",
        )
    } else if latency.round_trip > FAR_AWAY {
        Finding::warn(
            SUBJECT,
            found,
            "run the worker nearer to the database: each claim and each record takes a round trip",
        )
    } else {
        Finding::ok(SUBJECT, found)
    }
}

/// Lists the hosts of a URL with several hosts. None for a single host, because the finding `database` reports its state.
pub(crate) fn hosts(states: &[Result<String, String>]) -> Option<Finding> {
    if states.len() < 2 {
        return None;
    }
    let found = list(states, |state| match state {
        Ok(text) | Err(text) => text.clone(),
    });
    Some(if states.iter().all(Result::is_ok) {
        Finding::ok("hosts", found)
    } else {
        let advice = "repair the host before the next failover, or remove it from DATABASE_URL: workers skip it until then";
        Finding::warn("hosts", found, advice)
    })
}

/// Warns if inserts do not notify idle workers, because Postgres can't prepare a transaction that has notified.
pub(crate) fn notifications(facts: &ServerDiagnostics, pooler: bool) -> Finding {
    const SUBJECT: &str = "wakeups";
    let prepared = facts.max_prepared_transactions;
    match facts.notify.as_deref() {
        _ if pooler => Finding::ok(SUBJECT, "none behind a pooler: workers poll"),
        Some("off") => Finding::ok(SUBJECT, "none, as signaling.notify is off: workers poll"),
        notify if prepared > 0 && notify != Some("on") => Finding::warn(
            SUBJECT,
            format!(
                "max_prepared_transactions is {prepared}: inserts do not notify idle workers, which poll every 200 ms"
            ),
            format!(
                "if no application prepares transactions that insert messages, run `alter database {} set signaling.notify = 'on'` as a superuser, and restart the workers",
                facts.database
            ),
        ),
        _ => Finding::ok(SUBJECT, "inserts notify idle workers"),
    }
}

pub(crate) fn clock(latency: DatabaseLatency) -> Finding {
    let ahead_us = latency.host_ahead_us;
    let direction = if ahead_us < 0 { "behind" } else { "ahead of" };
    let differ_by = Duration::from_micros(ahead_us.unsigned_abs());
    let found = format!(
        "{:.3} s {direction} the database's",
        differ_by.as_secs_f64()
    );
    if differ_by > CLOCKS_DIFFER {
        let advice = "synchronise both clocks by NTP: the database's clock decides when messages are due, and this host's clock dates the tokens from AGORA_APP_CERTIFICATE";
        return Finding::warn("clock", found, advice);
    }
    Finding::ok("clock", found)
}

/// Warns if fewer connections are left than this worker may use, or if all live workers may need more than the limit. A worker
/// that restarts would then wait for a connection. Assumes that each worker uses as many connections as this one.
pub(crate) fn connections(limit: &ConnectionLimit, own: i64) -> Finding {
    const SUBJECT: &str = "connections";
    let (name, available, most) = (&limit.name, limit.available, limit.most);
    let fleet = limit.alive_workers.saturating_mul(own);
    let found = format!(
        "{available} of {most} are left by {name}; a worker uses up to {own}, and the {} live workers up to {fleet}",
        limit.alive_workers
    );
    if available < own || most < fleet {
        let advice = format!(
            "raise {name}, or lower WORKER_DATABASE_CONNECTIONS. Do nothing if all workers run already, because their connections are in use"
        );
        return Finding::warn(SUBJECT, found, advice);
    }
    Finding::ok(SUBJECT, found)
}
