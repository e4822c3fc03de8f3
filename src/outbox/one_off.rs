//! Statements that run once. They are not kept prepared: behind a pooler, the next one may meet another server.

use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{Decode, FromRow, PgConnection, Postgres, Row, Type};

pub(super) async fn rows<T: for<'r> FromRow<'r, PgRow>>(
    connection: &mut PgConnection,
    query: Query<'_, Postgres, PgArguments>,
) -> Result<Vec<T>, sqlx::Error> {
    let rows = query.persistent(false).fetch_all(connection).await?;
    rows.iter().map(T::from_row).collect()
}

/// The first column of all rows.
pub(super) async fn values<T: for<'r> Decode<'r, Postgres> + Type<Postgres>>(
    connection: &mut PgConnection,
    query: Query<'_, Postgres, PgArguments>,
) -> Result<Vec<T>, sqlx::Error> {
    let rows = query.persistent(false).fetch_all(connection).await?;
    rows.iter().map(|row| row.try_get(0)).collect()
}

/// The single value of a statement that always has one.
pub(super) async fn value<T: for<'r> Decode<'r, Postgres> + Type<Postgres>>(
    connection: &mut PgConnection,
    query: Query<'_, Postgres, PgArguments>,
) -> Result<T, sqlx::Error> {
    let values = values(connection, query).await?;
    values.into_iter().next().ok_or(sqlx::Error::RowNotFound)
}
