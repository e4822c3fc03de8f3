//! What `worker check` asks the database about itself. Reads only; what it means is decided in [`crate::check`].

use std::time::Duration;

use sqlx::{ConnectOptions, Connection, FromRow, Row};
use time::OffsetDateTime;

use crate::outbox::pool::within;
use crate::outbox::schema::own_constraints;
use crate::outbox::{HostSurvey, Outbox};
use crate::pace::DbTime;
use crate::pace::clock::Moment;

/// What a server says of itself, and of the session that asks.
#[derive(Debug, Clone, FromRow)]
#[expect(clippy::struct_excessive_bools, reason = "the row has these columns")]
pub(crate) struct ServerDiagnostics {
    pub(crate) version: String,
    /// The version as a number: 150004 is 15.4.
    pub(crate) version_num: i32,
    pub(crate) is_standby: bool,
    pub(crate) is_read_only: bool,
    /// The version of TLS of this session, if it has any. Behind a pooler, of the pooler's.
    pub(crate) tls_version: Option<String>,
    pub(crate) user: String,
    /// The name of the database, quoted for SQL.
    pub(crate) database: String,
    /// The isolation of new transactions, but for sessions that set their own, as the worker's do.
    pub(crate) default_isolation: String,
    pub(crate) max_prepared_transactions: i32,
    /// The setting `signaling.notify`, by which inserts notify workers or not.
    pub(crate) notify: Option<String>,
    /// The tables of the schema on which row-level security is enabled.
    pub(crate) tables_with_row_security: Vec<String>,
    /// The tables whose policies also apply to the owner of the schema's functions.
    pub(crate) tables_closed_to_functions: Vec<String>,
    /// The tables whose policies hide rows from the role of this session.
    pub(crate) tables_with_hidden_rows: Vec<String>,
    /// `max_connections` without the connections reserved for superusers.
    pub(crate) server_limit: i64,
    /// The role's connection limit, if there is one.
    pub(crate) role_limit: Option<i64>,
    /// The database's connection limit, if there is one.
    pub(crate) database_limit: Option<i64>,
    /// True if the role may see the times of other roles' transactions.
    pub(crate) sees_all_sessions: bool,
    /// Connections that others than superusers may still make.
    pub(crate) server_left: i64,
    /// Connections that the role may still make, if that is limited.
    pub(crate) role_left: Option<i64>,
    /// Connections to this database that may still be made, if that is limited.
    pub(crate) database_left: Option<i64>,
    /// The server's default of `idle_session_timeout`; 0: none. The worker's sessions override it.
    pub(crate) idle_session_timeout_ms: i64,
    /// Whether autovacuum runs at all.
    pub(crate) autovacuum: bool,
    /// The tables of the schema for which it is switched off.
    pub(crate) tables_without_autovacuum: Vec<String>,
}

/// The distance of a database in time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DatabaseLatency {
    /// The shortest of a few round trips.
    pub(crate) round_trip: Duration,
    /// By how much this host's clock is ahead of the database's; negative if it is behind. Uncertain by half of the
    /// round trip.
    pub(crate) host_ahead: time::Duration,
}

/// A transaction that keeps rows from being cleaned up.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub(crate) struct OldTransaction {
    /// Who has it, for people.
    pub(crate) holder: String,
    /// How long it has been open, in s; none if who asks may not know.
    pub(crate) age_s: Option<f64>,
    /// How many transactions have begun since.
    pub(crate) transactions_since: i64,
    /// A prepared transaction, which belongs to no session. Only a command ends it.
    pub(crate) is_prepared: bool,
}

/// A replication slot or a standby that keeps rows from being cleaned up.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub(crate) struct VacuumHolder {
    pub(crate) holder: String,
    /// False for a slot that no receiver reads.
    pub(crate) is_active: bool,
    /// Age of the oldest row version that the holder keeps, in transactions.
    pub(crate) row_transactions: Option<i64>,
    /// The same for the server's own tables.
    pub(crate) catalog_transactions: Option<i64>,
    /// The slot's `wal_status`: `reserved`, `extended`, `unreserved` or `lost`.
    pub(crate) wal_status: Option<String>,
}

/// A collation whose rules may have changed since the indexes were built.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub(crate) struct CollationMismatch {
    pub(crate) subject: String,
    pub(crate) built_with: String,
    /// None if the operating system or ICU reports no version.
    pub(crate) found: Option<String>,
    /// The statement to run after a reindex. It stores the new version.
    pub(crate) refresh: String,
}

/// Messages that the database refuses to change.
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
    /// The statement that corrects the sequence.
    pub(crate) statement: String,
}

/// The first version of Postgres that stores the version of a database's default collation.
const VERSION_WITH_DATABASE_COLLATIONS: i32 = 150_000;

/// How long a pooler may take to say its version.
const POOLER_TIMEOUT: Duration = Duration::from_secs(1);

/// So many round trips are measured, for the shortest.
const ROUND_TRIPS: usize = 5;

impl Outbox {
    /// The host and port of the server.
    pub(crate) fn address(&self) -> String {
        self.servers().address()
    }

    /// The state of each host of the URL.
    pub(crate) async fn survey_hosts(&self) -> Vec<HostSurvey> {
        self.servers().survey().await
    }

    /// The parameters of the URL that the worker does not know, by name.
    pub(crate) fn unknown_parameters(&self) -> Vec<String> {
        self.servers().unknown_parameters()
    }

    /// What the server says of itself. The connection that asks is not counted as taken.
    ///
    /// # Errors
    /// Where the database fails.
    pub(crate) async fn server_diagnostics(&self) -> Result<ServerDiagnostics, sqlx::Error> {
        self.read(async |session| {
            sqlx::query_as(include_str!("diagnostics/server.sql"))
                .persistent(false)
                .fetch_one(&mut **session)
                .await
        })
        .await
    }

    /// The name and the version of the pooler, which PgBouncer says on its admin database to those whom its settings
    /// `admin_users` and `stats_users` name.
    ///
    /// # Errors
    /// Where the pooler is another one, does not let this role ask, or takes longer than [`POOLER_TIMEOUT`].
    pub(crate) async fn pooler_version(&self) -> Result<String, sqlx::Error> {
        let options = self.servers().options()?.database("pgbouncer");
        within(POOLER_TIMEOUT, async {
            let mut connection = options.connect().await?;
            // PgBouncer takes simple queries alone there.
            let row = sqlx::raw_sql("show version")
                .fetch_one(&mut connection)
                .await?;
            let version = row.try_get(0)?;
            connection.close().await?;
            Ok(version)
        })
        .await
    }

    /// How far away the database is, and how far its clock is from this host's.
    ///
    /// # Errors
    /// Where the database fails.
    pub(crate) async fn latency(&self) -> Result<DatabaseLatency, sqlx::Error> {
        self.read(async |session| {
            let mut best: Option<DatabaseLatency> = None;
            for _ in 0..ROUND_TRIPS {
                let asked = Moment::now();
                let shown: DbTime = sqlx::query_scalar("select clock_timestamp()")
                    .fetch_one(&mut **session)
                    .await?;
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

    /// The sequences that are behind their tables.
    ///
    /// # Errors
    /// Where the database fails.
    pub(crate) async fn sequences_behind(&self) -> Result<Vec<SequenceBehind>, sqlx::Error> {
        self.read(async |session| {
            sqlx::query_as("select * from signaling.sequences_behind()")
                .persistent(false)
                .fetch_all(&mut **session)
                .await
        })
        .await
    }

    /// The oldest transactions of this database that keep rows from being cleaned up, the oldest first.
    ///
    /// # Errors
    /// Where the database fails.
    pub(crate) async fn old_transactions(&self) -> Result<Vec<OldTransaction>, sqlx::Error> {
        self.read(async |session| {
            sqlx::query_as(include_str!("diagnostics/old_transactions.sql"))
                .persistent(false)
                .fetch_all(&mut **session)
                .await
        })
        .await
    }

    /// Replication slots and standbys that may keep dead rows or the server's log.
    ///
    /// # Errors
    /// Where the database fails.
    pub(crate) async fn vacuum_holders(&self) -> Result<Vec<VacuumHolder>, sqlx::Error> {
        self.read(async |session| {
            sqlx::query_as(include_str!("diagnostics/vacuum_holders.sql"))
                .persistent(false)
                .fetch_all(&mut **session)
                .await
        })
        .await
    }

    /// Collations of the schema's indexes that have another version than when the indexes were built.
    ///
    /// # Errors
    /// Where the database fails.
    pub(crate) async fn collation_mismatches(
        &self,
        version_num: i32,
    ) -> Result<Vec<CollationMismatch>, sqlx::Error> {
        self.read(async |session| {
            let mut found: Vec<CollationMismatch> =
                sqlx::query_as(include_str!("diagnostics/collations.sql"))
                    .persistent(false)
                    .fetch_all(&mut **session)
                    .await?;
            if version_num >= VERSION_WITH_DATABASE_COLLATIONS {
                found.extend(
                    sqlx::query_as(include_str!("diagnostics/database_collation.sql"))
                        .persistent(false)
                        .fetch_all(&mut **session)
                        .await?,
                );
            }
            Ok(found)
        })
        .await
    }

    /// Triggers, constraints, indexes and rules of the application that may refuse what a worker writes.
    ///
    /// # Errors
    /// Where the database fails.
    pub(crate) async fn additions(&self) -> Result<Vec<String>, sqlx::Error> {
        self.read(async |session| {
            sqlx::query_scalar(include_str!("diagnostics/additions.sql"))
                .bind(own_constraints())
                .persistent(false)
                .fetch_all(&mut **session)
                .await
        })
        .await
    }

    /// Messages that claims pass over, because the database refuses to change them.
    ///
    /// # Errors
    /// Where the database fails.
    pub(crate) async fn refused_messages(&self) -> Result<RefusedMessages, sqlx::Error> {
        self.read(async |session| {
            sqlx::query_as(
                "select count(*) as messages, max(message_id) as newest_id,
                        (array_agg(concat_ws(' ', code, constraint_name) order by refused_at desc))[1] as reason
                 from signaling.refused",
            )
            .persistent(false)
            .fetch_one(&mut **session)
            .await
        })
        .await
    }

    /// How many workers of this database are alive.
    ///
    /// # Errors
    /// Where the database fails.
    pub(crate) async fn alive_workers(&self) -> Result<i64, sqlx::Error> {
        self.read(async |session| {
            sqlx::query_scalar(
                "select count(distinct worker_id) from signaling.fleet where is_alive",
            )
            .persistent(false)
            .fetch_one(&mut **session)
            .await
        })
        .await
    }
}
