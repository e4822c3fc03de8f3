//! Deletes messages that finished long ago: see `migrations/functions/delete_finished.sql`.

use std::time::Duration;

use uuid::Uuid;

use crate::outbox::pool::AdaptiveTimeout;
use crate::outbox::{Outbox, interval};
use crate::pace::DbTime;

/// Status queries count the calls of the last minute.
pub(crate) const MIN_RETENTION: Duration = Duration::from_secs(60);

pub(crate) struct Deletion {
    /// Messages that the pass has deleted, in all processes. Zero until the end of the pass.
    pub(crate) deleted: u64,
    /// When this process may delete again. None: the pass continues with the next batch.
    pub(crate) next_in: Option<Duration>,
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
        let row: Option<(bool, bool, Option<i64>, DbTime, DbTime)> = answer.decode()?.pop();
        let (has_turn, is_pass_over, deleted, held_until, at) =
            row.ok_or(sqlx::Error::RowNotFound)?;
        Ok(Deletion {
            deleted: if is_pass_over {
                deleted.unwrap_or(0).unsigned_abs()
            } else {
                0
            },
            next_in: (is_pass_over || !has_turn).then(|| held_until.since(at)),
        })
    }
}
