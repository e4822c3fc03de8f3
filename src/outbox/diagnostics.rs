//! The queries of `worker check`. [`crate::check`] judges the results.

use std::time::Duration;

use sqlx::{FromRow, query};
use time::OffsetDateTime;

use crate::outbox::Outbox;
use crate::outbox::one_off::value;
use crate::pace::DbTime;
use crate::pace::clock::Moment;

/// The server, as the session of the query sees it.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct ServerDiagnostics {
    pub(crate) version: String,
    pub(crate) version_num: i32,
    pub(crate) is_read_only: bool,
    /// None: no TLS. Behind a pooler, the TLS of the pooler's session.
    pub(crate) tls_version: Option<String>,
    pub(crate) user: String,
    /// Quoted for SQL.
    pub(crate) database: String,
    pub(crate) max_prepared_transactions: i32,
    /// The setting `signaling.notify`: see `migrations/functions/can_notify.sql`.
    pub(crate) notify: Option<String>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct DatabaseLatency {
    pub(crate) round_trip: Duration,
    /// By how much this host's clock is ahead of the database's, with an error of up to half of the round trip.
    pub(crate) host_ahead_us: i64,
}

/// The limit on connections that leaves the fewest to the workers.
#[derive(Debug, FromRow)]
pub(crate) struct ConnectionLimit {
    pub(crate) name: String,
    pub(crate) available: i64,
    pub(crate) most: i64,
    pub(crate) alive_workers: i64,
}

#[derive(Debug)]
pub(crate) struct ProblemCheck {
    pub(crate) subject: &'static str,
    query: &'static str,
    /// The finding if the query returns no row.
    pub(crate) ok: &'static str,
    /// Comes before the statements of the problems.
    pub(crate) advice: &'static str,
}

#[derive(Debug, FromRow)]
pub(crate) struct Problem {
    pub(crate) found: String,
    #[sqlx(default)]
    pub(crate) statement: Option<String>,
    /// True if producers can't insert messages.
    #[sqlx(default)]
    pub(crate) fails: bool,
}

pub(crate) const SCHEMA_CHECKS: [ProblemCheck; 2] = [
    ProblemCheck {
        subject: "sequences",
        query: include_str!("diagnostics/sequences.sql"),
        ok: "ahead of their tables",
        advice: "as the schema's owner, run",
    },
    ProblemCheck {
        subject: "refused",
        query: include_str!("diagnostics/refused.sql"),
        ok: "the database refuses no message",
        advice: "correct the trigger or the constraint (`\\d signaling.outbox` in psql lists them), then run `worker resume`, which makes the messages due at once. signaling.refused lists them",
    },
];

/// Finds row-level security, changed collations, and settings or sessions that keep dead rows. Dead rows slow claims down.
pub(crate) const SERVER_CHECKS: [ProblemCheck; 5] = [
    ProblemCheck {
        subject: "row security",
        query: include_str!("diagnostics/row_security.sql"),
        ok: "no policy applies to the worker",
        advice: "as a superuser or the tables' owner, run",
    },
    ProblemCheck {
        subject: "autovacuum",
        query: include_str!("diagnostics/autovacuum.sql"),
        ok: "on",
        advice: "set autovacuum and track_counts to on, or as the tables' owner, run `alter table signaling.… reset (autovacuum_enabled)`. Until then, dead rows pile up and claims slow down",
    },
    ProblemCheck {
        subject: "snapshots",
        query: include_str!("diagnostics/snapshots.sql"),
        ok: "no transaction has been open for long",
        advice: "end these transactions (prepared ones by `commit prepared` or `rollback prepared`), and run long reports on a replica. Until then, dead rows pile up and claims slow down",
    },
    ProblemCheck {
        subject: "replication",
        query: include_str!("diagnostics/replication.sql"),
        ok: "no slot and no standby keeps old rows",
        advice: "start the receiver of the slot, or run `select pg_drop_replication_slot('…')`; on a standby, end long queries or switch hot_standby_feedback off. Until then, dead rows or the WAL pile up",
    },
    ProblemCheck {
        subject: "collations",
        query: include_str!("diagnostics/collations.sql"),
        ok: "unchanged since the indexes were built",
        advice: REINDEX,
    },
];

/// Fails on servers before [`VERSION_WITH_DATABASE_COLLATIONS`].
pub(crate) const DATABASE_COLLATION: ProblemCheck = ProblemCheck {
    subject: "collations",
    query: include_str!("diagnostics/database_collation.sql"),
    ok: "the default of the database is unchanged",
    advice: REINDEX,
};

/// The first version of Postgres that stores the version of a database's default collation.
pub(crate) const VERSION_WITH_DATABASE_COLLATIONS: i32 = 150_000;

const REINDEX: &str = "as the tables' owner, run `reindex table concurrently` for outbox, lane and the other tables of signaling, then";

/// With a single round trip, one that is slow by chance would make `worker check` report a distant database.
const ROUND_TRIPS: usize = 5;

impl Outbox {
    pub(crate) async fn server_diagnostics(&self) -> Result<ServerDiagnostics, sqlx::Error> {
        self.read_row(query(include_str!("diagnostics/server.sql")))
            .await
    }

    pub(crate) async fn problems(&self, check: &ProblemCheck) -> Result<Vec<Problem>, sqlx::Error> {
        self.read_rows(query(check.query)).await
    }

    /// The shortest of a few round trips.
    pub(crate) async fn latency(&self) -> Result<DatabaseLatency, sqlx::Error> {
        self.read(async |session| {
            let mut measured = Vec::new();
            for _ in 0..ROUND_TRIPS {
                let asked = Moment::now();
                let shown: DbTime = value(session, query("select clock_timestamp()")).await?;
                let round_trip = asked.instant.elapsed();
                let host = DbTime::from(OffsetDateTime::from(asked.wall)) + round_trip / 2;
                measured.push(DatabaseLatency {
                    round_trip,
                    host_ahead_us: host.as_micros().saturating_sub(shown.as_micros()),
                });
            }
            let shortest = measured
                .into_iter()
                .min_by_key(|latency| latency.round_trip);
            shortest.ok_or(sqlx::Error::RowNotFound)
        })
        .await
    }

    /// `own` is the most connections that one worker uses.
    pub(crate) async fn connection_limit(&self, own: i64) -> Result<ConnectionLimit, sqlx::Error> {
        let limit = query(include_str!("diagnostics/connections.sql")).bind(own);
        self.read_row(limit).await
    }
}
