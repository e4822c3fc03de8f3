//! What each lane is doing and what waits for it, for people and monitors: cheap to ask, however much was sent.

use std::collections::BTreeMap;

use serde::Serialize;
use sqlx::{FromRow, PgConnection};

use crate::outbox::Outbox;
use crate::outbox::stats::amount;
use crate::pace::DbTime;

/// What an app's lane is doing, and what waits for it.
#[derive(Debug, Default)]
pub(crate) struct AppLane {
    pub(crate) app: String,
    /// Its lane; none if no worker has ever served it.
    pub(crate) lane: Option<LaneStatus>,
    pub(crate) pending: Pending,
}

/// The pending messages of an app, as they were counted last.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Pending {
    /// Wait for their first call.
    pub(crate) queued: u64,
    pub(crate) scheduled: u64,
    pub(crate) retrying: u64,
    pub(crate) sending: u64,
    /// For how long the oldest one had waited then that is not scheduled, in seconds.
    pub(crate) oldest_s: Option<f64>,
    /// How long ago they were counted, in seconds; none if they never were.
    pub(crate) counted_ago_s: Option<f64>,
}

impl Pending {
    /// The messages that are due and not claimed. `signaling.minute_stats` has the same number by the minute.
    pub(crate) fn backlog(&self) -> u64 {
        self.queued + self.retrying
    }
}

/// The lane's row, for people.
#[derive(Debug, Serialize, FromRow)]
pub(crate) struct LaneStatus {
    /// Calls a second that the worker which started last is configured with.
    pub(crate) configured_per_s: f64,
    /// Calls a second that the API allows: the configured limit, unless a person has set another.
    pub(crate) limit_per_s: f64,
    /// Slots a second that are given out at present.
    pub(crate) rate_per_s: f64,
    /// Whether the API has asked for a pause that is not over.
    pub(crate) told_to_wait: bool,
    /// Who set another limit than the configured one.
    pub(crate) limit_set_by: Option<String>,
    /// No call before this: later than now while the API has asked for a pause.
    pub(crate) next_slot_at: DbTime,
    /// When a 429 last slowed the lane.
    pub(crate) throttled_at: Option<DbTime>,
    /// Since when a person has paused the app.
    pub(crate) paused_at: Option<DbTime>,
    pub(crate) paused_by: Option<String>,
    pub(crate) pause_reason: Option<String>,
    /// `unauthorized` or `unavailable`; none while it sends.
    pub(crate) hold: Option<String>,
    pub(crate) hold_reason: Option<String>,
    pub(crate) hold_since: Option<DbTime>,
    /// When one call is tried again.
    pub(crate) hold_until: Option<DbTime>,
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
    /// The API refuses the app's credentials.
    Unauthorized,
    /// The API can't be reached, or answers with errors.
    Unavailable,
}

impl LaneState {
    pub(crate) const ALL: [Self; 6] = [
        Self::Sending,
        Self::Slowed,
        Self::Waiting,
        Self::Paused,
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
            Self::Unauthorized => "unauthorized",
            Self::Unavailable => "unavailable",
        }
    }
}

impl LaneStatus {
    /// What it is doing: of several things, the one that people can do most about.
    pub(crate) fn state(&self) -> LaneState {
        match self.hold.as_deref() {
            _ if self.paused_at.is_some() => LaneState::Paused,
            Some("unavailable") => LaneState::Unavailable,
            Some(_) => LaneState::Unauthorized,
            None if self.told_to_wait => LaneState::Waiting,
            None if self.rate_per_s < LaneState::SLOWED_BELOW * self.limit_per_s => {
                LaneState::Slowed
            }
            None => LaneState::Sending,
        }
    }
}

#[derive(FromRow)]
struct LaneRow {
    app: String,
    #[sqlx(flatten)]
    lane: LaneStatus,
}

#[derive(FromRow)]
struct QueueCountsRow {
    app: String,
    queued: i64,
    scheduled: i64,
    retrying: i64,
    sending: i64,
    oldest_s: Option<f64>,
    counted_ago_s: Option<f64>,
}

impl Outbox {
    /// What each lane is doing and what waits for it, as it was counted last, in the order of the apps' names.
    ///
    /// # Errors
    /// Where the database fails.
    pub(crate) async fn lanes(&self) -> Result<Vec<AppLane>, sqlx::Error> {
        self.read(async |session| lanes(session).await).await
    }
}

/// The lane of an app, if it has one.
pub(crate) async fn lane_of(
    app: &str,
    session: &mut PgConnection,
) -> Result<Option<LaneStatus>, sqlx::Error> {
    let lanes = lane_rows(session, Some(app)).await?;
    Ok(lanes.into_iter().next().map(|row| row.lane))
}

async fn lane_rows(
    session: &mut PgConnection,
    app: Option<&str>,
) -> Result<Vec<LaneRow>, sqlx::Error> {
    sqlx::query_as(
        "select app, configured_per_s, limit_per_s, limit_set_by, next_slot_at, throttled_at,
                next_slot_at > clock_timestamp() + interval '1 second' as told_to_wait, paused_at, paused_by, pause_reason,
                hold, hold_reason, hold_since, hold_until,
                signaling.present_rate(rate_per_s, rate_at, limit_per_s, clock_timestamp()) as rate_per_s
         from signaling.lane where $1::text is null or app = $1",
    )
    .persistent(false)
    .bind(app)
    .fetch_all(session)
    .await
}

pub(crate) async fn lanes(session: &mut PgConnection) -> Result<Vec<AppLane>, sqlx::Error> {
    let lanes = lane_rows(&mut *session, None).await?;
    let pending: Vec<QueueCountsRow> = sqlx::query_as(
        "select app, queued, scheduled, retrying, sending,
                case when oldest_at is not null
                     then extract(epoch from greatest('0', counted_at - oldest_at))::float8 end as oldest_s,
                extract(epoch from clock_timestamp() - counted_at)::float8 as counted_ago_s
         from signaling.queue_counts cross join signaling.queue_counts_turn",
    )
    .persistent(false)
    .fetch_all(session)
    .await?;

    let mut apps: BTreeMap<String, AppLane> = lanes
        .into_iter()
        .map(|LaneRow { app, lane }| {
            let lane = AppLane {
                app: app.clone(),
                lane: Some(lane),
                pending: Pending::default(),
            };
            (app, lane)
        })
        .collect();
    for row in pending {
        let app = apps.entry(row.app).or_insert_with_key(|app| AppLane {
            app: app.clone(),
            ..AppLane::default()
        });
        app.pending = Pending {
            queued: amount(row.queued),
            scheduled: amount(row.scheduled),
            retrying: amount(row.retrying),
            sending: amount(row.sending),
            oldest_s: row.oldest_s,
            counted_ago_s: row.counted_ago_s,
        };
    }
    Ok(apps.into_values().collect())
}

#[cfg(test)]
impl LaneStatus {
    /// A lane to which nothing has happened yet.
    pub(crate) fn sending() -> Self {
        Self {
            configured_per_s: 500.0,
            limit_per_s: 500.0,
            rate_per_s: 490.2,
            told_to_wait: false,
            limit_set_by: None,
            next_slot_at: DbTime::from_micros(0),
            throttled_at: None,
            paused_at: None,
            paused_by: None,
            pause_reason: None,
            hold: None,
            hold_reason: None,
            hold_since: None,
            hold_until: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_is_what_people_can_do_most_about() {
        let lane = LaneStatus::sending();
        assert_eq!(lane.state(), LaneState::Sending);
        let lane = LaneStatus {
            rate_per_s: 400.0,
            ..lane
        };
        assert_eq!(lane.state(), LaneState::Slowed);
        let lane = LaneStatus {
            told_to_wait: true,
            ..lane
        };
        assert_eq!(lane.state(), LaneState::Waiting);
        let lane = LaneStatus {
            hold: Some("unavailable".into()),
            ..lane
        };
        assert_eq!(lane.state(), LaneState::Unavailable);
        let lane = LaneStatus {
            hold: Some("unauthorized".into()),
            ..lane
        };
        assert_eq!(lane.state(), LaneState::Unauthorized);
        let lane = LaneStatus {
            paused_at: Some(lane.next_slot_at),
            ..lane
        };
        assert_eq!(lane.state(), LaneState::Paused);
    }
}
