//! The lane's row: the app's budget, and whether the app is held.

use std::time::Duration;

use sqlx::FromRow;
use time::OffsetDateTime;

use super::claim::micros;
use super::{Hold, Outbox, timed};
use crate::pace::clock::ClockReading;
use crate::pace::{DbTime, slot_rate};

/// Why a lane is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldKind {
    /// The API refuses the app's credentials.
    Parked,
    /// The API can't be reached, or answers with errors.
    Broken,
}

impl HoldKind {
    /// The value of the column `hold`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Parked => "parked",
            Self::Broken => "broken",
        }
    }

    pub(super) fn from_column(value: &str) -> Self {
        if value == "broken" {
            Self::Broken
        } else {
            Self::Parked
        }
    }
}

/// The first pause of a hold; each probe that fails doubles it.
const HOLD_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause of a hold.
const HOLD_PAUSE_CAP: Duration = Duration::from_secs(10);

/// A look at a lane that takes nothing and writes nothing.
#[derive(Debug)]
pub struct Peek {
    /// The database's time of the look.
    pub at: DbTime,
    /// When the app's next row is due; in the past if it is.
    pub next_due_at: Option<DbTime>,
    /// Whether the lane is held.
    pub hold: Option<Hold>,
}

#[derive(FromRow)]
struct PeekRow {
    at: OffsetDateTime,
    next_due_at: Option<OffsetDateTime>,
    hold: Option<String>,
    hold_until: Option<OffsetDateTime>,
}

impl Outbox {
    /// Makes sure that the app has a lane, and that its limit is the configured one.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn open_lane(&self, app: &str, limit_per_s: f64) -> Result<(), sqlx::Error> {
        let mut session = self.session().await?;
        sqlx::query(
            "insert into signaling.lane (app, limit_per_s, rate_per_s) values ($1, $2, $3)
             on conflict (app) do update
             set limit_per_s = excluded.limit_per_s, rate_per_s = excluded.rate_per_s
             where lane.limit_per_s is distinct from excluded.limit_per_s",
        )
        .persistent(false)
        .bind(app)
        .bind(limit_per_s)
        .bind(slot_rate(limit_per_s))
        .execute(&mut *session)
        .await?;
        session.finish().await
    }

    /// Looks whether an app has something due, and when. Reads only.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn peek(&self, app: &str) -> Result<Peek, sqlx::Error> {
        let (row, asked, answered) = timed(async {
            let mut session = self.session().await?;
            let row: PeekRow = sqlx::query_as(
                "select clock_timestamp() as at, lane.hold, lane.hold_until,
                        (select due_at from signaling.outbox
                         where outbox.app = $1 and status = 'pending' order by due_at limit 1) as next_due_at
                 from signaling.lane where lane.app = $1",
            )
            .persistent(session.keeps_statements())
            .bind(app)
            .fetch_one(&mut *session)
            .await?;
            session.finish().await?;
            Ok::<_, sqlx::Error>(row)
        })
        .await?;
        let at = DbTime::from(row.at);
        self.clock().observe(ClockReading {
            asked,
            answered,
            shown: at,
        });
        Ok(Peek {
            at,
            next_due_at: row.next_due_at.map(DbTime::from),
            hold: row.hold.zip(row.hold_until).map(|(kind, until)| Hold {
                kind: HoldKind::from_column(&kind),
                until: until.into(),
            }),
        })
    }

    /// Ends an app's rows whose time is over while nobody claims them: they wait for a later time, or in a lane
    /// that is held. Returns how many.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn expire(&self, app: &str) -> Result<u64, sqlx::Error> {
        let mut session = self.session().await?;
        let ended = sqlx::query(
            "update signaling.outbox
             set status = case when claim_id is not null and at_most_once then 'unknown' else 'expired' end,
                 finished_at = clock_timestamp(),
                 error = case when claim_id is not null
                              then 'the worker that had this message ended without a record: whether it was called is not known'
                              else coalesce(error, 'not sent before its expires_at') end
             where id = any (array(
                 select id from signaling.outbox
                 where app = $1 and status = 'pending' and expires_at <= clock_timestamp()
                   and (claim_id is null or due_at <= clock_timestamp())
                 order by expires_at limit 1000
                 for no key update skip locked))",
        )
        .persistent(session.keeps_statements())
        .bind(app)
        .execute(&mut *session)
        .await?
        .rows_affected();
        session.finish().await?;
        Ok(ended)
    }

    /// Holds an app's lane for all workers, and says whether that is news. `probe` tells a failed probe, which makes the
    /// pause longer, from one of the many calls that fail together at first.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn hold(
        &self,
        app: &str,
        kind: HoldKind,
        reason: &str,
        probe: bool,
    ) -> Result<bool, sqlx::Error> {
        let mut session = self.session().await?;
        let began: Option<bool> = sqlx::query_scalar(
            "update signaling.lane
             set hold = $2, hold_reason = $3,
                 hold_since = coalesce(hold_since, clock_timestamp()),
                 hold_until = clock_timestamp()
                     + least($5::bigint * power(2, least(hold_probes, 20)), $6) * interval '1 microsecond',
                 hold_probes = hold_probes + 1
             where app = $1 and (hold is null or $4::boolean)
             returning hold_probes = 1",
        )
        .persistent(session.keeps_statements())
        .bind(app)
        .bind(kind.as_str())
        .bind(reason)
        .bind(probe)
        .bind(micros(HOLD_PAUSE))
        .bind(micros(HOLD_PAUSE_CAP))
        .fetch_optional(&mut *session)
        .await?;
        session.finish().await?;
        Ok(began.unwrap_or(false))
    }

    /// Lets an app's lane go on for all workers, and wakes them. Says whether it was held.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn release(&self, app: &str) -> Result<bool, sqlx::Error> {
        let mut session = self.session().await?;
        let released = sqlx::query(
            "with released as (
                 update signaling.lane
                 set hold = null, hold_reason = null, hold_since = null, hold_until = null, hold_probes = 0
                 where app = $1 and hold is not null
                 returning app)
             select pg_notify('signaling_bell', app) from released",
        )
        .persistent(session.keeps_statements())
        .bind(app)
        .fetch_optional(&mut *session)
        .await?;
        session.finish().await?;
        Ok(released.is_some())
    }
}
