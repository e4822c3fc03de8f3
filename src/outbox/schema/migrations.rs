//! The migrations of this binary, and which of them a database has.

use std::fmt::{self, Write as _};

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

/// In their order.
pub(super) const MIGRATIONS: &[Migration] = &[
    Migration {
        version: 1,
        description: "outbox",
        sql: include_str!("../../../migrations/0001_outbox.sql"),
    },
    Migration {
        version: 2,
        description: "stats",
        sql: include_str!("../../../migrations/0002_stats.sql"),
    },
    Migration {
        version: 3,
        description: "workers",
        sql: include_str!("../../../migrations/0003_workers.sql"),
    },
];

impl fmt::Display for Migration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "migration {} ({})", self.version, self.description)
    }
}

impl Migration {
    /// A migration that begins with this line is a single statement that Postgres runs outside of a transaction alone.
    pub(super) fn is_in_transaction(&self) -> bool {
        !self.sql.starts_with("-- no-transaction\n")
    }

    pub(super) fn checksum(&self) -> Vec<u8> {
        Sha384::digest(self.sql).to_vec()
    }
}

/// The version of the newest migration of this binary.
pub(super) fn newest_version() -> i64 {
    MIGRATIONS.last().map_or(0, |newest| newest.version)
}

/// Where a database keeps which migrations it has. The table has the columns of sqlx's, and a schema apart from those of
/// an application that runs migrations of its own.
pub(super) const TABLE: &str = "
    create schema if not exists signaling;
    create table if not exists signaling.schema_migrations (
        version bigint primary key, description text not null, installed_on timestamptz not null default now(),
        success boolean not null, checksum bytea not null, execution_time bigint not null
    )";

/// The statement that writes the migrations of this binary down as run, for an operator.
pub(super) fn migrations_statement() -> String {
    let mut rows = Vec::new();
    for migration in MIGRATIONS {
        let mut row = format!(
            "({}, '{}', true, '\\x",
            migration.version, migration.description
        );
        for byte in migration.checksum() {
            write!(row, "{byte:02x}").ok();
        }
        rows.push(row + "', 0)");
    }
    format!(
        "insert into signaling.schema_migrations (version, description, success, checksum, execution_time) values {}",
        rows.join(", ")
    )
}

/// The versions and checksums of the migrations that have been run, in order.
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
