//! The newest failed calls, grouped by their response.

use std::time::Duration;

use sqlx::{FromRow, query};

use crate::outbox::Outbox;
use crate::pace::DbTime;

/// The most failed calls that a query reads: those of 20 seconds at 490 failures/s.
pub(crate) const MAX_CALLS_READ: i64 = 10_000;
const MAX_GROUPS: i64 = 100;

#[derive(Debug, FromRow)]
pub(crate) struct FailureGroup {
    pub(crate) app: String,
    pub(crate) outcome: String,
    pub(crate) http_status: Option<i32>,
    pub(crate) error: Option<String>,
    pub(crate) calls: i64,
    pub(crate) messages: i64,
    /// Messages that ended as `failed`, and whose last error is this one.
    pub(crate) failed: i64,
    pub(crate) last_at: DbTime,
    pub(crate) example_id: i64,
    pub(crate) now: DbTime,
}

impl Outbox {
    /// Groups the failed calls of the last `span`, with the largest group first. Reads only the newest
    /// [`MAX_CALLS_READ`] calls of all apps, because attempts have no index by app.
    pub(crate) async fn failures(
        &self,
        app: Option<&str>,
        outcome: Option<&str>,
        span: Duration,
    ) -> Result<Vec<FailureGroup>, sqlx::Error> {
        let groups = query(include_str!("failures/groups.sql"))
            .bind(MAX_CALLS_READ)
            .bind(span)
            .bind(app)
            .bind(MAX_GROUPS)
            .bind(outcome);
        self.read_rows(groups).await
    }
}
