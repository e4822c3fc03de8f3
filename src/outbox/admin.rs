//! The operator's commands. Each command calls a function of the schema, so plain SQL does the same. Each call runs in a
//! transaction of its own, so an error before the commit means that nothing was changed.

use std::time::Duration;

use serde::Deserialize;
use sqlx::error::DatabaseError;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::types::Json;
use sqlx::{FromRow, Postgres, query};

use crate::config::parse_number;
use crate::error_text::database_error_text;
use crate::outbox::errors::is_within_function;
use crate::outbox::one_off::rows;
use crate::outbox::{Outbox, is_row_security, may_have_taken_effect};
use crate::pace::DbTime;
use crate::time_text;

/// Longer than the wait for a lock, so that the error names the lock.
pub(crate) const ADMIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Messages that one call changes. Other sessions wait for the locks of these rows, so a call must be short.
pub(crate) const MAX_ROWS_PER_CALL: i64 = 5_000;

#[derive(Debug, thiserror::Error)]
pub(crate) enum AdminError {
    /// The function refuses the command. The text has its hint.
    #[error("{0}")]
    Refused(String),
    /// The role, or the owner of the functions, lacks the privileges for any such change.
    #[error("{0}")]
    Forbidden(String),
    #[error("the database failed, and this change was not made: {}", database_error_text(.0))]
    Database(sqlx::Error),
    /// The commit got no response, so the change may be in the database.
    #[error("the database may have made this change, so check before you run the command again: {}", database_error_text(.0))]
    Unknown(sqlx::Error),
}

impl From<sqlx::Error> for AdminError {
    fn from(error: sqlx::Error) -> Self {
        let code = error.as_database_error().and_then(DatabaseError::code);
        match code.as_deref() {
            // no_data_found, invalid_parameter_value, object_not_in_prerequisite_state, check_violation
            Some("P0002" | "22023" | "55000" | "23514") => Self::Refused(database_error_text(&error)),
            _ if is_row_security(&error) => {
                Self::Forbidden(format!("nothing was changed: {}", database_error_text(&error)))
            }
            // insufficient_privilege
            Some("42501") if !is_within_function(&error) => Self::Forbidden(
                "this role is no operator, so nothing was changed (as the schema's owner, run `worker grant operator` with its name)".into(),
            ),
            _ => Self::Database(error),
        }
    }
}

/// Selects finished messages to send again. A None field matches every message. `statuses` has to name at least one.
#[derive(Debug, Default, Clone, PartialEq, clap::Args)]
pub(crate) struct RetryFilter {
    /// Only messages of this app
    #[arg(long)]
    pub(crate) app: Option<String>,

    /// Only messages with this status: failed (the default), expired, cancelled or unknown; may be given again
    #[arg(long = "status", value_parser = ["failed", "expired", "cancelled", "unknown"])]
    pub(crate) statuses: Vec<String>,

    /// Only messages that were finished at this time or later, like 2030-01-31T12:00:00Z; a date like 2030-01-31 is its
    /// midnight in UTC
    #[arg(long, value_parser = time_text::parse, value_name = "TIME")]
    pub(crate) since: Option<DbTime>,

    /// Only messages that were finished before this time
    #[arg(long, value_parser = time_text::parse, value_name = "TIME")]
    pub(crate) until: Option<DbTime>,

    /// Only messages with an error like this pattern, in which % stands for any text
    #[arg(long = "error", value_name = "PATTERN")]
    pub(crate) error_like: Option<String>,

    /// Only messages whose last response had this HTTP status; may be given again
    #[arg(long = "http-status", value_name = "STATUS", value_parser = clap::value_parser!(i32).range(100..=599))]
    pub(crate) http_statuses: Option<Vec<i32>>,

    /// Only this message; may be given again
    #[arg(long = "id", value_name = "ID", value_parser = parse_number::<i64>)]
    pub(crate) ids: Option<Vec<i64>>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Adoption {
    /// True if the app belongs to the environment now. False if pending messages are left to cancel.
    pub(crate) is_done: bool,
    pub(crate) previous: Option<String>,
    pub(crate) cancelled: i64,
    /// Messages that are pending now, counted up to a million.
    pub(crate) pending: i64,
}

type Function<'q> = Query<'q, Postgres, PgArguments>;

impl Outbox {
    /// Stops an app, fleet-wide. Returns false if it was paused before.
    pub(crate) async fn pause(
        &self,
        app: &str,
        reason: Option<&str>,
        by: &str,
    ) -> Result<bool, AdminError> {
        let pause = query("select signaling.pause($1, $2, $3)").bind(app);
        self.change(pause.bind(reason).bind(by)).await
    }

    /// Ends a pause. Returns a sentence about the change and about the obstacles that are left.
    pub(crate) async fn resume(&self, app: &str) -> Result<String, AdminError> {
        self.change(query("select signaling.resume($1)").bind(app))
            .await
    }

    /// Sets an app's limit. None sets the configured limit. Returns false if the limit was the same before.
    pub(crate) async fn set_limit(
        &self,
        app: &str,
        calls_per_s: Option<f64>,
        by: &str,
    ) -> Result<bool, AdminError> {
        let set_limit = query("select signaling.set_limit($1, $2, $3)").bind(app);
        self.change(set_limit.bind(calls_per_s).bind(by)).await
    }

    /// Cancels a message. Returns false if a worker is sending it, or it is final.
    pub(crate) async fn cancel(&self, id: i64) -> Result<bool, AdminError> {
        self.change(query("select signaling.cancel($1)").bind(id))
            .await
    }

    /// Hands an app over to an environment. Cancels at most `max_rows` messages; the caller repeats the call until
    /// `is_done`.
    pub(crate) async fn adopt(
        &self,
        app: &str,
        environment: &str,
        cancels_pending: bool,
        max_rows: i64,
    ) -> Result<Adoption, AdminError> {
        let adopt = query("select signaling.adopt($1, $2, $3, $4)")
            .bind(app)
            .bind(environment)
            .bind(cancels_pending)
            .bind(max_rows);
        self.change(adopt).await.map(|Json(adoption)| adoption)
    }

    /// Makes finished messages due again, or only counts them. May read the whole outbox. Returns the number of messages of
    /// each app.
    pub(crate) async fn retry(
        &self,
        filter: &RetryFilter,
        dry_run: bool,
        max_rows: Option<i64>,
        timeout: Duration,
    ) -> Result<Vec<(String, i64)>, AdminError> {
        let retry = query("select * from signaling.retry($1, $2, $3, $4, $5, $6, $7, $8, $9)")
            .bind(filter.app.as_deref())
            .bind(&filter.statuses)
            .bind(filter.since)
            .bind(filter.until)
            .bind(filter.error_like.as_deref())
            .bind(filter.http_statuses.as_deref())
            .bind(filter.ids.as_deref())
            .bind(dry_run)
            .bind(max_rows);
        self.change_rows(retry, timeout).await
    }

    async fn change<T>(&self, function: Function<'_>) -> Result<T, AdminError>
    where
        (T,): for<'r> FromRow<'r, PgRow>,
    {
        match self.change_rows(function, ADMIN_TIMEOUT).await?.pop() {
            Some((value,)) => Ok(value),
            None => Err(AdminError::Unknown(sqlx::Error::RowNotFound)),
        }
    }

    /// Calls a function on a monitoring connection, so that it delays no claim and no record.
    async fn change_rows<T>(
        &self,
        function: Function<'_>,
        timeout: Duration,
    ) -> Result<Vec<T>, AdminError>
    where
        T: for<'r> FromRow<'r, PgRow>,
    {
        let mut is_committing = false;
        let changed = self.run_monitoring("admin", timeout, async |session| {
            let changed = rows(session, function).await?;
            is_committing = true;
            Ok(changed)
        });
        let changed = changed.await;
        changed.map_err(|error| {
            if is_committing && may_have_taken_effect(&error) {
                AdminError::Unknown(error)
            } else {
                error.into()
            }
        })
    }
}
