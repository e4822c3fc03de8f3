//! What goes wrong, in groups: the newest calls that did not end well, by what was answered.

use std::time::Duration;

use sqlx::{FromRow, query};

use super::search::time_of;
use crate::outbox::one_off::{rows, values};
use crate::outbox::{Outbox, interval};
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
    /// As in `signaling.attempt`.
    pub(crate) outcome: String,
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
    pub(crate) async fn failures(
        &self,
        app: Option<&str>,
        outcome: Option<&str>,
        span: Duration,
    ) -> Result<Failures, sqlx::Error> {
        let groups = query(include_str!("failures/groups.sql"))
            .bind(MAX_CALLS_LOOKED_AT)
            .bind(interval(span))
            .bind(app)
            .bind(MAX_GROUPS)
            .bind(outcome);
        let newest_not_looked_at =
            query("select recorded_at from signaling.attempt order by id desc offset $1 limit 1");
        self.read(async |session| {
            let now = time_of(session).await?;
            let groups = rows(session, groups).await?;
            let times = values(session, newest_not_looked_at.bind(MAX_CALLS_LOOKED_AT)).await?;
            Ok(Failures {
                groups,
                only_since: times.into_iter().find(|at: &DbTime| *at > now - span),
                now,
            })
        })
        .await
    }

    /// The messages of a group that have ended as `failed`, newest first.
    pub(crate) async fn failed_messages(
        &self,
        key: &FailureKey,
        span: Duration,
    ) -> Result<Vec<i64>, sqlx::Error> {
        let messages = query(include_str!("failures/messages.sql"))
            .bind(MAX_CALLS_LOOKED_AT)
            .bind(interval(span))
            .bind(&key.app)
            .bind(&key.outcome)
            .bind(key.http_status)
            .bind(&key.error)
            .bind(i64::try_from(MAX_RETRIED).unwrap_or(i64::MAX));
        self.read(async |session| values(session, messages).await)
            .await
    }
}
