//! Runs statements that sqlx does not keep prepared, because behind a pooler the next statement may reach another server
//! process.

use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{Decode, FromRow, PgConnection, Postgres, Row, Type};

use crate::outbox::Outbox;

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

pub(super) async fn value<T: for<'r> Decode<'r, Postgres> + Type<Postgres>>(
    connection: &mut PgConnection,
    query: Query<'_, Postgres, PgArguments>,
) -> Result<T, sqlx::Error> {
    let value = values(connection, query).await?.pop();
    value.ok_or(sqlx::Error::RowNotFound)
}

impl Outbox {
    /// Runs a query on a monitoring connection.
    pub(super) async fn read_rows<T: for<'r> FromRow<'r, PgRow>>(
        &self,
        query: Query<'_, Postgres, PgArguments>,
    ) -> Result<Vec<T>, sqlx::Error> {
        self.read(async |session| rows(session, query).await).await
    }

    pub(super) async fn read_row<T: for<'r> FromRow<'r, PgRow>>(
        &self,
        query: Query<'_, Postgres, PgArguments>,
    ) -> Result<T, sqlx::Error> {
        let row = self.read_rows(query).await?.pop();
        row.ok_or(sqlx::Error::RowNotFound)
    }
}
