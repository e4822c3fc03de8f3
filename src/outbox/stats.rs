//! Minute stats and queue counts.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::query;
use sqlx::types::Json;

use crate::outbox::pool::SERVER_GRACE;
use crate::outbox::{Outbox, interval};
use crate::pace::DbTime;
use crate::stats::Stats;

/// A row of `signaling.minute_stats`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct MinuteStats {
    pub(crate) minute: DbTime,
    pub(crate) app: String,
    #[serde(flatten)]
    pub(crate) stats: Stats,
    pub(crate) backlog: Option<u64>,
}

/// A count reads an index entry for each pending message.
const QUEUE_COUNTS_TIMEOUT: Duration = Duration::from_secs(60);

impl Outbox {
    pub(crate) async fn add_minute_stats(&self, stats: &[MinuteStats]) -> Result<(), sqlx::Error> {
        let call = call!(add_minute_stats, stats = json!(stats));
        self.monitoring.call(call).await.map(drop)
    }

    /// Counts the pending messages, unless the last count is younger than `stale_after` or another session is counting.
    pub(crate) async fn refresh_queue_counts(
        &self,
        stale_after: Duration,
    ) -> Result<(), sqlx::Error> {
        let call = call!(
            refresh_queue_counts,
            stale_after = interval(stale_after),
            ended_before = self.ended_before(),
        );
        let server = QUEUE_COUNTS_TIMEOUT + SERVER_GRACE;
        let monitoring = &self.monitoring;
        let counted = monitoring.call_within(QUEUE_COUNTS_TIMEOUT, server, call);
        counted.await.map(drop)
    }

    /// The minutes of the last `span`, oldest first. An idle minute may be missing.
    pub(crate) async fn minute_stats(
        &self,
        span: Duration,
    ) -> Result<Vec<MinuteStats>, sqlx::Error> {
        let minutes = query(
            "select to_jsonb(minute_stats) from signaling.minute_stats where minute > now() - $1 order by minute, app",
        );
        let minutes: Vec<(Json<_>,)> = self.read_rows(minutes.bind(interval(span))).await?;
        Ok(minutes.into_iter().map(|(Json(row),)| row).collect())
    }
}
