//! One message with its failed calls and its next step.

mod next_step;

use serde::Serialize;
use sqlx::{FromRow, PgConnection, query};

pub(crate) use next_step::NextStep;

use super::lane_status::{LaneStatus, lane_of};
use crate::advice::fault_advice;
use crate::error_text::database_error_text;
use crate::outbox::one_off::{rows, value};
use crate::outbox::{Outbox, SchemaError};
use crate::outcome::Fault;
use crate::pace::DbTime;

/// A message may have more failed attempts, because uncharged ones do not count against `max_attempts`.
const MAX_CALLS: i64 = 1_000;

#[derive(Debug, Serialize)]
pub(crate) struct MessageDetail {
    #[serde(flatten)]
    pub(crate) message: MessageRow,
    pub(crate) payload: PayloadDetail,
    /// The latest failed calls and lost claims, in their order.
    pub(crate) calls: Vec<CallDetail>,
    /// Number of failed calls before these.
    pub(crate) earlier_calls: i64,
    /// The next step of a lane that is not held.
    pub(crate) next: NextStep,
    pub(crate) lane: LaneDetail,
}

/// A row of the outbox without payload and dedupe key.
#[derive(Debug, Serialize, FromRow)]
pub(crate) struct MessageRow {
    /// The database's time of the query.
    pub(crate) at: DbTime,
    pub(crate) id: i64,
    pub(crate) app: String,
    pub(crate) sender: String,
    pub(crate) destination: Option<String>,
    pub(crate) channel_name: Option<String>,
    /// `pending` or a final status.
    pub(crate) status: String,
    /// Of a pending message: scheduled, queued, sending or retrying. Else the status.
    pub(crate) state: String,
    pub(crate) attempts: i32,
    pub(crate) max_attempts: i32,
    pub(crate) uncharged: i32,
    pub(crate) failing_since: Option<DbTime>,
    pub(crate) waits_for: Option<String>,
    pub(crate) wait_for_ack: bool,
    pub(crate) at_most_once: bool,
    pub(crate) created_at: DbTime,
    /// While a worker has claimed the message, the end of the lease.
    pub(crate) due_at: DbTime,
    pub(crate) expires_at: Option<DbTime>,
    /// A worker has claimed or finished the message, or died with it.
    pub(crate) is_claimed: bool,
    pub(crate) claimed_by: Option<String>,
    pub(crate) sent_at: Option<DbTime>,
    pub(crate) finished_at: Option<DbTime>,
    pub(crate) http_status: Option<i32>,
    pub(crate) request_id: Option<String>,
    pub(crate) error: Option<String>,
    /// Claims pass over the message until then, because a trigger or a constraint refuses to change it.
    pub(crate) refused_until: Option<DbTime>,
}

#[derive(Debug, Default, Serialize, FromRow)]
pub(crate) struct PayloadDetail {
    /// None if the role may not read payloads.
    pub(crate) bytes: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) text: Option<String>,
}

/// A failed call, or a lost claim.
#[derive(Debug, Serialize, FromRow)]
pub(crate) struct CallDetail {
    /// From 1.
    pub(crate) attempt: i32,
    /// None for a lost claim.
    pub(crate) sent_at: Option<DbTime>,
    pub(crate) duration_ms: Option<f64>,
    pub(crate) http_status: Option<i32>,
    /// transient, throttled, rejected, unauthorized, ambiguous or lost.
    pub(crate) outcome: String,
    pub(crate) error: Option<String>,
    /// message, destination, worker, api, budget or unclear.
    pub(crate) fault: Option<String>,
    /// The attempt counts against `max_attempts`.
    pub(crate) charged: bool,
    /// The other calls by which the worker decided that.
    pub(crate) evidence: Option<String>,
    pub(crate) claimed_by: Option<String>,
    pub(crate) recorded_at: DbTime,
}

impl CallDetail {
    pub(crate) fn fault(&self) -> Option<Fault> {
        self.fault.as_deref()?.parse().ok()
    }

    pub(crate) fn advice(&self) -> Option<&'static str> {
        let is_lost = self.outcome == "lost";
        Some(fault_advice(self.fault()?, is_lost))
    }
}

impl MessageDetail {
    /// The last failed call, unless the API has accepted the message since.
    pub(crate) fn last_failure(&self) -> Option<&CallDetail> {
        let is_accepted = self.message.status.starts_with("message_");
        self.calls.last().filter(|_| !is_accepted)
    }
}

#[derive(Debug, Serialize)]
#[serde(tag = "known", rename_all = "snake_case")]
pub(crate) enum LaneDetail {
    /// The role may not read lanes.
    NoRight,
    /// No worker has ever served the app.
    None,
    Lane(Box<LaneStatus>),
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum MessageError {
    #[error(
        "there is no message {0}: it was never inserted, its transaction is not committed, or it is deleted already"
    )]
    NotFound(i64),
    #[error(
        "{user} may not read payloads: leave out --payload, or log in as a role that may, such as one with the rights of a producer (`worker grant producer {user}`)"
    )]
    NoRightToPayload { user: String },
    #[error(transparent)]
    Schema(#[from] SchemaError),
    #[error("the database failed: {}", database_error_text(.0))]
    Database(#[from] sqlx::Error),
}

#[derive(FromRow)]
struct Privileges {
    user: String,
    may_read_payload: bool,
    may_read_lane: bool,
}

impl Outbox {
    /// A role that may not read payloads gets everything else, unless it asks for the payload.
    pub(crate) async fn message(
        &self,
        id: i64,
        with_payload: bool,
    ) -> Result<MessageDetail, MessageError> {
        let found = self.read(
            async |session| match detail(session, id, with_payload).await {
                Err(MessageError::Database(error)) => Err(error),
                found => Ok(found),
            },
        );
        let found = found.await?;
        if let Err(MessageError::Schema(_)) = found {
            // Fails with the exact cause.
            self.check_schema().await?;
        }
        found
    }
}

async fn detail(
    session: &mut PgConnection,
    id: i64,
    with_payload: bool,
) -> Result<MessageDetail, MessageError> {
    let privileges = query(
        "select current_user::text as user,
                has_column_privilege(relation, 'payload', 'select') as may_read_payload,
                has_table_privilege('signaling.lane', 'select')
                    and has_table_privilege('signaling.queue_counts', 'select')
                    and has_table_privilege('signaling.fleet', 'select') as may_read_lane
         from to_regclass('signaling.outbox') as relation
         where relation is not null and to_regclass('signaling.delivery_status') is not null",
    );
    let mut privileges: Vec<Privileges> = rows(session, privileges).await?;
    let privileges = privileges.pop().ok_or(SchemaError::Missing)?;
    if with_payload && !privileges.may_read_payload {
        let user = privileges.user;
        return Err(MessageError::NoRightToPayload { user });
    }
    let message = query(include_str!("detail/message.sql")).bind(id);
    let mut message: Vec<MessageRow> = rows(session, message).await?;
    let message = message.pop().ok_or(MessageError::NotFound(id))?;
    let payload = if privileges.may_read_payload {
        let payload = query(
            "select octet_length(convert_to(payload, 'UTF8'))::bigint as bytes, case when $2 then payload end as text
             from signaling.outbox where id = $1",
        );
        rows(session, payload.bind(id).bind(with_payload)).await?
    } else {
        Vec::new()
    };
    let calls = query(
        "select attempt, sent_at, extract(epoch from duration)::float8 * 1000 as duration_ms, http_status, outcome,
                error, fault, charged, evidence, claimed_by, recorded_at
         from (select * from signaling.attempt where message_id = $1 order by id desc limit $2) as latest order by id",
    );
    let earlier_calls =
        query("select greatest(count(*) - $2, 0) from signaling.attempt where message_id = $1");
    Ok(MessageDetail {
        payload: payload.into_iter().next().unwrap_or_default(),
        calls: rows(session, calls.bind(id).bind(MAX_CALLS)).await?,
        earlier_calls: value(session, earlier_calls.bind(id).bind(MAX_CALLS)).await?,
        next: NextStep::of(&message),
        lane: if privileges.may_read_lane {
            lane_of(&message.app, session)
                .await?
                .map_or(LaneDetail::None, |lane| LaneDetail::Lane(Box::new(lane)))
        } else {
            LaneDetail::NoRight
        },
        message,
    })
}
