//! What each lane is doing and what waits for it, for people and monitors: cheap to ask, however much was sent.

use serde::{Deserialize, Serialize};
use sqlx::types::Json;
use sqlx::{AssertSqlSafe, FromRow, PgConnection, query};

use super::workers::LaneWorkers;
use crate::outbox::Outbox;
use crate::outbox::one_off::{rows, values};
use crate::pace::DbTime;

/// What an app's lane is doing, and what waits for it.
#[derive(Debug, Default, FromRow)]
pub(crate) struct AppLane {
    pub(crate) app: String,
    /// None if no worker has ever served the app.
    #[sqlx(json(nullable))]
    pub(crate) lane: Option<LaneStatus>,
    #[sqlx(json)]
    pub(crate) pending: Pending,
}

/// The pending messages of an app, as they were counted last.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Pending {
    /// Wait for their first call.
    pub(crate) queued: u64,
    pub(crate) scheduled: u64,
    pub(crate) retrying: u64,
    pub(crate) sending: u64,
    /// Of all these, the messages that claims pass over because the database refuses to change them: at most 10,000.
    pub(crate) refused: u64,
    /// For how long the oldest message had waited that is not scheduled, in seconds: since it was due, but not before its
    /// insert; if a call of it failed, since the first such call.
    pub(crate) oldest_s: Option<f64>,
    /// How long ago they were counted, in seconds; none if they never were.
    pub(crate) counted_ago_s: Option<f64>,
}

impl Pending {
    /// The messages that are due and not claimed. `signaling.minute_stats` has the same number by the minute.
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

/// The lane's row, for people.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LaneStatus {
    /// Calls a second that the worker which started last is configured with.
    pub(crate) configured_per_s: f64,
    /// Calls a second that the API allows: the configured limit, unless a person has set another.
    pub(crate) limit_per_s: f64,
    /// Slots a second that are given out at present.
    pub(crate) rate_per_s: f64,
    /// Everything that keeps the app from sending, in the order of `signaling.obstacle`: an obstacle that a person can remove
    /// comes first.
    pub(crate) obstacles: Vec<Obstacle>,
    /// The API has asked by Retry-After for no call before this.
    pub(crate) retry_after_until: Option<DbTime>,
    pub(crate) limit_set_by: Option<String>,
    /// The environment of the workers that send the app's messages.
    pub(crate) environment: Option<String>,
    /// The next slot that no worker has taken.
    pub(crate) next_slot_at: DbTime,
    /// When a 429 last slowed the lane.
    pub(crate) throttled_at: Option<DbTime>,
    pub(crate) paused_at: Option<DbTime>,
    pub(crate) paused_by: Option<String>,
    pub(crate) pause_reason: Option<String>,
    /// `unauthorized` or `unavailable`; none while it sends.
    pub(crate) hold: Option<String>,
    pub(crate) hold_reason: Option<String>,
    pub(crate) hold_since: Option<DbTime>,
    /// When one call is tried again.
    pub(crate) hold_until: Option<DbTime>,
    pub(crate) workers: LaneWorkers,
}

/// Something that keeps an app from sending.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Obstacle {
    pub(crate) kind: ObstacleKind,
    /// A sentence for operators, with the remedy.
    pub(crate) sentence: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ObstacleKind {
    Paused,
    NoWorker,
    OtherEnvironment,
    Unauthorized,
    Unavailable,
    RetryAfter,
}

/// What a lane is doing, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LaneState {
    /// It sends what is due, at its rate.
    Sending,
    /// A 429 has slowed it.
    Slowed,
    /// The API has asked for a pause.
    Waiting,
    /// A person has paused it.
    Paused,
    /// No worker is alive that serves the app.
    NoWorker,
    /// The workers that are alive refuse the app, because it belongs to another environment.
    OtherEnvironment,
    /// The API refuses the app's credentials.
    Unauthorized,
    /// The API can't be reached, or answers with errors.
    Unavailable,
}

impl LaneState {
    pub(crate) const ALL: [Self; 8] = [
        Self::Sending,
        Self::Slowed,
        Self::Waiting,
        Self::Paused,
        Self::NoWorker,
        Self::OtherEnvironment,
        Self::Unauthorized,
        Self::Unavailable,
    ];

    /// A lane whose rate is less than this part of its limit is slowed: else it is `1 / 1.02` of it.
    const SLOWED_BELOW: f64 = 0.97;

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Sending => "sending",
            Self::Slowed => "slowed",
            Self::Waiting => "waiting",
            Self::Paused => "paused",
            Self::NoWorker => "no_worker",
            Self::OtherEnvironment => "other_environment",
            Self::Unauthorized => "unauthorized",
            Self::Unavailable => "unavailable",
        }
    }
}

impl LaneStatus {
    /// What it is doing: of several things, the one that people can do most about.
    pub(crate) fn state(&self) -> LaneState {
        self.state_by(self.obstacles.first())
    }

    /// The state in which a worker that starts now would find the lane.
    pub(crate) fn state_when_served(&self) -> LaneState {
        use ObstacleKind::{NoWorker, OtherEnvironment};
        let mut obstacles = self.obstacles.iter();
        self.state_by(
            obstacles.find(|obstacle| !matches!(obstacle.kind, NoWorker | OtherEnvironment)),
        )
    }

    fn state_by(&self, obstacle: Option<&Obstacle>) -> LaneState {
        match obstacle.map(|obstacle| obstacle.kind) {
            Some(ObstacleKind::Paused) => LaneState::Paused,
            Some(ObstacleKind::NoWorker) => LaneState::NoWorker,
            Some(ObstacleKind::OtherEnvironment) => LaneState::OtherEnvironment,
            Some(ObstacleKind::Unauthorized) => LaneState::Unauthorized,
            Some(ObstacleKind::Unavailable) => LaneState::Unavailable,
            Some(ObstacleKind::RetryAfter) => LaneState::Waiting,
            None if self.is_slowed() => LaneState::Slowed,
            None => LaneState::Sending,
        }
    }

    pub(crate) fn is_slowed(&self) -> bool {
        self.rate_per_s < LaneState::SLOWED_BELOW * self.limit_per_s
    }

    /// True if this keeps the app from sending.
    pub(crate) fn is_held_by(&self, kind: ObstacleKind) -> bool {
        self.obstacles.iter().any(|obstacle| obstacle.kind == kind)
    }

    /// All sentences joined, to end another sentence.
    pub(crate) fn obstacles_text(&self) -> Option<String> {
        let sentences = self
            .obstacles
            .iter()
            .map(|obstacle| obstacle.sentence.as_str());
        let text = sentences.collect::<Vec<_>>().join("; and ");
        (!text.is_empty()).then_some(text)
    }
}

const LANES: &str = include_str!("lanes.sql");

impl Outbox {
    /// What each lane is doing and what waits for it, as it was counted last, in the order of the apps' names.
    pub(crate) async fn lanes(&self) -> Result<Vec<AppLane>, sqlx::Error> {
        let lanes = format!("{LANES} order by app collate \"C\"");
        self.read(async |session| rows(session, query(AssertSqlSafe(lanes))).await)
            .await
    }
}

impl Outbox {
    /// The lane of an app; none if no worker has served the app yet.
    pub(crate) async fn lane(&self, app: &str) -> Result<Option<LaneStatus>, sqlx::Error> {
        self.read(async |session| lane_of(app, session).await).await
    }
}

/// The lane of an app, if it has one.
pub(super) async fn lane_of(
    app: &str,
    session: &mut PgConnection,
) -> Result<Option<LaneStatus>, sqlx::Error> {
    let lane = format!("select lane from ({LANES}) as apps where app = $1 and lane is not null");
    let lanes = values(session, query(AssertSqlSafe(lane)).bind(app)).await?;
    Ok(lanes.into_iter().next().map(|Json(lane)| lane))
}

#[cfg(test)]
impl LaneStatus {
    /// The same lane, kept from sending by these.
    #[must_use]
    pub(crate) fn held_by(self, kinds: &[ObstacleKind]) -> Self {
        let obstacle = |kind: &ObstacleKind| Obstacle {
            kind: *kind,
            sentence: format!("{kind:?}"),
        };
        Self {
            obstacles: kinds.iter().map(obstacle).collect(),
            ..self
        }
    }

    /// A lane to which nothing has happened yet.
    pub(crate) fn sending() -> Self {
        Self {
            configured_per_s: 500.0,
            limit_per_s: 500.0,
            rate_per_s: 490.2,
            obstacles: Vec::new(),
            retry_after_until: None,
            limit_set_by: None,
            environment: None,
            next_slot_at: DbTime::from_micros(0),
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
    fn a_lane_is_what_its_first_obstacle_says_else_slowed_or_sending() {
        use ObstacleKind::{
            NoWorker, OtherEnvironment, Paused, RetryAfter, Unauthorized, Unavailable,
        };
        for (obstacles, state, when_served) in [
            (&[][..], LaneState::Sending, LaneState::Sending),
            (&[RetryAfter], LaneState::Waiting, LaneState::Waiting),
            (
                &[Unavailable, RetryAfter],
                LaneState::Unavailable,
                LaneState::Unavailable,
            ),
            (&[NoWorker], LaneState::NoWorker, LaneState::Sending),
            (
                &[NoWorker, Unauthorized],
                LaneState::NoWorker,
                LaneState::Unauthorized,
            ),
            (
                &[OtherEnvironment, Unauthorized],
                LaneState::OtherEnvironment,
                LaneState::Unauthorized,
            ),
            (&[Paused, NoWorker], LaneState::Paused, LaneState::Paused),
        ] {
            let lane = LaneStatus::sending().held_by(obstacles);
            assert_eq!(lane.state(), state, "{obstacles:?}");
            assert_eq!(lane.state_when_served(), when_served, "{obstacles:?}");
        }
        let slowed = LaneStatus {
            rate_per_s: 400.0,
            ..LaneStatus::sending()
        };
        assert_eq!(slowed.state(), LaneState::Slowed);
        let held = slowed.held_by(&[RetryAfter]);
        assert_eq!(held.state(), LaneState::Waiting);
        assert_eq!(held.obstacles_text().as_deref(), Some("RetryAfter"));
    }
}
