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
    /// Returns the versions of the tables and of the functions. Fails if a migration of this binary was not run, or the
    /// functions are older.
    pub(crate) async fn check_schema(&self) -> Result<(i64, i32), SchemaError> {
        let read = self.read(async |session| {
            let tables = applied(session).await?.pop();
            let found = (
                tables.map(|(version, _)| version),
                found_version(session).await?,
            );
            Ok((encoding(session).await?, found))
        });
        let (encoding, found) = read.await?;
        check_encoding(encoding)?;
        let newest = migrations().last().map_or(0, |newest| newest.version);
        check_versions(found, (newest, PROTOCOL_VERSION))
    }
}

/// Compares the versions found, of the tables and of the functions, with the ones that this binary needs.
fn check_versions(
    found: (Option<i64>, Option<i32>),
    needed: (i64, i32),
) -> Result<(i64, i32), SchemaError> {
    let outdated = |what, found, needed| SchemaError::Outdated {
        what,
        found,
        needed,
    };
    match found {
        (None, None) => Err(SchemaError::Missing),
        (None, Some(_)) => Err(SchemaError::MigrationsGone),
        (Some(_), None) => Err(SchemaError::Dropped {
            names: "function signaling.protocol_version".to_owned(),
        }),
        (Some(tables), _) if tables < needed.0 => Err(outdated("schema is", tables, needed.0)),
        (_, Some(functions)) if functions < needed.1 => {
            Err(outdated("functions are", functions.into(), needed.1.into()))
        }
        (Some(tables), Some(functions)) => Ok((tables, functions)),
    }
}

impl SchemaError {
    /// Fails if objects are missing that a worker needs. Names lost tables and columns first, because nothing else can be
    /// created without them.
    pub(crate) fn check_damage(damage: &[Damage]) -> Result<(), Self> {
        let lacking = |is_repairable| {
            let names: Vec<_> = damage
                .iter()
                .filter(|damage| damage.stops_workers())
                .filter(|damage| damage.object.kind.is_repairable() == is_repairable)
                .map(Damage::name)
                .collect();
            (!names.is_empty()).then(|| list_names(&names))
        };
        match (lacking(false), lacking(true)) {
            (Some(names), _) => Err(Self::Lost { names }),
            (None, Some(names)) => Err(Self::Dropped { names }),
            (None, None) => Ok(()),
        }
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
        let check = |tables, functions| check_versions((tables, functions), (4, 3));
        for (tables, functions) in [(4, 3), (5, 3), (4, 4)] {
            let found = check(Some(tables), Some(functions)).expect("versions");
            assert_eq!(found, (tables, functions));
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
