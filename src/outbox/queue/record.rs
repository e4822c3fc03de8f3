//! Records the outcomes of claimed messages, many in one statement.

use std::time::{Duration, Instant};

use strum::EnumString;
use uuid::Uuid;

use crate::outbox::pool::AdaptiveTimeout;
use crate::outbox::{Claimed, Outbox, column};
use crate::outcome::{Fault, FinalStatus};
use crate::pace::DbTime;

#[derive(Debug, Clone, Default)]
pub(crate) struct Record {
    pub(crate) id: i64,
    /// The claim that must still have the message.
    pub(crate) claim_id: Uuid,
    /// When the message was due before the claim: see [`Claimed`].
    pub(crate) original_due_at: DbTime,
    /// When to retry, on this process's clock, because the database's clock may be set before then.
    pub(crate) retry_at: Option<Instant>,
    /// None: the message goes back as pending.
    pub(crate) status: Option<FinalStatus>,
    /// None: the worker made no call.
    pub(crate) call: Option<CallRecord>,
    pub(crate) error: Option<String>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct CallRecord {
    pub(crate) sent_at: DbTime,
    pub(crate) duration: Duration,
    pub(crate) http_status: Option<u16>,
    pub(crate) request_id: Option<String>,
    /// None if the API accepted the message.
    pub(crate) outcome: Option<&'static str>,
    pub(crate) charged: bool,
    pub(crate) fault: Option<Fault>,
    pub(crate) evidence: Option<String>,
}

impl Record {
    /// The message goes back without an attempt.
    pub(crate) fn release(claimed: &Claimed) -> Self {
        Self {
            id: claimed.id,
            claim_id: claimed.claim_id,
            original_due_at: claimed.original_due_at,
            ..Self::default()
        }
    }

    fn delay(&self) -> Option<Duration> {
        let retry_at = self.retry_at?;
        Some(retry_at.saturating_duration_since(Instant::now()))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumString)]
#[strum(serialize_all = "snake_case")]
pub(crate) enum RecordResult {
    Recorded,
    /// Another session has locked the message: the worker tries again.
    Locked,
    /// The lease ended before the result was saved. Nothing is written.
    Discarded,
    /// Only the status and the times are written, because a trigger or a constraint refuses the rest.
    WithoutDetails,
    /// A trigger or a constraint refuses any outcome. Nothing is written.
    Refused,
}

#[derive(Debug)]
pub(crate) struct Recorded {
    /// One result for each record, in order. The time is the new `due_at` of a message that goes back.
    pub(crate) results: Vec<(RecordResult, DbTime)>,
    /// The code and the constraint of the first error that made the database refuse a record or its details.
    pub(crate) refusal: Option<String>,
}

impl Outbox {
    /// Writes records in one statement. With `one_by_one`, the database writes the other records even if it refuses one. After
    /// an error, Postgres may have written all records or none. The caller writes the same records again, which changes
    /// nothing if they are written.
    pub(crate) async fn record(
        &self,
        records: &[Record],
        recorded_by: &str,
        timeout: &AdaptiveTimeout,
        one_by_one: bool,
    ) -> Result<Recorded, sqlx::Error> {
        let is_charged = |record: &Record| record.call.as_ref().is_some_and(|call| call.charged);
        let call = call!(
            record,
            recorded_by = recorded_by,
            ids = column(records, |record| record.id),
            claim_ids = column(records, |record| record.claim_id),
            original_due_at = column(records, |record| record.original_due_at),
            delays = column(records, Record::delay),
            statuses = column(records, |record| record.status.map(<&str>::from)),
            charged = column(records, is_charged),
            sent_at = call_column(records, |call| Some(call.sent_at)),
            http_statuses = call_column(records, |call| call.http_status.map(i32::from)),
            request_ids = call_column(records, |call| call.request_id.as_deref()),
            errors = column(records, |record| record.error.as_deref()),
            outcomes = call_column(records, |call| call.outcome),
            durations = call_column(records, |call| Some(call.duration)),
            faults = call_column(records, |call| call.fault.map(<&str>::from)),
            evidences = call_column(records, |call| call.evidence.as_deref()),
            one_by_one = one_by_one,
        );
        let recorder = &self.recorder;
        let answer = recorder.call_adaptively(timeout, one_by_one, call).await?;
        let results = records
            .iter()
            .map(|record| (RecordResult::Locked, record.original_due_at));
        let (mut results, mut refusal) = (results.collect::<Vec<_>>(), None);
        let rows: Vec<(i32, String, Option<DbTime>, Option<String>)> = answer.decode()?;
        for (place, result, due_at, reason) in rows {
            refusal = refusal.or(reason);
            let place = usize::try_from(place - 1).unwrap_or(usize::MAX);
            if let Some((to, to_due_at)) = results.get_mut(place) {
                *to = result.parse().unwrap_or(RecordResult::Refused);
                *to_due_at = due_at.unwrap_or(*to_due_at);
            }
        }
        Ok(Recorded { results, refusal })
    }
}

fn call_column<'r, T>(
    records: &'r [Record],
    value: impl Fn(&'r CallRecord) -> Option<T>,
) -> Vec<Option<T>> {
    column(records, |record| record.call.as_ref().and_then(&value))
}
