//! The record: what became of claimed rows, many in one statement.

use std::time::{Duration, Instant};

use sqlx::FromRow;
use sqlx::postgres::types::PgInterval;
use uuid::Uuid;

use crate::outbox::pool::statement::Statement;
use crate::outbox::pool::{AdaptiveTimeout, Call};
use crate::outbox::{Claimed, Outbox, interval};
use crate::outcome::{Fault, FinalStatus, Next};
use crate::pace::DbTime;

/// What became of one claimed row.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) id: i64,
    /// The claim under which it was taken: the fence.
    pub(crate) claim_id: Uuid,
    /// When it was due before the claim: a message that goes back without an attempt is due since then.
    pub(crate) was_due_at: DbTime,
    /// When to repeat a failed attempt, on this process's clock, because the database's clock may be set until then.
    pub(crate) retry_at: Option<Instant>,
    /// Its final status, or none if it goes back as pending.
    pub(crate) status: Option<FinalStatus>,
    /// The call that was made, if one was.
    pub(crate) call: Option<CallRecord>,
    pub(crate) error: Option<String>,
}

/// A call that was made.
#[derive(Debug, Clone)]
pub(crate) struct CallRecord {
    pub(crate) sent_at: DbTime,
    pub(crate) duration: Duration,
    /// The answer's status, if there was an answer.
    pub(crate) http_status: Option<u16>,
    /// Under which the API knows it.
    pub(crate) request_id: Option<String>,
    /// The attempt's outcome, for calls that did not end the message well.
    pub(crate) outcome: Option<&'static str>,
    /// Whether it counts against the row's attempts.
    pub(crate) charged: bool,
    /// Of a failed attempt: on which side the fault is, and on what evidence.
    pub(crate) fault: Option<Fault>,
    pub(crate) evidence: Option<String>,
}

impl Record {
    /// A row goes back as it was.
    pub(crate) fn release(claimed: &Claimed) -> Self {
        Self {
            id: claimed.id,
            claim_id: claimed.claim_id,
            was_due_at: claimed.was_due_at,
            retry_at: None,
            status: None,
            call: None,
            error: None,
        }
    }

    /// How long from now on the retry waits.
    fn delay(&self) -> Option<PgInterval> {
        let retry_at = self.retry_at?;
        Some(interval(retry_at.saturating_duration_since(Instant::now())))
    }

    /// A row ends, or is due again, after a call.
    pub(crate) fn after_call(
        claimed: &Claimed,
        next: Next,
        error: Option<String>,
        call: CallRecord,
    ) -> Self {
        let (status, retry_at) = match next {
            Next::Final(status) => (Some(status), None),
            Next::Retry(delay) => (None, Some(Instant::now() + delay)),
        };
        Self {
            retry_at,
            status,
            call: Some(call),
            error,
            ..Self::release(claimed)
        }
    }

    /// A row ends without a call.
    pub(crate) fn ended(claimed: &Claimed, status: FinalStatus, error: String) -> Self {
        Self {
            status: Some(status),
            error: Some(error),
            ..Self::release(claimed)
        }
    }

    /// The record without texts, for a database that can't hold one of them.
    pub(crate) fn without_texts(&self) -> Self {
        Self {
            error: None,
            call: self.call.clone().map(|call| CallRecord {
                request_id: None,
                evidence: None,
                ..call
            }),
            ..*self
        }
    }
}

/// The result of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RecordResult {
    /// It is written. A message that goes back is due at this time.
    Recorded { due_at: DbTime },
    /// Another session has the message locked: write it again.
    Locked,
    /// The lease had ended, and with it the claim: nothing is written.
    Discarded,
    /// Only the status and the times are written: a trigger or a constraint refuses the rest.
    Bare {
        /// When the message is due, if it went back.
        due_at: DbTime,
    },
    /// A trigger or a constraint refuses any outcome of this message: nothing is written.
    Refused,
}

/// The results of records, in their order.
#[derive(Debug)]
pub(crate) struct Recorded {
    pub(crate) results: Vec<RecordResult>,
    /// The code of the first error for which a record is bare or refused, and the constraint that it named.
    pub(crate) refusal: Option<String>,
}

#[derive(FromRow)]
struct ResultRow {
    place: i32,
    result: String,
    due_at: Option<DbTime>,
    reason: Option<String>,
}

impl Outbox {
    /// Writes records in one statement. With `isolates`, the database writes the other records even if it refuses one.
    ///
    /// # Errors
    /// Where the database fails; then none is written. Writing the same records again is safe.
    pub(crate) async fn record(
        &self,
        records: &[Record],
        recorded_by: &str,
        timeout: &AdaptiveTimeout,
        isolates: bool,
    ) -> Result<Recorded, sqlx::Error> {
        let call = Call::new("record")
            .with("recorded_by", recorded_by)
            .with("ids", column(records, |record| record.id))
            .with("claim_ids", column(records, |record| record.claim_id))
            .with("were_due_at", column(records, |record| record.was_due_at))
            .with("delays", column(records, Record::delay))
            .with(
                "statuses",
                column(records, |record| record.status.map(FinalStatus::as_str)),
            )
            .with(
                "charged",
                column(records, |record| {
                    record.call.as_ref().is_some_and(|call| call.charged)
                }),
            )
            .with("sent_at", of_calls(records, |call| Some(call.sent_at)))
            .with(
                "http_statuses",
                of_calls(records, |call| call.http_status.map(i32::from)),
            )
            .with(
                "request_ids",
                of_calls(records, |call| call.request_id.clone()),
            )
            .with("errors", column(records, |record| record.error.clone()))
            .with("outcomes", of_calls(records, |call| call.outcome))
            .with(
                "durations",
                of_calls(records, |call| Some(interval(call.duration))),
            )
            .with(
                "faults",
                of_calls(records, |call| call.fault.map(Fault::as_str)),
            )
            .with("evidences", of_calls(records, |call| call.evidence.clone()))
            .with("isolates", isolates);
        let deadline = timeout.deadline(isolates);
        let answer = self
            .recorder_pool()
            .call_within(Statement::Record, deadline, call)
            .await;
        timeout.observe(&answer);
        let mut results = vec![RecordResult::Locked; records.len()];
        let mut refusal = None;
        for row in answer?.decode::<ResultRow>()? {
            let place = usize::try_from(row.place - 1).unwrap_or(usize::MAX);
            if let Some(result) = results.get_mut(place) {
                *result = match row.result.as_str() {
                    "recorded" => RecordResult::Recorded {
                        due_at: row.due_at.unwrap_or(records[place].was_due_at),
                    },
                    "locked" => RecordResult::Locked,
                    "bare" => RecordResult::Bare {
                        due_at: row.due_at.unwrap_or(records[place].was_due_at),
                    },
                    "refused" => RecordResult::Refused,
                    _ => RecordResult::Discarded,
                };
            }
            refusal = refusal.or(row.reason);
        }
        Ok(Recorded { results, refusal })
    }
}

fn column<'r, T>(records: &'r [Record], value: impl Fn(&'r Record) -> T) -> Vec<T> {
    records.iter().map(value).collect()
}

/// A column that only records of calls have.
fn of_calls<'r, T>(
    records: &'r [Record],
    value: impl Fn(&'r CallRecord) -> Option<T>,
) -> Vec<Option<T>> {
    column(records, |record| record.call.as_ref().and_then(&value))
}
