//! What people ask for: how each app is doing.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use sqlx::FromRow;

use super::lane_status::{AppLane, LaneStatus, Pending, lanes};
use crate::error_text::database_error_text;
use crate::outbox::Outbox;
use crate::stats::{Histogram, Stats};

/// How one app is doing.
#[derive(Debug, Default, Serialize)]
pub(crate) struct AppStatus {
    pub(crate) app: String,
    /// Its lane; none if no worker has ever served it.
    pub(crate) lane: Option<LaneStatus>,
    pub(crate) pending: Pending,
    /// Calls a second that were made in the last ten seconds.
    pub(crate) rate_per_s: f64,
    /// The most calls within a sliding second of the last minute.
    pub(crate) peak_calls_1m: i64,
    /// What was done in the last hour.
    pub(crate) last_hour: Stats,
    /// How long messages of the last hour waited for their first call.
    pub(crate) queue_wait_last_hour: Option<Percentiles>,
    /// Messages by how they ended in the last 24 hours. What people cancelled is not counted.
    pub(crate) finished_24h: BTreeMap<String, u64>,
}

/// What half, 95 % and 99 % of some durations do not exceed, in seconds: estimates.
#[derive(Debug, Clone, Copy, Serialize)]
#[expect(clippy::struct_field_names, reason = "the unit stands last")]
pub(crate) struct Percentiles {
    pub(crate) p50_s: f64,
    /// That of 95 %.
    pub(crate) p95_s: f64,
    /// That of 99 %.
    pub(crate) p99_s: f64,
}

impl Percentiles {
    /// Those of a histogram that is not empty.
    pub(crate) fn of(histogram: &Histogram) -> Option<Self> {
        let seconds = |share| Some(histogram.quantile(share)?.as_secs_f64());
        Some(Self {
            p50_s: seconds(0.50)?,
            p95_s: seconds(0.95)?,
            p99_s: seconds(0.99)?,
        })
    }
}

impl AppStatus {
    /// How long the backlog takes at the rate at which slots are given out, if nothing is added; none while nothing
    /// goes out.
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    pub(crate) fn time_to_drain(&self) -> Option<Duration> {
        let lane = self.lane.as_ref()?;
        let is_sending = lane.paused_at.is_none() && lane.hold.is_none();
        let seconds = self.pending.backlog() as f64 / lane.rate_per_s;
        is_sending
            .then(|| Duration::try_from_secs_f64(seconds).ok())
            .flatten()
    }
}

#[derive(FromRow)]
struct RateRow {
    app: String,
    peak_calls_1m: i64,
    calls_per_s: f64,
}

#[derive(FromRow)]
struct FinishedRow {
    app: String,
    status: String,
    messages: i64,
}

impl Outbox {
    /// How each app is doing, in the order of their names. What waits is counted again, if that was not done lately
    /// and can be: a standby only tells what was counted. Nothing else depends on how many messages there are.
    ///
    /// # Errors
    /// Where the database fails.
    pub(crate) async fn status(&self) -> Result<Vec<AppStatus>, sqlx::Error> {
        if let Err(error) = self.refresh_queue_counts(Duration::ZERO).await {
            tracing::debug!(
                event = "queue_counts_reused",
                error = database_error_text(&error),
                "what waits can't be counted: the last count is shown"
            );
        }
        self.last_status().await
    }

    /// The same, with what waits as somebody has counted it.
    ///
    /// # Errors
    /// Where the database fails.
    pub(crate) async fn last_status(&self) -> Result<Vec<AppStatus>, sqlx::Error> {
        let (lanes, rates, finished) = self
            .read(async |session| {
                let lanes = lanes(session).await?;
                let rates: Vec<RateRow> = sqlx::query_as(
                    "select app,
                            signaling.peak_rate(app, clock_timestamp() - interval '1 minute', clock_timestamp()) as peak_calls_1m,
                            (select count(*) / 10.0::float8
                             from signaling.calls(app, clock_timestamp() - interval '10 seconds', clock_timestamp())) as calls_per_s
                     from signaling.lane",
                )
                .persistent(false)
                .fetch_all(&mut **session)
                .await?;
                let finished: Vec<FinishedRow> = sqlx::query_as(
                    "select app, status, messages
                     from (select app, sum(message_sent)::bigint as message_sent,
                                  sum(message_delivered)::bigint as message_delivered,
                                  sum(message_offline)::bigint as message_offline, sum(failed)::bigint as failed,
                                  sum(expired)::bigint as expired, sum(unknown)::bigint as unknown
                           from signaling.minute_stats where minute > now() - interval '24 hours' group by app) as total,
                          lateral (values ('message_sent', message_sent), ('message_delivered', message_delivered),
                                          ('message_offline', message_offline), ('failed', failed),
                                          ('expired', expired), ('unknown', unknown)) as ended (status, messages)
                     where messages > 0",
                )
                .persistent(false)
                .fetch_all(&mut **session)
                .await?;
                Ok((lanes, rates, finished))
            })
            .await?;
        let hour = self.minute_stats(None, Duration::from_secs(3_600)).await?;

        let mut apps: BTreeMap<String, AppStatus> = lanes
            .into_iter()
            .map(|AppLane { app, lane, pending }| {
                let status = AppStatus {
                    app: app.clone(),
                    lane,
                    pending,
                    ..AppStatus::default()
                };
                (app, status)
            })
            .collect();
        for row in rates {
            if let Some(app) = apps.get_mut(&row.app) {
                app.peak_calls_1m = row.peak_calls_1m;
                app.rate_per_s = row.calls_per_s;
            }
        }
        for row in finished {
            if let Some(app) = apps.get_mut(&row.app) {
                app.finished_24h
                    .insert(row.status, row.messages.unsigned_abs());
            }
        }
        for minute in hour {
            if let Some(app) = apps.get_mut(&minute.app) {
                app.last_hour.merge(&minute.stats);
            }
        }
        for app in apps.values_mut() {
            app.queue_wait_last_hour = Percentiles::of(&app.last_hour.queue_wait);
        }
        Ok(apps.into_values().collect())
    }
}

/// What became of a sample message.
#[derive(Debug, FromRow)]
pub(crate) struct SampleRow {
    pub(crate) status: String,
    pub(crate) attempts: i32,
}

impl Outbox {
    /// All rows by state, for a table that is small.
    ///
    /// # Errors
    /// Where the database fails.
    pub(crate) async fn sample_counts(&self) -> Result<BTreeMap<String, i64>, sqlx::Error> {
        let counts: Vec<(String, i64)> = self
            .read(async |session| {
                sqlx::query_as("select state, count(*) from signaling.delivery group by state")
                    .persistent(false)
                    .fetch_all(&mut **session)
                    .await
            })
            .await?;
        Ok(counts.into_iter().collect())
    }

    /// What became of these rows, in the order of their ids.
    ///
    /// # Errors
    /// Where the database fails.
    pub(crate) async fn sample_rows(&self, ids: &[i64]) -> Result<Vec<SampleRow>, sqlx::Error> {
        self.read(async |session| {
            sqlx::query_as(
                "select status, attempts from signaling.outbox where id = any ($1) order by id",
            )
            .persistent(false)
            .bind(ids)
            .fetch_all(&mut **session)
            .await
        })
        .await
    }
}
