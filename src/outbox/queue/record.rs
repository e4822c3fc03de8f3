//! The record: what became of claimed rows, many in one statement.

use std::collections::HashMap;
use std::time::Duration;

use time::OffsetDateTime;
use uuid::Uuid;

use crate::outbox::micros;
use crate::outbox::pool::AdaptiveTimeout;
use crate::outbox::pool::statement::Statement;
use crate::outbox::{Claimed, Outbox};
use crate::outcome::FinalStatus;
use crate::pace::DbTime;

/// What became of one claimed row.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) id: i64,
    /// The claim under which it was taken: the fence.
    pub(crate) claim_id: Uuid,
    /// When it is due next; for a final row, when it was due.
    pub(crate) due_at: DbTime,
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
    pub(crate) counts: bool,
}

impl Record {
    /// A row goes back as it was.
    pub(crate) fn release(claimed: &Claimed) -> Self {
        Self {
            id: claimed.id,
            claim_id: claimed.claim_id,
            due_at: claimed.was_due_at,
            status: None,
            call: None,
            error: None,
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
}

impl Outbox {
    /// Writes records in one statement. Returns the ids that are settled: true for those that were written, false for
    /// those whose rows are no longer under the claims that they name. The others are locked by somebody: try again.
    ///
    /// # Errors
    /// Where the database fails; then none is written. Writing the same records again is safe.
    pub(crate) async fn record(
        &self,
        records: &[Record],
        recorded_by: &str,
        timeout: &AdaptiveTimeout,
    ) -> Result<HashMap<i64, bool>, sqlx::Error> {
        let column = |value: fn(&Record) -> i64| records.iter().map(value).collect::<Vec<_>>();
        let call = |record: &Record| record.call.clone();
        let ids = column(|record| record.id);
        let claim_ids: Vec<Uuid> = records.iter().map(|record| record.claim_id).collect();
        let due_at: Vec<OffsetDateTime> =
            records.iter().map(|record| record.due_at.into()).collect();
        let statuses: Vec<Option<&str>> = records
            .iter()
            .map(|record| record.status.map(FinalStatus::as_str))
            .collect();
        let counted: Vec<i32> = records
            .iter()
            .map(|record| i32::from(call(record).is_some_and(|call| call.counts)))
            .collect();
        let sent_at: Vec<Option<OffsetDateTime>> = records
            .iter()
            .map(|record| Some(record.call.as_ref()?.sent_at.into()))
            .collect();
        let http_statuses: Vec<Option<i32>> = records
            .iter()
            .map(|record| record.call.as_ref()?.http_status.map(i32::from))
            .collect();
        let request_ids: Vec<Option<&str>> = records
            .iter()
            .map(|record| record.call.as_ref()?.request_id.as_deref())
            .collect();
        let errors: Vec<Option<&str>> = records
            .iter()
            .map(|record| record.error.as_deref())
            .collect();
        let outcomes: Vec<Option<&str>> = records
            .iter()
            .map(|record| record.call.as_ref()?.outcome)
            .collect();
        let durations: Vec<Option<i64>> = records
            .iter()
            .map(|record| Some(micros(record.call.as_ref()?.duration)))
            .collect();

        let settled: Result<Vec<(i64, bool)>, _> = self
            .recorder_pool()
            .run_within(Statement::Record, timeout.deadline(), async |session| {
                sqlx::query_as(include_str!("record.sql"))
                    .persistent(session.caches_statements())
                    .bind(ids)
                    .bind(claim_ids)
                    .bind(due_at)
                    .bind(statuses)
                    .bind(counted)
                    .bind(sent_at)
                    .bind(http_statuses)
                    .bind(request_ids)
                    .bind(errors)
                    .bind(outcomes)
                    .bind(durations)
                    .bind(recorded_by)
                    .fetch_all(&mut **session)
                    .await
            })
            .await;
        timeout.observe(&settled);
        Ok(settled?.into_iter().collect())
    }
}
