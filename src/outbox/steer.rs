//! What an operator can do. Each is a function of the schema, so that plain SQL does the same.

use sqlx::Postgres;
use sqlx::postgres::{PgArguments, PgDatabaseError, PgRow};
use sqlx::query::QueryScalar;
use time::OffsetDateTime;

use super::{Outbox, explain};

/// Why an operator's wish is not done.
#[derive(Debug, thiserror::Error)]
pub enum SteerError {
    /// It can't be: what is wrong, and a hint.
    #[error("{message}{}", hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default())]
    Refused {
        /// What is wrong.
        message: String,
        /// What would be right.
        hint: Option<String>,
    },
    /// The database failed.
    #[error("the database failed: {}", explain(.0))]
    Database(sqlx::Error),
}

impl From<sqlx::Error> for SteerError {
    fn from(error: sqlx::Error) -> Self {
        let refused = error
            .as_database_error()
            .and_then(|error| error.try_downcast_ref::<PgDatabaseError>())
            // no_data_found, invalid_parameter_value, and the table's own constraints
            .filter(|error| matches!(error.code(), "P0002" | "22023" | "23514"));
        match refused {
            Some(error) => Self::Refused {
                message: error.message().to_owned(),
                hint: error.hint().map(str::to_owned),
            },
            None => Self::Database(error),
        }
    }
}

/// Which finished messages to send again.
#[derive(Debug, Default)]
pub struct RetryFilter {
    /// Of this app; any if none.
    pub app: Option<String>,
    /// With one of these statuses.
    pub statuses: Vec<String>,
    /// Finished at this time or later.
    pub since: Option<OffsetDateTime>,
    /// Finished before this time.
    pub until: Option<OffsetDateTime>,
    /// With an error like this, as SQL's LIKE has it.
    pub error_like: Option<String>,
    /// With one of these HTTP statuses; any if empty.
    pub http_statuses: Vec<i32>,
    /// With one of these ids; any if empty.
    pub ids: Vec<i64>,
}

impl Outbox {
    /// Keeps an app from sending, fleet-wide. Says whether that is news.
    ///
    /// # Errors
    /// Where there is no such app, or the database fails.
    pub async fn pause(
        &self,
        app: &str,
        reason: Option<&str>,
        by: &str,
    ) -> Result<bool, SteerError> {
        self.call(
            sqlx::query_scalar("select signaling.pause($1, $2, $3)")
                .bind(app)
                .bind(reason)
                .bind(by),
        )
        .await
    }

    /// Lets a paused app send again. Says whether that is news.
    ///
    /// # Errors
    /// Where there is no such app, or the database fails.
    pub async fn resume(&self, app: &str) -> Result<bool, SteerError> {
        self.call(sqlx::query_scalar("select signaling.resume($1)").bind(app))
            .await
    }

    /// Sets an app's limit, or with none the configured one again. Says whether that is news.
    ///
    /// # Errors
    /// Where there is no such app, the limit is none, or the database fails.
    pub async fn set_limit(
        &self,
        app: &str,
        calls_per_s: Option<f64>,
        by: &str,
    ) -> Result<bool, SteerError> {
        self.call(
            sqlx::query_scalar("select signaling.set_limit($1, $2, $3)")
                .bind(app)
                .bind(calls_per_s)
                .bind(by),
        )
        .await
    }

    /// Cancels a message that is not being sent. Says whether it did.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn cancel(&self, id: i64) -> Result<bool, SteerError> {
        self.call(sqlx::query_scalar("select signaling.cancel($1)").bind(id))
            .await
    }

    /// Sends finished messages again, at most so many, or only counts them. Returns how many.
    ///
    /// # Errors
    /// Where the filter asks for messages that succeeded, or the database fails.
    pub async fn retry(
        &self,
        filter: &RetryFilter,
        dry_run: bool,
        max_rows: Option<i64>,
    ) -> Result<i64, SteerError> {
        let mut session = self.session().await?;
        let messages =
            sqlx::query_scalar("select signaling.retry($1, $2, $3, $4, $5, $6, $7, $8, $9)")
                .persistent(false)
                .bind(filter.app.as_deref())
                .bind(&filter.statuses)
                .bind(filter.since)
                .bind(filter.until)
                .bind(filter.error_like.as_deref())
                .bind((!filter.http_statuses.is_empty()).then_some(&filter.http_statuses))
                .bind((!filter.ids.is_empty()).then_some(&filter.ids))
                .bind(dry_run)
                .bind(max_rows)
                .fetch_one(&mut *session)
                .await?;
        session.finish().await?;
        Ok(messages)
    }

    /// Calls a function of the schema.
    async fn call<'q, T>(&self, function: Function<'q, T>) -> Result<T, SteerError>
    where
        T: Send + Unpin,
        (T,): for<'r> sqlx::FromRow<'r, PgRow>,
    {
        let mut session = self.session().await?;
        let answer = function.persistent(false).fetch_one(&mut *session).await?;
        session.finish().await?;
        Ok(answer)
    }
}

type Function<'q, T> = QueryScalar<'q, Postgres, T, PgArguments>;
