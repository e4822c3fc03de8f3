//! Retention: messages that finished long ago are deleted, a batch at a time, by one process of the fleet.

use std::time::Duration;

use sqlx::FromRow;
use uuid::Uuid;

use crate::outbox::pool::statement::Statement;
use crate::outbox::pool::{AdaptiveTimeout, Call};
use crate::outbox::{Outbox, interval};
use crate::pace::DbTime;

/// The shortest time that finished messages can be kept: what a look at the last minute shows is still there.
pub(crate) const MIN_RETENTION: Duration = Duration::from_secs(60);

/// What became of an attempt to delete a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deletion {
    /// The pass goes on with the next batch.
    GoesOn,
    PassIsOver {
        /// How many messages it has deleted, whichever processes did it.
        deleted: u64,
        /// When the next pass begins.
        next_in: Duration,
    },
    /// It is another process's turn, or the next pass has not begun.
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
    /// Deletes a batch of messages that finished longer ago than `retention`, with their attempts, if it is this
    /// worker's turn. Takes some milliseconds, and passes over rows that somebody has locked. With `isolates`, also passes over a
    /// message that a function of the application keeps waiting. Fails if `retention` is
    /// less than [`MIN_RETENTION`].
    pub(crate) async fn delete_finished(
        &self,
        worker: Uuid,
        retention: Duration,
        timeout: &AdaptiveTimeout,
        isolates: bool,
    ) -> Result<Deletion, sqlx::Error> {
        let call = Call::new("delete_finished")
            .with("worker", worker)
            .with("retain", interval(retention))
            .with("over_before", self.over_before())
            .with("isolates", isolates);
        let deadline = timeout.deadline(isolates);
        let answer = self
            .pool()
            .call_within(Statement::Delete, deadline, call)
            .await;
        timeout.observe(&answer);
        let row: DeletionRow = answer?.decode()?.pop().ok_or(sqlx::Error::RowNotFound)?;
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
