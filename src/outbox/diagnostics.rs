//! The queries of `worker check`. [`crate::check`] judges the results.

use std::time::Duration;

use sqlx::{FromRow, query};
use time::OffsetDateTime;

use crate::outbox::Outbox;
use crate::outbox::one_off::{rows, value};
use crate::outbox::schema::own_constraints;
use crate::pace::DbTime;
use crate::pace::clock::Moment;

/// The server, as the session of the query sees it.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct ServerDiagnostics {
    pub(crate) version: String,
    pub(crate) version_num: i32,
    pub(crate) is_standby: bool,
    pub(crate) is_read_only: bool,
    /// None: no TLS. Behind a pooler, the TLS of the pooler's session.
    pub(crate) tls_version: Option<String>,
    pub(crate) user: String,
    /// Quoted for SQL.
    pub(crate) database: String,
    pub(crate) max_prepared_transactions: i32,
    /// The setting `signaling.notify`: see `migrations/functions/can_notify.sql`.
    pub(crate) notify: Option<String>,
    /// Tables whose policies also apply to the owner of the schema's functions.
    pub(crate) tables_closed_to_functions: Vec<String>,
    /// Tables whose policies hide rows from the role of this session.
    pub(crate) tables_with_hidden_rows: Vec<String>,
    /// `max_connections` without the connections reserved for superusers.
    pub(crate) server_limit: i64,
    pub(crate) role_limit: Option<i64>,
    pub(crate) database_limit: Option<i64>,
    /// Free connections. The connection of the query counts as free.
    pub(crate) server_left: i64,
    pub(crate) role_left: Option<i64>,
    pub(crate) database_left: Option<i64>,
    pub(crate) autovacuum: bool,
    pub(crate) tables_without_autovacuum: Vec<String>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct DatabaseLatency {
    pub(crate) round_trip: Duration,
    /// By how much this host's clock is ahead of the database's, with an error of up to half of the round trip.
    pub(crate) host_ahead: time::Duration,
}

/// A transaction that keeps dead rows from being cleaned up.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub(crate) struct OldTransaction {
    pub(crate) holder: String,
    /// None if this role may not see the time.
    pub(crate) age_s: Option<f64>,
    pub(crate) transactions_since: i64,
    /// A prepared transaction, which belongs to no session. Only a command ends it.
    pub(crate) is_prepared: bool,
}

/// A replication slot or a standby that keeps dead rows from being cleaned up.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub(crate) struct VacuumHolder {
    pub(crate) holder: String,
    /// False for a slot that no receiver reads.
    pub(crate) is_active: bool,
    /// Age of the oldest row version that the holder keeps, in transactions.
    pub(crate) row_transactions: Option<i64>,
    pub(crate) catalog_transactions: Option<i64>,
    /// The slot's `wal_status`: `reserved`, `extended`, `unreserved` or `lost`.
    pub(crate) wal_status: Option<String>,
}

#[derive(Debug, Clone, PartialEq, FromRow)]
pub(crate) struct RefusedMessages {
    pub(crate) messages: i64,
    /// The code and the constraint of the latest refusal.
    pub(crate) reason: Option<String>,
    pub(crate) newest_id: Option<i64>,
}

/// A sequence of ids that is behind its table: an insert will collide with a row.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub(crate) struct SequenceBehind {
    pub(crate) table_name: String,
    pub(crate) next_id: i64,
    /// The first id from `next_id` on that a row has.
    pub(crate) taken_id: i64,
    pub(crate) newest_id: i64,
    pub(crate) statement: String,
}

/// A collation whose rules may have changed since the indexes were built.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub(crate) struct CollationMismatch {
    pub(crate) subject: String,
    pub(crate) built_with: String,
    /// None if the operating system or ICU reports no version.
    pub(crate) found: Option<String>,
    /// The statement that stores the new version, for after a reindex.
    pub(crate) refresh: String,
}

/// The first version of Postgres that stores the version of a database's default collation.
const VERSION_WITH_DATABASE_COLLATIONS: i32 = 150_000;
const ROUND_TRIPS: usize = 5;

impl Outbox {
    pub(crate) async fn server_diagnostics(&self) -> Result<ServerDiagnostics, sqlx::Error> {
        self.read_row(query(include_str!("diagnostics/server.sql")))
            .await
    }

    pub(crate) async fn collation_mismatches(
        &self,
        version_num: i32,
    ) -> Result<Vec<CollationMismatch>, sqlx::Error> {
        self.read(async |session| {
            let collations = query(include_str!("diagnostics/collations.sql"));
            let mut found = rows(session, collations).await?;
            if version_num >= VERSION_WITH_DATABASE_COLLATIONS {
                let default = query(include_str!("diagnostics/database_collation.sql"));
                found.extend(rows(session, default).await?);
            }
            Ok(found)
        })
        .await
    }

    pub(crate) async fn latency(&self) -> Result<DatabaseLatency, sqlx::Error> {
        self.read(async |session| {
            let mut best: Option<DatabaseLatency> = None;
            for _ in 0..ROUND_TRIPS {
                let asked = Moment::now();
                let shown: DbTime = value(session, query("select clock_timestamp()")).await?;
                let round_trip = asked.instant.elapsed();
                if best.is_none_or(|best| round_trip < best.round_trip) {
                    let host = DbTime::from(OffsetDateTime::from(asked.wall)) + round_trip / 2;
                    let ahead_us = host.as_micros().saturating_sub(shown.as_micros());
                    best = Some(DatabaseLatency {
                        round_trip,
                        host_ahead: time::Duration::microseconds(ahead_us),
                    });
                }
            }
            best.ok_or(sqlx::Error::RowNotFound)
        })
        .await
    }

    pub(crate) async fn sequences_behind(&self) -> Result<Vec<SequenceBehind>, sqlx::Error> {
        self.read_rows(query("select * from signaling.sequences_behind()"))
            .await
    }

    pub(crate) async fn old_transactions(&self) -> Result<Vec<OldTransaction>, sqlx::Error> {
        self.read_rows(query(include_str!("diagnostics/old_transactions.sql")))
            .await
    }

    pub(crate) async fn vacuum_holders(&self) -> Result<Vec<VacuumHolder>, sqlx::Error> {
        self.read_rows(query(include_str!("diagnostics/vacuum_holders.sql")))
            .await
    }

    pub(crate) async fn additions(&self) -> Result<Vec<String>, sqlx::Error> {
        let additions = query(include_str!("diagnostics/additions.sql")).bind(own_constraints());
        let names: Vec<(String,)> = self.read_rows(additions).await?;
        Ok(names.into_iter().map(|(name,)| name).collect())
    }

    pub(crate) async fn refused_messages(&self) -> Result<RefusedMessages, sqlx::Error> {
        let refused = query(
            "select count(*) as messages, max(message_id) as newest_id,
                    (array_agg(concat_ws(' ', code, constraint_name) order by refused_at desc))[1] as reason
             from signaling.refused",
        );
        self.read_row(refused).await
    }

    pub(crate) async fn alive_workers(&self) -> Result<i64, sqlx::Error> {
        let alive = query("select count(distinct worker_id) from signaling.fleet where is_alive");
        self.read_row(alive).await.map(|(count,)| count)
    }
}
