//! The state of messages that a command changed or left as they were.

use sqlx::{FromRow, query};

use crate::outbox::Outbox;

/// The part of a message that `worker cancel` and `worker retry` print.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct MessageState {
    pub(crate) id: i64,
    pub(crate) status: String,
    /// The status, or of a pending message: scheduled, queued, sending, retrying.
    pub(crate) state: String,
    pub(crate) attempts: i32,
}

impl Outbox {
    /// Leaves out ids without a message.
    pub(crate) async fn message_states(
        &self,
        ids: &[i64],
    ) -> Result<Vec<MessageState>, sqlx::Error> {
        let states = query(
            "select id, status, state, attempts + uncharged as attempts
             from signaling.delivery_status where id = any ($1) order by id",
        );
        self.read_rows(states.bind(ids)).await
    }
}
