//! Messages to insert, and rows of the tables.

use serde_json::{Value, json};
use sqlx::FromRow;
use time::OffsetDateTime;

/// A peer message with default columns. `columns` overrides them.
pub fn peer(columns: Value) -> Value {
    merged(
        json!({"sender": "alice", "destination": "bob", "payload": "hello"}),
        columns,
    )
}

pub fn channel(columns: Value) -> Value {
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

/// A row of `signaling.outbox`.
#[derive(Debug, Clone, FromRow)]
pub struct Row {
    pub status: String,
    pub attempts: i32,
    pub uncharged: i32,
    pub failing_since: Option<OffsetDateTime>,
    pub claim_id: Option<uuid::Uuid>,
    pub claimed_by: Option<String>,
    pub created_at: OffsetDateTime,
    pub due_at: OffsetDateTime,
    pub sent_at: Option<OffsetDateTime>,
    pub finished_at: Option<OffsetDateTime>,
    pub http_status: Option<i32>,
    pub request_id: Option<String>,
    pub error: Option<String>,
}

/// A row of `signaling.attempt`.
#[derive(Debug, Clone, FromRow)]
pub struct Attempt {
    #[sqlx(rename = "attempt")]
    pub number: i32,
    pub sent_at: Option<OffsetDateTime>,
    pub http_status: Option<i32>,
    pub outcome: String,
    pub error: Option<String>,
    pub fault: Option<String>,
    pub charged: bool,
    pub evidence: Option<String>,
    pub claimed_by: Option<String>,
}

impl crate::World {
    /// The message IDs and SQLSTATEs of the messages that the database refuses to change.
    pub async fn refused(&self) -> Vec<(i64, Option<String>)> {
        sqlx::query_as("select message_id, code from signaling.refused order by message_id")
            .fetch_all(&self.pool)
            .await
            .expect("read")
    }
}
