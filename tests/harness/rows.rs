//! Messages as a producer writes them, and rows as anybody reads them.

use serde_json::{Value, json};
use sqlx::FromRow;
use time::OffsetDateTime;

/// A peer message: columns and their values, those of `columns` instead of the usual ones.
pub(crate) fn peer(columns: Value) -> Value {
    merged(
        json!({"sender": "alice", "destination": "bob", "payload": "hello"}),
        columns,
    )
}

/// A channel message.
pub(crate) fn channel(columns: Value) -> Value {
    merged(
        json!({"sender": "alice", "channel_name": "lobby", "payload": "hello"}),
        columns,
    )
}

fn merged(mut message: Value, columns: Value) -> Value {
    let (Value::Object(fields), Value::Object(columns)) = (&mut message, columns) else {
        panic!("columns are an object");
    };
    fields.extend(columns);
    message
}

/// A row of the outbox.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct Row {
    pub(crate) status: String,
    pub(crate) attempts: i32,
    pub(crate) claim_id: Option<uuid::Uuid>,
    pub(crate) claimed_by: Option<String>,
    pub(crate) created_at: OffsetDateTime,
    pub(crate) due_at: OffsetDateTime,
    pub(crate) sent_at: Option<OffsetDateTime>,
    pub(crate) finished_at: Option<OffsetDateTime>,
    pub(crate) http_status: Option<i32>,
    pub(crate) request_id: Option<String>,
    pub(crate) error: Option<String>,
}

impl Row {
    /// How long after it was due its last call started.
    pub(crate) fn lateness(&self) -> time::Duration {
        self.sent_at.expect("it was called") - self.due_at
    }
}

/// A call that did not end its message well.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct Attempt {
    #[sqlx(rename = "attempt")]
    pub(crate) number: i32,
    pub(crate) sent_at: Option<OffsetDateTime>,
    pub(crate) http_status: Option<i32>,
    pub(crate) outcome: String,
    pub(crate) error: Option<String>,
    pub(crate) claimed_by: Option<String>,
}
