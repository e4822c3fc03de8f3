//! A slot for a call that belongs to no message: no call goes out beside the app's budget.

use std::time::{Duration, Instant};

use sqlx::FromRow;
use uuid::Uuid;

use crate::outbox::pool::Call;
use crate::outbox::pool::statement::Statement;
use crate::outbox::{Outbox, interval};
use crate::pace::{DbTime, HORIZON};

/// What came of asking for a slot.
#[derive(Debug)]
pub(crate) enum SlotReservation {
    Slot {
        /// From when on the call may start.
        slot_at: DbTime,
        /// Until when it must have ended, at the earliest: counted from before the slot was asked for.
        lease_ends: Instant,
        /// The lane is held, and this call is its probe: give it back by [`Outbox::release`].
        is_probe: bool,
    },
    Refused(Refusal),
    /// The app has no lane: no worker has ever served it.
    NoLane,
}

/// Why there is no slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// A person has paused the app.
    Paused,
    /// The API has asked for a pause.
    RetryAfter,
    /// Others have taken the slots of the next moments.
    Busy,
    /// The lane is held, and not to be tried yet.
    Held,
}

#[derive(FromRow)]
struct SlotRow {
    at: DbTime,
    slot_at: DbTime,
    refusal: Option<String>,
    is_probe: bool,
}

impl Outbox {
    /// Takes a slot of an app for one call that belongs to no message. `call_id` is its name, fresh for each.
    ///
    /// # Errors
    /// Where the database fails.
    pub(crate) async fn reserve_slot(
        &self,
        app: &str,
        call_id: Uuid,
        lease: Duration,
    ) -> Result<SlotReservation, sqlx::Error> {
        let call = Call::new("reserve_slot")
            .with("app", app)
            .with("call_id", call_id)
            .with("lease", interval(lease))
            .with("horizon", interval(HORIZON));
        let answer = self.pool().call(Statement::Claim, call).await?;
        let Some(row) = answer.decode::<SlotRow>()?.pop() else {
            return Ok(SlotReservation::NoLane);
        };
        self.clock().observe(answer.clock_reading(row.at));
        let refusal = row.refusal.as_deref().map(|refusal| match refusal {
            "paused" => Refusal::Paused,
            "retry_after" => Refusal::RetryAfter,
            "held" => Refusal::Held,
            _ => Refusal::Busy,
        });
        Ok(match refusal {
            Some(refusal) => SlotReservation::Refused(refusal),
            None => SlotReservation::Slot {
                slot_at: row.slot_at,
                lease_ends: answer.asked.instant + lease,
                is_probe: row.is_probe,
            },
        })
    }
}
