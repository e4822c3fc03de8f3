//! Queries after commands: the state of messages that a command did not change, and the reason why inserted messages wait.

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

/// The messages of an app that share one `waits_for`.
#[derive(Debug, FromRow)]
pub(crate) struct Waiting {
    pub(crate) app: String,
    pub(crate) messages: i64,
    /// None if the messages are final.
    pub(crate) waits_for: Option<String>,
}

const MAX_GROUPS: i64 = 20;

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

    pub(crate) async fn waiting_for(&self, ids: &[i64]) -> Result<Vec<Waiting>, sqlx::Error> {
        let waiting = query(
            "select app, count(*) as messages, waits_for from signaling.delivery_status where id = any ($1)
             group by app, waits_for order by messages desc, app, waits_for limit $2",
        );
        self.read_rows(waiting.bind(ids).bind(MAX_GROUPS)).await
    }
}
