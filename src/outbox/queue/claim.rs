//! Claims due messages, each with a slot.

use std::time::{Duration, Instant};

use sqlx::postgres::PgRow;
use sqlx::postgres::types::PgInterval;
use sqlx::{FromRow, Row};
use uuid::Uuid;

use crate::error_text::database_error_text;
use crate::message::{InvalidMessage, Message, MessageOptions, Name, Payload, Target};
use crate::outbox::pool::AdaptiveTimeout;
use crate::outbox::{HoldKind, Outbox, interval, may_have_taken_effect};
use crate::outcome::DeliveryPolicy;
use crate::pace::{DbTime, HORIZON};

#[derive(Debug)]
pub(crate) struct ClaimRequest<'a> {
    pub(crate) app: &'a str,
    pub(crate) position: ScanPosition,
    /// Fresh for each claim.
    pub(crate) claim_id: Uuid,
    pub(crate) max_messages: usize,
    /// The first slot lies at least so far ahead of the claim.
    pub(crate) lookahead: Duration,
    pub(crate) lease: Duration,
    /// Worker name written to `claimed_by`. Informational; never compared.
    pub(crate) claimed_by: &'a str,
    /// Leases and expiries that ended after this time do not count as over yet. None: all of them count.
    pub(crate) ended_before: Option<DbTime>,
    pub(crate) timeout: &'a AdaptiveTimeout,
    /// The longest time until the lane's next claim.
    pub(crate) poll_interval: Duration,
    /// This worker listens: inserts notify it while there is nothing to claim.
    pub(crate) wants_wakeup: bool,
    /// Destinations and channels with enough calls in flight: the claim passes over their messages.
    pub(crate) avoided: Vec<String>,
    pub(crate) environment: Option<&'a str>,
    /// Tests each message on its own, and passes over messages that the database refuses to change. Set after a claim that
    /// the database refused, or that timed out.
    pub(crate) one_by_one: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("the claim failed: {}", database_error_text(.source))]
pub(crate) struct ClaimError {
    pub(crate) source: sqlx::Error,
    /// The database may have claimed messages. They wait for the end of the lease, or until the worker releases the claim.
    pub(crate) may_have_rows: bool,
}

#[derive(Debug)]
pub(crate) struct Batch {
    /// In the order of their slots.
    pub(crate) messages: Vec<Claimed>,
    /// Free slots of the lane, used or not.
    pub(crate) slots: usize,
    /// Messages that the claim itself ended.
    pub(crate) ended: Ended,
    /// Messages that the database refuses to change.
    pub(crate) refused: usize,
    /// The database's time of the claim.
    pub(crate) at: DbTime,
    pub(crate) next_slot_at: DbTime,
    /// When the next message becomes due. Counts retries only if they are due within the poll interval.
    pub(crate) next_due_at: Option<DbTime>,
    /// A message of a held lane is a probe.
    pub(crate) hold: Option<Hold>,
    /// Slots a second of a throttled lane.
    pub(crate) throttled_per_s: Option<f64>,
    pub(crate) wakeup: Wakeup,
    /// The claim has read first attempts up to here and no further, because it passed over many avoided messages.
    pub(crate) passed: Option<(DbTime, i64)>,
    pub(crate) retry_passed: Option<(DbTime, i64)>,
}

/// Says if inserts notify the app's workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "lowercase")]
pub(crate) enum Wakeup {
    Off,
    On,
    /// Inserts notify from this claim on, but not an insert whose trigger ran before and that commits later.
    New,
}

/// The `(due_at, id)` after which a claim reads messages: see `migrations/functions/claim.sql`.
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

/// Messages that ended without a call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromRow)]
#[sqlx(default)]
pub(crate) struct Ended {
    #[sqlx(try_from = "i32")]
    pub(crate) expired: usize,
    /// At-most-once messages that a lost worker may have sent.
    #[sqlx(try_from = "i32")]
    pub(crate) unknown: usize,
    /// Messages whose last attempt a lost worker may have made.
    #[sqlx(try_from = "i32")]
    pub(crate) failed: usize,
}

impl Ended {
    pub(crate) fn count(self) -> usize {
        self.expired + self.unknown + self.failed
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hold {
    pub(crate) kind: HoldKind,
    /// When the next probe may start.
    pub(crate) until: DbTime,
}

impl Hold {
    pub(super) fn from_row(row: &PgRow) -> Result<Option<Self>, sqlx::Error> {
        let kind: Option<HoldKind> = row.try_get("hold")?;
        let until = row.try_get("hold_until")?;
        Ok(kind.zip(until).map(|(kind, until)| Self { kind, until }))
    }
}

/// A message that belongs to this worker until the lease ends.
#[derive(Debug)]
pub(crate) struct Claimed {
    pub(crate) id: i64,
    pub(crate) claim_id: Uuid,
    /// An error only if an operator has removed the table's constraints.
    pub(crate) message: Result<Message, InvalidMessage>,
    pub(crate) policy: DeliveryPolicy,
    /// When the message was due before the claim. A message that goes back without an attempt is due then.
    pub(crate) original_due_at: DbTime,
    pub(crate) slot_at: DbTime,
    /// For a first attempt: the insert or the due time, whichever is later.
    pub(crate) wanted_at: Option<DbTime>,
    /// The producer's W3C trace context, unchecked.
    pub(crate) traceparent: Option<String>,
    /// When the worker began the claim.
    pub(crate) asked_at: Instant,
    /// The earliest end of the lease: counted from `asked_at`.
    pub(crate) lease_ends: Instant,
    pub(crate) is_retry: bool,
}

impl Claimed {
    /// The claim, if it probes a held lane.
    pub(crate) fn probe(&self) -> Option<Uuid> {
        self.policy.probe.then_some(self.claim_id)
    }

    fn from_row(
        row: &PgRow,
        request: &ClaimRequest<'_>,
        asked_at: Instant,
        probe: bool,
    ) -> Result<Self, sqlx::Error> {
        let count = |column| {
            let count: i32 = row.try_get(column)?;
            Ok::<_, sqlx::Error>(u32::try_from(count).unwrap_or(0))
        };
        let is_retry: bool = row.try_get("is_retry")?;
        let original_due_at: DbTime = row.try_get("original_due_at")?;
        let created_at: DbTime = row.try_get("created_at")?;
        Ok(Self {
            id: row.try_get("id")?,
            claim_id: request.claim_id,
            message: message(row)?,
            policy: DeliveryPolicy {
                attempts: count("attempts")?,
                uncharged: count("uncharged")?,
                failing_since: row.try_get("failing_since")?,
                max_attempts: count("max_attempts")?,
                at_most_once: row.try_get("at_most_once")?,
                expires_at: row.try_get("expires_at")?,
                probe,
            },
            original_due_at,
            slot_at: row.try_get("slot_at")?,
            wanted_at: (!is_retry).then(|| original_due_at.max(created_at)),
            traceparent: row.try_get("traceparent")?,
            asked_at,
            lease_ends: asked_at + request.lease,
            is_retry,
        })
    }
}

impl Batch {
    /// True if more messages may be due, as soon as there are slots and capacity.
    pub(crate) fn is_full(&self) -> bool {
        self.slots > 0 && self.messages.len() + self.ended.count() + self.refused >= self.slots
    }
}

/// Reads the row about the lane. The other rows are the messages.
impl<'r> FromRow<'r, PgRow> for Batch {
    fn from_row(row: &'r PgRow) -> Result<Self, sqlx::Error> {
        let count = |column| {
            let count: i32 = row.try_get(column)?;
            Ok::<_, sqlx::Error>(usize::try_from(count).unwrap_or(0))
        };
        let wakeup: Option<Wakeup> = row.try_get("wakeup")?;
        Ok(Self {
            messages: Vec::new(),
            slots: count("slots")?,
            ended: Ended::from_row(row)?,
            refused: count("refused")?,
            at: row.try_get("at")?,
            next_slot_at: row.try_get("next_slot_at")?,
            next_due_at: row.try_get("next_due_at")?,
            hold: Hold::from_row(row)?,
            throttled_per_s: row.try_get("throttled_per_s")?,
            wakeup: wakeup.unwrap_or(Wakeup::Off),
            passed: position(row, "passed_at", "passed_id")?,
            retry_passed: position(row, "retry_passed_at", "retry_passed_id")?,
        })
    }
}

pub(super) fn position(
    row: &PgRow,
    at: &str,
    id: &str,
) -> Result<Option<(DbTime, i64)>, sqlx::Error> {
    let at: Option<DbTime> = row.try_get(at)?;
    Ok(at.zip(row.try_get(id)?))
}

fn message(row: &PgRow) -> Result<Result<Message, InvalidMessage>, sqlx::Error> {
    let sender: String = row.try_get("sender")?;
    let target = Target::from_columns(row.try_get("destination")?, row.try_get("channel_name")?);
    let payload: &str = row.try_get("payload")?;
    let options = MessageOptions::from_row(row)?;
    Ok(target.and_then(|target| {
        Ok(Message {
            sender: Name::sender(sender)?,
            target,
            payload: Payload::new(payload)?,
            options,
        })
    }))
}

impl Outbox {
    pub(crate) async fn claim(&self, request: &ClaimRequest<'_>) -> Result<Batch, ClaimError> {
        self.try_claim(request).await.map_err(|source| ClaimError {
            may_have_rows: may_have_taken_effect(&source),
            source,
        })
    }

    async fn try_claim(&self, request: &ClaimRequest<'_>) -> Result<Batch, sqlx::Error> {
        let position = request.position;
        let call = call!(
            claim,
            app = request.app,
            claim_id = request.claim_id,
            claimed_by = request.claimed_by,
            max_messages = i32::try_from(request.max_messages).unwrap_or(i32::MAX),
            lease = interval(request.lease),
            horizon = interval(HORIZON),
            lookahead = interval(request.lookahead),
            ended_before = request.ended_before.unwrap_or(DbTime::INFINITY),
            first_after_at = position.first.0,
            first_after_id = position.first.1,
            retry_after_at = position.retry.0,
            retry_after_id = position.retry.1,
            poll_interval = interval(request.poll_interval),
            wants_wakeup = request.wants_wakeup,
            avoided = request.avoided.clone(),
            environment = request.environment.map(str::to_owned),
            one_by_one = request.one_by_one,
        );
        let deadline = request.timeout.deadline(request.one_by_one);
        let answer = self.pool.call_within(deadline, call).await;
        // An empty claim is fast even if the database is slow.
        if !matches!(&answer, Ok(answer) if answer.rows.len() < 2) {
            request.timeout.observe(&answer);
        }
        let answer = answer?;
        let (lane, messages) = answer.rows.split_last().ok_or(sqlx::Error::RowNotFound)?;
        let mut batch = Batch::from_row(lane)?;
        self.clock().observe(answer.clock_reading(batch.at));
        if let Some(step) = lane.try_get::<Option<PgInterval>, _>("set_back_by")? {
            let step = Duration::from_micros(step.microseconds.unsigned_abs());
            self.clock().database_was_set_back(batch.at, step);
        }
        let is_probe = batch.hold.is_some();
        for row in messages {
            match Claimed::from_row(row, request, answer.asked.instant, is_probe) {
                Ok(message) => batch.messages.push(message),
                Err(error) => tracing::error!(
                    event = "message_unreadable",
                    app = request.app,
                    message_id = row.try_get::<i64, _>("id").ok(),
                    error = database_error_text(&error),
                    "the worker can't read a claimed message: the message waits until its lease ends"
                ),
            }
        }
        batch.messages.sort_by_key(|claimed| claimed.slot_at);
        Ok(batch)
    }
}
