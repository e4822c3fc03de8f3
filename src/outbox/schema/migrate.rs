//! Migrations: embedded, in the schema `signaling`, with a bookkeeping table there. An application that runs its
//! own sqlx migrations in the same database keeps them elsewhere and is not disturbed.

mod lock_holder;
mod runner;

use std::time::Duration;

use sqlx::migrate::{MigrateError, Migration, MigrationType};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, Executor, PgConnection, SqlSafeStr};

pub(crate) use lock_holder::LockHolder;
use lock_holder::listed;
use runner::Runner;

use super::functions::{self, PROTOCOL_VERSION};

use crate::error_text::database_error_text;
use crate::outbox::Outbox;

const TABLE: &str = "signaling.schema_migrations";

/// Number, description and text of each migration, in order. A migration that has been released is never changed.
const MIGRATIONS: &[(i64, &str, &str)] = &[
    (
        1,
        "outbox",
        include_str!("../../../migrations/0001_outbox.sql"),
    ),
    (
        2,
        "stats",
        include_str!("../../../migrations/0002_stats.sql"),
    ),
];

/// A migration that was run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Applied {
    pub(crate) version: i64,
    pub(crate) description: String,
    /// How long it took, without what was spent on attempts that got no lock. It held its locks for less.
    pub(crate) took: Duration,
}

/// How far the schema is, in comparison with this binary.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SchemaVersion {
    /// The newest migration in the database; none if there is no outbox.
    pub(crate) found: Option<i64>,
    /// The newest one of this binary.
    pub(crate) needed: i64,
    /// Number and description of those of this binary that have not been run.
    pub(crate) missing: Vec<(i64, &'static str)>,
    /// The version of the functions in the database; none if there are none.
    pub(crate) functions_found: Option<i32>,
    /// The version of this binary's functions.
    pub(crate) functions_needed: i32,
    /// The encoding of the database.
    pub(crate) encoding: String,
}

/// Why the schema can't be used as it is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SchemaError {
    /// The migrations have not been run.
    #[error("the database has no outbox yet: run `worker migrate` first")]
    Missing,
    /// Some migrations have not been run.
    #[error(
        "the database's schema is at version {found}, this worker needs {needed}: run `worker migrate` first"
    )]
    Outdated {
        /// The newest migration in the database.
        found: i64,
        /// The newest one of this binary.
        needed: i64,
    },
    /// The functions are of an older version.
    #[error(
        "the database's functions are at version {found}, this worker needs {needed}: run `worker migrate` first"
    )]
    OutdatedFunctions { found: i32, needed: i32 },
    /// Text of such a database may be no text for a worker.
    #[error(
        "the database's encoding is {encoding}, in which text may have bytes that no worker can read: create the database with `encoding 'UTF8'`"
    )]
    Encoding { encoding: String },
    /// Migrators take turns by a lock that belongs to a session, and a pooler keeps no sessions.
    #[error(
        "DATABASE_URL leads through a pooler in transaction mode: run `worker migrate` with the URL of the database itself"
    )]
    Pooler,
    /// Other sessions hold a lock that a migration needs, all the time that it may wait.
    #[error(
        "migration {version} ({description}) got no lock within {}: held by {}. It is undone, and nobody waits for it. Run `worker migrate` again when they have ended, or end a session with `select pg_terminate_backend(<process>)`",
        humantime::format_duration(*.lock_wait),
        listed(.holders)
    )]
    Locked {
        version: i64,
        description: String,
        /// How long it has tried.
        lock_wait: Duration,
        /// Who was in the way.
        holders: Vec<LockHolder>,
    },
    /// Another process migrates, all the time that this one may wait.
    #[error(
        "another `worker migrate` is at work, for longer than {}: {}. Run this again when it has ended",
        humantime::format_duration(*.lock_wait),
        listed(.holders)
    )]
    Busy {
        /// How long this one has waited.
        lock_wait: Duration,
        holders: Vec<LockHolder>,
    },
    /// A migration failed, or one that was run before differs.
    #[error("the migration failed: {0}")]
    Migrate(#[from] MigrateError),
    #[error("the database failed: {}", database_error_text(.0))]
    Database(#[from] sqlx::Error),
}

/// A migration for sqlx. One that begins with the line `-- no-transaction` is a single statement that Postgres runs
/// outside of a transaction alone.
fn migration(version: i64, description: &'static str, sql: &'static str) -> Migration {
    Migration::new(
        version,
        description.into(),
        MigrationType::Simple,
        sql.into_sql_str(),
        sql.starts_with("-- no-transaction\n"),
    )
}

impl Outbox {
    /// Runs the migrations that are missing, and reports each; then installs the functions whose text has changed, and
    /// returns how many. Processes that do so at once take turns. For its turn, and for the locks of each migration, it
    /// waits up to `lock_wait`, but never in such a way that other sessions have to wait behind it for long.
    ///
    /// # Errors
    /// Where a migration fails, or gets no lock: it is undone, and those before it stay. Behind a pooler, where nothing
    /// could make processes take turns. Where the database's encoding is not UTF-8.
    pub(crate) async fn migrate(
        &self,
        lock_wait: Duration,
        on_applied: impl FnMut(&Applied),
    ) -> Result<usize, SchemaError> {
        if self.has_pooler() {
            return Err(SchemaError::Pooler);
        }
        let options = self
            .options()
            .clone()
            .application_name("signaling-worker migrate");
        // A connection of its own, closed whatever happens: the lock that migrators take turns by belongs to it.
        let mut connection = connect(&options).await?;
        let migrations = MIGRATIONS
            .iter()
            .map(|(version, description, sql)| migration(*version, description, sql))
            .collect();
        let migrated = async {
            has_utf8(&encoding(&mut connection).await?)?;
            Runner::new(migrations, options, lock_wait)
                .run(&mut connection, on_applied)
                .await?;
            functions::install(&mut connection).await
        };
        let migrated = migrated.await;
        connection.close().await.ok();
        migrated
    }

    /// Which migrations have been run and which are missing, and the version of the functions.
    ///
    /// # Errors
    /// Where the database fails, or the role may not read that.
    pub(crate) async fn schema_version(&self) -> Result<SchemaVersion, sqlx::Error> {
        self.read(async |session| {
            let applied = applied(session).await?;
            Ok(SchemaVersion {
                found: applied.last().copied(),
                needed: MIGRATIONS.last().map_or(0, |(version, ..)| *version),
                missing: MIGRATIONS
                    .iter()
                    .filter(|(version, ..)| !applied.contains(version))
                    .map(|(version, description, _)| (*version, *description))
                    .collect(),
                functions_found: functions::found_version(session).await?,
                functions_needed: PROTOCOL_VERSION,
                encoding: encoding(session).await?,
            })
        })
        .await
    }

    /// Checks that all migrations and functions of this binary are there. Takes no connection from claims and records.
    ///
    /// # Errors
    /// Where some are not, or the database fails.
    pub(crate) async fn check_schema(&self) -> Result<(), SchemaError> {
        let schema = self.schema_version().await?;
        has_utf8(&schema.encoding)?;
        match (schema.found, schema.functions_found) {
            (None, _) => Err(SchemaError::Missing),
            (Some(found), _) if found < schema.needed => Err(SchemaError::Outdated {
                found,
                needed: schema.needed,
            }),
            (Some(_), found) if found < Some(PROTOCOL_VERSION) => {
                Err(SchemaError::OutdatedFunctions {
                    found: found.unwrap_or(0),
                    needed: PROTOCOL_VERSION,
                })
            }
            (Some(_), _) => Ok(()),
        }
    }
}

fn has_utf8(encoding: &str) -> Result<(), SchemaError> {
    if encoding == "UTF8" {
        return Ok(());
    }
    Err(SchemaError::Encoding {
        encoding: encoding.to_owned(),
    })
}

async fn encoding(connection: &mut PgConnection) -> Result<String, sqlx::Error> {
    sqlx::query_scalar("select current_setting('server_encoding')")
        .persistent(false)
        .fetch_one(connection)
        .await
}

/// A connection that looks for names nowhere but in the system's own schema: migrations run with the rights of their
/// owner, and others may create functions in the schema `public` that fit better.
async fn connect(options: &PgConnectOptions) -> Result<PgConnection, sqlx::Error> {
    let mut connection = options.connect().await?;
    connection
        .execute("set search_path = pg_catalog, pg_temp")
        .await?;
    Ok(connection)
}

/// The numbers of the migrations that have been run, in order.
async fn applied(connection: &mut PgConnection) -> Result<Vec<i64>, sqlx::Error> {
    let exists: bool = sqlx::query_scalar("select to_regclass($1) is not null")
        .persistent(false)
        .bind(TABLE)
        .fetch_one(&mut *connection)
        .await?;
    if !exists {
        return Ok(Vec::new());
    }
    sqlx::query_scalar(
        "select version from signaling.schema_migrations where success order by version",
    )
    .persistent(false)
    .fetch_all(&mut *connection)
    .await
}
