//! What goes wrong, in groups: the newest calls that did not end well, by what was answered.

use std::time::Duration;

use sqlx::FromRow;

use crate::outbox::Outbox;
use crate::outbox::interval;
use crate::pace::DbTime;

/// The newest calls that are looked at: at 490 calls/s that all fail, those of 20 seconds.
pub(crate) const MAX_CALLS_LOOKED_AT: i64 = 10_000;
const MAX_GROUPS: i64 = 100;
/// Failed messages of a group that are sent again at once: the newest.
pub(crate) const MAX_RETRIED: usize = 5_000;

/// What the calls of a group have in common.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub(crate) struct FailureKey {
    pub(crate) app: String,
    /// What the call came to, as in `signaling.attempt`.
    pub(crate) outcome: String,
    /// What was answered, if anything was.
    pub(crate) http_status: Option<i32>,
    pub(crate) error: Option<String>,
}

/// Calls that failed in the same way.
#[derive(Debug, FromRow)]
pub(crate) struct FailureGroup {
    #[sqlx(flatten)]
    pub(crate) key: FailureKey,
    pub(crate) calls: i64,
    pub(crate) messages: i64,
    /// How many of these messages have ended as `failed`, with this error as their last.
    pub(crate) failed: i64,
    /// When the last one was recorded.
    pub(crate) last_at: DbTime,
    pub(crate) example_id: i64,
}

#[derive(Debug)]
pub(crate) struct Failures {
    /// The groups, those with the most calls first.
    pub(crate) groups: Vec<FailureGroup>,
    /// Since when calls were looked at, if there were more than [`MAX_CALLS_LOOKED_AT`] in the time that was asked for.
    pub(crate) only_since: Option<DbTime>,
    /// The time by the database's clock.
    pub(crate) now: DbTime,
}

impl Outbox {
    /// What went wrong within the last `span`, of all apps or of one, with any outcome or one: as far as the newest
    /// [`MAX_CALLS_LOOKED_AT`] calls of all apps show it, because no index tells the calls of one.
    ///
    /// # Errors
    /// Where the database fails.
    pub(crate) async fn failures(
        &self,
        app: Option<&str>,
        outcome: Option<&str>,
        span: Duration,
    ) -> Result<Failures, sqlx::Error> {
        self.read(async |session| {
            let now = sqlx::query_scalar("select clock_timestamp()")
                .persistent(false)
                .fetch_one(&mut **session)
                .await?;
            let groups = sqlx::query_as(include_str!("failures/groups.sql"))
                .persistent(false)
                .bind(MAX_CALLS_LOOKED_AT)
                .bind(interval(span))
                .bind(app)
                .bind(MAX_GROUPS)
                .bind(outcome)
                .fetch_all(&mut **session)
                .await?;
            let only_since = sqlx::query_scalar(
                "select recorded_at from signaling.attempt order by id desc offset $1 limit 1",
            )
            .persistent(false)
            .bind(MAX_CALLS_LOOKED_AT)
            .fetch_optional(&mut **session)
            .await?
            .filter(|at: &DbTime| *at > now - span);
            Ok(Failures {
                groups,
                only_since,
                now,
            })
        })
        .await
    }

    /// The messages of a group that have ended as `failed`, newest first.
    ///
    /// # Errors
    /// Where the database fails.
    pub(crate) async fn failed_messages(
        &self,
        key: &FailureKey,
        span: Duration,
    ) -> Result<Vec<i64>, sqlx::Error> {
        self.read(async |session| {
            sqlx::query_scalar(include_str!("failures/messages.sql"))
                .persistent(false)
                .bind(MAX_CALLS_LOOKED_AT)
                .bind(interval(span))
                .bind(&key.app)
                .bind(&key.outcome)
                .bind(key.http_status)
                .bind(&key.error)
                .bind(i64::try_from(MAX_RETRIED).unwrap_or(i64::MAX))
                .fetch_all(&mut **session)
                .await
        })
        .await
    }
}
