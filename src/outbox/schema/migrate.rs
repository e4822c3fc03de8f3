//! Runs migrations beside a running application. A migration that waits for a lock makes everybody wait who comes after
//! it and wants that table, however little they want. So it waits for half a second at most, gives up, leaves the
//! others a moment, and tries again.

use std::time::{Duration, Instant};

use sqlx::{ConnectOptions, Connection, Executor, PgConnection, query};

use super::functions;
use super::lock_holder::{BLOCKING, HOLDING_ADVISORY, LockHolder, lock_holders};
use super::migrations::{MIGRATIONS, Migration, TABLE, applied};
use super::version::{SchemaError, check_encoding, encoding};
use crate::outbox::Outbox;
use crate::outbox::errors::is_without_lock;
use crate::outbox::one_off::value;
use crate::outbox::pool::Session;

/// How long a migration waits for a lock, with others behind it: half a second, as the other half is for its work.
///
/// An autovacuum gives way to whoever has waited for it as long as the check for deadlocks takes to come, if the role
/// may set that. And should there be a deadlock, the migration is the one that finds it, and gives up.
const LOCK_LIMITS: &str = "set local lock_timeout = '500ms';
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

/// A migration that was run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Applied {
    pub(crate) version: i64,
    pub(crate) description: &'static str,
    /// How long it took, without what was spent on attempts that got no lock. It held its locks for less.
    pub(crate) took: Duration,
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
        let mut connection = self.migrating_connection().await?;
        let migrated = async {
            check_encoding(encoding(&mut connection).await?)?;
            self.run(&mut connection, MIGRATIONS, lock_wait, on_applied)
                .await?;
            functions::install(&mut connection).await
        };
        let migrated = migrated.await;
        connection.close().await.ok();
        migrated
    }

    /// A connection of its own, because the lock that migrators take turns by belongs to it. It looks for names in the
    /// system's own schema alone: migrations run with the rights of their owner, and others may create functions in the
    /// schema `public` that fit better.
    async fn migrating_connection(&self) -> Result<PgConnection, sqlx::Error> {
        let options = self
            .options()
            .clone()
            .application_name("signaling-worker migrate");
        let mut connection = options.connect().await?;
        connection
            .execute("set search_path = pg_catalog, pg_temp")
            .await?;
        Ok(connection)
    }

    /// Waits for its turn, which lasts until the connection is closed, and runs what is missing. A newer worker may have
    /// migrated further; its migrations keep to what older workers need.
    async fn run(
        &self,
        connection: &mut PgConnection,
        migrations: &[Migration],
        lock_wait: Duration,
        mut on_applied: impl FnMut(&Applied),
    ) -> Result<(), SchemaError> {
        take_turn(connection, lock_wait).await?;
        connection.execute(TABLE).await?;
        let applied = applied(connection).await?;
        for migration in migrations {
            let &Migration {
                version,
                description,
                ..
            } = migration;
            match applied.iter().find(|(found, _)| *found == version) {
                None => on_applied(&self.apply(connection, migration, lock_wait).await?),
                Some((_, checksum)) if *checksum == migration.checksum() => {}
                Some(_) => {
                    return Err(SchemaError::Changed {
                        version,
                        description,
                    });
                }
            }
        }
        Ok(())
    }

    /// Runs one migration, and again while it gets no lock.
    async fn apply(
        &self,
        connection: &mut PgConnection,
        migration: &Migration,
        lock_wait: Duration,
    ) -> Result<Applied, SchemaError> {
        let &Migration {
            version,
            description,
            ..
        } = migration;
        let pid = value(connection, query("select pg_backend_pid()")).await?;
        let begun = Instant::now();
        let mut holders = Vec::new();
        let mut is_blocked = false;
        loop {
            let attempted = Instant::now();
            let attempt = attempt(connection, migration);
            let Err(source) = self.watch(pid, attempt, &mut holders).await else {
                let took = attempted.elapsed();
                return Ok(Applied {
                    version,
                    description,
                    took,
                });
            };
            if !is_without_lock(&source) {
                return Err(SchemaError::Failed {
                    version,
                    description,
                    source,
                });
            }
            if begun.elapsed() >= lock_wait {
                return Err(SchemaError::Locked {
                    version,
                    description,
                    lock_wait,
                    holders,
                });
            }
            if !is_blocked {
                tracing::info!(
                    event = "migration_blocked",
                    migration = version,
                    lock_wait = %humantime::format_duration(lock_wait),
                    "others hold a lock that the migration needs: it lets them go on, and tries again"
                );
            }
            is_blocked = true;
            tokio::time::sleep(ATTEMPT_PAUSE).await;
        }
    }

    /// Sees an attempt through, and notes from another connection who is in its way.
    async fn watch<T>(
        &self,
        pid: i32,
        attempt: impl Future<Output = T>,
        holders: &mut Vec<LockHolder>,
    ) -> T {
        tokio::pin!(attempt);
        loop {
            tokio::select! {
                biased;
                result = &mut attempt => return result,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            let look =
                async |session: &mut Session| lock_holders(session, BLOCKING, pid.into()).await;
            // A look that fails names nobody; the attempt counts.
            if let Ok(found) = self.read(look).await
                && !found.is_empty()
            {
                *holders = found;
            }
        }
    }
}

/// Waits for other migrators, by polling: an index that is built concurrently would wait for a statement that waits.
async fn take_turn(connection: &mut PgConnection, lock_wait: Duration) -> Result<(), SchemaError> {
    let begun = Instant::now();
    while !value(
        connection,
        query("select pg_try_advisory_lock($1)").bind(TURN),
    )
    .await?
    {
        if begun.elapsed() >= lock_wait {
            let holders = lock_holders(connection, HOLDING_ADVISORY, TURN).await?;
            return Err(SchemaError::Busy { lock_wait, holders });
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

/// Runs a migration once. Outside of a transaction it takes no lock that others have to wait for, but waits for theirs.
async fn attempt(connection: &mut PgConnection, migration: &Migration) -> Result<(), sqlx::Error> {
    if !migration.is_in_transaction() {
        return execute(connection, migration).await;
    }
    let mut transaction = connection.begin().await?;
    transaction.execute(LOCK_LIMITS).await?;
    execute(&mut transaction, migration).await?;
    transaction.commit().await
}

async fn execute(connection: &mut PgConnection, migration: &Migration) -> Result<(), sqlx::Error> {
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
