//! The claim: due messages, each with a slot.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::error::BoxDynError;
use sqlx::postgres::types::PgInterval;
use sqlx::postgres::{PgRow, PgTypeInfo, PgValueRef};
use sqlx::{Decode, FromRow, Postgres, Row, Type};
use uuid::Uuid;

use crate::error_text::database_error_text;
use crate::message::{InvalidMessage, Message, MessageOptions, Name, Payload, Target};
use crate::outbox::pool::statement::Statement;
use crate::outbox::pool::{AdaptiveTimeout, Call};
use crate::outbox::{HoldKind, Outbox, interval, may_have_taken_effect};
use crate::outcome::DeliveryPolicy;
use crate::pace::{DbTime, HORIZON};

/// What a worker asks for.
#[derive(Debug)]
pub(crate) struct ClaimRequest<'a> {
    pub(crate) app: &'a str,
    /// The claim passes over messages up to here.
    pub(crate) position: ScanPosition,
    /// The claim's name, fresh for each.
    pub(crate) claim_id: Uuid,
    pub(crate) max_messages: usize,
    /// How far ahead of the claim the first slot has to be.
    pub(crate) lookahead: Duration,
    /// For how long to have the messages.
    pub(crate) lease: Duration,
    /// Worker name written to `claimed_by`. Informational; never compared.
    pub(crate) claimed_by: &'a str,
    /// Leases and expiries that ended after this time do not count as over yet. None: all of them count.
    pub(crate) over_before: Option<DbTime>,
    /// How long this lane waits for a claim.
    pub(crate) timeout: &'a AdaptiveTimeout,
    /// How soon this lane looks again in any case.
    pub(crate) poll_interval: Duration,
    /// Whether this worker listens, and so wants inserts to notify while there is nothing to take.
    pub(crate) wants_wakeup: bool,
    /// Destinations and channels that have enough calls in flight: the claim passes over their messages.
    pub(crate) avoided: Vec<String>,
    /// The worker's environment, if one is set.
    pub(crate) environment: Option<&'a str>,
    /// Isolates messages that the database refuses to change, and passes over them. Set after a claim that the
    /// database has refused, or that did not end in time.
    pub(crate) isolates: bool,
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
    /// The messages, in the order of their slots.
    pub(crate) messages: Vec<Claimed>,
    /// How many slots could have been given out.
    pub(crate) slots: usize,
    /// Messages that ended in the claim itself.
    pub(crate) ended: Ended,
    /// Messages that a trigger or a constraint of the database keeps from being claimed or ended.
    pub(crate) refused: usize,
    /// The database's time of the claim.
    pub(crate) at: DbTime,
    /// The lane's next free slot.
    pub(crate) next_slot_at: DbTime,
    /// When something is due that was not due at the claim. Of retries, only those that are due within the poll
    /// interval.
    pub(crate) next_due_at: Option<DbTime>,
    /// Why the lane is held, if it is. The message then is a probe.
    pub(crate) hold: Option<Hold>,
    /// Slots a second at present, where a 429 has slowed the lane.
    pub(crate) throttled_per_s: Option<f64>,
    pub(crate) wakeup: Wakeup,
    /// Up to where the claim has taken first attempts, where it has not looked further.
    pub(crate) passed: Option<(DbTime, i64)>,
    /// The same of retries.
    pub(crate) retry_passed: Option<(DbTime, i64)>,
}

/// Whether inserts notify.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wakeup {
    Off,
    On,
    /// From this claim on: an insert that has looked before, and commits later, does not.
    New,
}

/// After which `(due_at, id)` a claim looks for messages. While somebody holds an old snapshot, the index keeps an entry
/// for each message that was there before, and a claim from the beginning would read them all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ScanPosition {
    pub(crate) first: (DbTime, i64),
    pub(crate) retry: (DbTime, i64),
}

impl ScanPosition {
    pub(crate) const BEGINNING: Self = Self {
        first: (DbTime::BEGINNING, 0),
        retry: (DbTime::BEGINNING, 0),
    };
}

/// Rows that ended without a call of their own, by how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) expired: usize,
    /// Nobody can know whether they were called, and once is all they may be.
    pub(crate) unknown: usize,
    /// The worker of the last attempt was lost.
    pub(crate) failed: usize,
}

impl Ended {
    /// From the counts of a statement.
    pub(crate) fn from_columns(expired: i32, unknown: i32, failed: i32) -> Self {
        Self {
            expired: usize::try_from(expired).unwrap_or(0),
            unknown: usize::try_from(unknown).unwrap_or(0),
            failed: usize::try_from(failed).unwrap_or(0),
        }
    }

    pub(crate) fn count(self) -> usize {
        self.expired + self.unknown + self.failed
    }
}

impl Batch {
    /// True if there may be more to take, as soon as there are slots and room for it.
    pub(crate) fn is_full(&self) -> bool {
        self.slots > 0 && self.messages.len() + self.ended.count() + self.refused >= self.slots
    }
}

/// A lane that is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hold {
    pub(crate) kind: HoldKind,
    /// When the next probe may be made.
    pub(crate) until: DbTime,
}

impl Hold {
    pub(crate) fn from_columns(kind: Option<&str>, until: Option<DbTime>) -> Option<Self> {
        Some(Self {
            kind: HoldKind::from_column(kind?),
            until: until?,
        })
    }
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
    /// When the claim was asked for.
    pub(crate) asked_at: Instant,
    /// When the lease ends, at the earliest: counted from then.
    pub(crate) lease_ends: Instant,
    /// It was attempted, or claimed, before.
    pub(crate) is_retry: bool,
}

impl Claimed {
    /// The claim as the probe of a lane that is held, if it is that.
    pub(crate) fn probe(&self) -> Option<Uuid> {
        self.policy.probe.then_some(self.claim_id)
    }
}

/// The last row: the lane.
#[derive(FromRow)]
struct LaneRow {
    at: DbTime,
    slots: i32,
    hold: Option<String>,
    hold_until: Option<DbTime>,
    throttled_per_s: Option<f64>,
    expired: i32,
    unknown: i32,
    failed: i32,
    refused: i32,
    next_slot_at: DbTime,
    next_due_at: Option<DbTime>,
    wakeup: Option<String>,
    passed_at: Option<DbTime>,
    passed_id: Option<i64>,
    retry_passed_at: Option<DbTime>,
    retry_passed_id: Option<i64>,
    set_back_by: Option<PgInterval>,
}

/// One of the other rows: a message.
#[derive(FromRow)]
struct MessageRow {
    id: i64,
    sender: String,
    destination: Option<String>,
    channel_name: Option<String>,
    payload: PayloadText,
    #[sqlx(flatten)]
    options: MessageOptions,
    attempts: i32,
    uncharged: i32,
    failing_since: Option<DbTime>,
    max_attempts: i32,
    at_most_once: bool,
    expires_at: Option<DbTime>,
    traceparent: Option<String>,
    is_retry: bool,
    created_at: DbTime,
    was_due_at: DbTime,
    slot_at: DbTime,
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
    /// Takes due messages of an app, as far as there are slots within the horizon.
    ///
    /// # Errors
    /// Where the database fails, with whether messages may have been taken all the same.
    pub(crate) async fn claim(&self, request: &ClaimRequest<'_>) -> Result<Batch, ClaimError> {
        let position = request.position;
        let call = Call::new("claim")
            .with("app", request.app)
            .with("claim_id", request.claim_id)
            .with("claimed_by", request.claimed_by)
            .with(
                "max_messages",
                i32::try_from(request.max_messages).unwrap_or(i32::MAX),
            )
            .with("lease", interval(request.lease))
            .with("horizon", interval(HORIZON))
            .with("lookahead", interval(request.lookahead))
            .with(
                "over_before",
                request.over_before.unwrap_or(DbTime::INFINITY),
            )
            .with("first_after_at", position.first.0)
            .with("first_after_id", position.first.1)
            .with("retry_after_at", position.retry.0)
            .with("retry_after_id", position.retry.1)
            .with("poll_interval", interval(request.poll_interval))
            .with("wants_wakeup", request.wants_wakeup)
            .with("avoided", request.avoided.clone())
            .with("environment", request.environment.map(str::to_owned))
            .with("isolates", request.isolates);
        let deadline = request.timeout.deadline(request.isolates);
        let answer = self
            .pool()
            .call_within(Statement::Claim, deadline, call)
            .await;
        // A claim that finds nothing is quick however slow the database is.
        if !matches!(&answer, Ok(answer) if answer.rows.len() < 2) {
            request.timeout.observe(&answer);
        }
        let failed = |source| ClaimError {
            may_have_rows: may_have_taken_effect(&source),
            source,
        };
        let answer = answer.map_err(failed)?;
        let (lane, messages) = answer
            .rows
            .split_last()
            .ok_or(sqlx::Error::RowNotFound)
            .map_err(failed)?;
        let lane = LaneRow::from_row(lane).map_err(failed)?;
        self.clock().observe(answer.clock_reading(lane.at));
        if let Some(by) = &lane.set_back_by {
            let by_us = u64::try_from(by.microseconds).unwrap_or(0);
            self.clock()
                .database_was_set_back(lane.at, Duration::from_micros(by_us));
        }
        let hold = Hold::from_columns(lane.hold.as_deref(), lane.hold_until);
        let mut messages: Vec<Claimed> = messages
            .iter()
            .filter_map(|row| claimed(row, request, answer.asked.instant, hold.is_some()))
            .collect();
        messages.sort_by_key(|claimed| claimed.slot_at);
        Ok(Batch {
            messages,
            at: lane.at,
            slots: usize::try_from(lane.slots).unwrap_or(0),
            ended: Ended::from_columns(lane.expired, lane.unknown, lane.failed),
            refused: usize::try_from(lane.refused).unwrap_or(0),
            next_slot_at: lane.next_slot_at,
            next_due_at: lane.next_due_at,
            throttled_per_s: lane.throttled_per_s,
            hold,
            passed: lane.passed_at.zip(lane.passed_id),
            retry_passed: lane.retry_passed_at.zip(lane.retry_passed_id),
            wakeup: match lane.wakeup.as_deref() {
                Some("on") => Wakeup::On,
                Some(_) => Wakeup::New,
                None => Wakeup::Off,
            },
        })
    }
}

/// A message of the claim. One that can't be read is logged and left: its lease ends.
fn claimed(
    row: &PgRow,
    request: &ClaimRequest<'_>,
    asked: Instant,
    probe: bool,
) -> Option<Claimed> {
    let count = |column: i32| u32::try_from(column).unwrap_or(0);
    let row = match MessageRow::from_row(row) {
        Ok(row) => row,
        Err(error) => {
            tracing::error!(
                event = "message_unreadable",
                app = request.app,
                message_id = row.try_get::<i64, _>("id").ok(),
                error = database_error_text(&error),
                "a claimed message can't be read: it waits until its lease ends"
            );
            return None;
        }
    };
    let policy = DeliveryPolicy {
        attempts: count(row.attempts),
        uncharged: count(row.uncharged),
        failing_since: row.failing_since,
        max_attempts: count(row.max_attempts),
        at_most_once: row.at_most_once,
        expires_at: row.expires_at,
        probe,
    };
    Some(Claimed {
        id: row.id,
        claim_id: request.claim_id,
        policy,
        was_due_at: row.was_due_at,
        slot_at: row.slot_at,
        asked_at: asked,
        lease_ends: asked + request.lease,
        is_retry: row.is_retry,
        wanted_at: (!row.is_retry).then(|| row.was_due_at.max(row.created_at)),
        traceparent: row.traceparent,
        message: Target::from_columns(row.destination, row.channel_name).and_then(|target| {
            Ok(Message {
                sender: Name::sender(row.sender)?,
                target,
                payload: Payload::new(row.payload.0)?,
                options: row.options,
            })
        }),
    })
}
