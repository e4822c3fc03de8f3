//! The status of each app.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use sqlx::{FromRow, query};

use super::lane_status::{LaneStatus, Pending};
use crate::outbox::Outbox;
use crate::stats::{Histogram, Stats};

#[derive(Debug, Default, Serialize, FromRow)]
pub(crate) struct AppStatus {
    pub(crate) app: String,
    /// None if no worker has ever served the app.
    #[sqlx(json(nullable))]
    pub(crate) lane: Option<LaneStatus>,
    #[sqlx(json)]
    pub(crate) pending: Pending,
    /// Calls a second in the last ten seconds.
    pub(crate) rate_per_s: f64,
    /// The most calls within a sliding second of the last minute.
    pub(crate) peak_calls_1m: i64,
    #[sqlx(skip)]
    pub(crate) last_hour: Stats,
    #[sqlx(skip)]
    pub(crate) queue_wait_last_hour: Option<Percentiles>,
    /// Messages by final status. Cancelled messages are not counted.
    #[sqlx(json)]
    pub(crate) finished_24h: BTreeMap<String, u64>,
}

/// Estimates from a histogram.
#[derive(Debug, Clone, Copy, Serialize)]
#[expect(clippy::struct_field_names, reason = "the unit stands last")]
pub(crate) struct Percentiles {
    pub(crate) p50_s: f64,
    pub(crate) p95_s: f64,
    pub(crate) p99_s: f64,
}

impl Percentiles {
    fn of(histogram: &Histogram) -> Option<Self> {
        let seconds = |share| Some(histogram.quantile(share)?.as_secs_f64());
        Some(Self {
            p50_s: seconds(0.50)?,
            p95_s: seconds(0.95)?,
            p99_s: seconds(0.99)?,
        })
    }
}

impl AppStatus {
    /// Time to send the backlog at the present rate. None while the lane sends nothing.
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    pub(crate) fn time_to_drain(&self) -> Option<Duration> {
        let lane = self.lane.as_ref()?;
        let is_sending = lane.paused_at.is_none() && lane.hold.is_none() && lane.workers.alive > 0;
        let seconds = self.pending.backlog() as f64 / lane.rate_per_s;
        is_sending
            .then(|| Duration::try_from_secs_f64(seconds).ok())
            .flatten()
    }
}

impl Outbox {
    /// Counts the pending messages, then returns the status of each app in the order of the names. On a standby, which takes
    /// no writes, the last count stays.
    pub(crate) async fn status(&self) -> Result<Vec<AppStatus>, sqlx::Error> {
        self.refresh_queue_counts(Duration::ZERO).await.ok();
        self.last_status().await
    }

    pub(crate) async fn last_status(&self) -> Result<Vec<AppStatus>, sqlx::Error> {
        let status = query(concat!(
            "with lanes as (",
            include_str!("lanes.sql"),
            ")",
            include_str!("status.sql")
        ));
        let mut apps: Vec<AppStatus> = self.read_rows(status).await?;
        let hour = self.minute_stats(Duration::from_hours(1)).await?;
        for app in &mut apps {
            for minute in hour.iter().filter(|minute| minute.app == app.app) {
                app.last_hour.merge(&minute.stats);
            }
            app.queue_wait_last_hour = Percentiles::of(&app.last_hour.queue_wait);
        }
        Ok(apps)
    }
}
