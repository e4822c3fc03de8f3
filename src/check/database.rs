//! Judges the server, the schema, the role and the lanes.

use std::time::Duration;

use super::Finding;
use crate::advice;
use crate::outbox::{
    AppLane, DatabaseLatency, LaneState, OldTransaction, SchemaError, SchemaVersion,
    ServerDiagnostics,
};

/// The oldest supported version, as `server_version_num`.
const MIN_VERSION: i32 = 140_000;
/// A round trip that slows claims down.
const FAR_AWAY: Duration = Duration::from_millis(20);
/// With this difference, the API may reject a token as expired or not yet valid.
const CLOCKS_DIFFER: time::Duration = time::Duration::minutes(1);
/// An older transaction lets dead rows pile up.
const LONG_TRANSACTION_S: f64 = 300.0;
/// The same bound in transactions that began since, for a transaction whose age is hidden.
const MANY_TRANSACTIONS: i64 = 1_000_000;
/// A transaction manager ends a prepared transaction at once. An older one is probably forgotten.
const LONG_PREPARED_S: f64 = 10.0;

pub(crate) fn server(
    address: &str,
    facts: &ServerDiagnostics,
    distance: DatabaseLatency,
    pooler: bool,
) -> Finding {
    let encrypted = match (&facts.tls_version, pooler) {
        (_, true) => "through a pooler".into(),
        (Some(version), false) => version.clone(),
        (None, false) => "without TLS".into(),
    };
    let found = format!(
        "PostgreSQL {} at {address}, {encrypted}, {:.2} ms away",
        facts.version,
        distance.round_trip.as_secs_f64() * 1e3
    );
    if facts.version_num < MIN_VERSION {
        Finding::fail("database", found, "use PostgreSQL 14 or newer")
    } else if facts.is_standby {
        Finding::fail(
            "database",
            format!("{found}: a standby, which takes no writes"),
            "set DATABASE_URL to the primary server",
        )
    } else if facts.is_read_only {
        Finding::fail(
            "database",
            format!("{found}: read-only"),
            "switch default_transaction_read_only off for the server, the database and the role",
        )
    } else if distance.round_trip > FAR_AWAY {
        Finding::warn(
            "database",
            found,
            "run the worker nearer to the database: each claim and each record takes a round trip",
        )
    } else {
        Finding::ok("database", found)
    }
}

pub(crate) fn pooler() -> Finding {
    Finding::ok(
        "pooler",
        "in transaction mode: the worker polls every 200 ms instead of listening; `worker migrate` needs the URL of the database itself",
    )
}

/// None if transactions are read committed by default.
pub(crate) fn isolation(facts: &ServerDiagnostics) -> Option<Finding> {
    let isolation = &facts.default_isolation;
    (isolation != "read committed").then(|| {
        Finding::ok(
            "isolation",
            format!(
                "transactions are {isolation} by default; the worker sets read committed itself"
            ),
        )
    })
}

pub(crate) fn encoding(version: &SchemaVersion) -> Finding {
    let encoding = version.encoding.clone();
    if encoding == "UTF8" {
        return Finding::ok("encoding", encoding);
    }
    Finding::fail_without_advice("encoding", SchemaError::Encoding { encoding }.to_string())
}

/// Fails if row-level security keeps the schema's functions from their tables.
pub(crate) fn row_security(facts: &ServerDiagnostics) -> Finding {
    const SUBJECT: &str = "row security";
    if !facts.tables_closed_to_functions.is_empty() {
        let tables = facts.tables_closed_to_functions.join(", ");
        return Finding::fail(
            SUBJECT,
            format!(
                "its policies on {tables} apply to the owner of the schema's functions, so every call of these functions fails"
            ),
            crate::advice::FORCED_ROW_SECURITY,
        );
    }
    if facts.tables_with_row_security.is_empty() {
        return Finding::ok(SUBJECT, "off");
    }
    if !facts.tables_with_hidden_rows.is_empty() {
        return Finding::warn(
            SUBJECT,
            format!(
                "the policies on {} apply to {}: workers send, but `worker status`, `worker message` and the dashboard fail where they read these tables",
                facts.tables_with_hidden_rows.join(", "),
                facts.user
            ),
            format!(
                "as a superuser, run `alter role {} bypassrls`, or as the tables' owner `alter table signaling.… disable row level security`",
                facts.user
            ),
        );
    }
    Finding::ok(
        SUBJECT,
        format!(
            "on for {}; the schema's functions bypass it, and roles that use the tables directly do not",
            facts.tables_with_row_security.join(", ")
        ),
    )
}

/// Warns if inserts do not notify idle workers, because Postgres can't prepare a transaction that has notified.
pub(crate) fn notifications(facts: &ServerDiagnostics, pooler: bool) -> Finding {
    const SUBJECT: &str = "wakeups";
    let prepared = facts.max_prepared_transactions;
    match facts.notify.as_deref() {
        _ if pooler => Finding::ok(SUBJECT, "none: behind a pooler, workers poll"),
        Some("on") if prepared > 0 => Finding::ok(
            SUBJECT,
            "inserts notify idle workers (signaling.notify is on): a transaction that inserts messages can't be prepared",
        ),
        Some("off") => Finding::ok(
            SUBJECT,
            "none: signaling.notify is off, so idle workers poll every 200 ms",
        ),
        _ if prepared > 0 => Finding::warn(
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

/// Compares the clocks. `makes_tokens` means that this host's clock dates tokens.
pub(crate) fn clock(distance: DatabaseLatency, makes_tokens: bool) -> Finding {
    let ahead = distance.host_ahead;
    let text = format!(
        "this host's is {:.3} s {} the database's",
        ahead.abs().as_seconds_f64(),
        if ahead.is_negative() {
            "behind"
        } else {
            "ahead of"
        }
    );
    if ahead.abs() > CLOCKS_DIFFER {
        let action = if makes_tokens {
            "synchronise both clocks by NTP: this host's clock dates the tokens from AGORA_APP_CERTIFICATE, and the API may reject them"
        } else {
            "synchronise both clocks by NTP: the database's clock decides when messages are due, expire and are deleted"
        };
        return Finding::warn("clock", text, action);
    }
    Finding::ok("clock", format!("{text}; workers use the database's alone"))
}

pub(crate) fn schema(version: &SchemaVersion) -> Finding {
    match version.found {
        None if version.functions_found.is_some() => Finding::fail(
            "schema",
            "signaling.schema_migrations is empty although the outbox exists: a person or a program emptied the table",
            "run `worker migrate` of the version that has migrated the database: it restores the rows",
        ),
        None => Finding::fail(
            "schema",
            "the database has no outbox",
            "run `worker migrate`",
        ),
        Some(found) if !version.missing.is_empty() => Finding::fail(
            "schema",
            format!(
                "at version {found}; missing: {}",
                version.missing.join(", ")
            ),
            "run `worker migrate`",
        ),
        Some(found) if found > version.needed => Finding::ok(
            "schema",
            format!(
                "at version {found}, newer than this worker's {}, and compatible",
                version.needed
            ),
        ),
        Some(found) => Finding::ok("schema", format!("at version {found}")),
    }
}

/// None if there is no schema.
pub(crate) fn functions(version: &SchemaVersion) -> Option<Finding> {
    const SUBJECT: &str = "functions";
    version.found?;
    let needed = version.functions_needed;
    Some(match version.functions_found {
        Some(found) if found == needed => Finding::ok(SUBJECT, format!("at version {found}")),
        Some(found) if found > needed => Finding::ok(
            SUBJECT,
            format!("at version {found}, newer than this worker's {needed}, and compatible"),
        ),
        Some(found) => Finding::fail(
            SUBJECT,
            format!("at version {found}, this worker needs {needed}"),
            "run `worker migrate`",
        ),
        None => Finding::fail(
            SUBJECT,
            format!(
                "signaling.protocol_version() is missing, and other functions may be; this worker needs version {needed}"
            ),
            "run `worker migrate`, which creates missing functions",
        ),
    })
}

pub(crate) fn rights(user: &str, missing: &[String]) -> Finding {
    if missing.is_empty() {
        return Finding::ok("rights", format!("{user} has the rights of a worker"));
    }
    Finding::fail(
        "rights",
        format!("{user} lacks: {}", missing.join("; ")),
        format!("as the schema's owner, run `worker grant worker {user}`"),
    )
}

/// Never warns, because only the dashboard's buttons need the rights of an operator.
pub(crate) fn operator(user: &str, missing: &[String]) -> Finding {
    Finding::ok(
        "operator",
        if missing.is_empty() {
            format!("{user} has the rights of an operator, so the dashboard's buttons work")
        } else {
            format!(
                "{user} lacks the rights of an operator, so the dashboard's buttons fail; `worker grant operator {user}` allows them"
            )
        },
    )
}

/// Warns if fewer connections are left than this worker may use.
pub(crate) fn connections(facts: &ServerDiagnostics, own: u32, pooler: bool) -> Finding {
    if pooler {
        return Finding::ok(
            "connections",
            format!("the worker uses up to {own} connections of the pooler"),
        );
    }
    let bounds = [
        (Some(facts.server_left), "max_connections"),
        (facts.role_left, "the role's connection limit"),
        (facts.database_left, "the database's connection limit"),
    ];
    let (left, of) = bounds
        .into_iter()
        .filter_map(|(left, of)| Some((left?, of)))
        .min_by_key(|(left, _)| *left)
        .unwrap_or((facts.server_left, "max_connections"));
    let text = format!("{left} of {of} are left; a worker uses up to {own}");
    if left < i64::from(own) {
        return Finding::warn(
            "connections",
            text,
            format!(
                "raise {of}, or lower WORKER_DATABASE_CONNECTIONS. Do nothing if this worker runs already, because its connections are in use"
            ),
        );
    }
    Finding::ok("connections", text)
}

pub(crate) fn autovacuum(facts: &ServerDiagnostics) -> Finding {
    if !facts.autovacuum {
        return Finding::warn(
            "autovacuum",
            "off for the whole server, so dead rows pile up and claims slow down",
            "set autovacuum and track_counts to on",
        );
    }
    if !facts.tables_without_autovacuum.is_empty() {
        let tables = facts.tables_without_autovacuum.join(", ");
        return Finding::warn(
            "autovacuum",
            format!("off for {tables}, so dead rows pile up and claims slow down"),
            "as the tables' owner, run `alter table signaling.… reset (autovacuum_enabled)`",
        );
    }
    Finding::ok("autovacuum", "on")
}

/// Warns of old transactions, which keep vacuum from removing dead rows.
pub(crate) fn snapshots(open: &[OldTransaction]) -> Finding {
    let is_old = |transaction: &&OldTransaction| match transaction.age_s {
        Some(age_s) if transaction.is_prepared => age_s > LONG_PREPARED_S,
        Some(age_s) => age_s > LONG_TRANSACTION_S,
        None => transaction.transactions_since > MANY_TRANSACTIONS,
    };
    let old: Vec<_> = open
        .iter()
        .filter(is_old)
        .map(|transaction| {
            let since = match transaction.age_s {
                Some(age_s) => {
                    let age_s = age_s.clamp(0.0, 1e9).floor();
                    let age = Duration::try_from_secs_f64(age_s).unwrap_or_default();
                    format!("for {}", humantime::format_duration(age))
                }
                None => format!("for {} transactions", transaction.transactions_since),
            };
            format!("{} {since}", transaction.holder)
        })
        .collect();
    if old.is_empty() {
        return Finding::ok("snapshots", "no transaction has been open for long");
    }
    Finding::warn(
        "snapshots",
        format!("open: {}", old.join("; ")),
        "end these transactions (prepared ones by `commit prepared` or `rollback prepared`), and run long reports on a replica: until then dead rows pile up and claims slow down",
    )
}

pub(crate) fn lane(app: &str, limit_per_s: f64, lanes: &[AppLane]) -> Finding {
    let Some(lane) = lanes
        .iter()
        .find(|lane| lane.app == app)
        .and_then(|lane| lane.lane.as_ref())
    else {
        return Finding::ok("lane", "no worker has served this app yet").of_app(app);
    };
    let state = lane.state_when_served();
    let held = || {
        format!(
            "{}{}",
            state.into_str(),
            advice::because(lane.hold_reason.as_deref())
        )
    };
    let finding = match state {
        LaneState::Paused => Finding::warn(
            "lane",
            format!(
                "paused by {}{}",
                lane.paused_by
                    .as_deref()
                    .unwrap_or(advice::UNNAMED_OPERATOR),
                advice::because(lane.pause_reason.as_deref())
            ),
            format!("run `worker resume {app}` to end the pause"),
        ),
        LaneState::Unauthorized => Finding::warn(
            "lane",
            held(),
            "correct the credentials: the API refuses them. The workers probe the API and resume by themselves",
        ),
        LaneState::Unavailable => Finding::warn(
            "lane",
            held(),
            "wait: the API fails or can't be reached. The workers probe the API and resume by themselves",
        ),
        LaneState::Waiting => Finding::warn(
            "lane",
            "the API has asked for a pause",
            format!(
                "`worker status` shows the end of the pause; `worker resume {app}` ends it now"
            ),
        ),
        LaneState::Slowed
        | LaneState::Sending
        | LaneState::NoWorker
        | LaneState::OtherEnvironment
            if (lane.configured_per_s - limit_per_s).abs() > f64::EPSILON =>
        {
            Finding::warn(
                "lane",
                format!(
                    "other workers are configured with {} calls/s, and this one with {limit_per_s}",
                    lane.configured_per_s
                ),
                "set the same WORKER_RATE on all workers of the app: the worker that starts last sets the limit",
            )
        }
        LaneState::Slowed => Finding::warn(
            "lane",
            format!("slowed to {:.0} calls/s by a 429", lane.rate_per_s),
            "wait: the workers raise the rate again. If the rate stays low, look for other programs that call the API with this app ID, or lower WORKER_RATE",
        ),
        LaneState::Sending | LaneState::NoWorker | LaneState::OtherEnvironment => {
            let by = lane
                .limit_set_by
                .as_deref()
                .map_or_else(String::new, |by| format!(", set by {by}"));
            Finding::ok(
                "lane",
                format!("sending, at most {} calls/s{by}", lane.limit_per_s),
            )
        }
    };
    finding.of_app(app)
}

#[cfg(test)]
mod tests;
