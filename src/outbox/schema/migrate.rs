//! Runs migrations beside a running application. A migration that waits for a lock makes everybody wait who comes after
//! it and wants that table, however little they want. So it waits for half a second at most, gives up, leaves the
//! others a moment, and tries again. The installation of triggers does the same.

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

/// How long a migration waits for a lock, with others behind it: half a second, as the other half is for its work.
///
/// An autovacuum gives way to whoever has waited for it as long as the check for deadlocks takes to come, if the role
/// may set that. And should there be a deadlock, the migration is the one that finds it, and gives up.
pub(super) const LOCK_LIMITS: &str = "set local lock_timeout = '500ms';
    do $$ begin
        set local deadlock_timeout = '200ms';
    exception when insufficient_privilege then null;
    end $$";
/// How long the others have for themselves before the next attempt.
const ATTEMPT_PAUSE: Duration = Duration::from_millis(500);
/// How often it is asked whether it is this process's turn, and who is in the way.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The advisory lock by which migrators take turns.
const TURN: i64 = 7_310_596_821_344_204;

/// The result of `worker migrate`, beside the migrations that it has run.
#[derive(Debug)]
pub(crate) struct Migrated {
    pub(crate) installed: Installed,
    /// Objects that are missing or different, and that no installation makes again.
    pub(crate) remaining: Vec<Damage>,
}

impl Outbox {
    /// Runs the migrations that are missing, and reports each with how long it took, without attempts that got no lock;
    /// then installs the functions, views and triggers that are missing or different. Processes that do so at once take
    /// turns. For its turn, for the locks of each migration and for those of the installation, it waits up to `lock_wait`,
    /// but never in such a way that other sessions have to wait behind it for long.
    ///
    /// # Errors
    /// Where a migration fails, or gets no lock: it is undone, and those before it stay. Behind a pooler, where nothing
    /// could make processes take turns. Where the database's encoding is not UTF-8. Where tables or columns are missing.
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

    /// A connection of its own, because the lock that migrators take turns by belongs to it. It looks for names in the
    /// system's own schema alone: migrations run with the rights of their owner, and others may create functions in the
    /// schema `public` that fit better.
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

    /// Waits for its turn, which lasts until the connection is closed, and runs what is missing. A newer worker may have
    /// migrated further; its migrations keep to what older workers need.
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

    /// Attempts some work, and again while it gets no lock. Returns how long the last attempt took.
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
                    "others hold a lock that this work needs: it lets them go on, and tries again"
                );
            }
            is_blocked = true;
            tokio::time::sleep(ATTEMPT_PAUSE).await;
        }
    }

    /// Runs an attempt to its end. Another connection notes the sessions that block it.
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
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            let look = async |session: &mut Session| lock_holders(session, Some(pid), None).await;
            // A look that fails names nobody; the attempt counts.
            if let Ok(Some(found)) = self.read(look).await {
                *holders = found;
            }
        }
    }
}

/// Waits for other migrators, by polling: an index that is built concurrently would wait for a statement that waits.
async fn take_turn(connection: &mut PgConnection, lock_wait: Duration) -> Result<(), SchemaError> {
    let begun = Instant::now();
    loop {
        let take = query("select pg_try_advisory_lock($1)").bind(TURN);
        if value(connection, take).await? {
            return Ok(());
        }
        if begun.elapsed() >= lock_wait {
            let holders = lock_holders(connection, None, Some(TURN)).await?;
            let holders = holders.unwrap_or_else(|| "it has ended since".into());
            return Err(SchemaError::Busy { lock_wait, holders });
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Names the sessions that block a process, or that hold an advisory lock.
async fn lock_holders(
    connection: &mut PgConnection,
    blocked_pid: Option<i32>,
    advisory_lock: Option<i64>,
) -> Result<Option<String>, sqlx::Error> {
    let holders = query(include_str!("lock_holders.sql"));
    value(connection, holders.bind(blocked_pid).bind(advisory_lock)).await
}

/// Runs a migration once. Outside of a transaction it takes no lock that others have to wait for, but waits for theirs.
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
