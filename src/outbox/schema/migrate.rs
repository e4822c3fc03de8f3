//! Runs migrations beside a running application. A migration that waits for a lock makes every later statement on that table
//! wait behind it. So a migration gives up after half a second, pauses, and tries again. The installation of triggers does
//! the same.

use std::time::{Duration, Instant};

use sqlx::migrate::{Migrate, Migration};
use sqlx::{Connection, Executor, PgConnection, query};

use super::functions::PROTOCOL_VERSION;
use super::objects::{Migrated, install};
use super::version::{
    SchemaError, TABLE, check_encoding, found_versions, migrations, migrations_gone,
};
use crate::error_text::database_error_text;
use crate::outbox::Outbox;
use crate::outbox::errors::is_without_lock;
use crate::outbox::one_off::value;
use crate::outbox::pool::connection_manager::SESSION_GUARDS;
use crate::telemetry::failure_log::FailureLog;

/// The `search_path` has only the system's schema: in the schema `public`, other roles may create functions that a migration
/// would call with its owner's privileges.
///
/// Postgres cancels an autovacuum for a session that has waited for its lock as long as `deadlock_timeout`, by default 1 s. A
/// migration waits no longer than [`LOCK_TIMEOUT`], so a long autovacuum would block each attempt. Postgres
/// lets only superusers and roles with the privilege `SET` change `deadlock_timeout`.
const SESSION: &str =
    "set application_name = 'signaling-worker migrate'; set search_path = pg_catalog, pg_temp;
    do $$ begin
        set deadlock_timeout = '200ms';
    exception when insufficient_privilege then null;
    end $$";
/// The longest wait of an attempt. Sessions behind it then wait for about a second, the work of the migration included.
const LOCK_TIMEOUT: &str = "set lock_timeout = '500ms'";
/// A migration outside of a transaction blocks no other session while it waits.
const NO_LOCK_TIMEOUT: &str = "set lock_timeout = 0";
/// Between two attempts, other sessions get the lock.
const ATTEMPT_PAUSE: Duration = Duration::from_millis(500);
/// Processes that migrate at once take turns by this advisory lock.
const TURN_LOCK: i64 = 7_310_596_821_344_204;

impl Outbox {
    /// Runs the missing migrations, and calls `on_applied` with a line for each change. Then installs the functions, views and
    /// triggers that are missing or different. Processes that migrate at once take turns. Waits up to `lock_wait` for its turn,
    /// for the locks of each migration, and for those of the installation. After an error, the finished migrations stay.
    pub(crate) async fn migrate(
        &self,
        lock_wait: Duration,
        on_applied: impl FnMut(String),
    ) -> Result<Migrated, SchemaError> {
        if self.has_pooler() {
            return Err(SchemaError::unusable(
                "DATABASE_URL leads through a pooler in transaction mode, where migrators can't take turns",
                "run `worker migrate` with the URL of the database itself",
            ));
        }
        let mut connection = self.migrating_connection().await?;
        let migrated = async {
            check_encoding(&mut connection).await?;
            run(&mut connection, &migrations(), lock_wait, on_applied).await?;
            let work = "the installation of functions, views and triggers";
            repeat_without_lock(&mut connection, work, lock_wait, install).await
        };
        let migrated = migrated.await;
        connection.close().await.ok();
        migrated
    }

    /// A connection of its own, because the turn is a lock of the connection.
    async fn migrating_connection(&self) -> Result<PgConnection, sqlx::Error> {
        let (mut connection, _) = self.servers().connect().await?;
        connection.execute(SESSION_GUARDS).await?;
        connection.execute(SESSION).await?;
        Ok(connection)
    }
}

/// Waits for its turn, which lasts until the connection is closed, and runs the missing migrations. Ignores migrations of
/// newer workers, because these keep older workers running.
async fn run(
    connection: &mut PgConnection,
    migrations: &[Migration],
    lock_wait: Duration,
    mut on_applied: impl FnMut(String),
) -> Result<(), SchemaError> {
    take_turn(connection, lock_wait).await?;
    connection.create_schema_if_not_exists("signaling").await?;
    connection.ensure_migrations_table(TABLE).await?;
    let applied = connection.list_applied_migrations(TABLE).await?;
    if let (None, Some(found)) = found_versions(connection).await? {
        // A person or a program emptied the table. The functions show that this version has migrated the database.
        if found != PROTOCOL_VERSION {
            return Err(migrations_gone());
        }
        for migration in migrations {
            connection.skip(TABLE, migration).await?;
        }
        tracing::warn!(
            event = "schema_migrations_restored",
            "signaling.schema_migrations was empty: its rows are restored"
        );
        on_applied("restored the rows of signaling.schema_migrations\n".to_owned());
        return Ok(());
    }
    for migration in migrations {
        let work = format!(
            "migration {} ({})",
            migration.version, migration.description
        );
        match applied.iter().find(|run| run.version == migration.version) {
            Some(run) if run.checksum == migration.checksum => {}
            Some(_) => {
                return Err(SchemaError::unusable(
                    format!("{work} was run with another text than this worker's"),
                    "use the worker that belongs to this database",
                ));
            }
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
                on_applied(format!("applied {version} {description} in {took_ms} ms\n"));
            }
        }
    }
    Ok(())
}

/// Polls. A blocking wait would deadlock with another migrator's concurrent index build, which waits for all open statements.
async fn take_turn(connection: &mut PgConnection, lock_wait: Duration) -> Result<(), SchemaError> {
    let begun = Instant::now();
    let take = || query("select pg_try_advisory_lock($1)").bind(TURN_LOCK);
    let waiting = FailureLog::default();
    while !value::<bool>(connection, take()).await? {
        if waiting.failed() {
            tracing::info!(
                event = "migration_blocked",
                "another `worker migrate` runs: this one waits for its end"
            );
        }
        if begun.elapsed() >= lock_wait {
            let holders = lock_holders(connection, Some(TURN_LOCK)).await?;
            let lock_wait = humantime::format_duration(lock_wait);
            return Err(SchemaError::unusable(
                format!("another `worker migrate`, {holders}, has not ended within {lock_wait}"),
                "run this command again when the other one has ended",
            ));
        }
        tokio::time::sleep(ATTEMPT_PAUSE).await;
    }
    Ok(())
}

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
            Err(SchemaError::Database(error)) => {
                let why = database_error_text(&error);
                return Err(SchemaError::unusable(
                    format!("{work} failed: {why}"),
                    "correct the cause, and run `worker migrate` again",
                ));
            }
            result => return result,
        }
        if begun.elapsed() >= lock_wait {
            let holders = lock_holders(connection, None).await?;
            let lock_wait = humantime::format_duration(lock_wait);
            return Err(SchemaError::unusable(
                format!("{work} got no lock within {lock_wait}: held by {holders}"),
                "the attempt is undone, and blocks no session. Run `worker migrate` again when these sessions have ended, or end a session with `select pg_terminate_backend(<process>)`",
            ));
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
