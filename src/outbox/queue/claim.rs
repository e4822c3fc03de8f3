//! The claim: due rows, each with a slot, in one statement.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::error::BoxDynError;
use sqlx::postgres::{PgTypeInfo, PgValueRef};
use sqlx::{Decode, FromRow, Postgres, Type};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::error_text::database_error_text;
use crate::message::{InvalidMessage, Message, Payload, Target, UserId};
use crate::outbox::pool::AdaptiveTimeout;
use crate::outbox::pool::statement::Statement;
use crate::outbox::{HoldKind, Outbox, may_have_taken_effect, micros, timed};
use crate::outcome::DeliveryPolicy;
use crate::pace::clock::ClockReading;
use crate::pace::{DbTime, HORIZON};

/// What a worker asks for.
#[derive(Debug)]
pub(crate) struct ClaimRequest<'a> {
    pub(crate) app: &'a str,
    /// From where on to look for rows.
    pub(crate) start: ScanPosition,
    /// The claim's name, fresh for each.
    pub(crate) claim_id: Uuid,
    pub(crate) rows: usize,
    /// How far ahead of the claim the first slot has to be.
    pub(crate) lookahead: Duration,
    /// For how long to have them.
    pub(crate) lease: Duration,
    /// Who takes them, for people.
    pub(crate) claimed_by: &'a str,
    /// Before when a lease must have ended for its row to count as lost; none if any will do.
    pub(crate) lost_before: Option<DbTime>,
    /// How long this lane waits for a claim.
    pub(crate) timeout: &'a AdaptiveTimeout,
    /// How soon this lane looks again in any case.
    pub(crate) next_poll_in: Duration,
    /// Whether this worker hears the bell, and so wants it rung while there is nothing to take.
    pub(crate) bell: bool,
}

/// A claim that has failed.
#[derive(Debug, thiserror::Error)]
#[error("the claim failed: {}", database_error_text(.source))]
pub(crate) struct ClaimError {
    pub(crate) source: sqlx::Error,
    /// The database may have carried it out: then its rows are nobody's until the lease ends, or they are given back.
    pub(crate) may_have_rows: bool,
}

#[derive(Debug)]
pub(crate) struct Batch {
    /// The rows, in the order of their slots.
    pub(crate) messages: Vec<Claimed>,
    /// How many slots could have been given out.
    pub(crate) slots: usize,
    /// Rows that ended in the claim itself.
    pub(crate) ended: Ended,
    /// The database's time of the claim.
    pub(crate) at: DbTime,
    /// The lane's next free slot.
    pub(crate) next_slot_at: DbTime,
    /// When something is due that was not due at the claim. Of rows that were claimed before, only what is due until
    /// the lane looks again in any case.
    pub(crate) next_due_at: Option<DbTime>,
    /// Why the lane is held, if it is. The rows then are a probe.
    pub(crate) hold: Option<Hold>,
    /// Slots a second at present, where a 429 has slowed the lane.
    pub(crate) slowed_to_per_s: Option<f64>,
    /// The last row, in the order of their times and ids, of those that were never claimed before.
    pub(crate) last_fresh: Option<(DbTime, i64)>,
    /// No other row was due.
    pub(crate) nothing_again: bool,
    /// The bell was switched on by this claim: an insert that is about to be committed may not ring it.
    pub(crate) bell_switched_on: bool,
}

/// From where on rows are looked for that are due. The index still has what was there before while somebody holds an
/// old snapshot: any number of entries that lead to nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ScanPosition {
    /// Rows that were never claimed, after this time and id.
    pub(crate) fresh: Option<(DbTime, i64)>,
    /// The others, after this time.
    pub(crate) again: Option<DbTime>,
}

impl ScanPosition {
    /// From the first row on.
    pub(crate) const BEGINNING: Self = Self {
        fresh: None,
        again: None,
    };

    /// The arguments of the statements.
    pub(crate) fn columns(&self) -> (Option<OffsetDateTime>, i64, Option<OffsetDateTime>) {
        (
            self.fresh.map(|(due_at, _)| due_at.into()),
            self.fresh.map_or(0, |(_, id)| id),
            self.again.map(OffsetDateTime::from),
        )
    }
}

/// Rows that ended without a call of their own, by how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) expired: usize,
    /// Nobody can know whether they were called, and once is all they may be.
    pub(crate) unknown: usize,
}

impl Ended {
    /// From two counts of a statement.
    pub(crate) fn from_columns(expired: i64, unknown: i64) -> Self {
        Self {
            expired: usize::try_from(expired).unwrap_or(0),
            unknown: usize::try_from(unknown).unwrap_or(0),
        }
    }

    pub(crate) fn count(self) -> usize {
        self.expired + self.unknown
    }
}

impl Batch {
    /// True if there may be more to take, as soon as there are slots and room for it.
    pub(crate) fn is_full(&self) -> bool {
        self.slots > 0 && self.messages.len() + self.ended.count() >= self.slots
    }
}

/// A lane that is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hold {
    pub(crate) kind: HoldKind,
    /// When the next probe may be made.
    pub(crate) until: DbTime,
}

/// A row that this process has for the time of a lease.
#[derive(Debug)]
pub(crate) struct Claimed {
    pub(crate) id: i64,
    /// The claim, which its record has to name.
    pub(crate) claim_id: Uuid,
    /// What to send; an error only where the table's constraints have been removed by hand.
    pub(crate) message: Result<Message, InvalidMessage>,
    /// What the row promises and bounds.
    pub(crate) policy: DeliveryPolicy,
    /// When it was due: where it goes back to if it is not sent.
    pub(crate) was_due_at: DbTime,
    /// From when on it may be sent.
    pub(crate) slot_at: DbTime,
    /// For a message that was never called: since when it could have been, that is its insert or, if that is later,
    /// when it was due.
    pub(crate) wanted_at: Option<DbTime>,
    /// The producer's W3C trace context, as it was written.
    pub(crate) traceparent: Option<String>,
    /// When the lease ends, at the earliest: counted from before the claim was asked for.
    pub(crate) lease_ends: Instant,
}

impl Claimed {
    /// The claim as the probe of a lane that is held, if it is that.
    pub(crate) fn probe(&self) -> Option<Uuid> {
        self.policy.probe.then_some(self.claim_id)
    }
}

/// A row of `claim.sql`: what it says of the whole claim, and one message or none.
#[derive(FromRow)]
struct ClaimRow {
    at: OffsetDateTime,
    slots: i64,
    hold: Option<String>,
    hold_until: Option<OffsetDateTime>,
    expired: i64,
    unknown: i64,
    next_slot_at: OffsetDateTime,
    next_due_at: Option<OffsetDateTime>,
    slowed_to_per_s: Option<f64>,
    bell_switched_on: bool,
    last_fresh_due_at: Option<OffsetDateTime>,
    last_fresh_id: Option<i64>,
    nothing_again: bool,
    #[sqlx(flatten)]
    message: MessageRow,
}

#[derive(FromRow)]
struct MessageRow {
    id: Option<i64>,
    sender: Option<String>,
    destination: Option<String>,
    channel_name: Option<String>,
    payload: Option<PayloadText>,
    wait_for_ack: Option<bool>,
    enable_offline_messaging: Option<bool>,
    enable_historical_messaging: Option<bool>,
    attempts: Option<i32>,
    max_attempts: Option<i32>,
    at_most_once: Option<bool>,
    expires_at: Option<OffsetDateTime>,
    was_due_at: Option<OffsetDateTime>,
    slot_at: Option<OffsetDateTime>,
    wanted_at: Option<OffsetDateTime>,
    traceparent: Option<String>,
}

/// A payload as it is kept: up to 32 KB that are not copied twice.
struct PayloadText(Arc<str>);

impl Type<Postgres> for PayloadText {
    fn type_info() -> PgTypeInfo {
        <str as Type<Postgres>>::type_info()
    }

    fn compatible(other: &PgTypeInfo) -> bool {
        <str as Type<Postgres>>::compatible(other)
    }
}

impl<'r> Decode<'r, Postgres> for PayloadText {
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        let text: &str = Decode::<Postgres>::decode(value)?;
        Ok(Self(text.into()))
    }
}

impl Outbox {
    /// Takes due rows of an app, as far as there are slots within the horizon.
    ///
    /// # Errors
    /// Where the database fails, with whether rows may have been taken all the same.
    pub(crate) async fn claim(&self, request: &ClaimRequest<'_>) -> Result<Batch, ClaimError> {
        let claim_id = request.claim_id;
        let mut was_asked = false;
        let result = self
            .pool()
            .run_within(
                Statement::Claim,
                request.timeout.deadline(),
                async |session| {
                    was_asked = true;
                    let (fresh_after, fresh_after_id, again_after) = request.start.columns();
                    let statement = sqlx::query_as(include_str!("claim.sql"))
                        .persistent(session.caches_statements())
                        .bind(request.app)
                        .bind(i64::try_from(request.rows).unwrap_or(i64::MAX))
                        .bind(micros(HORIZON + request.lookahead))
                        .bind(micros(request.lease))
                        .bind(claim_id)
                        .bind(request.claimed_by)
                        .bind(request.bell)
                        .bind(or_never(request.lost_before))
                        .bind(fresh_after)
                        .bind(fresh_after_id)
                        .bind(again_after)
                        .bind(micros(request.lookahead))
                        .bind(micros(request.next_poll_in))
                        .fetch_all(&mut **session);
                    let timed: (Vec<ClaimRow>, _, _) = timed(statement).await?;
                    Ok(timed)
                },
            )
            .await;
        // A claim that finds nothing is quick however slow the database is.
        if !matches!(&result, Ok((rows, ..)) if rows.len() < 2) {
            request.timeout.observe(&result);
        }
        let failed = |source| ClaimError {
            may_have_rows: was_asked && may_have_taken_effect(&source),
            source,
        };
        let (rows, asked, answered) = result.map_err(failed)?;
        let first = rows
            .first()
            .ok_or(sqlx::Error::RowNotFound)
            .map_err(failed)?;
        let at = DbTime::from(first.at);
        self.clock().observe(ClockReading {
            asked,
            answered,
            shown: at,
        });
        let hold = match (&first.hold, first.hold_until) {
            (Some(kind), Some(until)) => Some(Hold {
                kind: HoldKind::from_column(kind),
                until: until.into(),
            }),
            _ => None,
        };
        Ok(Batch {
            at,
            slots: usize::try_from(first.slots).unwrap_or(0),
            ended: Ended::from_columns(first.expired, first.unknown),
            next_slot_at: first.next_slot_at.into(),
            next_due_at: first.next_due_at.map(DbTime::from),
            slowed_to_per_s: first.slowed_to_per_s,
            bell_switched_on: first.bell_switched_on,
            last_fresh: first
                .last_fresh_due_at
                .map(DbTime::from)
                .zip(first.last_fresh_id),
            nothing_again: first.nothing_again,
            hold,
            messages: rows
                .into_iter()
                .filter_map(|row| {
                    row.message
                        .claimed(claim_id, asked.instant + request.lease, hold.is_some())
                })
                .collect(),
        })
    }

    /// Gives back the rows of claims whose answers never came: nobody called them. Returns which claims had some.
    ///
    /// When they were due is not known any more. That they were is, so they are due since they were inserted.
    ///
    /// # Errors
    /// Where the database fails.
    pub(crate) async fn release_claims(
        &self,
        app: &str,
        claim_ids: &[Uuid],
    ) -> Result<Vec<Uuid>, sqlx::Error> {
        self.pool()
            .run(Statement::Release, async |session| {
                sqlx::query_scalar(
                    "with probe as (
                         update signaling.lane set hold_until = clock_timestamp(), probe_claim_id = null
                         where app = $1 and probe_claim_id = any ($2)),
                     claimed as materialized (
                         select id, claim_id from signaling.outbox
                         where app = $1 and status = 'pending' and (sent_at is not null or claim_id is not null)
                           and due_at > (select clock_timestamp()) and claim_id = any ($2)
                         for no key update skip locked),
                     given_back as (
                         update signaling.outbox
                         set claim_id = null, claimed_by = null, due_at = least(created_at, clock_timestamp())
                         where id = any (array(select id from claimed)))
                     select distinct claim_id from claimed",
                )
                .persistent(session.caches_statements())
                .bind(app)
                .bind(claim_ids)
                .fetch_all(&mut **session)
                .await
            })
            .await
    }
}

impl MessageRow {
    /// The message of a row that has one. The columns that a row can't be without stand in the table as not null.
    fn claimed(self, claim_id: Uuid, lease_ends: Instant, probe: bool) -> Option<Claimed> {
        let count = |column: Option<i32>| {
            column
                .and_then(|count| u32::try_from(count).ok())
                .unwrap_or(0)
        };
        let policy = DeliveryPolicy {
            attempts: count(self.attempts),
            max_attempts: count(self.max_attempts),
            at_most_once: self.at_most_once?,
            expires_at: self.expires_at.map(DbTime::from),
            probe,
        };
        Some(Claimed {
            id: self.id?,
            claim_id,
            policy,
            was_due_at: self.was_due_at?.into(),
            slot_at: self.slot_at?.into(),
            lease_ends,
            wanted_at: self.wanted_at.map(DbTime::from),
            traceparent: self.traceparent,
            message: message(
                self.sender?,
                self.destination,
                self.channel_name,
                self.payload?.0,
                self.wait_for_ack?,
                self.enable_offline_messaging?,
                self.enable_historical_messaging?,
            ),
        })
    }
}

fn message(
    sender: String,
    destination: Option<String>,
    channel_name: Option<String>,
    payload: Arc<str>,
    wait_for_ack: bool,
    enable_offline_messaging: bool,
    enable_historical_messaging: bool,
) -> Result<Message, InvalidMessage> {
    Ok(Message {
        sender: UserId::sender(sender)?,
        target: Target::from_columns(
            destination,
            channel_name,
            wait_for_ack,
            enable_offline_messaging,
        )?,
        payload: Payload::new(payload)?,
        enable_historical_messaging,
    })
}

/// A time for a parameter; none is later than any.
pub(crate) fn or_never(at: Option<DbTime>) -> OffsetDateTime {
    // The year 9999, which every driver can write.
    const NEVER: DbTime = DbTime::from_micros(253_370_764_800_000_000);
    at.unwrap_or(NEVER).into()
}
