//! Stats that last: what workers add up by the minute, and the count of what waits.

use std::time::Duration;

use sqlx::FromRow;
use time::OffsetDateTime;

use crate::error_text::database_error_text;
use crate::outbox::micros;
use crate::outbox::pool::statement::Statement;
use crate::outbox::{Outbox, may_have_taken_effect};
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

/// One array for each column, in the order of the columns. SQL has no arrays of arrays of different lengths, so the
/// histograms are texts.
const ADD_MINUTE_STATS: &str = "
    select signaling.add_minute_stats(
        $1::timestamptz[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[],
        $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[],
        $15::text[], $16::text[])";

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
        let mut was_asked = false;
        let added = self
            .monitoring_pool()
            .run(Statement::Stats, async |session| {
                was_asked = true;
                sqlx::query(ADD_MINUTE_STATS)
                    .persistent(session.caches_statements())
                    .bind(minutes)
                    .bind(apps)
                    .bind(column(|stats| stats.message_sent))
                    .bind(column(|stats| stats.message_delivered))
                    .bind(column(|stats| stats.message_offline))
                    .bind(column(|stats| stats.failed))
                    .bind(column(|stats| stats.expired))
                    .bind(column(|stats| stats.unknown))
                    .bind(column(|stats| stats.calls_transient))
                    .bind(column(|stats| stats.calls_throttled))
                    .bind(column(|stats| stats.calls_rejected))
                    .bind(column(|stats| stats.calls_unauthorized))
                    .bind(column(|stats| stats.calls_ambiguous))
                    .bind(column(|stats| stats.slots_missed))
                    .bind(histogram(|stats| &stats.call_time))
                    .bind(histogram(|stats| &stats.delay))
                    .execute(&mut **session)
                    .await
            })
            .await;
        match added {
            Ok(_) => Ok(()),
            Err(source) => Err(StatsError {
                may_be_saved: was_asked && may_have_taken_effect(&source),
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
        self.monitoring_pool()
            .run_within(
                Statement::QueueCounts,
                QUEUE_COUNTS_TIMEOUT,
                async |session| {
                    sqlx::query_scalar(
                        "select signaling.refresh_queue_counts($1 * interval '1 microsecond')",
                    )
                    .persistent(session.caches_statements())
                    .bind(micros(stale_after))
                    .fetch_one(&mut **session)
                    .await
                },
            )
            .await
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
                     where minute > now() - $1 * interval '1 microsecond' and ($2 is null or app = $2)
                     order by minute, app",
                )
                .persistent(false)
                .bind(micros(span))
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
                delay: histogram(self.queue_wait),
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
