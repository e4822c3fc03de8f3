//! What people ask for: how each app is doing.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use sqlx::FromRow;
use time::OffsetDateTime;

use super::Outbox;
use crate::figures::{Figures, Histogram};

/// How one app is doing.
#[derive(Debug, Default, Serialize)]
pub struct AppStatus {
    /// The app's alias.
    pub app: String,
    /// Its lane; none if no worker has ever served it.
    pub lane: Option<LaneStatus>,
    /// Pending messages.
    pub pending: Pending,
    /// Calls a second that were made in the last ten seconds.
    pub rate_per_s: f64,
    /// The most calls within a sliding second of the last minute.
    pub peak_calls_1m: i64,
    /// What was done in the last hour.
    pub last_hour: Figures,
    /// How long the last hour's messages waited for their first call.
    pub delay_last_hour: Option<Percentiles>,
    /// Messages by how they ended in the last 24 hours. What people cancelled is not counted.
    pub finished_24h: BTreeMap<String, u64>,
}

/// The pending messages of an app, as they were counted last.
#[derive(Debug, Default, Serialize)]
pub struct Pending {
    /// Wait for their first call.
    pub queued: u64,
    /// Are not due yet.
    pub scheduled: u64,
    /// Wait for another call.
    pub retrying: u64,
    /// A worker has them.
    pub sending: u64,
    /// For how long the oldest one had waited then that is not scheduled, in seconds.
    pub oldest_s: Option<f64>,
    /// How long ago they were counted, in seconds; none if they never were.
    pub counted_ago_s: Option<f64>,
}

/// What half, 95 % and 99 % of some durations do not exceed, in seconds: estimates.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Percentiles {
    /// The median.
    pub p50_s: f64,
    /// That of 95 %.
    pub p95_s: f64,
    /// That of 99 %.
    pub p99_s: f64,
}

impl Percentiles {
    /// Those of a histogram that is not empty.
    pub fn of(histogram: &Histogram) -> Option<Self> {
        let seconds = |share| Some(histogram.quantile(share)?.as_secs_f64());
        Some(Self {
            p50_s: seconds(0.50)?,
            p95_s: seconds(0.95)?,
            p99_s: seconds(0.99)?,
        })
    }
}

impl Pending {
    /// What waits: neither scheduled for later nor with a worker. `signaling.rollup` has the same by the minute.
    pub fn backlog(&self) -> u64 {
        self.queued + self.retrying
    }
}

impl AppStatus {
    /// How long the backlog takes at the rate at which slots are given out, if nothing is added; none while nothing goes
    /// out.
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    pub fn time_to_drain(&self) -> Option<Duration> {
        let lane = self.lane.as_ref()?;
        let is_sending = lane.paused_at.is_none() && lane.hold.is_none();
        let seconds = self.pending.backlog() as f64 / lane.rate_per_s;
        is_sending
            .then(|| Duration::try_from_secs_f64(seconds).ok())
            .flatten()
    }
}

/// The lane's row, for people.
#[derive(Debug, Serialize, FromRow)]
pub struct LaneStatus {
    /// Calls a second that the API allows.
    pub limit_per_s: f64,
    /// Slots a second that are given out at present.
    pub rate_per_s: f64,
    /// Whether the API has asked for a pause that is not over.
    pub told_to_wait: bool,
    /// Who set another limit than the configured one.
    pub limit_set_by: Option<String>,
    /// No call before this: later than now while the API has asked for a pause.
    #[serde(with = "time::serde::rfc3339")]
    pub next_slot_at: OffsetDateTime,
    /// When a 429 last slowed the lane.
    #[serde(with = "time::serde::rfc3339::option")]
    pub throttled_at: Option<OffsetDateTime>,
    /// Since when a person has paused the app.
    #[serde(with = "time::serde::rfc3339::option")]
    pub paused_at: Option<OffsetDateTime>,
    /// Who.
    pub paused_by: Option<String>,
    /// Why.
    pub pause_reason: Option<String>,
    /// `parked` or `broken`; none while it sends.
    pub hold: Option<String>,
    /// Why it is held.
    pub hold_reason: Option<String>,
    /// Since when.
    #[serde(with = "time::serde::rfc3339::option")]
    pub hold_since: Option<OffsetDateTime>,
    /// When one call is tried again.
    #[serde(with = "time::serde::rfc3339::option")]
    pub hold_until: Option<OffsetDateTime>,
}

#[derive(FromRow)]
struct LaneRow {
    app: String,
    peak_calls_1m: i64,
    calls_per_s: f64,
    #[sqlx(flatten)]
    lane: LaneStatus,
}

#[derive(FromRow)]
struct CensusRow {
    app: String,
    queued: i64,
    scheduled: i64,
    retrying: i64,
    sending: i64,
    oldest_s: Option<f64>,
    counted_ago_s: Option<f64>,
}

#[derive(FromRow)]
struct FinishedRow {
    app: String,
    status: String,
    messages: i64,
}

impl Outbox {
    /// How each app is doing, in the order of their names. What waits is counted again, if that was not done lately;
    /// nothing else depends on how many messages there are.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn status(&self) -> Result<Vec<AppStatus>, sqlx::Error> {
        self.take_census(Duration::ZERO).await?;
        self.last_status().await
    }

    /// The same, with what waits as somebody has counted it.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn last_status(&self) -> Result<Vec<AppStatus>, sqlx::Error> {
        let (lanes, pending, finished) = self
            .look(async |session| {
                let lanes: Vec<LaneRow> = sqlx::query_as(
                    "select app, limit_per_s, limit_set_by, next_slot_at, throttled_at,
                            next_slot_at > clock_timestamp() + interval '1 second' as told_to_wait, paused_at, paused_by, pause_reason,
                            hold, hold_reason, hold_since, hold_until,
                            signaling.present_rate(rate_per_s, rate_at, limit_per_s, clock_timestamp()) as rate_per_s,
                            signaling.peak_rate(app, clock_timestamp() - interval '1 minute', clock_timestamp()) as peak_calls_1m,
                            (select count(*) / 10.0::float8
                             from signaling.calls(app, clock_timestamp() - interval '10 seconds', clock_timestamp())) as calls_per_s
                     from signaling.lane",
                )
                .persistent(false)
                .fetch_all(&mut **session)
                .await?;
                let pending: Vec<CensusRow> = sqlx::query_as(
                    "select app, queued, scheduled, retrying, sending,
                            case when oldest_at is not null
                                 then extract(epoch from greatest('0', counted_at - oldest_at))::float8 end as oldest_s,
                            extract(epoch from clock_timestamp() - counted_at)::float8 as counted_ago_s
                     from signaling.census cross join signaling.census_turn",
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
                           from signaling.rollup where minute > now() - interval '24 hours' group by app) as total,
                          lateral (values ('message_sent', message_sent), ('message_delivered', message_delivered),
                                          ('message_offline', message_offline), ('failed', failed),
                                          ('expired', expired), ('unknown', unknown)) as ended (status, messages)
                     where messages > 0",
                )
                .persistent(false)
                .fetch_all(&mut **session)
                .await?;
                Ok((lanes, pending, finished))
            })
            .await?;
        let hour = self
            .figures_by_minute(None, Duration::from_secs(3_600))
            .await?;

        let mut apps: BTreeMap<String, AppStatus> = BTreeMap::new();
        let mut of = |app: &str, change: &mut dyn FnMut(&mut AppStatus)| {
            let status = apps.entry(app.to_owned()).or_insert_with(|| AppStatus {
                app: app.to_owned(),
                ..AppStatus::default()
            });
            change(status);
        };
        for row in lanes {
            let mut lane = Some(row.lane);
            of(&row.app, &mut |app| {
                app.lane = lane.take();
                app.peak_calls_1m = row.peak_calls_1m;
                app.rate_per_s = row.calls_per_s;
            });
        }
        for row in pending {
            of(&row.app, &mut |app| {
                app.pending = Pending {
                    queued: row.queued.unsigned_abs(),
                    scheduled: row.scheduled.unsigned_abs(),
                    retrying: row.retrying.unsigned_abs(),
                    sending: row.sending.unsigned_abs(),
                    oldest_s: row.oldest_s,
                    counted_ago_s: row.counted_ago_s,
                };
            });
        }
        for row in finished {
            of(&row.app, &mut |app| {
                app.finished_24h
                    .insert(row.status.clone(), row.messages.unsigned_abs());
            });
        }
        for minute in hour {
            of(&minute.app, &mut |app| {
                app.last_hour.merge(&minute.figures);
            });
        }
        for app in apps.values_mut() {
            app.delay_last_hour = Percentiles::of(&app.last_hour.delay);
        }
        Ok(apps.into_values().collect())
    }
}

/// What became of a sample message.
#[derive(Debug, FromRow)]
pub struct SampleRow {
    /// The row's status.
    pub status: String,
    /// Its attempts.
    pub attempts: i32,
}

impl Outbox {
    /// All rows by state, for a table that is small.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn sample_counts(&self) -> Result<BTreeMap<String, i64>, sqlx::Error> {
        let mut session = self.session().await?;
        let counts: Vec<(String, i64)> =
            sqlx::query_as("select state, count(*) from signaling.delivery group by state")
                .fetch_all(&mut *session)
                .await?;
        session.finish().await?;
        Ok(counts.into_iter().collect())
    }

    /// The time by the database's clock.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn database_time(&self) -> Result<OffsetDateTime, sqlx::Error> {
        let mut session = self.session().await?;
        let now = sqlx::query_scalar("select clock_timestamp()")
            .persistent(false)
            .fetch_one(&mut *session)
            .await?;
        session.finish().await?;
        Ok(now)
    }

    /// What became of these rows, in the order of their ids.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn sample_rows(&self, ids: &[i64]) -> Result<Vec<SampleRow>, sqlx::Error> {
        let mut session = self.session().await?;
        let rows = sqlx::query_as(
            "select status, attempts from signaling.outbox where id = any ($1) order by id",
        )
        .bind(ids)
        .fetch_all(&mut *session)
        .await?;
        session.finish().await?;
        Ok(rows)
    }
}
