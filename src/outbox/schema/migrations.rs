//! The migrations of this binary and of a database.

use sqlx::migrate::{Migration, MigrationType};
use sqlx::{PgConnection, SqlStr, query};

use crate::outbox::one_off::{rows, value};

/// Version, description and text. A migration that has been released is never changed.
const MIGRATIONS: [(i64, &str, &str); 3] = [
    (
        1,
        "outbox",
        include_str!("../../../migrations/0001_outbox.sql"),
    ),
    (
        2,
        "stats",
        include_str!("../../../migrations/0002_stats.sql"),
    ),
    (
        3,
        "workers",
        include_str!("../../../migrations/0003_workers.sql"),
    ),
];

/// Apart from the migrations of an application that uses sqlx, too.
pub(super) const TABLE: &str = "signaling.schema_migrations";

pub(super) fn migrations() -> Vec<Migration> {
    let migration = |(version, description, text)| migration(version, description, text);
    MIGRATIONS.into_iter().map(migration).collect()
}

/// A text that begins with this line is a single statement that Postgres refuses to run in a transaction.
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
