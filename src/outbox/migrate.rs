//! Migrations: embedded, in the schema `signaling`, with a bookkeeping table there. An application that runs its
//! own sqlx migrations in the same database keeps them elsewhere and is not disturbed.

use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::{ConnectOptions, Connection, SqlSafeStr};

use super::{Outbox, explain};

const TABLE: &str = "signaling.schema_migrations";

/// Number, description and text of each migration, in order. A migration that has been released is never changed.
const MIGRATIONS: &[(i64, &str, &str)] = &[
    (
        1,
        "outbox",
        include_str!("../../migrations/0001_outbox.sql"),
    ),
    (
        2,
        "lane control",
        include_str!("../../migrations/0002_lane_control.sql"),
    ),
];

/// Why the schema can't be used as it is.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
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
    /// Migrators take turns by a lock that belongs to a session, and a pooler keeps no sessions.
    #[error(
        "DATABASE_URL leads through a pooler in transaction mode: run `worker migrate` with the URL of the database itself"
    )]
    Pooler,
    /// A migration failed, or one that was run before differs.
    #[error("the migration failed: {0}")]
    Migrate(#[from] MigrateError),
    /// The database failed.
    #[error("the database failed: {}", explain(.0))]
    Database(#[from] sqlx::Error),
}

fn migrator() -> Migrator {
    let mut migrator = Migrator::with_migrations(
        MIGRATIONS
            .iter()
            .map(|(version, description, sql)| {
                Migration::new(
                    *version,
                    (*description).into(),
                    MigrationType::Simple,
                    sql.into_sql_str(),
                    false,
                )
            })
            .collect(),
    );
    migrator.dangerous_set_table_name(TABLE);
    migrator.create_schema("signaling");
    // A newer worker may have migrated further; its migrations keep to what older workers need.
    migrator.set_ignore_missing(true);
    migrator
}

impl Outbox {
    /// Runs the migrations that are missing, and returns their numbers. Processes that do so at once take turns.
    ///
    /// # Errors
    /// Where one fails: it is undone, and those before it stay. Behind a pooler in transaction mode, where nothing
    /// could make processes take turns.
    pub async fn migrate(&self) -> Result<Vec<i64>, SchemaError> {
        if self.has_pooler() {
            return Err(SchemaError::Pooler);
        }
        let before = self.applied().await?;
        // A connection of its own, closed whatever happens: the lock that migrators take turns by belongs to it.
        let mut connection = self.options().connect().await?;
        let migrated = migrator().run(&mut connection).await;
        connection.close().await?;
        migrated?;
        Ok(self
            .applied()
            .await?
            .into_iter()
            .filter(|version| !before.contains(version))
            .collect())
    }

    /// Checks that all migrations of this binary have been run.
    ///
    /// # Errors
    /// Where some have not.
    pub async fn check_schema(&self) -> Result<(), SchemaError> {
        let needed = MIGRATIONS.last().map_or(0, |(version, ..)| *version);
        match self.applied().await?.last() {
            None => Err(SchemaError::Missing),
            Some(found) if *found < needed => Err(SchemaError::Outdated {
                found: *found,
                needed,
            }),
            Some(_) => Ok(()),
        }
    }

    /// The numbers of the migrations that have been run, in order.
    async fn applied(&self) -> Result<Vec<i64>, sqlx::Error> {
        let mut session = self.session().await?;
        let exists: bool = sqlx::query_scalar("select to_regclass($1) is not null")
            .persistent(false)
            .bind(TABLE)
            .fetch_one(&mut *session)
            .await?;
        let versions = if exists {
            sqlx::query_scalar(
                "select version from signaling.schema_migrations where success order by version",
            )
            .persistent(false)
            .fetch_all(&mut *session)
            .await?
        } else {
            Vec::new()
        };
        session.finish().await?;
        Ok(versions)
    }
}
