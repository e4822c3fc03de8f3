//! Claims due messages, each with a slot.

use std::time::{Duration, Instant};

use serde::Deserialize;
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{FromRow, Row};
use uuid::Uuid;

use crate::config::WorkerConfig;
use crate::error_text::database_error_text;
use crate::message::Message;
use crate::outbox::pool::AdaptiveTimeout;
use crate::outbox::{HoldKind, Outbox};
use crate::outcome::DeliveryPolicy;
use crate::pace::{ClaimedSlot, DbTime, HORIZON};

#[derive(Debug)]
pub(crate) struct ClaimRequest<'a> {
    pub(crate) app: &'a str,
    pub(crate) position: ScanPosition,
    /// Fresh for each claim.
    pub(crate) claim_id: Uuid,
    pub(crate) max_messages: usize,
    /// The first slot lies at least so far ahead of the claim.
    pub(crate) lookahead: Duration,
    pub(crate) config: &'a WorkerConfig,
    /// Leases and expiries that ended after this time do not count as over yet. None: all of them count.
    pub(crate) ended_before: Option<DbTime>,
    pub(crate) timeout: &'a AdaptiveTimeout,
    /// This worker listens: inserts notify it while there is nothing to claim.
    pub(crate) wants_wakeup: bool,
    /// Destinations and channels with enough calls in flight: the claim passes over their messages.
    pub(crate) avoided: Vec<String>,
    /// Tests each message on its own, and passes over messages that the database refuses to change. Set after a claim that
    /// the database refused, or that timed out.
    pub(crate) one_by_one: bool,
}

/// The row of a claim about the lane, with the messages.
#[derive(Debug, Deserialize)]
pub(crate) struct Batch {
    /// In the order of their slots.
    #[serde(skip)]
    pub(crate) messages: Vec<Claimed>,
    /// How many messages this claim could take: free slots, at most `max_messages`. Fewer if a claim that tests messages one
    /// by one ran out of time.
    pub(crate) slots: usize,
    #[serde(flatten)]
    pub(crate) ended: Ended,
    pub(crate) refused: usize,
    pub(crate) at: DbTime,
    pub(crate) next_slot_at: DbTime,
    /// When the next message becomes due. Counts retries only if they are due within two poll intervals.
    pub(crate) next_due_at: Option<DbTime>,
    /// A message of a held lane is a probe.
    pub(crate) hold: Option<Hold>,
    pub(crate) throttled_per_s: Option<f64>,
    pub(crate) wakeup: Wakeup,
    /// The claim has read first attempts up to here and no further, because it passed over many avoided messages.
    pub(crate) passed: Option<(DbTime, i64)>,
    pub(crate) retry_passed: Option<(DbTime, i64)>,
    /// By how much the database's clock was set back since the lane's last claim.
    pub(crate) set_back_s: Option<f64>,
}

#[cfg(test)]
impl Batch {
    /// A claim at `at` that had this number of slots and took no message.
    pub(crate) fn without_messages(at: DbTime, slots: usize) -> Self {
        Self {
            messages: Vec::new(),
            slots,
            ended: Ended::default(),
            refused: 0,
            at,
            next_slot_at: at,
            next_due_at: None,
            hold: None,
            throttled_per_s: None,
            wakeup: Wakeup::Off,
            passed: None,
            retry_passed: None,
            set_back_s: None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Wakeup {
    On,
    /// Inserts notify from this claim on. An insert whose trigger ran before the claim does not, even if it commits later.
    New,
    #[serde(other)]
    Off,
}

/// The `(due_at, id)` after which a claim reads first attempts, and the one for retries: see `migrations/functions/claim.sql`.
pub(crate) type ScanPosition = [(DbTime, i64); 2];

pub(crate) const BEGINNING: ScanPosition = [(DbTime::BEGINNING, 0); 2];

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromRow, Deserialize)]
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) struct Hold {
    pub(crate) kind: HoldKind,
    pub(crate) until: DbTime,
}

/// A message that belongs to this worker until the lease ends.
#[derive(Debug)]
pub(crate) struct Claimed {
    pub(crate) id: i64,
    pub(crate) claim_id: Uuid,
    pub(crate) message: Message,
    pub(crate) policy: DeliveryPolicy,
    /// When the message was due before the claim. A message that goes back without an attempt is due then.
    pub(crate) original_due_at: DbTime,
    pub(crate) slot: ClaimedSlot,
    /// For a first attempt: the insert or the due time, whichever is later.
    pub(crate) waits_since: Option<DbTime>,
    pub(crate) traceparent: Option<String>,
    pub(crate) is_retry: bool,
}

impl Claimed {
    pub(crate) fn probe(&self) -> Option<Uuid> {
        self.policy.probe.then_some(self.claim_id)
    }

    fn from_row(
        row: &PgRow,
        request: &ClaimRequest<'_>,
        asked_at: Instant,
        probe: bool,
    ) -> Result<Self, sqlx::Error> {
        let is_retry: bool = row.try_get("is_retry")?;
        let original_due_at: DbTime = row.try_get("original_due_at")?;
        let created_at: DbTime = row.try_get("created_at")?;
        Ok(Self {
            id: row.try_get("id")?,
            claim_id: request.claim_id,
            message: Message::from_row(row)?,
            policy: DeliveryPolicy {
                probe,
                ..DeliveryPolicy::from_row(row)?
            },
            original_due_at,
            slot: ClaimedSlot {
                at: row.try_get("slot_at")?,
                asked_at,
                lease_ends: asked_at + request.config.timing.lease(),
            },
            waits_since: (!is_retry).then(|| original_due_at.max(created_at)),
            traceparent: row.try_get("traceparent")?,
            is_retry,
        })
    }
}

impl Batch {
    /// True if more messages may be due, as soon as there are slots and capacity.
    pub(crate) fn is_full(&self) -> bool {
        let ended = self.ended.expired + self.ended.unknown + self.ended.failed;
        self.slots > 0 && self.messages.len() + ended + self.refused >= self.slots
    }
}

impl Outbox {
    pub(crate) async fn claim(&self, request: &ClaimRequest<'_>) -> Result<Batch, sqlx::Error> {
        let ([first, retry], config) = (request.position, request.config);
        // The lane polls again before a later retry is due, so Postgres need not search the index further.
        let poll_interval = config.timing.poll_interval * 2;
        let call = call!(
            claim,
            app = request.app,
            claim_id = request.claim_id,
            claimed_by = config.name.as_str(),
            max_messages = i32::try_from(request.max_messages).unwrap_or(i32::MAX),
            lease = config.timing.lease(),
            horizon = HORIZON,
            lookahead = request.lookahead,
            ended_before = request.ended_before.unwrap_or(DbTime::INFINITY),
            first_after_at = first.0,
            first_after_id = first.1,
            retry_after_at = retry.0,
            retry_after_id = retry.1,
            poll_interval = poll_interval,
            wants_wakeup = request.wants_wakeup,
            avoided = request.avoided.clone(),
            environment = config.environment.as_deref(),
            one_by_one = request.one_by_one,
        );
        let (client, server) = request.timeout.client_and_server(request.one_by_one);
        let answer = self.pool.call_within(client, server, call).await;
        // An empty claim is fast even if the database is slow.
        if !matches!(&answer, Ok(answer) if answer.rows.len() < 2) {
            request.timeout.observe(&answer);
        }
        let answer = answer?;
        let (lane, messages) = answer.rows.split_last().ok_or(sqlx::Error::RowNotFound)?;
        let Json(mut batch): Json<Batch> = lane.try_get("lane")?;
        self.clock().observe(answer.clock_reading(batch.at));
        if let Some(step) = batch.set_back_s {
            let step = Duration::try_from_secs_f64(step).unwrap_or(Duration::MAX);
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
        batch.messages.sort_by_key(|claimed| claimed.slot.at);
        Ok(batch)
    }
}
