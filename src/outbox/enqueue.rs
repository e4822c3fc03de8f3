//! Inserting messages, for the command line and for tests. An application inserts with SQL of its own.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{Outbox, explain};
use crate::message::{InvalidMessage, Payload, Target, UserId};

/// Rows of one statement. All statements of a call are one transaction.
const ROWS_PER_STATEMENT: usize = 1_000;

/// A message to insert. The fields are the columns that a producer writes; what is left out has the table's default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is a column of its own")]
pub struct NewMessage {
    /// Which configured app sends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
    /// The API's user ID of the sender.
    pub sender: String,
    /// The receiver of a peer message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// The channel of a channel message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel_name: Option<String>,
    /// 1 to 32,768 bytes.
    pub payload: String,
    /// Tell delivered from offline. Peer messages only.
    #[serde(default)]
    pub wait_for_ack: bool,
    /// Keep it for a receiver that is offline. Peer messages only.
    #[serde(default)]
    pub enable_offline_messaging: bool,
    /// Keep it as a historical message.
    #[serde(default)]
    pub enable_historical_messaging: bool,
    /// Earliest time to send.
    #[serde(
        default,
        with = "time::serde::rfc3339::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub due_at: Option<OffsetDateTime>,
    /// Not sent after this.
    #[serde(
        default,
        with = "time::serde::rfc3339::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub expires_at: Option<OffsetDateTime>,
    /// Calls that may go wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u16>,
    /// Never called again after a call whose outcome is not known.
    #[serde(default)]
    pub at_most_once: bool,
    /// Unique per app: a message whose key is there already is not inserted again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dedupe_key: Option<String>,
    /// W3C trace context of the producer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

/// Why messages were not inserted. None of them was.
#[derive(Debug, thiserror::Error)]
pub enum EnqueueError {
    /// A constraint of the table refuses one. Its name says what is wrong.
    #[error("the table refuses a message: {}", constraint.replace('_', " "))]
    Refused {
        /// The constraint's name.
        constraint: String,
    },
    /// The database failed.
    #[error("the database failed: {}", explain(.0))]
    Database(sqlx::Error),
}

impl From<sqlx::Error> for EnqueueError {
    fn from(error: sqlx::Error) -> Self {
        match error
            .as_database_error()
            .and_then(|error| Some((error.is_check_violation(), error.constraint()?)))
        {
            Some((true, constraint)) => Self::Refused {
                constraint: constraint.to_owned(),
            },
            _ => Self::Database(error),
        }
    }
}

impl NewMessage {
    /// Checks what the API demands, so that a person learns of a mistake in words, and of which line has it.
    ///
    /// # Errors
    /// The first mistake.
    pub fn check(&self) -> Result<(), InvalidMessage> {
        UserId::sender(self.sender.as_str())?;
        Target::from_columns(
            self.destination.clone(),
            self.channel_name.clone(),
            self.wait_for_ack,
            self.enable_offline_messaging,
        )?;
        Payload::new(self.payload.as_str())?;
        Ok(())
    }
}

impl Outbox {
    /// Inserts messages in one transaction, in their order. Returns the ids of those that were inserted: one whose
    /// `dedupe_key` is there already is not.
    ///
    /// # Errors
    /// Where the table refuses one, or the database fails. Then none is inserted.
    pub async fn enqueue(&self, messages: &[NewMessage]) -> Result<Vec<i64>, EnqueueError> {
        let mut transaction = self.line().transaction().await?;
        let mut ids = Vec::with_capacity(messages.len());
        for rows in messages.chunks(ROWS_PER_STATEMENT) {
            let inserted: Vec<i64> = sqlx::query_scalar(
                "insert into signaling.outbox
                     (app, sender, destination, channel_name, payload, wait_for_ack, enable_offline_messaging,
                      enable_historical_messaging, due_at, expires_at, max_attempts, at_most_once, dedupe_key, traceparent)
                 select coalesce(app, 'default'), sender, destination, channel_name, payload, wait_for_ack,
                        enable_offline_messaging, enable_historical_messaging, coalesce(due_at, now()), expires_at,
                        coalesce(max_attempts, 10), at_most_once, dedupe_key, traceparent
                 from json_to_recordset($1::json) as message
                      (app text, sender text, destination text, channel_name text, payload text, wait_for_ack boolean,
                       enable_offline_messaging boolean, enable_historical_messaging boolean, due_at timestamptz,
                       expires_at timestamptz, max_attempts integer, at_most_once boolean, dedupe_key text,
                       traceparent text)
                 on conflict do nothing
                 returning id",
            )
            .persistent(false)
            .bind(serde_json::to_string(rows).map_err(|error| sqlx::Error::Encode(error.into()))?)
            .fetch_all(&mut *transaction)
            .await?;
            ids.extend(inserted);
        }
        transaction.finish().await?;
        Ok(ids)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_column_is_not_ignored() {
        let error =
            serde_json::from_str::<NewMessage>(r#"{"sender":"a","destiny":"b","payload":"x"}"#)
                .expect_err("an unknown field");
        assert!(error.to_string().contains("destiny"), "{error}");
    }
}
