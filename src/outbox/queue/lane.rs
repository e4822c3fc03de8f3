//! The lane's row: the budget of an app, and whether the app is held.

use std::collections::HashMap;
use std::time::Duration;

use sqlx::FromRow;
use uuid::Uuid;

use crate::outbox::pool::statement::Statement;
use crate::outbox::pool::{AdaptiveTimeout, Call};
use crate::outbox::queue::claim::ScanPosition;
use crate::outbox::{Ended, Hold, Outbox, interval};
use crate::pace::{DbTime, HORIZON};

/// Why a lane is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum HoldKind {
    /// The API refuses the app's credentials.
    Unauthorized,
    /// The API can't be reached, or answers with errors.
    Unavailable,
    /// A person has paused the app.
    Paused,
    /// The app belongs to another environment than the worker.
    OtherEnvironment,
}

impl HoldKind {
    /// The value of the column `hold`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Unauthorized => "unauthorized",
            Self::Unavailable => "unavailable",
            Self::Paused => "paused",
            Self::OtherEnvironment => "other_environment",
        }
    }

    pub(crate) fn from_column(value: &str) -> Self {
        match value {
            "unavailable" => Self::Unavailable,
            "paused" => Self::Paused,
            "other_environment" => Self::OtherEnvironment,
            _ => Self::Unauthorized,
        }
    }
}

/// The result of a wish to hold a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HoldResult {
    Held,
    /// The lane was held before, and the next probe is later.
    Extended,
    /// Another worker has held the lane or has the probe.
    Other,
    /// The last hold has just ended.
    TooSoon,
}

/// The result of [`Outbox::open_lane`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LaneOpening {
    /// The lane was there.
    Open,
    Made,
    /// The lane belonged to no environment, and belongs to the worker's from now on.
    Named,
    /// The lane belongs to another environment than the worker, with so many pending messages.
    Refused {
        environment: Option<String>,
        pending: u64,
    },
}

#[derive(FromRow)]
struct LaneOpeningRow {
    result: String,
    lane_environment: Option<String>,
    pending: Option<i64>,
}

/// Which lane to look at, and from where.
#[derive(Debug)]
pub(crate) struct Look<'a> {
    pub(crate) app: &'a str,
    pub(crate) position: ScanPosition,
}

/// When the next messages of an app are due.
#[derive(Debug, Clone)]
pub(crate) struct NextDue {
    /// The database's time of the look.
    pub(crate) at: DbTime,
    /// The due time and the id of the next first attempt; in the past if it is due.
    pub(crate) first: Option<(DbTime, i64)>,
    /// The same of the next retry, as far as that is due within the poll interval.
    pub(crate) retry: Option<(DbTime, i64)>,
    /// Whether the lane is held.
    pub(crate) hold: Option<Hold>,
}

impl NextDue {
    /// When the app's next message is due; in the past if it is.
    pub(crate) fn due_at(&self) -> Option<DbTime> {
        let both = self.first.into_iter().chain(self.retry);
        both.map(|(due_at, _)| due_at).min()
    }
}

#[derive(FromRow)]
struct NextDueRow {
    app: String,
    at: DbTime,
    hold: Option<String>,
    hold_until: Option<DbTime>,
    first_due_at: Option<DbTime>,
    first_id: Option<i64>,
    retry_due_at: Option<DbTime>,
    retry_id: Option<i64>,
}

#[derive(FromRow)]
struct ExpiredRow {
    app: String,
    expired: i32,
    unknown: i32,
    refused: i32,
}

/// Messages of an app whose time was over.
#[derive(Debug)]
pub(crate) struct Expired {
    pub(crate) app: String,
    pub(crate) ended: Ended,
    /// Messages that a trigger or a constraint of the database keeps from being ended.
    pub(crate) refused: usize,
}

impl Outbox {
    /// Makes sure that the app has a lane of the worker's environment, and that its limit is the configured one, unless an
    /// operator has set another. `is_missing`: the lane existed, and its row was deleted.
    ///
    /// # Errors
    /// Where the database fails.
    pub(crate) async fn open_lane(
        &self,
        app: &str,
        limit_per_s: f64,
        environment: Option<&str>,
        is_missing: bool,
    ) -> Result<LaneOpening, sqlx::Error> {
        let call = Call::new("open_lane")
            .with("app", app)
            .with("limit_per_s", limit_per_s)
            .with("environment", environment.map(str::to_owned))
            .with("is_missing", is_missing);
        let answer = self.pool().call(Statement::Lane, call).await?;
        let row: LaneOpeningRow = answer.decode()?.pop().ok_or(sqlx::Error::RowNotFound)?;
        Ok(match row.result.as_str() {
            "made" => LaneOpening::Made,
            "named" => LaneOpening::Named,
            "refused" => LaneOpening::Refused {
                environment: row.lane_environment,
                pending: u64::try_from(row.pending.unwrap_or(0)).unwrap_or(0),
            },
            _ => LaneOpening::Open,
        })
    }

    /// Looks when the next messages of some apps are due. Takes nothing. With `renews_wakeup`, inserts that notify their
    /// workers go on to for another minute.
    ///
    /// # Errors
    /// Where the database fails.
    pub(crate) async fn next_due(
        &self,
        looks: &[Look<'_>],
        poll_interval: Duration,
        renews_wakeup: bool,
        environment: Option<&str>,
    ) -> Result<HashMap<String, NextDue>, sqlx::Error> {
        fn column<T>(looks: &[Look<'_>], value: impl Fn(ScanPosition) -> T) -> Vec<T> {
            looks.iter().map(|look| value(look.position)).collect()
        }
        let apps: Vec<&str> = looks.iter().map(|look| look.app).collect();
        let call = Call::new("next_due")
            .with("apps", apps)
            .with("first_after_at", column(looks, |from| from.first.0))
            .with("first_after_id", column(looks, |from| from.first.1))
            .with("retry_after_at", column(looks, |from| from.retry.0))
            .with("retry_after_id", column(looks, |from| from.retry.1))
            .with("horizon", interval(HORIZON))
            .with("poll_interval", interval(poll_interval))
            .with("renews_wakeup", renews_wakeup)
            .with("environment", environment.map(str::to_owned));
        let answer = self.pool().call(Statement::NextDue, call).await?;
        let rows: Vec<NextDueRow> = answer.decode()?;
        if let Some(row) = rows.first() {
            self.clock().observe(answer.clock_reading(row.at));
        }
        Ok(rows.into_iter().map(NextDueRow::of_app).collect())
    }

    /// Ends messages of some apps whose time is over while no worker claims them. With `isolates`, finds a message that a
    /// function of the application keeps waiting, and passes over it from then on.
    ///
    /// # Errors
    /// Where the database fails.
    pub(crate) async fn expire(
        &self,
        apps: &[&str],
        over_before: Option<DbTime>,
        timeout: &AdaptiveTimeout,
        isolates: bool,
    ) -> Result<Vec<Expired>, sqlx::Error> {
        let call = Call::new("expire")
            .with("apps", apps.to_vec())
            .with("over_before", over_before.unwrap_or(DbTime::INFINITY))
            .with("isolates", isolates);
        let deadline = timeout.deadline(isolates);
        let answer = self
            .pool()
            .call_within(Statement::Expire, deadline, call)
            .await;
        timeout.observe(&answer);
        let rows: Vec<ExpiredRow> = answer?.decode()?;
        Ok(rows
            .into_iter()
            .map(|row| Expired {
                app: row.app,
                ended: Ended::from_columns(row.expired, row.unknown, 0),
                refused: usize::try_from(row.refused).unwrap_or(0),
            })
            .collect())
    }

    /// Holds an app's lane for all workers, and says whether that is news. The outcome of a probe counts only while it
    /// is the lane's probe.
    ///
    /// # Errors
    /// Where the database fails.
    pub(crate) async fn hold(
        &self,
        app: &str,
        kind: HoldKind,
        reason: &str,
        probe: Option<Uuid>,
    ) -> Result<HoldResult, sqlx::Error> {
        let call = Call::new("hold")
            .with("app", app)
            .with("kind", kind.as_str())
            .with("reason", reason)
            .with("probe", probe);
        let answer = self.pool().call(Statement::Lane, call).await?;
        let result: Option<String> = answer.value()?;
        Ok(match result.as_deref() {
            Some("held") => HoldResult::Held,
            Some("extended") => HoldResult::Extended,
            Some("too_soon") => HoldResult::TooSoon,
            _ => HoldResult::Other,
        })
    }

    /// Ends the hold of an app's lane for all workers after its probe went well, and wakes them. Says whether it did.
    ///
    /// # Errors
    /// Where the database fails.
    pub(crate) async fn release_hold(&self, app: &str, probe: Uuid) -> Result<bool, sqlx::Error> {
        let call = Call::new("release_hold")
            .with("app", app)
            .with("probe", probe);
        let answer = self.pool().call(Statement::Lane, call).await?;
        Ok(answer.value()?.unwrap_or(false))
    }

    /// Slows an app's lane for all workers after a 429. Returns the rate if it was cut.
    ///
    /// # Errors
    /// Where the database fails.
    pub(crate) async fn throttle(
        &self,
        app: &str,
        sent_at: DbTime,
        retry_after: Duration,
    ) -> Result<Option<f64>, sqlx::Error> {
        let call = Call::new("throttle")
            .with("app", app)
            .with("sent_at", sent_at)
            .with("retry_after", interval(retry_after));
        self.pool().call(Statement::Lane, call).await?.value()
    }
}

impl NextDueRow {
    fn of_app(self) -> (String, NextDue) {
        let next_due = NextDue {
            at: self.at,
            first: self.first_due_at.zip(self.first_id),
            retry: self.retry_due_at.zip(self.retry_id),
            hold: Hold::from_columns(self.hold.as_deref(), self.hold_until),
        };
        (self.app, next_due)
    }
}
