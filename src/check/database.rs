//! What the database's facts say.

use std::time::Duration;

use super::Finding;
use crate::error_text::database_error_text;
use crate::outbox::{
    AppLane, DatabaseLatency, LaneState, OldTransaction, SchemaError, SchemaVersion,
    ServerDiagnostics,
};

/// The oldest version of PostgreSQL that the functions are written for, as a number.
const MIN_VERSION: i32 = 140_000;
/// A round trip from which on a claim takes noticeably long.
const FAR_AWAY: Duration = Duration::from_millis(20);
/// A difference of clocks by which one of them is wrong, and from which on the API may take a token for not yet valid, or
/// over.
const CLOCKS_DIFFER: time::Duration = time::Duration::minutes(1);
/// How long a transaction may be open before dead rows pile up, in s.
const LONG_TRANSACTION_S: f64 = 300.0;
/// The same in transactions that have begun since, where the time is not known.
const MANY_TRANSACTIONS: i64 = 1_000_000;
/// How long a prepared transaction may be open, in s: a transaction manager ends it at once, and no session does.
const LONG_PREPARED_S: f64 = 10.0;

/// The server, and the way to it.
pub(crate) fn server(
    address: &str,
    facts: &ServerDiagnostics,
    distance: DatabaseLatency,
    pooler: bool,
) -> Finding {
    let encrypted = match (&facts.tls_version, pooler) {
        (_, true) => "by way of a pooler".into(),
        (Some(version), false) => version.clone(),
        (None, false) => "without TLS".into(),
    };
    let there = format!(
        "PostgreSQL {} at {address}, {encrypted}, {:.2} ms away",
        facts.version,
        distance.round_trip.as_secs_f64() * 1e3
    );
    if facts.version_num < MIN_VERSION {
        Finding::fail("database", there, "use PostgreSQL 14 or newer")
    } else if facts.is_standby {
        Finding::fail(
            "database",
            format!("{there}: a standby, which takes no writes"),
            "name the primary server in DATABASE_URL",
        )
    } else if facts.is_read_only {
        Finding::fail(
            "database",
            format!("{there}: it takes no writes"),
            "look at default_transaction_read_only of the server, the database and the role",
        )
    } else if distance.round_trip > FAR_AWAY {
        Finding::warn(
            "database",
            there,
            "each claim and each record is a round trip: run the worker nearer to its database",
        )
    } else {
        Finding::ok("database", there)
    }
}

/// A pooler in transaction mode, and what it says of its version.
pub(crate) fn pooler(version: &Result<String, sqlx::Error>) -> Finding {
    let name = match version {
        Ok(version) => version.clone(),
        Err(error) => format!(
            "a pooler of unknown version ({})",
            database_error_text(error)
        ),
    };
    Finding::ok(
        "pooler",
        format!(
            "{name}, in transaction mode: the worker polls every 200 ms instead of listening; `worker migrate` needs the URL of the database itself"
        ),
    )
}

/// Another isolation than the worker's, which the database, the role or the server sets.
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

/// The encoding of the database.
pub(crate) fn encoding(version: &SchemaVersion) -> Finding {
    let encoding = version.encoding.clone();
    if encoding == "UTF8" {
        return Finding::ok("encoding", encoding);
    }
    Finding::fail_as_told("encoding", SchemaError::Encoding { encoding }.to_string())
}

/// Row-level security: fails if it keeps the schema's functions from their tables.
pub(crate) fn row_security(facts: &ServerDiagnostics) -> Finding {
    const SUBJECT: &str = "row security";
    if !facts.tables_closed_to_functions.is_empty() {
        let tables = facts.tables_closed_to_functions.join(", ");
        return Finding::fail(
            SUBJECT,
            format!(
                "its policies on {tables} hold for the owner of the schema's functions, too: each call of a worker fails"
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
                "the policies on {} hold for {}: messages are sent all the same, but `worker status`, `worker message` and the dashboard fail where they read these tables",
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
            "on for {}; the schema's functions pass over it, roles that use the tables themselves do not",
            facts.tables_with_row_security.join(", ")
        ),
    )
}

/// Wakeups: warns if inserts do not notify idle workers, because Postgres refuses to prepare a transaction that has
/// notified.
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
                "max_prepared_transactions is {prepared}: inserts do not notify workers, so idle workers poll every 200 ms"
            ),
            format!(
                "if nobody prepares transactions that insert messages, run as a superuser `alter database {} set signaling.notify = 'on'`, and start the workers again",
                facts.database
            ),
        ),
        _ => Finding::ok(SUBJECT, "inserts notify idle workers"),
    }
}

/// The clocks of this host and the database. `makes_tokens`: whether the host's clock dates what the API compares.
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
            "workers go by the database's clock, but tokens from AGORA_APP_CERTIFICATE are dated by this host's: set both by NTP"
        } else {
            "messages are due, expire and are deleted by the database's clock: set both by NTP"
        };
        return Finding::warn("clock", text, action);
    }
    Finding::ok(
        "clock",
        format!("{text}; workers go by the database's alone"),
    )
}

/// How far the schema is.
pub(crate) fn schema(version: &SchemaVersion) -> Finding {
    let missing: Vec<_> = version
        .missing
        .iter()
        .map(|(number, description)| format!("{number} ({description})"))
        .collect();
    match version.found {
        None if version.functions_found.is_some() => Finding::fail(
            "schema",
            "signaling.schema_migrations is empty, and the functions of the outbox are there: somebody has emptied that table",
            "run `worker migrate`: it prints the statement that writes the rows of that table anew",
        ),
        None => Finding::fail(
            "schema",
            "the database has no outbox yet",
            "run `worker migrate`",
        ),
        Some(found) if !missing.is_empty() => Finding::fail(
            "schema",
            format!("at version {found}; missing: {}", missing.join(", ")),
            "run `worker migrate`",
        ),
        Some(found) if found > version.needed => Finding::ok(
            "schema",
            format!(
                "at version {found}, newer than this worker's {}, which works with it",
                version.needed
            ),
        ),
        Some(found) => Finding::ok("schema", format!("at version {found}")),
    }
}

/// How far the functions are. None if there is no schema.
pub(crate) fn functions(version: &SchemaVersion) -> Option<Finding> {
    const SUBJECT: &str = "functions";
    version.found?;
    let needed = version.functions_needed;
    Some(match version.functions_found {
        Some(found) if found == needed => Finding::ok(SUBJECT, format!("at version {found}")),
        Some(found) if found > needed => Finding::ok(
            SUBJECT,
            format!("at version {found}, newer than this worker's {needed}, which works with them"),
        ),
        Some(found) => Finding::fail(
            SUBJECT,
            format!("at version {found}, this worker needs {needed}"),
            "run `worker migrate`",
        ),
        None => Finding::fail(
            SUBJECT,
            format!(
                "signaling.protocol_version() is missing, perhaps with others; this worker needs version {needed}"
            ),
            "run `worker migrate`, which makes functions again",
        ),
    })
}

/// The rights that the role lacks.
pub(crate) fn rights(user: &str, missing: &[String]) -> Finding {
    if missing.is_empty() {
        return Finding::ok("rights", format!("{user} may do what a worker does"));
    }
    Finding::fail(
        "rights",
        format!("{user} lacks: {}", missing.join("; ")),
        format!("as the schema's owner, run `worker grant worker {user}`"),
    )
}

/// The role's rights as an operator, which the dashboard's buttons need.
pub(crate) fn operator(user: &str, missing: &[String]) -> Finding {
    Finding::ok(
        "operator",
        if missing.is_empty() {
            format!("{user} is one: the dashboard's buttons work")
        } else {
            format!(
                "{user} is none: the dashboard shows everything, and its buttons are refused; `worker grant operator {user}` allows them"
            )
        },
    )
}

/// Whether a worker of `own` connections gets them.
pub(crate) fn connections(facts: &ServerDiagnostics, own: u32, pooler: bool) -> Finding {
    if pooler {
        return Finding::ok(
            "connections",
            format!("the worker takes up to {own} of the pooler"),
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
    let text = format!("{left} of {of} are left; a worker takes up to {own}");
    if left < i64::from(own) {
        return Finding::warn(
            "connections",
            text,
            format!(
                "raise {of}, or lower WORKER_DATABASE_CONNECTIONS; if this worker runs already, it has its own"
            ),
        );
    }
    Finding::ok("connections", text)
}

/// Whether dead rows are cleaned up.
pub(crate) fn autovacuum(facts: &ServerDiagnostics) -> Finding {
    if !facts.autovacuum {
        return Finding::warn(
            "autovacuum",
            "it is off for the whole server: dead rows pile up, and claims get slower",
            "set autovacuum and track_counts to on",
        );
    }
    if !facts.tables_without_autovacuum.is_empty() {
        let tables = facts.tables_without_autovacuum.join(", ");
        return Finding::warn(
            "autovacuum",
            format!("it is off for {tables}: dead rows pile up, and claims get slower"),
            "alter table signaling.… reset (autovacuum_enabled)",
        );
    }
    Finding::ok("autovacuum", "on")
}

/// Whether some transaction keeps dead rows from being cleaned up. The oldest comes first.
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
        "dead rows stay as long, and claims get slower: end it (a prepared transaction by `commit prepared` or `rollback prepared`), or run long reports on a replica",
    )
}

/// The lane of an app that a worker is to serve with this limit.
pub(crate) fn lane(app: &str, limit_per_s: f64, lanes: &[AppLane]) -> Finding {
    let Some(lane) = lanes
        .iter()
        .find(|lane| lane.app == app)
        .and_then(|lane| lane.lane.as_ref())
    else {
        return Finding::ok("lane", "no worker has served this app yet").of_app(app);
    };
    let because = |reason: &Option<String>| {
        reason
            .as_deref()
            .map_or_else(String::new, |reason| format!(": {reason}"))
    };
    let state = lane.state_when_served();
    let held = || format!("{}{}", state.as_str(), because(&lane.hold_reason));
    let finding = match state {
        LaneState::Paused => Finding::warn(
            "lane",
            format!(
                "paused by {}{}",
                lane.paused_by.as_deref().unwrap_or("somebody"),
                because(&lane.pause_reason)
            ),
            format!("`worker resume {app}` ends it"),
        ),
        LaneState::Unauthorized => Finding::warn(
            "lane",
            held(),
            "the API refuses the credentials: put them right, and the workers find out by themselves",
        ),
        LaneState::Unavailable => Finding::warn(
            "lane",
            held(),
            "the API fails or can't be reached: the workers try it, and go on by themselves",
        ),
        LaneState::Waiting => Finding::warn(
            "lane",
            "the API has asked for a pause",
            format!("`worker status` says until when; `worker resume {app}` ends it"),
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
                    "the workers are configured with {} calls/s, this one with {limit_per_s}",
                    lane.configured_per_s
                ),
                "give all workers of an app the same WORKER_RATE: the last one that starts sets it",
            )
        }
        LaneState::Slowed => Finding::warn(
            "lane",
            format!("slowed to {:.0} calls/s by a 429", lane.rate_per_s),
            "it climbs back by itself; if this lasts, others use the app's limit, or WORKER_RATE is above it",
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
