//! Runs migrations beside a running application. A migration that waits for a lock makes every later statement on that table
//! wait behind it. So a migration gives up after half a second, pauses, and tries again. The installation of triggers does
//! the same.

use std::time::{Duration, Instant};

use sqlx::migrate::{Migrate, Migration};
use sqlx::{Connection, Executor, PgConnection, query};

use super::functions::{PROTOCOL_VERSION, found_version};
use super::install::{Migrated, install};
use super::migrations::{TABLE, applied, migrations};
use super::version::{SchemaError, check_encoding, encoding};
use crate::outbox::Outbox;
use crate::outbox::errors::is_without_lock;
use crate::outbox::one_off::value;
use crate::outbox::pool::connection_manager::SESSION_GUARDS;

/// The `search_path` has only the system's schema: in the schema `public`, other roles may create functions that a migration
/// would call with its owner's privileges.
///
/// An autovacuum ends for a session that has waited as long as `deadlock_timeout`, if the role may set that. In a deadlock,
/// the migration finds it first, and gives up.
const SESSION: &str = "set application_name = 'signaling-worker migrate';
    set search_path = pg_catalog, pg_temp;
    do $$ begin
        set deadlock_timeout = '200ms';
    exception when insufficient_privilege then null;
    end $$";
/// Half a second of waiting, so that sessions behind the migration wait for about a second with its work.
const LOCK_TIMEOUT: &str = "set lock_timeout = '500ms'";
/// A migration outside of a transaction blocks no other session while it waits.
const NO_LOCK_TIMEOUT: &str = "set lock_timeout = 0";
/// Other sessions get the lock in this time.
const ATTEMPT_PAUSE: Duration = Duration::from_millis(500);
const TURN_INTERVAL: Duration = Duration::from_millis(100);
/// The advisory lock of the process that migrates.
const TURN_LOCK: i64 = 7_310_596_821_344_204;

impl Outbox {
    /// Runs the missing migrations. Then installs the functions, views and triggers that are missing or different. Processes that migrate at once take turns. Waits up to `lock_wait` for its turn, for the locks
    /// of each migration, and for those of the installation. After an error, the finished migrations stay. Fails behind a
    /// pooler, where processes can't take turns.
    pub(crate) async fn migrate(&self, lock_wait: Duration) -> Result<Migrated, SchemaError> {
        if self.has_pooler() {
            return Err(SchemaError::Pooler);
        }
        let mut connection = self.migrating_connection().await?;
        let migrated = async {
            check_encoding(encoding(&mut connection).await?)?;
            let applied = run(&mut connection, &migrations(), lock_wait).await?;
            let work = "the installation of functions, views and triggers";
            let migrated = repeat_without_lock(&mut connection, work, lock_wait, install).await?;
            Ok(Migrated {
                applied,
                ..migrated
            })
        };
        let migrated = migrated.await;
        connection.close().await.ok();
        migrated
    }

    /// A connection of its own, because the turn is a lock of the connection.
    async fn migrating_connection(&self) -> Result<PgConnection, sqlx::Error> {
        let mut connection = self.servers().connect().await?;
        connection.execute(SESSION_GUARDS).await?;
        connection.execute(SESSION).await?;
        Ok(connection)
    }
}

/// Waits for its turn, which lasts until the connection is closed, and runs the missing migrations. Returns a line for each of
/// them. Ignores migrations of newer workers, because these keep older workers running.
async fn run(
    connection: &mut PgConnection,
    migrations: &[Migration],
    lock_wait: Duration,
) -> Result<Vec<String>, SchemaError> {
    take_turn(connection, lock_wait).await?;
    connection.create_schema_if_not_exists("signaling").await?;
    connection.ensure_migrations_table(TABLE).await?;
    let applied = applied(connection).await?;
    if applied.is_empty()
        && let Some(found) = found_version(connection).await?
    {
        // A person or a program emptied the table. The functions show that this version has migrated the database.
        if found != PROTOCOL_VERSION {
            return Err(SchemaError::MigrationsGone);
        }
        for migration in migrations {
            connection.skip(TABLE, migration).await?;
        }
        tracing::warn!(
            event = "schema_migrations_restored",
            "signaling.schema_migrations was empty: its rows are restored"
        );
        return Ok(Vec::new());
    }
    let mut lines = Vec::new();
    for migration in migrations {
        let work = format!(
            "migration {} ({})",
            migration.version, migration.description
        );
        match applied.iter().find(|(v, _)| *v == migration.version) {
            Some((_, checksum)) if *checksum == *migration.checksum => {}
            Some(_) => return Err(SchemaError::Changed { work }),
            None => {
                let attempt = async |connection: &mut PgConnection| {
                    if migration.no_tx {
                        connection.execute(NO_LOCK_TIMEOUT).await?;
                    }
                    Ok(connection.apply(TABLE, migration).await?)
                };
                let took = repeat_without_lock(connection, &work, lock_wait, attempt).await?;
                let (version, description) = (migration.version, &migration.description);
                let took_ms = took.as_millis();
                lines.push(format!("applied {version} {description} in {took_ms} ms\n"));
            }
        }
    }
    Ok(lines)
}

/// Polls, because a concurrent index build of another migrator would wait for a statement that waits for the lock.
async fn take_turn(connection: &mut PgConnection, lock_wait: Duration) -> Result<(), SchemaError> {
    let begun = Instant::now();
    loop {
        let take = query("select pg_try_advisory_lock($1)").bind(TURN_LOCK);
        if value(connection, take).await? {
            return Ok(());
        }
        if begun.elapsed() >= lock_wait {
            let holders = lock_holders(connection, Some(TURN_LOCK)).await?;
            return Err(SchemaError::Busy { lock_wait, holders });
        }
        tokio::time::sleep(TURN_INTERVAL).await;
    }
}

/// Repeats some work while it gets no lock.
async fn repeat_without_lock<T>(
    connection: &mut PgConnection,
    work: &str,
    lock_wait: Duration,
    attempt: impl AsyncFn(&mut PgConnection) -> Result<T, SchemaError>,
) -> Result<T, SchemaError> {
    let begun = Instant::now();
    let mut is_blocked = false;
    loop {
        connection.execute(LOCK_TIMEOUT).await?;
        match attempt(connection).await {
            Err(SchemaError::Database(error)) if is_without_lock(&error) => {}
            Err(SchemaError::Database(source)) => {
                let work = work.to_owned();
                return Err(SchemaError::Failed { work, source });
            }
            result => return result,
        }
        if begun.elapsed() >= lock_wait {
            return Err(SchemaError::Locked {
                work: work.to_owned(),
                lock_wait,
                holders: lock_holders(connection, None).await?,
            });
        }
        if !is_blocked {
            tracing::info!(
                event = "migration_blocked",
                work,
                lock_wait = %humantime::format_duration(lock_wait),
                "other sessions hold a lock that the migration needs: it gives up for a moment, and tries again"
            );
        }
        is_blocked = true;
        tokio::time::sleep(ATTEMPT_PAUSE).await;
    }
}

/// Describes the sessions that hold an advisory lock, or a lock on a relation of the schema.
async fn lock_holders(
    connection: &mut PgConnection,
    advisory_lock: Option<i64>,
) -> Result<String, sqlx::Error> {
    let holders = query(include_str!("lock_holders.sql")).bind(advisory_lock);
    let holders: Option<String> = value(connection, holders).await?;
    Ok(holders.unwrap_or_else(|| "sessions that have ended since".to_owned()))
}

#[cfg(test)]
mod tests;
