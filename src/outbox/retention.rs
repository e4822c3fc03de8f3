//! Deletes messages that finished long ago: see `migrations/functions/delete_finished.sql`.

use std::time::Duration;

use sqlx::FromRow;
use uuid::Uuid;

use crate::outbox::pool::AdaptiveTimeout;
use crate::outbox::{Outbox, interval};
use crate::pace::DbTime;

/// Status queries count the calls of the last minute.
pub(crate) const MIN_RETENTION: Duration = Duration::from_secs(60);

/// A batch of deletions.
#[derive(FromRow)]
pub(crate) struct Deletion {
    pub(crate) has_turn: bool,
    /// The pass has reached the messages that are too young.
    pub(crate) is_pass_over: bool,
    /// Messages that the pass has deleted, in all processes.
    pub(crate) deleted: Option<i64>,
    /// When another worker's turn ends, or the next pass begins.
    pub(crate) held_until: DbTime,
    pub(crate) at: DbTime,
}

impl Outbox {
    /// Deletes a batch of messages that finished longer ago than `retention`, if it is this worker's turn. Takes some
    /// milliseconds. With `one_by_one`, also skips a message that a function of the application keeps waiting. Fails if
    /// `retention` is less than [`MIN_RETENTION`].
    pub(crate) async fn delete_finished(
        &self,
        worker: Uuid,
        retention: Duration,
        timeout: &AdaptiveTimeout,
        one_by_one: bool,
    ) -> Result<Deletion, sqlx::Error> {
        let call = call!(
            delete_finished,
            worker = worker,
            retain = interval(retention),
            ended_before = self.ended_before(),
            one_by_one = one_by_one,
        );
        let answer = self.pool.call_adaptively(timeout, one_by_one, call).await?;
        let deletion = answer.decode()?.pop();
        deletion.ok_or(sqlx::Error::RowNotFound)
    }
}
