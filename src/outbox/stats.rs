//! Stats that last: what workers add up by the minute, and the count of what waits.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::query;
use sqlx::types::Json;

use crate::outbox::one_off::values;
use crate::outbox::pool::statement::Statement;
use crate::outbox::pool::{Call, Deadline};
use crate::outbox::{Outbox, interval};
use crate::pace::DbTime;
use crate::stats::Stats;

/// What an app's workers did in a minute: a row of `signaling.minute_stats`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct MinuteStats {
    pub(crate) minute: DbTime,
    pub(crate) app: String,
    #[serde(flatten)]
    pub(crate) stats: Stats,
    /// Messages that were queued or waited for another call, at the last count of the minute, if there was one.
    pub(crate) backlog: Option<u64>,
}

/// How long a count may take: it reads an index entry for each message that waits.
const QUEUE_COUNTS_TIMEOUT: Duration = Duration::from_secs(60);

impl Outbox {
    /// Adds stats to their minutes.
    pub(crate) async fn add_minute_stats(&self, stats: &[MinuteStats]) -> Result<(), sqlx::Error> {
        let call = Call::new("add_minute_stats").with("stats", json!(stats));
        let pool = self.monitoring_pool();
        pool.call(Statement::Stats, call).await.map(drop)
    }

    /// Counts the pending messages, unless the last count is younger than `stale_after` or another session is counting.
    /// True if it counted.
    pub(crate) async fn refresh_queue_counts(
        &self,
        stale_after: Duration,
    ) -> Result<bool, sqlx::Error> {
        let call = Call::new("refresh_queue_counts")
            .with("stale_after", interval(stale_after))
            .with("over_before", self.over_before());
        let answer = self
            .monitoring_pool()
            .call_within(
                Statement::QueueCounts,
                Deadline::of_client(QUEUE_COUNTS_TIMEOUT),
                call,
            )
            .await?;
        Ok(answer.value()?.unwrap_or(false))
    }

    /// The minutes of the last `span`, oldest first; minutes in which an app did nothing may be missing.
    pub(crate) async fn minute_stats(
        &self,
        span: Duration,
    ) -> Result<Vec<MinuteStats>, sqlx::Error> {
        let minutes = query(
            "select to_jsonb(minute_stats) from signaling.minute_stats where minute > now() - $1 order by minute, app",
        );
        let minutes = minutes.bind(interval(span));
        let minutes = self.read(async |session| values(session, minutes).await);
        Ok(minutes.await?.into_iter().map(|Json(row)| row).collect())
    }
}
