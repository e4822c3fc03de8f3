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

/// The versions of a schema that this binary can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SchemaVersion {
    pub(crate) tables: i64,
    pub(crate) functions: i32,
    /// A newer worker has migrated the database.
    pub(crate) is_newer: bool,
}

/// The advice stands behind the first colon, where `worker check` splits the text.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SchemaError {
    #[error("the database has no outbox yet: run `worker migrate` first")]
    Missing,
    #[error(
        "signaling.schema_migrations is empty although the outbox exists: run `worker migrate` of the version that has migrated the database, which restores the rows"
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
    /// Fails if a migration of this binary was not run, or the functions are older.
    pub(crate) async fn check_schema(&self) -> Result<SchemaVersion, SchemaError> {
        let read = self.read(async |session| {
            let applied = applied(session).await?;
            let tables = applied.last().map(|(version, _)| *version);
            Ok((
                encoding(session).await?,
                tables,
                found_version(session).await?,
            ))
        });
        let (encoding, tables, functions) = read.await?;
        check_encoding(encoding)?;
        let needed = migrations().last().map_or(0, |newest| newest.version);
        SchemaVersion::check((tables, needed), (functions, PROTOCOL_VERSION))
    }
}

impl SchemaVersion {
    /// Compares the versions found with the ones that this binary needs.
    fn check(
        (tables, tables_needed): (Option<i64>, i64),
        (functions, functions_needed): (Option<i32>, i32),
    ) -> Result<Self, SchemaError> {
        let (tables, functions) = match (tables, functions) {
            (None, None) => return Err(SchemaError::Missing),
            (None, Some(_)) => return Err(SchemaError::MigrationsGone),
            (Some(_), None) => {
                let names = "function signaling.protocol_version".to_owned();
                return Err(SchemaError::Dropped { names });
            }
            (Some(tables), Some(functions)) => (tables, functions),
        };
        for (what, found, needed) in [
            ("schema is", tables, tables_needed),
            ("functions are", functions.into(), functions_needed.into()),
        ] {
            if found < needed {
                return Err(SchemaError::Outdated {
                    what,
                    found,
                    needed,
                });
            }
        }
        Ok(Self {
            tables,
            functions,
            is_newer: tables > tables_needed || functions > functions_needed,
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_migrations_and_older_functions_fail_and_newer_ones_do_not() {
        let check = |tables, functions| SchemaVersion::check((tables, 4), (functions, 3));
        for (tables, functions, is_newer) in [(4, 3, false), (5, 3, true), (4, 4, true)] {
            let version = check(Some(tables), Some(functions)).expect("a version");
            assert_eq!(version.is_newer, is_newer);
        }
        for (tables, functions, phrase) in [
            (None, Some(3), "is empty"),
            (None, None, "no outbox"),
            (Some(3), Some(3), "schema is at version 3"),
            (Some(4), Some(2), "functions are at version 2"),
            (Some(4), None, "protocol_version: run `worker migrate`"),
        ] {
            let error = check(tables, functions).expect_err(phrase).to_string();
            assert!(error.contains(phrase), "{error}");
        }
    }
}
