//! The version of a database's schema, and the errors of a schema that a worker can't use.

use std::time::Duration;

use sqlx::migrate::MigrateError;
use sqlx::{PgConnection, query};

use super::functions::{PROTOCOL_VERSION, found_version};
use super::migrations::{applied, migrations};
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
    pub(crate) missing: Vec<String>,
    pub(crate) functions_found: Option<i32>,
    pub(crate) functions_needed: i32,
    pub(crate) encoding: String,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum SchemaError {
    #[error("the database has no outbox yet: run `worker migrate` first")]
    Missing,
    #[error(
        "signaling.schema_migrations is empty although the outbox exists: a person or a program emptied the table. Run `worker migrate` of the version that has migrated the database: it restores the rows"
    )]
    MigrationsGone,
    #[error(
        "the database's {what} at version {found}, this worker needs {needed}: run `worker migrate` first"
    )]
    Outdated {
        what: &'static str,
        found: i64,
        needed: i64,
    },
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
        "{work} was run with another text than this worker's: use the worker that belongs to this database"
    )]
    Changed { work: String },
    #[error("{work} failed: {}", database_error_text(.source))]
    Failed { work: String, source: sqlx::Error },
    #[error("the database failed: {}", database_error_text(.0))]
    Database(#[from] sqlx::Error),
}

impl From<MigrateError> for SchemaError {
    fn from(error: MigrateError) -> Self {
        Self::Database(match error {
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => error,
            error => error.into(),
        })
    }
}

impl Outbox {
    pub(crate) async fn schema_version(&self) -> Result<SchemaVersion, sqlx::Error> {
        self.read(async |session| {
            let applied = applied(session).await?;
            let mut missing = migrations();
            let needed = missing.last().map_or(0, |newest| newest.version);
            missing.retain(|own| !applied.iter().any(|(version, _)| *version == own.version));
            Ok(SchemaVersion {
                found: applied.last().map(|(version, _)| *version),
                needed,
                missing: missing
                    .into_iter()
                    .map(|own| format!("{} ({})", own.version, own.description))
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
        let (found, functions) = match (schema.found, schema.functions_found) {
            (None, None) => return Err(SchemaError::Missing),
            (None, Some(_)) => return Err(SchemaError::MigrationsGone),
            (Some(_), None) => {
                let names = "function signaling.protocol_version".to_owned();
                return Err(SchemaError::Dropped { names });
            }
            (Some(found), Some(functions)) => (found, functions),
        };
        for (what, found, needed) in [
            ("schema is", found, schema.needed),
            (
                "functions are",
                functions.into(),
                schema.functions_needed.into(),
            ),
        ] {
            if found < needed {
                return Err(SchemaError::Outdated {
                    what,
                    found,
                    needed,
                });
            }
        }
        Ok(())
    }
}

impl SchemaError {
    /// Fails if objects are missing that a worker needs. Names lost tables and columns first, because nothing else can be
    /// created without them.
    pub(crate) fn check_damage(damage: &[Damage]) -> Result<(), Self> {
        let (dropped, lost): (Vec<_>, Vec<_>) = damage
            .iter()
            .filter(|damage| damage.stops_workers())
            .partition(|damage| damage.object.kind.is_repairable());
        let names = |damage: Vec<&Damage>| {
            let names: Vec<_> = damage.into_iter().map(Damage::name).collect();
            list_names(&names)
        };
        if !lost.is_empty() {
            return Err(Self::Lost { names: names(lost) });
        }
        if !dropped.is_empty() {
            let names = names(dropped);
            return Err(Self::Dropped { names });
        }
        Ok(())
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
