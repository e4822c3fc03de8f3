//! The version of a database's schema, and the errors of a schema that a worker can't use.

use std::time::Duration;

use sqlx::{PgConnection, query};

use super::functions::{PROTOCOL_VERSION, found_version};
use super::migrations::{MIGRATIONS, Migration, applied, migrations_statement, newest_version};
use super::objects::{Damage, list_names};
use crate::error_text::database_error_text;
use crate::outbox::Outbox;
use crate::outbox::one_off::value;

/// The schema's version and the one that this binary needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SchemaVersion {
    /// None: there is no outbox.
    pub(crate) found: Option<i64>,
    pub(crate) needed: i64,
    /// Version and description of the migrations that were not run.
    pub(crate) missing: Vec<(i64, &'static str)>,
    pub(crate) functions_found: Option<i32>,
    pub(crate) functions_needed: i32,
    pub(crate) encoding: String,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum SchemaError {
    #[error("the database has no outbox yet: run `worker migrate` first")]
    Missing,
    /// The tables exist, but `signaling.schema_migrations` is empty.
    #[error(
        "signaling.schema_migrations is empty, and the functions of the outbox are there: the table was emptied. Restore its rows; if the version of this worker has migrated the database, run: {statement}"
    )]
    MigrationsGone { statement: String },
    #[error(
        "the database's schema is at version {found}, this worker needs {needed}: run `worker migrate` first"
    )]
    Outdated { found: i64, needed: i64 },
    #[error(
        "the database's functions are at version {found}, this worker needs {needed}: run `worker migrate` first"
    )]
    OutdatedFunctions { found: i32, needed: i32 },
    /// Functions that workers need were dropped.
    #[error("the schema signaling lacks {names}: run `worker migrate`, which makes them again")]
    Dropped { names: String },
    /// Tables or columns were dropped, and their rows with them.
    #[error(
        "the schema signaling lacks {names}, and no migration makes them again: restore a backup, or run `worker check`, which prints statements that make them empty"
    )]
    Lost { names: String },
    #[error(
        "the database's encoding is {encoding}, and a worker can't read all text of such a database: create the database with `encoding 'UTF8'`"
    )]
    Encoding { encoding: String },
    /// Migrators take turns by a lock of a session, and a pooler keeps no sessions.
    #[error(
        "DATABASE_URL leads through a pooler in transaction mode: run `worker migrate` with the URL of the database itself"
    )]
    Pooler,
    #[error(
        "{work} got no lock within {}: held by {holders}. It is undone, and blocks no session. Run `worker migrate` again when they have ended, or end a session with `select pg_terminate_backend(<process>)`",
        humantime::format_duration(*.lock_wait)
    )]
    Locked {
        work: String,
        lock_wait: Duration,
        holders: String,
    },
    #[error(
        "another `worker migrate` has been running for longer than {}: {holders}. Run this again when it has ended",
        humantime::format_duration(*.lock_wait)
    )]
    Busy {
        lock_wait: Duration,
        holders: String,
    },
    #[error(
        "{0} was run with another text than this worker's: use the worker that belongs to this database"
    )]
    Changed(Migration),
    #[error("{work} failed: {}", database_error_text(.source))]
    Failed { work: String, source: sqlx::Error },
    #[error("the database failed: {}", database_error_text(.0))]
    Database(#[from] sqlx::Error),
}

impl Outbox {
    pub(crate) async fn schema_version(&self) -> Result<SchemaVersion, sqlx::Error> {
        self.read(async |session| {
            let applied = applied(session).await?;
            Ok(SchemaVersion {
                found: applied.last().map(|(version, _)| *version),
                needed: newest_version(),
                missing: MIGRATIONS
                    .iter()
                    .filter(|own| !applied.iter().any(|(version, _)| *version == own.version))
                    .map(|own| (own.version, own.description))
                    .collect(),
                functions_found: found_version(session).await?,
                functions_needed: PROTOCOL_VERSION,
                encoding: encoding(session).await?,
            })
        })
        .await
    }

    /// Fails if a migration of this binary was not run, or the functions are older.
    pub(crate) async fn check_schema(&self) -> Result<(), SchemaError> {
        let schema = self.schema_version().await?;
        check_encoding(schema.encoding)?;
        let needed = schema.needed;
        let missing = || missing_schema(schema.functions_found);
        let found = schema.found.ok_or_else(missing)?;
        if found < needed {
            return Err(SchemaError::Outdated { found, needed });
        }
        let needed = schema.functions_needed;
        let Some(found) = schema.functions_found else {
            let names = "function signaling.protocol_version".to_owned();
            return Err(SchemaError::Dropped { names });
        };
        if found < needed {
            return Err(SchemaError::OutdatedFunctions { found, needed });
        }
        Ok(())
    }
}

impl SchemaError {
    /// Fails if objects are missing that a worker needs. Names lost tables and columns first, because nothing else can be
    /// created without them.
    pub(crate) fn check_damage(damage: &[Damage]) -> Result<(), Self> {
        let names = |is_repairable: bool| -> Vec<_> {
            let stopping = damage.iter().filter(|damage| damage.stops_workers());
            let of_kind = stopping.filter(|damage| damage.kind().is_repairable() == is_repairable);
            of_kind.map(Damage::name).collect()
        };
        let (lost, dropped) = (names(false), names(true));
        if !lost.is_empty() {
            let names = list_names(&lost);
            return Err(Self::Lost { names });
        }
        if !dropped.is_empty() {
            let names = list_names(&dropped);
            return Err(Self::Dropped { names });
        }
        Ok(())
    }
}

pub(super) fn missing_schema(functions_found: Option<i32>) -> SchemaError {
    match functions_found {
        None => SchemaError::Missing,
        Some(_) => SchemaError::MigrationsGone {
            statement: migrations_statement(),
        },
    }
}

pub(super) async fn encoding(connection: &mut PgConnection) -> Result<String, sqlx::Error> {
    value(
        connection,
        query("select current_setting('server_encoding')"),
    )
    .await
}

pub(super) fn check_encoding(encoding: String) -> Result<(), SchemaError> {
    if encoding == "UTF8" {
        return Ok(());
    }
    Err(SchemaError::Encoding { encoding })
}
