//! The lane's row: the app's budget, and whether the app is held.

use std::time::Duration;

use sqlx::FromRow;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::outbox::micros;
use crate::outbox::pool::statement::Statement;
use crate::outbox::queue::claim::{ScanPosition, or_never};
use crate::outbox::{Ended, Hold, Outbox, timed};
use crate::pace::clock::ClockReading;
use crate::pace::{DbTime, HORIZON};

/// Why a lane is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HoldKind {
    /// The API refuses the app's credentials.
    Unauthorized,
    /// The API can't be reached, or answers with errors.
    Unavailable,
    /// A person has paused the app.
    Paused,
}

impl HoldKind {
    /// The value of the column `hold`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Unauthorized => "unauthorized",
            Self::Unavailable => "unavailable",
            Self::Paused => "paused",
        }
    }

    /// The value of the column `hold`, whose words are older than these.
    fn column(self) -> &'static str {
        match self {
            Self::Unauthorized => "parked",
            Self::Unavailable => "broken",
            Self::Paused => "paused",
        }
    }

    pub(crate) fn from_column(value: &str) -> Self {
        match value {
            "broken" => Self::Unavailable,
            "paused" => Self::Paused,
            _ => Self::Unauthorized,
        }
    }
}

/// The first pause of a hold; each probe that fails doubles it.
const HOLD_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause of a hold.
const HOLD_PAUSE_CAP: Duration = Duration::from_secs(4);

/// Calls that started so soon after a cut belong to the burst that caused it: their slots were given out before it.
const BURST: Duration = Duration::from_millis(200);

/// A look at a lane that takes nothing and writes nothing.
#[derive(Debug)]
pub(crate) struct NextDue {
    /// The database's time of the look.
    pub(crate) at: DbTime,
    /// The app's next row that was never claimed: when it is due, in the past if it is, and its id.
    pub(crate) fresh: Option<(DbTime, i64)>,
    /// When the next one of the others is due, as far as that is within `next_poll_in`.
    pub(crate) again_due_at: Option<DbTime>,
    /// Whether the lane is held.
    pub(crate) hold: Option<Hold>,
}

impl NextDue {
    /// When the app's next row is due; in the past if it is.
    pub(crate) fn next_due_at(&self) -> Option<DbTime> {
        let fresh_due_at = self.fresh.map(|(due_at, _)| due_at);
        fresh_due_at.into_iter().chain(self.again_due_at).min()
    }
}

#[derive(FromRow)]
struct NextDueRow {
    at: OffsetDateTime,
    fresh_due_at: Option<OffsetDateTime>,
    fresh_id: Option<i64>,
    again_due_at: Option<OffsetDateTime>,
    hold: Option<String>,
    hold_until: Option<OffsetDateTime>,
}

impl Outbox {
    /// Makes sure that the app has a lane, and that its limit is the configured one, unless a person has set another.
    ///
    /// # Errors
    /// Where the database fails.
    pub(crate) async fn open_lane(&self, app: &str, limit_per_s: f64) -> Result<(), sqlx::Error> {
        self.pool()
            .run(Statement::Lane, async |session| {
                sqlx::query(
                    "with opened as (
                         insert into signaling.lane (app, limit_per_s, configured_per_s, rate_per_s)
                         values ($1, $2, $2, signaling.slot_rate($2))
                         on conflict (app) do update set configured_per_s = excluded.configured_per_s
                         where lane.configured_per_s is distinct from excluded.configured_per_s
                         returning app)
                     select app from opened",
                )
                .persistent(false)
                .bind(app)
                .bind(limit_per_s)
                .execute(&mut **session)
                .await?;
                // A statement of its own, so that it sees the configured limit that was just written.
                sqlx::query(
                    "select signaling.set_limit(app, null) from signaling.lane
                     where app = $1 and limit_set_by is null and limit_per_s is distinct from configured_per_s",
                )
                .persistent(false)
                .bind(app)
                .execute(&mut **session)
                .await?;
                Ok(())
            })
            .await
    }

    /// Looks whether an app has something due, and when. Reads only.
    ///
    /// # Errors
    /// Where the database fails.
    pub(crate) async fn next_due(
        &self,
        app: &str,
        start: ScanPosition,
        next_poll_in: Duration,
    ) -> Result<NextDue, sqlx::Error> {
        let (fresh_after, fresh_after_id, again_after) = start.columns();
        let (row, asked, answered) = self
            .pool()
            .run(Statement::NextDue, async |session| {
                let statement = sqlx::query_as(
                    "select clock_timestamp() as at,
                            case when paused_at is not null then 'paused' else hold end as hold,
                            case when paused_at is not null then clock_timestamp() + interval '1 hour'
                                 else greatest(hold_until, next_slot_at - $2::bigint * interval '1 microsecond')
                            end as hold_until,
                            fresh.due_at as fresh_due_at, fresh.id as fresh_id,
                            (select due_at from signaling.outbox
                             where outbox.app = $1 and status = 'pending'
                               and (sent_at is not null or claim_id is not null)
                               and due_at > coalesce($5::timestamptz, '-infinity')
                               and due_at <= (select clock_timestamp()) + $6::bigint * interval '1 microsecond'
                             order by due_at limit 1) as again_due_at
                     from (select * from signaling.lane where app collate \"C\" = $1
                           order by generation desc limit 1) as lane
                     left join lateral (
                         select due_at, id from signaling.outbox
                         where outbox.app = $1 and status = 'pending' and sent_at is null and claim_id is null
                           and (due_at, id) > (coalesce($3::timestamptz, '-infinity'), $4::bigint)
                         order by due_at, id limit 1) as fresh on true",
                )
                .persistent(session.caches_statements())
                .bind(app)
                .bind(micros(HORIZON))
                .bind(fresh_after)
                .bind(fresh_after_id)
                .bind(again_after)
                .bind(micros(next_poll_in))
                .fetch_one(&mut **session);
                let timed: (NextDueRow, _, _) = timed(statement).await?;
                Ok(timed)
            })
            .await?;
        let at = DbTime::from(row.at);
        self.clock().observe(ClockReading {
            asked,
            answered,
            shown: at,
        });
        Ok(NextDue {
            at,
            fresh: row.fresh_due_at.map(DbTime::from).zip(row.fresh_id),
            again_due_at: row.again_due_at.map(DbTime::from),
            hold: row.hold.zip(row.hold_until).map(|(kind, until)| Hold {
                kind: HoldKind::from_column(&kind),
                until: until.into(),
            }),
        })
    }

    /// Ends an app's rows whose time is over while nobody claims them: they wait for a later time, or in a lane
    /// that is held. Returns how many, and how.
    ///
    /// # Errors
    /// Where the database fails.
    pub(crate) async fn expire(
        &self,
        app: &str,
        lost_before: Option<DbTime>,
    ) -> Result<Ended, sqlx::Error> {
        let (expired, unknown) = self
            .pool()
            .run(Statement::Expire, async |session| {
                sqlx::query_as(include_str!("expire.sql"))
                    .persistent(session.caches_statements())
                    .bind(app)
                    .bind(or_never(lost_before))
                    .fetch_one(&mut **session)
                    .await
            })
            .await?;
        Ok(Ended::from_columns(expired, unknown))
    }

    /// Holds an app's lane for all workers, and says whether that is news. A failed probe makes the pause longer; the
    /// many calls that fail together at first do not. What a probe says counts only while it is the lane's probe.
    ///
    /// # Errors
    /// Where the database fails.
    pub(crate) async fn hold(
        &self,
        app: &str,
        kind: HoldKind,
        reason: &str,
        probe: Option<Uuid>,
    ) -> Result<bool, sqlx::Error> {
        let began: Option<bool> = self
            .pool()
            .run(Statement::Lane, async |session| {
                sqlx::query_scalar(
                    "update signaling.lane
                     set hold = $2, hold_reason = $3,
                         hold_since = coalesce(hold_since, clock_timestamp()),
                         hold_until = clock_timestamp()
                             + least($5::bigint * power(2, least(hold_probes, 20)), $6) * interval '1 microsecond',
                         hold_probes = hold_probes + 1,
                         probe_claim_id = null
                     where app = $1
                       and case when $4::uuid is null then hold is null else probe_claim_id = $4 end
                     returning hold_probes = 1",
                )
                .persistent(session.caches_statements())
                .bind(app)
                .bind(kind.column())
                .bind(reason)
                .bind(probe)
                .bind(micros(HOLD_PAUSE))
                .bind(micros(HOLD_PAUSE_CAP))
                .fetch_optional(&mut **session)
                .await
            })
            .await?;
        Ok(began.unwrap_or(false))
    }

    /// Lets an app's lane go on for all workers after its probe went well, and wakes them. Says whether it did.
    ///
    /// # Errors
    /// Where the database fails.
    pub(crate) async fn release_hold(&self, app: &str, probe: Uuid) -> Result<bool, sqlx::Error> {
        self.pool()
            .run(Statement::Lane, async |session| {
                let released = sqlx::query(
                    "with released as (
                         update signaling.lane
                         set hold = null, hold_reason = null, hold_since = null, hold_until = null, hold_probes = 0,
                             probe_claim_id = null
                         where app = $1 and probe_claim_id = $2
                         returning app)
                     select pg_notify('signaling_bell', app) from released",
                )
                .persistent(session.caches_statements())
                .bind(app)
                .bind(probe)
                .fetch_optional(&mut **session)
                .await?;
                Ok(released.is_some())
            })
            .await
    }

    /// Ends a probe that made no call: another message may probe at once.
    ///
    /// # Errors
    /// Where the database fails.
    pub(crate) async fn release_probe(&self, app: &str, probe: Uuid) -> Result<(), sqlx::Error> {
        self.pool()
            .run(Statement::Release, async |session| {
                sqlx::query(
                    "update signaling.lane set hold_until = clock_timestamp(), probe_claim_id = null
                     where app = $1 and probe_claim_id = $2",
                )
                .persistent(session.caches_statements())
                .bind(app)
                .bind(probe)
                .execute(&mut **session)
                .await?;
                Ok(())
            })
            .await
    }

    /// Slows an app's lane for all workers after a 429: cuts the rate, once for a burst of them, and gives out no slot
    /// before the time that the API asks for. Returns the rate if it was cut.
    ///
    /// # Errors
    /// Where the database fails.
    pub(crate) async fn throttle(
        &self,
        app: &str,
        sent_at: DbTime,
        retry_after: Duration,
    ) -> Result<Option<f64>, sqlx::Error> {
        let rate: Option<Option<f64>> = self
            .pool()
            .run(Statement::Lane, async |session| {
                sqlx::query_scalar(include_str!("throttle.sql"))
                    .persistent(session.caches_statements())
                    .bind(app)
                    .bind(OffsetDateTime::from(sent_at))
                    .bind(micros(retry_after))
                    .bind(micros(BURST))
                    .fetch_optional(&mut **session)
                    .await
            })
            .await?;
        Ok(rate.flatten())
    }
}
