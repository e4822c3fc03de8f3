//! Stats that last: what workers add up by the minute, and the count of what waits.

use std::time::Duration;

use sqlx::FromRow;
use time::OffsetDateTime;

use crate::error_text::database_error_text;
use crate::outbox::pool::Call;
use crate::outbox::pool::statement::Statement;
use crate::outbox::{Outbox, interval, may_have_taken_effect};
use crate::pace::DbTime;
use crate::stats::{Histogram, Stats};

/// What an app's workers did in a minute.
#[derive(Debug, Clone)]
pub(crate) struct MinuteStats {
    pub(crate) minute: DbTime,
    pub(crate) app: String,
    pub(crate) stats: Stats,
    /// Messages that were queued or waited for another call, at the last count of the minute, if there was one.
    pub(crate) backlog: Option<u64>,
}

/// Stats that could not be added.
#[derive(Debug, thiserror::Error)]
#[error("stats can't be added: {}", database_error_text(.source))]
pub(crate) struct StatsError {
    pub(crate) source: sqlx::Error,
    /// The database may have carried it out.
    pub(crate) may_be_saved: bool,
}

/// A row of `signaling.minute_stats`.
#[derive(FromRow)]
struct MinuteStatsRow {
    minute: DbTime,
    app: String,
    message_sent: i64,
    message_delivered: i64,
    message_offline: i64,
    failed: i64,
    expired: i64,
    unknown: i64,
    calls_transient: i64,
    calls_throttled: i64,
    calls_rejected: i64,
    calls_unauthorized: i64,
    calls_ambiguous: i64,
    slots_missed: i64,
    call_time: Vec<i64>,
    queue_wait: Vec<i64>,
    backlog: Option<i64>,
}

/// How long a count may take: it reads an index entry for each message that waits.
const QUEUE_COUNTS_TIMEOUT: Duration = Duration::from_secs(60);

impl Outbox {
    /// Adds stats to their minutes.
    ///
    /// # Errors
    /// Where the database fails. The error says whether the database may have added them nevertheless.
    pub(crate) async fn add_minute_stats(
        &self,
        stats: &[(OffsetDateTime, String, Stats)],
    ) -> Result<(), StatsError> {
        let column = |value: fn(&Stats) -> u64| -> Vec<i64> {
            stats
                .iter()
                .map(|(.., stats)| count(value(stats)))
                .collect()
        };
        let histogram = |value: fn(&Stats) -> &Histogram| -> Vec<String> {
            stats
                .iter()
                .map(|(.., stats)| array(value(stats)))
                .collect()
        };
        let minutes: Vec<DbTime> = stats.iter().map(|(at, ..)| DbTime::from(*at)).collect();
        let apps: Vec<&str> = stats.iter().map(|(_, app, _)| app.as_str()).collect();
        let call = Call::new("add_minute_stats")
            .with("minutes", minutes)
            .with("apps", apps)
            .with("message_sent", column(|stats| stats.message_sent))
            .with("message_delivered", column(|stats| stats.message_delivered))
            .with("message_offline", column(|stats| stats.message_offline))
            .with("failed", column(|stats| stats.failed))
            .with("expired", column(|stats| stats.expired))
            .with("unknown", column(|stats| stats.unknown))
            .with("calls_transient", column(|stats| stats.calls_transient))
            .with("calls_throttled", column(|stats| stats.calls_throttled))
            .with("calls_rejected", column(|stats| stats.calls_rejected))
            .with(
                "calls_unauthorized",
                column(|stats| stats.calls_unauthorized),
            )
            .with("calls_ambiguous", column(|stats| stats.calls_ambiguous))
            .with("slots_missed", column(|stats| stats.slots_missed))
            // SQL has no arrays of arrays of different lengths: the histograms are texts.
            .with("call_time", histogram(|stats| &stats.call_time))
            .with("queue_wait", histogram(|stats| &stats.queue_wait));
        let added = self.monitoring_pool().call(Statement::Stats, call).await;
        match added {
            Ok(_) => Ok(()),
            Err(source) => Err(StatsError {
                may_be_saved: may_have_taken_effect(&source),
                source,
            }),
        }
    }

    /// Counts the pending messages, unless the last count is younger than `stale_after` or another session is counting.
    /// True if it counted.
    ///
    /// # Errors
    /// Where the database fails.
    pub(crate) async fn refresh_queue_counts(
        &self,
        stale_after: Duration,
    ) -> Result<bool, sqlx::Error> {
        let call = Call::new("refresh_queue_counts").with("stale_after", interval(stale_after));
        let answer = self
            .monitoring_pool()
            .call_within(Statement::QueueCounts, QUEUE_COUNTS_TIMEOUT, call)
            .await?;
        Ok(answer.value()?.unwrap_or(false))
    }

    /// The minutes of the last `span`, of all apps or of one, oldest first; minutes in which an app did nothing may be
    /// missing.
    ///
    /// # Errors
    /// Where the database fails.
    pub(crate) async fn minute_stats(
        &self,
        app: Option<&str>,
        span: Duration,
    ) -> Result<Vec<MinuteStats>, sqlx::Error> {
        let rows: Vec<MinuteStatsRow> = self
            .read(async |session| {
                sqlx::query_as(
                    "select minute, app, message_sent, message_delivered, message_offline, failed, expired, unknown,
                            calls_transient, calls_throttled, calls_rejected, calls_unauthorized, calls_ambiguous,
                            slots_missed, call_time, queue_wait, backlog
                     from signaling.minute_stats
                     where minute > now() - $1::interval and ($2 is null or app = $2)
                     order by minute, app",
                )
                .persistent(false)
                .bind(interval(span))
                .bind(app)
                .fetch_all(&mut **session)
                .await
            })
            .await?;
        Ok(rows.into_iter().map(MinuteStatsRow::stats).collect())
    }
}

impl MinuteStatsRow {
    fn stats(self) -> MinuteStats {
        MinuteStats {
            minute: self.minute,
            app: self.app,
            backlog: self.backlog.map(amount),
            stats: Stats {
                message_sent: amount(self.message_sent),
                message_delivered: amount(self.message_delivered),
                message_offline: amount(self.message_offline),
                failed: amount(self.failed),
                expired: amount(self.expired),
                unknown: amount(self.unknown),
                calls_transient: amount(self.calls_transient),
                calls_throttled: amount(self.calls_throttled),
                calls_rejected: amount(self.calls_rejected),
                calls_unauthorized: amount(self.calls_unauthorized),
                calls_ambiguous: amount(self.calls_ambiguous),
                slots_missed: amount(self.slots_missed),
                call_time: histogram(self.call_time),
                queue_wait: histogram(self.queue_wait),
            },
        }
    }
}

fn count(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Far above what workers count. A person may write any number into the tables: without this bound, adding up such rows
/// would overflow, and panic.
const MAX_AMOUNT: u64 = 1 << 48;

pub(in crate::outbox) fn amount(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0).min(MAX_AMOUNT)
}

fn histogram(counts: Vec<i64>) -> Histogram {
    let counts: Vec<u64> = counts.into_iter().map(amount).collect();
    Histogram::from_counts(&counts)
}

/// As Postgres writes an array.
fn array(histogram: &Histogram) -> String {
    let counts: Vec<String> = histogram.counts().iter().map(u64::to_string).collect();
    format!("{{{}}}", counts.join(","))
}
