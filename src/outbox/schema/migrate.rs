//! Runs migrations beside a running application. A migration that waits for a lock makes every later statement on that table
//! wait behind it. So a migration gives up after half a second, pauses, and tries again. The installation of triggers does
//! the same.

use std::time::{Duration, Instant};

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, Executor, PgConnection, query};

use super::functions::found_version;
use super::install::{Installed, install};
use super::migrations::{MIGRATIONS, Migration, TABLE, applied};
use super::objects::{Damage, find_damage};
use super::version::{SchemaError, check_encoding, encoding, missing_schema};
use crate::outbox::Outbox;
use crate::outbox::errors::is_without_lock;
use crate::outbox::one_off::value;
use crate::outbox::pool::Session;
use crate::outbox::pool::pooler::session_guards;

/// Half a second of waiting, so that sessions behind the migration wait for about a second with its work.
///
/// An autovacuum ends for a session that has waited as long as `deadlock_timeout`, if the role may set that. In a deadlock,
/// the migration finds it first, and gives up.
pub(super) const LOCK_LIMITS: &str = "set local lock_timeout = '500ms';
    do $$ begin
        set local deadlock_timeout = '200ms';
    exception when insufficient_privilege then null;
    end $$";
/// Other sessions get the lock in this time.
const ATTEMPT_PAUSE: Duration = Duration::from_millis(500);
/// Between two queries for this process's turn, or for the sessions that block it.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// The advisory lock of the process that migrates.
const TURN_LOCK: i64 = 7_310_596_821_344_204;

#[derive(Debug)]
pub(crate) struct Migrated {
    pub(crate) installed: Installed,
    /// Objects that are missing or different, and that an installation can't repair.
    pub(crate) remaining: Vec<Damage>,
}

impl Outbox {
    /// Runs the missing migrations, and reports the duration of each one. Then installs the functions, views and triggers that
    /// are missing or different. Processes that migrate at once take turns. Waits up to `lock_wait` for its turn, for the locks
    /// of each migration, and for those of the installation. After an error, the finished migrations stay. Fails behind a
    /// pooler, where processes can't take turns.
    pub(crate) async fn migrate(
        &self,
        lock_wait: Duration,
        on_applied: impl FnMut(Migration, Duration),
    ) -> Result<Migrated, SchemaError> {
        if self.has_pooler() {
            return Err(SchemaError::Pooler);
        }
        let mut connection = self.migrating_connection().await?;
        let migrated = async {
            check_encoding(encoding(&mut connection).await?)?;
            self.run(&mut connection, MIGRATIONS, lock_wait, on_applied)
                .await?;
            let work = "the installation of functions, views and triggers";
            let (installed, _) = self
                .repeat_without_lock(&mut connection, work, lock_wait, install)
                .await?;
            let mut transaction = connection.begin().await?;
            let remaining = find_damage(&mut transaction).await?.unwrap_or_default();
            transaction.rollback().await?;
            Ok(Migrated {
                installed,
                remaining,
            })
        };
        let migrated = migrated.await;
        connection.close().await.ok();
        migrated
    }

    /// A connection of its own, because the turn is a lock of the connection. Its `search_path` has only the system's schema:
    /// in the schema `public`, other roles may create functions that a migration would call with its owner's privileges.
    async fn migrating_connection(&self) -> Result<PgConnection, sqlx::Error> {
        let open = async |options: PgConnectOptions| {
            let options = options.application_name("signaling-worker migrate");
            options.connect().await
        };
        let mut connection = self.servers().open(open).await?;
        connection.execute(session_guards()).await?;
        let search_path = "set search_path = pg_catalog, pg_temp";
        connection.execute(search_path).await?;
        Ok(connection)
    }

    /// Waits for its turn, which lasts until the connection is closed, and runs the missing migrations. Ignores migrations of
    /// newer workers, because these keep older workers running.
    async fn run(
        &self,
        connection: &mut PgConnection,
        migrations: &[Migration],
        lock_wait: Duration,
        mut on_applied: impl FnMut(Migration, Duration),
    ) -> Result<(), SchemaError> {
        take_turn(connection, lock_wait).await?;
        connection.execute(TABLE).await?;
        let applied = applied(connection).await?;
        if applied.is_empty()
            && let Some(version) = found_version(connection).await?
        {
            return Err(missing_schema(Some(version)));
        }
        for &migration in migrations {
            let found = applied.iter().find(|(v, _)| *v == migration.version);
            match found.map(|(_, checksum)| *checksum == migration.checksum()) {
                None => {
                    let work = migration.to_string();
                    let attempt =
                        async |connection: &mut PgConnection| attempt(connection, migration).await;
                    let ((), took) = self
                        .repeat_without_lock(connection, &work, lock_wait, attempt)
                        .await?;
                    on_applied(migration, took);
                }
                Some(true) => {}
                Some(false) => return Err(SchemaError::Changed(migration)),
            }
        }
        Ok(())
    }

    /// Repeats some work while it gets no lock. Returns the duration of the last attempt.
    async fn repeat_without_lock<T>(
        &self,
        connection: &mut PgConnection,
        work: &str,
        lock_wait: Duration,
        attempt: impl AsyncFn(&mut PgConnection) -> Result<T, SchemaError>,
    ) -> Result<(T, Duration), SchemaError> {
        let pid = value(connection, query("select pg_backend_pid()")).await?;
        let begun = Instant::now();
        let mut holders = "sessions that have ended since".to_owned();
        let mut is_blocked = false;
        loop {
            let attempted = Instant::now();
            let attempt = attempt(connection);
            match self.watch(pid, attempt, &mut holders).await {
                Ok(value) => return Ok((value, attempted.elapsed())),
                Err(SchemaError::Database(error)) if is_without_lock(&error) => {}
                Err(SchemaError::Database(source)) => {
                    let work = work.to_owned();
                    return Err(SchemaError::Failed { work, source });
                }
                Err(error) => return Err(error),
            }
            if begun.elapsed() >= lock_wait {
                return Err(SchemaError::Locked {
                    work: work.to_owned(),
                    lock_wait,
                    holders,
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

    /// Runs an attempt to its end. Another connection finds out the sessions that block it.
    async fn watch<T>(
        &self,
        pid: i32,
        attempt: impl Future<Output = T>,
        holders: &mut String,
    ) -> T {
        tokio::pin!(attempt);
        loop {
            tokio::select! {
                biased;
                result = &mut attempt => return result,
                () = tokio::time::sleep(POLL_INTERVAL) => {}
            }
            let query = async |session: &mut Session| lock_holders(session, Some(pid), None).await;
            if let Ok(Some(found)) = self.read(query).await {
                *holders = found;
            }
        }
    }
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
            let holders = lock_holders(connection, None, Some(TURN_LOCK)).await?;
            let holders = holders.unwrap_or_else(|| "it has ended since then".into());
            return Err(SchemaError::Busy { lock_wait, holders });
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Describes the sessions that block a process, or that hold an advisory lock.
async fn lock_holders(
    connection: &mut PgConnection,
    blocked_pid: Option<i32>,
    advisory_lock: Option<i64>,
) -> Result<Option<String>, sqlx::Error> {
    let holders = query(include_str!("lock_holders.sql"));
    value(connection, holders.bind(blocked_pid).bind(advisory_lock)).await
}

/// Runs a migration once. Outside of a transaction, a migration blocks no other session, and may wait without limits.
async fn attempt(connection: &mut PgConnection, migration: Migration) -> Result<(), SchemaError> {
    if !migration.is_in_transaction() {
        return Ok(execute(connection, migration).await?);
    }
    let mut transaction = connection.begin().await?;
    transaction.execute(LOCK_LIMITS).await?;
    execute(&mut transaction, migration).await?;
    Ok(transaction.commit().await?)
}

async fn execute(connection: &mut PgConnection, migration: Migration) -> Result<(), sqlx::Error> {
    let begun = Instant::now();
    connection.execute(migration.sql).await?;
    let nanoseconds = i64::try_from(begun.elapsed().as_nanos()).unwrap_or(i64::MAX);
    let entry = query(
        "insert into signaling.schema_migrations (version, description, success, checksum, execution_time)
         values ($1, $2, true, $3, $4)",
    );
    let entry = entry.bind(migration.version).bind(migration.description);
    let entry = entry.bind(migration.checksum()).bind(nanoseconds);
    entry.execute(connection).await.map(drop)
}

#[cfg(test)]
mod tests;
