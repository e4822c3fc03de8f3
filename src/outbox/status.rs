//! What people ask for: how each app is doing.

use std::collections::BTreeMap;

use serde::Serialize;
use sqlx::FromRow;
use time::OffsetDateTime;

use super::Outbox;

/// How one app is doing.
#[derive(Debug, Serialize)]
pub struct AppStatus {
    /// The app's alias.
    pub app: String,
    /// Its lane; none if no worker has ever served it.
    pub lane: Option<LaneStatus>,
    /// Pending rows by state: scheduled, queued, sending, retrying.
    pub pending: BTreeMap<String, i64>,
    /// Age of the oldest row that is due, in seconds.
    pub oldest_due_s: Option<f64>,
    /// Calls a second that were made in the last ten seconds.
    pub rate_per_s: f64,
    /// The most calls within a sliding second of the last minute.
    pub peak_calls_1m: i64,
    /// Final rows by status.
    pub finished: BTreeMap<String, i64>,
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
struct CountRow {
    app: String,
    state: String,
    rows: i64,
    oldest_due_s: Option<f64>,
}

impl Outbox {
    /// How each app is doing, in the order of their names. Reads the whole table.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn status(&self) -> Result<Vec<AppStatus>, sqlx::Error> {
        let mut session = self.session().await?;
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
        .fetch_all(&mut *session)
        .await?;
        let counts: Vec<CountRow> = sqlx::query_as(
            "select app, state, count(*) as rows,
                    extract(epoch from max(age) filter (where state in ('queued', 'sending', 'retrying')))::float8
                        as oldest_due_s
             from signaling.delivery_status group by app, state",
        )
        .persistent(false)
        .fetch_all(&mut *session)
        .await?;
        session.finish().await?;

        let mut apps: BTreeMap<String, AppStatus> = BTreeMap::new();
        let entry = |app: &str| AppStatus {
            app: app.to_owned(),
            lane: None,
            pending: BTreeMap::new(),
            oldest_due_s: None,
            rate_per_s: 0.0,
            peak_calls_1m: 0,
            finished: BTreeMap::new(),
        };
        for row in lanes {
            let app = apps
                .entry(row.app.clone())
                .or_insert_with(|| entry(&row.app));
            app.lane = Some(row.lane);
            app.peak_calls_1m = row.peak_calls_1m;
            app.rate_per_s = row.calls_per_s;
        }
        for row in counts {
            let app = apps
                .entry(row.app.clone())
                .or_insert_with(|| entry(&row.app));
            let pending = matches!(
                row.state.as_str(),
                "scheduled" | "queued" | "sending" | "retrying"
            );
            let by_state = if pending {
                &mut app.pending
            } else {
                &mut app.finished
            };
            by_state.insert(row.state, row.rows);
            app.oldest_due_s = [app.oldest_due_s, row.oldest_due_s]
                .into_iter()
                .flatten()
                .reduce(f64::max);
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
