//! Reserves a slot for a call that belongs to no message, because such calls count against the app's budget, too.

use std::time::{Duration, Instant};

use sqlx::{FromRow, Type};
use uuid::Uuid;

use crate::outbox::{Outbox, interval};
use crate::pace::{DbTime, HORIZON};

#[derive(Debug)]
pub(crate) enum SlotReservation {
    Slot {
        slot_at: DbTime,
        /// The call must end before. Counted from the start of the reservation.
        lease_ends: Instant,
        /// The call probes a held lane: [`Outbox::release`] ends the probe.
        is_probe: bool,
    },
    Refused(Refusal),
    /// No worker has ever served the app.
    NoLane,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Type)]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub(crate) enum Refusal {
    /// An operator has paused the app.
    Paused,
    /// The API has asked for a pause.
    RetryAfter,
    /// Workers have claimed the slots of the next moments.
    Busy,
    /// The next probe of the held lane is later.
    Held,
}

#[derive(FromRow)]
struct SlotRow {
    at: DbTime,
    slot_at: DbTime,
    refusal: Option<Refusal>,
    is_probe: bool,
}

impl Outbox {
    /// `call_id` is fresh for each call.
    pub(crate) async fn reserve_slot(
        &self,
        app: &str,
        call_id: Uuid,
        lease: Duration,
    ) -> Result<SlotReservation, sqlx::Error> {
        let call = call!(
            reserve_slot,
            app = app,
            call_id = call_id,
            lease = interval(lease),
            horizon = interval(HORIZON),
        );
        let answer = self.pool.call(call).await?;
        let Some(row) = answer.decode::<SlotRow>()?.pop() else {
            return Ok(SlotReservation::NoLane);
        };
        self.clock().observe(answer.clock_reading(row.at));
        Ok(match row.refusal {
            Some(refusal) => SlotReservation::Refused(refusal),
            None => SlotReservation::Slot {
                slot_at: row.slot_at,
                lease_ends: answer.asked.instant + lease,
                is_probe: row.is_probe,
            },
        })
    }
}
