//! The migrations of this binary and of a database.

use std::fmt;

use base64::prelude::{BASE64_STANDARD, Engine};
use sha2::{Digest, Sha384};
use sqlx::{PgConnection, query};

use crate::outbox::one_off::{rows, value};

/// A migration that has been released is never changed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Migration {
    pub(crate) version: i64,
    pub(crate) description: &'static str,
    pub(super) sql: &'static str,
}

macro_rules! migrations {
    ($($version:literal $description:literal $file:literal)*) => {
        &[$(Migration {
            version: $version,
            description: $description,
            sql: include_str!(concat!("../../../migrations/", $file)),
        }),*]
    };
}

pub(super) const MIGRATIONS: &[Migration] = migrations! {
    1 "outbox" "0001_outbox.sql"
    2 "stats" "0002_stats.sql"
    3 "workers" "0003_workers.sql"
};

impl fmt::Display for Migration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "migration {} ({})", self.version, self.description)
    }
}

impl Migration {
    /// A migration that begins with this line is a single statement that Postgres refuses to run in a transaction.
    pub(super) fn is_in_transaction(&self) -> bool {
        !self.sql.starts_with("-- no-transaction\n")
    }

    pub(super) fn checksum(&self) -> Vec<u8> {
        Sha384::digest(self.sql).to_vec()
    }
}

pub(super) fn newest_version() -> i64 {
    MIGRATIONS.last().map_or(0, |newest| newest.version)
}

/// The columns are those of sqlx. The schema is not that of an application that runs sqlx migrations of its own.
pub(super) const TABLE: &str = "
    create schema if not exists signaling;
    create table if not exists signaling.schema_migrations (
        version bigint primary key, description text not null, installed_on timestamptz not null default now(),
        success boolean not null, checksum bytea not null, execution_time bigint not null
    )";

/// The statement with which an operator lists the migrations of this binary as run.
pub(super) fn migrations_statement() -> String {
    let row = |migration: &Migration| {
        let (version, description) = (migration.version, migration.description);
        let checksum = BASE64_STANDARD.encode(migration.checksum());
        format!("({version}, '{description}', true, decode('{checksum}', 'base64'), 0)")
    };
    let rows: Vec<String> = MIGRATIONS.iter().map(row).collect();
    format!(
        "insert into signaling.schema_migrations (version, description, success, checksum, execution_time) values {}",
        rows.join(", ")
    )
}

/// Versions and checksums of the migrations that were run, in order.
pub(super) async fn applied(
    connection: &mut PgConnection,
) -> Result<Vec<(i64, Vec<u8>)>, sqlx::Error> {
    let exists = query("select to_regclass('signaling.schema_migrations') is not null");
    if !value(connection, exists).await? {
        return Ok(Vec::new());
    }
    let applied = query(
        "select version, checksum from signaling.schema_migrations where success order by version",
    );
    rows(connection, applied).await
}
