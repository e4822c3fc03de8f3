//! One message: its row, its calls, and what keeps it waiting.

use sqlx::FromRow;
use time::OffsetDateTime;

use super::Outbox;

/// The newest calls that are shown of a message.
const MAX_CALLS: i64 = 100;

/// A message as it is looked at.
#[derive(Debug, FromRow)]
#[expect(clippy::struct_excessive_bools, reason = "columns of the outbox")]
pub struct MessageView {
    /// Its id.
    pub id: i64,
    /// Its app.
    pub app: String,
    /// Who it is from.
    pub sender: String,
    /// Whom a peer message is for.
    pub destination: Option<String>,
    /// Where a channel message goes.
    pub channel_name: Option<String>,
    /// One of [`super::STATES`].
    pub state: String,
    /// Calls that were made.
    pub attempts: i32,
    /// Calls that may go wrong.
    pub max_attempts: i32,
    /// The HTTP status of the last call.
    pub http_status: Option<i32>,
    /// The API's id of the last call.
    pub request_id: Option<String>,
    /// What went wrong.
    pub error: Option<String>,
    /// When it was inserted.
    pub created_at: OffsetDateTime,
    /// When it may be called next; while a worker has it, the end of its lease.
    pub due_at: OffsetDateTime,
    /// Whether it belongs to a claim.
    pub is_claimed: bool,
    /// Whether its lease or its waiting is over.
    pub is_due: bool,
    /// When the last call started.
    pub sent_at: Option<OffsetDateTime>,
    /// When it ended.
    pub finished_at: Option<OffsetDateTime>,
    /// No call starts after this.
    pub expires_at: Option<OffsetDateTime>,
    /// Whether the call waits for the receiver.
    pub wait_for_ack: bool,
    /// Whether it is never called again after a call that nobody knows the outcome of.
    pub at_most_once: bool,
    /// The worker that has it, or that finished it.
    pub claimed_by: Option<String>,
    /// Its length.
    pub payload_bytes: i32,
    /// Its content, if that was asked for.
    pub payload: Option<String>,
    /// Whether its app is paused.
    pub is_paused: bool,
    /// Whether its app's lane is `parked` or `broken`.
    pub hold: Option<String>,
    /// Whether any worker has served its app.
    pub has_lane: bool,
    /// The time by the database's clock.
    pub now: OffsetDateTime,
}

/// A call of a message that did not end it well, or a claim without a record.
#[derive(Debug, FromRow)]
pub struct CallLine {
    /// Which call of the message it was, from 1.
    pub attempt: i32,
    /// When it started.
    pub sent_at: Option<OffsetDateTime>,
    /// How long it took, in milliseconds.
    pub duration_ms: Option<f64>,
    /// What was answered.
    pub http_status: Option<i32>,
    /// `retry`, `throttled`, `rejected`, `unauthorized`, `ambiguous` or `lost`.
    pub outcome: String,
    /// What went wrong.
    pub error: Option<String>,
    /// The worker that made it.
    pub claimed_by: Option<String>,
    /// When it was written down.
    pub recorded_at: OffsetDateTime,
}

impl Outbox {
    /// A message with its calls, oldest first, and with its content only if that is asked for; none if there is no such message.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn view_message(
        &self,
        id: i64,
        with_payload: bool,
    ) -> Result<Option<(MessageView, Vec<CallLine>)>, sqlx::Error> {
        self.look(async |session| {
            let message: Option<MessageView> = sqlx::query_as(include_str!("one.sql"))
                .persistent(false)
                .bind(id)
                .bind(with_payload)
                .fetch_optional(&mut **session)
                .await?;
            let Some(message) = message else {
                return Ok(None);
            };
            let mut calls: Vec<CallLine> = sqlx::query_as(
                "select attempt, sent_at, extract(epoch from duration)::float8 * 1000 as duration_ms, http_status, outcome,
                        error, claimed_by, recorded_at
                 from signaling.attempt where message_id = $1 order by message_id desc, id desc limit $2",
            )
            .persistent(false)
            .bind(id)
            .bind(MAX_CALLS)
            .fetch_all(&mut **session)
            .await?;
            calls.reverse();
            Ok(Some((message, calls)))
        })
        .await
    }
}
