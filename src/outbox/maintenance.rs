//! The registry of workers, minute stats, queue counts, and the deletion of messages that finished long ago.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::types::Json;
use sqlx::{FromRow, query};
use uuid::Uuid;

use super::pool::{AdaptiveTimeout, SERVER_GRACE};
use super::{Outbox, column};
use crate::config::WorkerConfig;
use crate::pace::DbTime;
use crate::stats::Stats;

/// This worker's counters of one app, since the worker started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AppReport {
    pub(crate) app: String,
    pub(crate) accepted: u64,
    pub(crate) failed: u64,
    pub(crate) is_doubting: bool,
    pub(crate) aside_reason: Option<String>,
}

#[derive(Debug, FromRow)]
pub(crate) struct OthersReport {
    pub(crate) app: String,
    #[sqlx(rename = "others_accepted", try_from = "i64")]
    pub(crate) accepted: u64,
    #[sqlx(rename = "others", try_from = "i32")]
    pub(crate) serving: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct MinuteStats {
    pub(crate) minute: DbTime,
    pub(crate) app: String,
    #[serde(flatten)]
    pub(crate) stats: Stats,
    pub(crate) backlog: Option<u64>,
}

/// Long, because a count reads an index entry for each pending message.
const QUEUE_COUNTS_TIMEOUT: Duration = Duration::from_secs(60);

/// Status queries count the calls of the last minute, so messages have to stay that long.
pub(crate) const MIN_RETENTION: Duration = Duration::from_secs(60);

#[derive(FromRow)]
pub(crate) struct Deletion {
    pub(crate) has_turn: bool,
    /// The pass has reached the messages that are too young.
    pub(crate) is_pass_over: bool,
    /// Messages that the pass has deleted, in all processes.
    pub(crate) deleted: Option<i64>,
    /// When another worker's turn ends, or the next pass begins.
    pub(crate) held_until: DbTime,
    pub(crate) at: DbTime,
}

impl Outbox {
    /// Registers that this worker is alive, with its counters. Returns the counters of the other workers of the same apps.
    pub(crate) async fn report_worker(
        &self,
        id: Uuid,
        config: &WorkerConfig,
        served: Vec<String>,
        reports: &[AppReport],
    ) -> Result<Vec<OthersReport>, sqlx::Error> {
        let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let call = call!(
            report_worker,
            worker_id = id,
            name = config.name.clone(),
            version = env!("CARGO_PKG_VERSION"),
            host = config.host.clone(),
            served = served,
            apps = column(reports, |report| report.app.clone()),
            accepted = column(reports, |report| count(report.accepted)),
            failed = column(reports, |report| count(report.failed)),
            doubting = column(reports, |report| report.is_doubting),
            aside_reasons = column(reports, |report| report.aside_reason.clone()),
            environment = config.environment.as_deref(),
        );
        self.pool.call(call).await?.decode()
    }

    pub(crate) async fn retire_worker(&self, id: Uuid) -> Result<(), sqlx::Error> {
        let call = call!(retire_worker, worker_id = id);
        self.pool.call(call).await.map(drop)
    }

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
            stale_after = stale_after,
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
        let minutes: Vec<(Json<_>,)> = self.read_rows(minutes.bind(span)).await?;
        Ok(minutes.into_iter().map(|(Json(row),)| row).collect())
    }

    /// Deletes a batch of messages that finished longer ago than `retention`, if it is this worker's turn. Takes some
    /// milliseconds. With `one_by_one`, skips a message whose deletion a function of the application delays. Fails if
    /// `retention` is less than [`MIN_RETENTION`].
    pub(crate) async fn delete_finished(
        &self,
        worker: Uuid,
        retention: Duration,
        timeout: &AdaptiveTimeout,
        one_by_one: bool,
    ) -> Result<Deletion, sqlx::Error> {
        let call = call!(
            delete_finished,
            worker = worker,
            retain = retention,
            ended_before = self.ended_before(),
            one_by_one = one_by_one,
        );
        let answer = self.pool.call_adaptively(timeout, one_by_one, call).await?;
        let deletion = answer.decode()?.pop();
        deletion.ok_or(sqlx::Error::RowNotFound)
    }
}
