//! The status of each app: its lane, its pending messages, and its calls. The cost does not depend on the size of the outbox.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::{FromRow, query};
use strum::{IntoStaticStr, VariantArray};

use super::workers::LaneWorkers;
use crate::outbox::Outbox;
use crate::pace::DbTime;
use crate::stats::Stats;

#[derive(Debug, Default, Serialize, FromRow)]
pub(crate) struct AppStatus {
    pub(crate) app: String,
    /// None if no worker has ever served the app.
    #[sqlx(json(nullable))]
    pub(crate) lane: Option<LaneStatus>,
    #[sqlx(json)]
    pub(crate) pending: Pending,
    /// Calls a second in the last ten seconds.
    #[sqlx(default)]
    pub(crate) rate_per_s: f64,
    /// The most calls within a sliding second of the last minute.
    #[sqlx(default)]
    pub(crate) peak_calls_1m: i64,
    #[sqlx(skip)]
    pub(crate) last_hour: Stats,
    #[sqlx(skip)]
    pub(crate) queue_wait_last_hour: Option<Percentiles>,
    /// Messages by final status. Cancelled messages are not counted.
    #[sqlx(default, json)]
    pub(crate) finished_24h: BTreeMap<String, u64>,
}

/// Estimates from a histogram.
#[derive(Debug, Serialize)]
#[expect(clippy::struct_field_names, reason = "the unit stands last")]
pub(crate) struct Percentiles {
    pub(crate) p50_s: f64,
    pub(crate) p95_s: f64,
    pub(crate) p99_s: f64,
}

/// The pending messages of an app at the last count.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Pending {
    pub(crate) queued: u64,
    pub(crate) scheduled: u64,
    pub(crate) retrying: u64,
    pub(crate) sending: u64,
    /// Pending messages that the database refuses to change. Counted up to 10,000.
    pub(crate) refused: u64,
    /// The longest wait of a message that is not scheduled, in seconds. The wait begins with the first failed attempt. Without
    /// one, it begins with the later of due time and insert.
    pub(crate) oldest_s: Option<f64>,
    pub(crate) counted_ago_s: Option<f64>,
}

impl Pending {
    /// Pending messages that are neither scheduled nor in flight: due first attempts, and all retries, also those that wait
    /// for their delay.
    pub(crate) fn backlog(&self) -> u64 {
        self.queued + self.retrying
    }

    pub(crate) fn by_state(&self) -> [(&'static str, u64); 4] {
        [
            ("queued", self.queued),
            ("scheduled", self.scheduled),
            ("sending", self.sending),
            ("retrying", self.retrying),
        ]
    }
}

/// The lane's row: see the comments of the table `signaling.lane`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LaneStatus {
    pub(crate) configured_per_s: f64,
    pub(crate) limit_per_s: f64,
    /// Present rate, in slots a second.
    pub(crate) rate_per_s: f64,
    /// In the order of `signaling.obstacle`: obstacles that an operator can remove come first.
    pub(crate) obstacles: Vec<Obstacle>,
    pub(crate) retry_after_until: Option<DbTime>,
    pub(crate) limit_set_by: Option<String>,
    pub(crate) environment: Option<String>,
    pub(crate) throttled_at: Option<DbTime>,
    pub(crate) paused_at: Option<DbTime>,
    pub(crate) paused_by: Option<String>,
    pub(crate) pause_reason: Option<String>,
    pub(crate) hold: Option<String>,
    pub(crate) hold_reason: Option<String>,
    pub(crate) hold_since: Option<DbTime>,
    pub(crate) hold_until: Option<DbTime>,
    pub(crate) workers: LaneWorkers,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Obstacle {
    pub(crate) kind: LaneState,
    /// Describes the obstacle and its remedy.
    pub(crate) sentence: String,
}

/// The state of a lane. All but `Sending` and `Throttled` are also kinds of obstacles. A lane with obstacles has the state
/// of the first one.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, IntoStaticStr, VariantArray,
)]
#[serde(rename_all = "snake_case")]
#[strum(const_into_str, serialize_all = "snake_case")]
pub(crate) enum LaneState {
    Sending,
    /// A 429 has cut the rate.
    Throttled,
    Paused,
    NoWorker,
    OtherEnvironment,
    Unauthorized,
    Unavailable,
    /// The API has sent `Retry-After`, or a newer schema has an obstacle that this binary does not know.
    #[serde(rename = "retry_after", other)]
    Waiting,
}

impl LaneStatus {
    pub(crate) fn state(&self) -> LaneState {
        match self.obstacles.first().map(|obstacle| obstacle.kind) {
            Some(obstacle) => obstacle,
            None if self.is_throttled() => LaneState::Throttled,
            None => LaneState::Sending,
        }
    }

    /// True below 97 % of the limit. The full rate is `1 / 1.02` of the limit (`slot_rate.sql`), about 98 %.
    pub(crate) fn is_throttled(&self) -> bool {
        self.rate_per_s < 0.97 * self.limit_per_s
    }

    pub(crate) fn is_held_by(&self, kind: LaneState) -> bool {
        self.obstacles.iter().any(|obstacle| obstacle.kind == kind)
    }

    pub(crate) fn obstacles_text(&self) -> Option<String> {
        let sentences = self.obstacles.iter().map(|obstacle| &*obstacle.sentence);
        let text = sentences.collect::<Vec<_>>().join("; and ");
        (!text.is_empty()).then_some(text)
    }
}

impl Outbox {
    /// The lanes and the pending messages of one app or of all apps. All other fields of [`AppStatus`] stay zero.
    pub(crate) async fn lanes(&self, app: Option<&str>) -> Result<Vec<AppStatus>, sqlx::Error> {
        let lanes = concat!(include_str!("lanes.sql"), " order by app collate \"C\"");
        self.read_rows(query(lanes).bind(app)).await
    }

    pub(crate) async fn lane(&self, app: &str) -> Result<Option<LaneStatus>, sqlx::Error> {
        let found = self.lanes(Some(app)).await?.pop();
        Ok(found.and_then(|found| found.lane))
    }

    /// The status of each app in the order of the names, with the pending messages as they were counted last.
    pub(crate) async fn status(&self) -> Result<Vec<AppStatus>, sqlx::Error> {
        let status = query(concat!(
            "with lanes as (",
            include_str!("lanes.sql"),
            ")",
            include_str!("status.sql")
        ));
        let mut apps: Vec<AppStatus> = self.read_rows(status.bind(None::<&str>)).await?;
        let hour = self.minute_stats(Duration::from_hours(1)).await?;
        for app in &mut apps {
            for minute in hour.iter().filter(|minute| minute.app == app.app) {
                app.last_hour.merge(&minute.stats);
            }
            let wait = &app.last_hour.queue_wait;
            let seconds = |share| wait.quantile(share).map_or(0.0, |wait| wait.as_secs_f64());
            app.queue_wait_last_hour = (wait.count() > 0).then(|| Percentiles {
                p50_s: seconds(0.50),
                p95_s: seconds(0.95),
                p99_s: seconds(0.99),
            });
        }
        Ok(apps)
    }
}

#[cfg(test)]
impl LaneStatus {
    pub(crate) fn held_by(self, kinds: &[LaneState]) -> Self {
        let obstacle = |kind: &LaneState| Obstacle {
            kind: *kind,
            sentence: format!("{kind:?}"),
        };
        Self {
            obstacles: kinds.iter().map(obstacle).collect(),
            ..self
        }
    }

    /// A lane without obstacles, at its full rate.
    pub(crate) fn sending() -> Self {
        Self {
            configured_per_s: 500.0,
            limit_per_s: 500.0,
            rate_per_s: 490.2,
            obstacles: Vec::new(),
            retry_after_until: None,
            limit_set_by: None,
            environment: None,
            throttled_at: None,
            paused_at: None,
            paused_by: None,
            pause_reason: None,
            hold: None,
            hold_reason: None,
            hold_since: None,
            hold_until: None,
            workers: LaneWorkers {
                alive: 1,
                ..LaneWorkers::default()
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_is_what_its_first_obstacle_says_else_throttled_or_sending() {
        use LaneState::{NoWorker, OtherEnvironment, Paused, Unauthorized, Unavailable, Waiting};
        for (obstacles, state) in [
            (&[][..], LaneState::Sending),
            (&[Waiting], LaneState::Waiting),
            (&[Unavailable, Waiting], LaneState::Unavailable),
            (&[NoWorker], LaneState::NoWorker),
            (&[NoWorker, Unauthorized], LaneState::NoWorker),
            (
                &[OtherEnvironment, Unauthorized],
                LaneState::OtherEnvironment,
            ),
            (&[Paused, NoWorker], LaneState::Paused),
        ] {
            let lane = LaneStatus::sending().held_by(obstacles);
            assert_eq!(lane.state(), state, "{obstacles:?}");
        }
        let throttled = LaneStatus {
            rate_per_s: 400.0,
            ..LaneStatus::sending()
        };
        assert_eq!(throttled.state(), LaneState::Throttled);
        let held = throttled.held_by(&[Waiting]);
        assert_eq!(held.state(), LaneState::Waiting);
        assert_eq!(held.obstacles_text().as_deref(), Some("Waiting"));
    }
}
