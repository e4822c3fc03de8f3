//! What an operator can do. Each is a function of the schema, so that plain SQL does the same. Each runs in a
//! transaction of its own: until its end is asked for, it is certain that nothing was changed.

use std::time::Duration;

use sqlx::Postgres;
use sqlx::postgres::{PgArguments, PgDatabaseError, PgRow};
use sqlx::query::QueryScalar;
use time::OffsetDateTime;

use crate::error_text::database_error_text;
use crate::outbox::pool::Session;
use crate::outbox::pool::statement::Statement;
use crate::outbox::{Outbox, may_have_taken_effect};

/// How long the server works on what an operator wishes: a lock that somebody holds is waited for for less.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why an operator's wish is not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdminError {
    /// It can't be: what is wrong, and a hint.
    #[error("{message}{}", hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default())]
    Refused {
        message: String,
        hint: Option<String>,
    },
    /// The database failed before anything was changed.
    #[error("the database failed, and nothing was changed: {}", database_error_text(.0))]
    Database(sqlx::Error),
    /// The database did not say whether it made the change.
    #[error("whether anything was changed is not known, so look before you try again: {}", database_error_text(.0))]
    Unknown(sqlx::Error),
}

impl From<sqlx::Error> for AdminError {
    fn from(error: sqlx::Error) -> Self {
        let refused = error
            .as_database_error()
            .and_then(|error| error.try_downcast_ref::<PgDatabaseError>())
            // no_data_found, invalid_parameter_value, and the table's own constraints
            .filter(|error| matches!(error.code(), "P0002" | "22023" | "23514"));
        let is_denied = error
            .as_database_error()
            .is_some_and(|error| error.code().as_deref() == Some("42501"));
        match refused {
            None if is_denied => Self::Refused {
                message: "this role is no operator, so nothing was changed".into(),
                hint: Some(
                    "as the schema's owner, run `worker grant operator` with its name".into(),
                ),
            },
            Some(error) => Self::Refused {
                message: error.message().to_owned(),
                hint: error.hint().map(str::to_owned),
            },
            None => Self::Database(error),
        }
    }
}

/// Which finished messages to send again.
#[derive(Debug, Default, Clone)]
pub(crate) struct RetryFilter {
    /// Of this app; any if none.
    pub(crate) app: Option<String>,
    /// With one of these statuses.
    pub(crate) statuses: Vec<String>,
    /// Finished at this time or later.
    pub(crate) since: Option<OffsetDateTime>,
    pub(crate) until: Option<OffsetDateTime>,
    /// With an error like this, as SQL's LIKE has it.
    pub(crate) error_like: Option<String>,
    /// With one of these HTTP statuses; any if empty.
    pub(crate) http_statuses: Vec<i32>,
    /// With one of these ids; any if empty.
    pub(crate) ids: Vec<i64>,
}

impl Outbox {
    /// Keeps an app from sending, fleet-wide. Says whether that is news.
    ///
    /// # Errors
    /// Where there is no such app, or the database fails.
    pub(crate) async fn pause(
        &self,
        app: &str,
        reason: Option<&str>,
        by: &str,
    ) -> Result<bool, AdminError> {
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
    pub(crate) async fn resume(&self, app: &str) -> Result<bool, AdminError> {
        self.call(sqlx::query_scalar("select signaling.resume($1)").bind(app))
            .await
    }

    /// Sets an app's limit, or with none the configured one again. Says whether that is news.
    ///
    /// # Errors
    /// Where there is no such app, the limit is none, or the database fails.
    pub(crate) async fn set_limit(
        &self,
        app: &str,
        calls_per_s: Option<f64>,
        by: &str,
    ) -> Result<bool, AdminError> {
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
    pub(crate) async fn cancel(&self, id: i64) -> Result<bool, AdminError> {
        self.call(sqlx::query_scalar("select signaling.cancel($1)").bind(id))
            .await
    }

    /// Sends finished messages again, at most so many, or only counts them: for as long as that takes. Returns how
    /// many.
    ///
    /// # Errors
    /// Where the filter asks for messages that succeeded, or the database fails.
    pub(crate) async fn retry(
        &self,
        filter: &RetryFilter,
        dry_run: bool,
        max_rows: Option<i64>,
    ) -> Result<i64, AdminError> {
        let mut change = Change::default();
        let result = async {
            let mut session = self.pool().transaction(None).await?;
            change
                .make(&mut session, retry(filter, dry_run, max_rows))
                .await
        };
        let result = result.await;
        change.told(result)
    }

    /// Sends these finished messages again, if the filter lets them through, within the time that a person waits for a
    /// page. Returns how many.
    ///
    /// # Errors
    /// Where the filter asks for messages that succeeded, or the database fails or takes too long.
    pub(crate) async fn retry_listed(
        &self,
        ids: &[i64],
        filter: &RetryFilter,
    ) -> Result<i64, AdminError> {
        // To the function, none means any.
        if ids.is_empty() {
            return Ok(0);
        }
        let filter = RetryFilter {
            ids: ids.to_vec(),
            ..filter.clone()
        };
        self.call(retry(&filter, false, None)).await
    }

    /// Calls a function of the schema on a connection of those who look on: it takes none from those who work, and ends
    /// in time.
    async fn call<'q, T>(&self, function: Function<'q, T>) -> Result<T, AdminError>
    where
        T: Send + Unpin,
        (T,): for<'r> sqlx::FromRow<'r, PgRow>,
    {
        let mut change = Change::default();
        let result = self
            .run_monitoring(Statement::Admin, STATEMENT_TIMEOUT, async |session| {
                change.make(session, function).await
            })
            .await;
        change.told(result)
    }
}

type Function<'q, T> = QueryScalar<'q, Postgres, T, PgArguments>;

fn retry(filter: &RetryFilter, dry_run: bool, max_rows: Option<i64>) -> Function<'_, i64> {
    sqlx::query_scalar("select signaling.retry($1, $2, $3, $4, $5, $6, $7, $8, $9)")
        .bind(filter.app.as_deref())
        .bind(&filter.statuses)
        .bind(filter.since)
        .bind(filter.until)
        .bind(filter.error_like.as_deref())
        .bind((!filter.http_statuses.is_empty()).then_some(&filter.http_statuses))
        .bind((!filter.ids.is_empty()).then_some(&filter.ids))
        .bind(dry_run)
        .bind(max_rows)
}

/// How far a change has come.
#[derive(Default)]
struct Change {
    /// Whether the transaction's end was asked for.
    is_ending: bool,
}

impl Change {
    async fn make<'q, T>(
        &mut self,
        session: &mut Session,
        function: Function<'q, T>,
    ) -> Result<T, sqlx::Error>
    where
        T: Send + Unpin,
        (T,): for<'r> sqlx::FromRow<'r, PgRow>,
    {
        let answer = function.persistent(false).fetch_one(&mut **session).await?;
        self.is_ending = true;
        session.finish().await?;
        Ok(answer)
    }

    /// What is known of the change.
    fn told<T>(&self, result: Result<T, sqlx::Error>) -> Result<T, AdminError> {
        result.map_err(|error| {
            if self.is_ending && may_have_taken_effect(&error) {
                AdminError::Unknown(error)
            } else {
                error.into()
            }
        })
    }
}
