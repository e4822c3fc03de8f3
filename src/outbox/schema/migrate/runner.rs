//! Runs migrations beside a running application. A migration that waits for a lock makes everybody wait who comes after
//! it and wants that table, however little they want. So it waits for half a second at most, gives up, leaves the
//! others a moment, and tries again.

use std::time::{Duration, Instant};

use sqlx::migrate::{MigrateError, Migration, Migrator};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Executor, PgConnection};

use super::lock_holder::{LockHolder, lock_holders_before, lock_holders_of};
use super::{Applied, SchemaError, TABLE, applied, connect};

/// How long a migration waits for a lock, with others behind it; the other half of a second is for its work.
const LOCK_TIMEOUT: Duration = Duration::from_millis(500);
/// How long the others have for themselves before the next attempt.
const ATTEMPT_PAUSE: Duration = Duration::from_millis(500);
/// An autovacuum gives way to whoever has waited for it as long as the check for deadlocks takes to come, if the role
/// may set that. And should there be a deadlock, the migration is the one that finds it, and gives up.
const YIELDING: &str = "do $$ begin set deadlock_timeout = '200ms'; exception when insufficient_privilege then null; end $$";
/// How often it is asked whether it is this process's turn.
const TURN_POLL: Duration = Duration::from_millis(100);
/// How often it is asked who is in the way.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Migrations to run, and how long they may wait.
pub(super) struct Runner {
    migrator: Migrator,
    /// How to make another connection.
    options: PgConnectOptions,
    lock_wait: Duration,
}

impl Runner {
    pub(super) fn new(
        migrations: Vec<Migration>,
        options: PgConnectOptions,
        lock_wait: Duration,
    ) -> Self {
        let mut migrator = Migrator::with_migrations(migrations);
        migrator.dangerous_set_table_name(TABLE);
        migrator.create_schema("signaling");
        // A newer worker may have migrated further; its migrations keep to what older workers need.
        migrator.set_ignore_missing(true);
        // Turns are taken here: sqlx would wait in a statement, for as long as it takes. An index that is built
        // concurrently waits for such statements to end, and would wait for ever.
        migrator.set_locking(false);
        Self {
            migrator,
            options,
            lock_wait,
        }
    }

    /// Waits for its turn, which lasts until the connection is closed, and runs what is missing.
    pub(super) async fn run(
        &self,
        connection: &mut PgConnection,
        mut on_applied: impl FnMut(&Applied),
    ) -> Result<(), SchemaError> {
        self.take_turn(connection).await?;
        let before = applied(connection).await?;
        for migration in self.migrator.iter() {
            if !before.contains(&migration.version) {
                on_applied(&self.apply(connection, migration).await?);
            }
        }
        // Also compares those that were run before with what this binary has.
        self.migrator.run(&mut *connection).await?;
        Ok(())
    }

    /// Waits for other migrators. The lock is the one that sqlx takes, so that older versions of this binary know it.
    async fn take_turn(&self, connection: &mut PgConnection) -> Result<(), SchemaError> {
        let database: String = sqlx::query_scalar("select current_database()::text")
            .fetch_one(&mut *connection)
            .await?;
        let lock = turn_lock(&database);
        let begun = Instant::now();
        loop {
            let has_turn: bool = sqlx::query_scalar("select pg_try_advisory_lock($1)")
                .bind(lock)
                .fetch_one(&mut *connection)
                .await?;
            if has_turn {
                return Ok(());
            }
            if begun.elapsed() >= self.lock_wait {
                return Err(SchemaError::Busy {
                    lock_wait: self.lock_wait,
                    holders: lock_holders_of(connection, lock).await?,
                });
            }
            tokio::time::sleep(TURN_POLL).await;
        }
    }

    /// Runs one migration, and again while it gets no lock.
    async fn apply(
        &self,
        connection: &mut PgConnection,
        migration: &Migration,
    ) -> Result<Applied, SchemaError> {
        let begun = Instant::now();
        // What runs outside of a transaction takes no lock that others have to wait for, but waits for theirs.
        let lock_timeout = if migration.no_tx {
            Duration::ZERO
        } else {
            LOCK_TIMEOUT
        };
        let set = format!("set lock_timeout = {}", lock_timeout.as_millis());
        connection.execute(AssertSqlSafe(set)).await?;
        connection.execute(YIELDING).await?;
        let mut blocked: Option<Blocked> = None;
        loop {
            let attempted = Instant::now();
            let attempt = self.migrator.run_to(migration.version, &mut *connection);
            let result = match &mut blocked {
                None => attempt.await,
                Some(blocked) => blocked.watch(attempt).await,
            };
            match result {
                Ok(()) => {
                    return Ok(Applied {
                        version: migration.version,
                        description: migration.description.clone().into_owned(),
                        took: attempted.elapsed(),
                    });
                }
                Err(error) if !is_without_lock(&error) => return Err(error.into()),
                Err(_) => {}
            }
            let waiting = match blocked {
                Some(waiting) if begun.elapsed() >= self.lock_wait => {
                    return Err(SchemaError::Locked {
                        version: migration.version,
                        description: migration.description.clone().into_owned(),
                        lock_wait: self.lock_wait,
                        holders: waiting.holders,
                    });
                }
                Some(waiting) => waiting,
                None => {
                    tracing::info!(
                        event = "migration_blocked",
                        migration = migration.version,
                        lock_wait = %humantime::format_duration(self.lock_wait),
                        "others hold a lock that the migration needs: it lets them go on, and tries again"
                    );
                    Blocked::by_nobody(connection, &self.options).await?
                }
            };
            blocked = Some(waiting);
            tokio::time::sleep(ATTEMPT_PAUSE).await;
        }
    }
}

/// A migration that gets no lock, watched from another connection.
struct Blocked {
    pid: i32,
    watcher: PgConnection,
    /// Who was in the way when somebody was, the last time.
    holders: Vec<LockHolder>,
}

impl Blocked {
    async fn by_nobody(
        connection: &mut PgConnection,
        options: &PgConnectOptions,
    ) -> Result<Self, sqlx::Error> {
        let pid = sqlx::query_scalar("select pg_backend_pid()")
            .fetch_one(connection)
            .await?;
        Ok(Self {
            pid,
            watcher: connect(options).await?,
            holders: Vec::new(),
        })
    }

    /// Sees an attempt through, and looks who is in its way.
    async fn watch<T>(&mut self, attempt: impl Future<Output = T>) -> T {
        tokio::pin!(attempt);
        loop {
            tokio::select! {
                biased;
                result = &mut attempt => return result,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            // Who can't be seen is not told of; the attempt counts.
            if let Ok(holders) = lock_holders_before(&mut self.watcher, self.pid).await
                && !holders.is_empty()
            {
                self.holders = holders;
            }
        }
    }
}

/// The number of sqlx's lock for migrations in a database.
fn turn_lock(database: &str) -> i64 {
    let mut crc = flate2::Crc::new();
    crc.update(database.as_bytes());
    0x3d32_ad9e * i64::from(crc.sum())
}

/// Whether a migration has only met a lock: `lock_not_available`, or a deadlock that it was chosen to resolve.
fn is_without_lock(error: &MigrateError) -> bool {
    let (MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) = error else {
        return false;
    };
    error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code)
        .is_some_and(|code| ["55P03", "40P01"].contains(&code.as_ref()))
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use sqlx::Connection;

    use super::super::migration;
    use super::*;
    use testkit::postgres::ThrowawayPostgres;

    /// A statement that waits for its turn would be one that the index waits for, and the other way round.
    #[tokio::test]
    async fn an_index_is_built_concurrently_while_other_processes_wait_for_their_turn() {
        let cluster = ThrowawayPostgres::start().await.unwrap();
        let url = cluster.create_database("concurrently").await.unwrap();
        let options = PgConnectOptions::from_str(&url).unwrap();
        let migrate = || async {
            let migrations = vec![
                migration(
                    1,
                    "table",
                    "create table signaling.numbers as select generate_series(1, 1000) as n",
                ),
                migration(
                    2,
                    "index",
                    "-- no-transaction\ncreate index concurrently numbers_n on signaling.numbers (n)",
                ),
            ];
            let mut connection = connect(&options).await.unwrap();
            let mut applied = 0;
            let run = Runner::new(migrations, options.clone(), Duration::from_secs(30))
                .run(&mut connection, |_| applied += 1)
                .await;
            connection.close().await.unwrap();
            run.map(|()| applied)
        };
        let (a, b, c, d) = tokio::join!(migrate(), migrate(), migrate(), migrate());
        let applied: Vec<i32> = [a, b, c, d].into_iter().map(Result::unwrap).collect();
        assert_eq!(
            applied.iter().sum::<i32>(),
            2,
            "each by one of them: {applied:?}"
        );

        let mut connection = connect(&options).await.unwrap();
        let valid: bool = sqlx::query_scalar(
            "select indisvalid from pg_index where indexrelid = 'signaling.numbers_n'::regclass",
        )
        .fetch_one(&mut connection)
        .await
        .unwrap();
        assert!(valid);
        connection.close().await.unwrap();
        cluster.stop().await.unwrap();
    }

    /// A migration that waits for a lock has every later statement on that table wait behind it.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn readers_go_on_while_a_migration_waits_for_a_lock_on_their_table() {
        let cluster = ThrowawayPostgres::start().await.unwrap();
        let url = cluster.create_database("locked").await.unwrap();
        let options = PgConnectOptions::from_str(&url).unwrap();
        let mut holder = connect(&options).await.unwrap();
        for statement in [
            "create schema signaling",
            "create table signaling.numbers (n int)",
            "begin; select from signaling.numbers",
        ] {
            holder.execute(statement).await.unwrap();
        }

        let mut reader = connect(&options).await.unwrap();
        let reads = tokio::spawn(async move {
            let (begun, mut longest) = (Instant::now(), Duration::ZERO);
            while begun.elapsed() < Duration::from_secs(5) {
                let read = Instant::now();
                reader
                    .execute("select from signaling.numbers")
                    .await
                    .unwrap();
                longest = longest.max(read.elapsed());
            }
            longest
        });
        let migrations = vec![migration(
            1,
            "column",
            "alter table signaling.numbers add column name text",
        )];
        let mut connection = connect(&options).await.unwrap();
        let error = Runner::new(migrations, options.clone(), Duration::from_secs(3))
            .run(&mut connection, |_| {})
            .await
            .unwrap_err();
        let SchemaError::Locked { holders, .. } = error else {
            panic!("another error: {error}");
        };
        assert_eq!(holders.len(), 1, "{holders:?}");
        let longest = reads.await.unwrap();
        assert!(
            longest < Duration::from_secs(2),
            "a reader waited {longest:?}"
        );
        assert!(
            longest > Duration::from_millis(300),
            "nobody waited behind the migration: {longest:?}"
        );
        connection.close().await.unwrap();
        holder.close().await.unwrap();
        cluster.stop().await.unwrap();
    }
}
