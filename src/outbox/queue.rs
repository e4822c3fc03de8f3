//! The worker's protocol: each operation calls the function of the same name in `migrations/functions/`.

mod claim;
mod lane;
mod record;
mod reserve_slot;

pub(crate) use claim::{
    Batch, ClaimError, ClaimRequest, Claimed, Ended, Hold, ScanPosition, Wakeup,
};
pub(crate) use lane::{HoldKind, HoldResult, LaneOpening, NextDue};
pub(crate) use record::{CallRecord, Record, RecordResult, Recorded};
pub(crate) use reserve_slot::{Refusal, SlotReservation};

use crate::outbox::pool::statement::Statement;
use crate::outbox::pool::{AdaptiveTimeout, Answer, Call, DbPool};

/// Calls a function within a timeout that adapts to a slow database.
pub(super) async fn call_within(
    pool: &DbPool,
    statement: Statement,
    timeout: &AdaptiveTimeout,
    one_by_one: bool,
    call: Call<'_>,
) -> Result<Answer, sqlx::Error> {
    let deadline = timeout.deadline(one_by_one);
    let answer = pool.call_within(statement, deadline, call).await;
    timeout.observe(&answer);
    answer
}
