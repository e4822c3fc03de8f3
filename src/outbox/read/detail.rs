//! One message with its failed calls and its lane.

use serde::Serialize;
use sqlx::{FromRow, query};

use super::status::LaneStatus;
use crate::advice::fault_texts;
use crate::outbox::Outbox;
use crate::outcome::Fault;
use crate::pace::DbTime;

/// A message may have more failed attempts, because uncharged ones do not count against `max_attempts`.
const MAX_CALLS: i64 = 1_000;

#[derive(Debug, Serialize)]
pub(crate) struct MessageDetail {
    #[serde(flatten)]
    pub(crate) message: MessageRow,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) payload: Option<String>,
    /// The latest failed calls and lost claims, oldest first.
    pub(crate) calls: Vec<CallDetail>,
    /// None: no worker has ever served the app.
    pub(crate) lane: Option<LaneStatus>,
}

/// A row of the outbox without payload and dedupe key.
#[derive(Debug, Serialize, FromRow)]
#[expect(clippy::struct_excessive_bools, reason = "each is a column of its own")]
pub(crate) struct MessageRow {
    pub(crate) at: DbTime,
    pub(crate) id: i64,
    pub(crate) app: String,
    pub(crate) sender: String,
    pub(crate) destination: Option<String>,
    pub(crate) channel_name: Option<String>,
    pub(crate) status: String,
    /// scheduled, queued, sending or retrying for a pending message. The status for a finished message.
    pub(crate) state: String,
    pub(crate) attempts: i32,
    pub(crate) max_attempts: i32,
    pub(crate) uncharged: i32,
    pub(crate) failing_since: Option<DbTime>,
    pub(crate) waits_for: Option<String>,
    pub(crate) wait_for_ack: bool,
    pub(crate) at_most_once: bool,
    pub(crate) created_at: DbTime,
    /// The end of the lease while a worker has claimed the message.
    pub(crate) due_at: DbTime,
    pub(crate) expires_at: Option<DbTime>,
    /// True if the row names a claim, which may have ended.
    pub(crate) is_claimed: bool,
    pub(crate) claimed_by: Option<String>,
    pub(crate) sent_at: Option<DbTime>,
    pub(crate) finished_at: Option<DbTime>,
    pub(crate) http_status: Option<i32>,
    pub(crate) request_id: Option<String>,
    pub(crate) error: Option<String>,
    /// Claims pass over the message until this time, because a trigger or a constraint refuses to change the row.
    pub(crate) refused_until: Option<DbTime>,
    #[serde(skip)]
    pub(crate) may_read_payload: bool,
}

/// A failed call, or a lost claim.
#[derive(Debug, Serialize, FromRow)]
pub(crate) struct CallDetail {
    pub(crate) attempt: i32,
    /// None for a lost claim.
    pub(crate) sent_at: Option<DbTime>,
    pub(crate) duration_ms: Option<f64>,
    pub(crate) http_status: Option<i32>,
    /// transient, throttled, rejected, unauthorized, ambiguous or lost.
    pub(crate) outcome: String,
    pub(crate) error: Option<String>,
    pub(crate) fault: Option<String>,
    pub(crate) charged: bool,
    /// The other calls from which the worker concluded the fault.
    pub(crate) evidence: Option<String>,
    pub(crate) claimed_by: Option<String>,
    pub(crate) recorded_at: DbTime,
}

impl CallDetail {
    pub(crate) fn fault(&self) -> Option<Fault> {
        self.fault.as_deref()?.parse().ok()
    }

    pub(crate) fn may_have_arrived(&self) -> bool {
        matches!(&*self.outcome, "ambiguous" | "lost")
    }
}

impl MessageDetail {
    /// The last failed call with advice about its fault, unless the API has accepted the message since.
    pub(crate) fn last_failure(&self) -> Option<(&CallDetail, &'static str)> {
        let is_accepted = self.message.status.starts_with("message_");
        let call = self.calls.last().filter(|_| !is_accepted)?;
        Some((call, fault_texts(call.fault()?).1))
    }
}

impl Outbox {
    pub(crate) async fn message_row(&self, id: i64) -> Result<Option<MessageRow>, sqlx::Error> {
        let message = query(include_str!("detail/message.sql")).bind(id);
        Ok(self.read_rows(message).await?.pop())
    }

    /// None if there is no such message. The payload is None if the role may not read payloads.
    pub(crate) async fn message(
        &self,
        id: i64,
        with_payload: bool,
    ) -> Result<Option<MessageDetail>, sqlx::Error> {
        let Some(message) = self.message_row(id).await? else {
            return Ok(None);
        };
        let mut payload = None;
        if with_payload && message.may_read_payload {
            let text = query("select payload from signaling.outbox where id = $1").bind(id);
            payload = self.read_rows(text).await?.pop().map(|(text,)| text);
        }
        let calls = query(
            "select attempt, sent_at, extract(epoch from duration)::float8 * 1000 as duration_ms, http_status, outcome,
                    error, fault, charged, evidence, claimed_by, recorded_at
             from (select * from signaling.attempt where message_id = $1 order by id desc limit $2) as latest order by id",
        );
        Ok(Some(MessageDetail {
            payload,
            calls: self.read_rows(calls.bind(id).bind(MAX_CALLS)).await?,
            lane: self.lane(&message.app).await?,
            message,
        }))
    }
}
