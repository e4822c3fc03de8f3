//! The lane's row: an app's budget and its hold. Also the operations on messages that belong to no claim of this worker.

use std::collections::HashMap;
use std::time::Duration;

use serde::Deserialize;
use sqlx::types::Json;
use sqlx::{FromRow, Row};
use strum::IntoStaticStr;
use uuid::Uuid;

use super::claim::ScanPosition;
use crate::outbox::pool::AdaptiveTimeout;
use crate::outbox::{Ended, Hold, Outbox};
use crate::pace::{DbTime, HORIZON};

/// Why a lane gives out no slots, or only those of probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(const_into_str, serialize_all = "snake_case")]
pub(crate) enum HoldKind {
    Unauthorized,
    Unavailable,
    Paused,
    OtherEnvironment,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LaneOpening {
    Open,
    /// The lane belonged to no environment, and belongs to the worker's from now on.
    Named,
    Refused {
        environment: Option<String>,
        pending: u64,
    },
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct NextDue {
    pub(crate) at: DbTime,
    /// The due time and the id of the next first attempt. The due time may have passed.
    pub(crate) first: Option<(DbTime, i64)>,
    /// The same of the next retry, if that is due within two poll intervals.
    pub(crate) retry: Option<(DbTime, i64)>,
    pub(crate) hold: Option<Hold>,
}

impl NextDue {
    pub(crate) fn due_at(&self) -> Option<DbTime> {
        let both = self.first.into_iter().chain(self.retry);
        both.map(|(due_at, _)| due_at).min()
    }
}

/// Messages of an app that expired while no worker claimed them.
#[derive(Debug, FromRow)]
pub(crate) struct Expired {
    pub(crate) app: String,
    #[sqlx(flatten)]
    pub(crate) ended: Ended,
    #[sqlx(try_from = "i32")]
    pub(crate) refused: usize,
}

impl Outbox {
    /// Makes the app's lane if there is none. `is_missing`: the lane existed, and its row was deleted.
    pub(crate) async fn open_lane(
        &self,
        app: &str,
        limit_per_s: f64,
        environment: Option<&str>,
        is_missing: bool,
    ) -> Result<LaneOpening, sqlx::Error> {
        let call = call!(
            open_lane,
            app = app,
            limit_per_s = limit_per_s,
            environment = environment,
            is_missing = is_missing,
        );
        let answer = self.pool.call(call).await?;
        let row = answer.rows.first().ok_or(sqlx::Error::RowNotFound)?;
        Ok(match row.try_get("result")? {
            "named" => LaneOpening::Named,
            "refused" => LaneOpening::Refused {
                environment: row.try_get("lane_environment")?,
                pending: row.try_get::<i64, _>("pending")?.unsigned_abs(),
            },
            _ => LaneOpening::Open,
        })
    }

    /// Returns when the next messages of some apps are due, by app. With `renews_wakeup`, inserts that notify this worker do
    /// so for another minute.
    pub(crate) async fn next_due(
        &self,
        lanes: &[(&str, ScanPosition)],
        poll_interval: Duration,
        renews_wakeup: bool,
        environment: Option<&str>,
    ) -> Result<HashMap<String, NextDue>, sqlx::Error> {
        let (apps, positions): (Vec<&str>, Vec<ScanPosition>) = lanes.iter().copied().unzip();
        let (first_at, first_id): (Vec<_>, Vec<_>) = positions.iter().map(|at| at[0]).unzip();
        let (retry_at, retry_id): (Vec<_>, Vec<_>) = positions.iter().map(|at| at[1]).unzip();
        let call = call!(
            next_due,
            apps = apps,
            first_after_at = first_at,
            first_after_id = first_id,
            retry_after_at = retry_at,
            retry_after_id = retry_id,
            horizon = HORIZON,
            poll_interval = poll_interval,
            renews_wakeup = renews_wakeup,
            environment = environment,
        );
        let answer = self.pool.call(call).await?;
        let rows: Vec<(String, Json<NextDue>)> = answer.decode()?;
        if let Some((_, next_due)) = rows.first() {
            self.clock().observe(answer.clock_reading(next_due.at));
        }
        Ok(rows.into_iter().map(|(app, due)| (app, due.0)).collect())
    }

    /// Ends expired messages of some apps that no worker claims. With `one_by_one`, also finds a message that a function of
    /// the application keeps waiting, and passes over it from then on.
    pub(crate) async fn expire(
        &self,
        apps: &[&str],
        ended_before: Option<DbTime>,
        timeout: &AdaptiveTimeout,
        one_by_one: bool,
    ) -> Result<Vec<Expired>, sqlx::Error> {
        let call = call!(
            expire,
            apps = apps.to_vec(),
            ended_before = ended_before.unwrap_or(DbTime::INFINITY),
            one_by_one = one_by_one,
        );
        let answer = self.pool.call_adaptively(timeout, one_by_one, call);
        answer.await?.decode()
    }

    /// Holds an app's lane, fleet-wide. The failure of a probe counts only while `probe` is the lane's probe. False if the
    /// last hold ended less than ten seconds ago.
    pub(crate) async fn hold(
        &self,
        app: &str,
        kind: HoldKind,
        reason: &str,
        probe: Option<Uuid>,
    ) -> Result<bool, sqlx::Error> {
        let kind = kind.into_str();
        let call = call!(hold, app = app, kind = kind, reason = reason, probe = probe);
        let result: Option<String> = self.pool.call(call).await?.value()?;
        Ok(result.as_deref() != Some("too_soon"))
    }

    /// Ends the hold of an app's lane, fleet-wide, after the API accepted, rejected or throttled its probe. False if
    /// `probe` is not the lane's probe.
    pub(crate) async fn release_hold(&self, app: &str, probe: Uuid) -> Result<bool, sqlx::Error> {
        let call = call!(release_hold, app = app, probe = probe);
        let answer = self.pool.call(call).await?;
        Ok(answer.value()?.unwrap_or(false))
    }

    /// Cuts the rate of an app's lane, fleet-wide, after a 429. Returns the new rate, or none if this 429 cut nothing.
    pub(crate) async fn throttle(
        &self,
        app: &str,
        sent_at: DbTime,
        retry_after: Duration,
    ) -> Result<Option<f64>, sqlx::Error> {
        let call = call!(
            throttle,
            app = app,
            sent_at = sent_at,
            retry_after = retry_after
        );
        self.pool.call(call).await?.value()
    }

    /// Releases claims whose answers never came, and the probe of a held lane that made no attempt. Returns the claims that
    /// had messages.
    pub(crate) async fn release(
        &self,
        app: &str,
        claim_ids: &[Uuid],
    ) -> Result<Vec<Uuid>, sqlx::Error> {
        let call = call!(release, app = app, claim_ids = claim_ids.to_vec());
        let answer = self.pool.call(call).await?;
        answer.rows.iter().map(|row| row.try_get(0)).collect()
    }

    /// Corrects the due times of an app's messages after the database's clock was set back. Without this, the messages would
    /// wait longer by the length of the step. Returns the number of changed messages. After an error, earlier changes stay.
    pub(crate) async fn set_messages_back(
        &self,
        app: &str,
        lease: Duration,
    ) -> Result<u64, sqlx::Error> {
        let mut changed = 0;
        for of_retries in [false, true] {
            let mut next = Some((DbTime::BEGINNING, 0));
            while let Some((after_at, after_id)) = next {
                let call = call!(
                    set_messages_back,
                    app = app,
                    lease = lease,
                    of_retries = of_retries,
                    after_at = after_at,
                    after_id = after_id,
                );
                let answer = self.pool.call(call).await?;
                let (messages, at, id): (i32, Option<DbTime>, Option<i64>) =
                    answer.decode()?.pop().ok_or(sqlx::Error::RowNotFound)?;
                changed += u64::from(messages.unsigned_abs());
                next = at.zip(id);
            }
        }
        Ok(changed)
    }
}
