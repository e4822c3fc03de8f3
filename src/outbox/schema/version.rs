//! The migrations, the versions of a database's schema, and the errors of a schema that a worker can't use.

use sqlx::migrate::{MigrateError, Migration, MigrationType};
use sqlx::{PgConnection, SqlStr, query};

use super::functions::PROTOCOL_VERSION;
use super::objects::{Damage, list_names};
use crate::error_text::database_error_text;
use crate::outbox::Outbox;
use crate::outbox::one_off::{value, values};

/// The description and the text of each migration. A released migration never changes.
const MIGRATIONS: [(&str, &str); 3] = [
    (
        "outbox",
        include_str!("../../../migrations/0001_outbox.sql"),
    ),
    ("stats", include_str!("../../../migrations/0002_stats.sql")),
    (
        "workers",
        include_str!("../../../migrations/0003_workers.sql"),
    ),
];

/// Not the default table of sqlx, which holds the migrations of an application that uses sqlx.
pub(super) const TABLE: &str = "signaling.schema_migrations";

pub(super) fn migrations() -> Vec<Migration> {
    std::iter::zip(1.., MIGRATIONS)
        .map(|(version, (description, text))| migration(version, description, text))
        .collect()
}

/// A text that begins with `-- no-transaction` is a single statement that Postgres refuses to run in a transaction.
pub(super) fn migration(version: i64, description: &'static str, text: &'static str) -> Migration {
    let no_tx = text.starts_with("-- no-transaction\n");
    let text = SqlStr::from_static(text);
    Migration::new(
        version,
        description.into(),
        MigrationType::Simple,
        text,
        no_tx,
    )
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum SchemaError {
    /// An operator has to act: waiting does not help.
    #[error("{found}: {advice}")]
    Unusable { found: String, advice: String },
    #[error("the database failed: {}", database_error_text(.0))]
    Database(#[from] sqlx::Error),
}

impl SchemaError {
    pub(super) fn unusable(found: impl Into<String>, advice: impl Into<String>) -> Self {
        let (found, advice) = (found.into(), advice.into());
        Self::Unusable { found, advice }
    }

    /// Fails if objects are missing that a worker needs. Lost tables and columns come first, because the installation of
    /// functions needs them.
    pub(crate) fn check_damage(damage: &[Damage]) -> Result<(), Self> {
        let stopping = damage.iter().filter(|damage| damage.stops_workers());
        let (dropped, lost): (Vec<_>, Vec<_>) =
            stopping.partition(|damage| damage.object.kind.is_repairable());
        if !lost.is_empty() {
            return Err(lacking(&list_names(lost), RESTORE));
        }
        if !dropped.is_empty() {
            return Err(lacking(&list_names(dropped), MIGRATE));
        }
        Ok(())
    }
}

const MIGRATE: &str = "run `worker migrate`, which creates the functions again";
/// `worker migrate` does not create tables and columns again, so it is no remedy.
const RESTORE: &str = "restore a backup, or run the statements that `worker check` prints. These create the tables and columns again, without their data";

fn lacking(names: &str, advice: &str) -> SchemaError {
    SchemaError::unusable(format!("the schema signaling lacks {names}"), advice)
}

pub(super) fn migrations_gone() -> SchemaError {
    SchemaError::unusable(
        "signaling.schema_migrations is empty although the outbox exists",
        "run `worker migrate` of the version that has migrated the database, which restores the rows",
    )
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
        let check = async |session: &mut PgConnection| {
            check_encoding(session).await?;
            let newest = migrations().last().map_or(0, |newest| newest.version);
            check_versions(found_versions(session).await?, (newest, PROTOCOL_VERSION))
        };
        self.read(async |session| Ok(check(session).await)).await?
    }
}

/// The versions of the tables and of the functions. None: not found.
///
/// Reads the text of the function `protocol_version`. A call would fail if a person has replaced the function by one of
/// another type.
pub(super) async fn found_versions(
    connection: &mut PgConnection,
) -> Result<(Option<i64>, Option<i32>), sqlx::Error> {
    let exists = query("select to_regclass('signaling.schema_migrations') is not null");
    let mut tables = None;
    if value(connection, exists).await? {
        let newest = query("select max(version) from signaling.schema_migrations where success");
        tables = value(connection, newest).await?;
    }
    let functions = query(
        "select substring(prosrc from '[0-9]{1,9}')::integer from pg_proc
         where oid = to_regprocedure('signaling.protocol_version()')",
    );
    let functions = values(connection, functions).await?.pop();
    Ok((tables, functions.flatten()))
}

/// Compares the versions found, of the tables and of the functions, with the ones that this binary needs.
fn check_versions(
    found: (Option<i64>, Option<i32>),
    needed: (i64, i32),
) -> Result<(i64, i32), SchemaError> {
    let unusable = |found| Err(SchemaError::unusable(found, "run `worker migrate` first"));
    match found {
        (None, None) => unusable("the database has no outbox yet".to_owned()),
        (None, Some(_)) => Err(migrations_gone()),
        (Some(_), None) => Err(lacking("function signaling.protocol_version", MIGRATE)),
        (Some(tables), _) if tables < needed.0 => unusable(format!(
            "the database's schema is at version {tables}, this worker needs {}",
            needed.0
        )),
        (_, Some(functions)) if functions < needed.1 => unusable(format!(
            "the database's functions are at version {functions}, this worker needs {}",
            needed.1
        )),
        (Some(tables), Some(functions)) => Ok((tables, functions)),
    }
}

pub(super) async fn check_encoding(connection: &mut PgConnection) -> Result<(), SchemaError> {
    let encoding = query("select current_setting('server_encoding')");
    let encoding: String = value(connection, encoding).await?;
    if encoding == "UTF8" {
        return Ok(());
    }
    Err(SchemaError::unusable(
        format!("the database's encoding is {encoding}, and a worker can't read all its text"),
        "create the database with `encoding 'UTF8'`",
    ))
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
