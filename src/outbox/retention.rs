//! Deletes messages that finished long ago: see `migrations/functions/delete_finished.sql`.

use std::time::Duration;

use sqlx::FromRow;
use uuid::Uuid;

use crate::outbox::pool::AdaptiveTimeout;
use crate::outbox::{Outbox, interval};
use crate::pace::DbTime;

/// Status queries count the calls of the last minute.
pub(crate) const MIN_RETENTION: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deletion {
    /// The pass continues with the next batch.
    GoesOn,
    PassIsOver {
        /// Messages that the pass has deleted, in all processes.
        deleted: u64,
        /// When the next pass begins.
        next_in: Duration,
    },
    /// Another process deletes, or the next pass has not begun.
    NotNow { next_in: Duration },
}

#[derive(FromRow)]
struct DeletionRow {
    has_turn: bool,
    is_pass_over: bool,
    deleted: Option<i64>,
    held_until: DbTime,
    at: DbTime,
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
        let row: DeletionRow = answer.decode()?.pop().ok_or(sqlx::Error::RowNotFound)?;
        let next_in = row.held_until.since(row.at);
        Ok(if !row.has_turn {
            Deletion::NotNow { next_in }
        } else if row.is_pass_over {
            let deleted = row.deleted.unwrap_or(0).unsigned_abs();
            Deletion::PassIsOver { deleted, next_in }
        } else {
            Deletion::GoesOn
        })
    }
}
