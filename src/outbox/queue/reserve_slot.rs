//! Reserves a slot for a call that belongs to no message, because such calls count against the app's budget, too.

use std::time::{Duration, Instant};

use strum::EnumString;
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumString)]
#[strum(serialize_all = "snake_case")]
pub(crate) enum Refusal {
    Paused,
    RetryAfter,
    /// Workers have claimed the slots of the next moments.
    Busy,
    Held,
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
        let row: Option<(DbTime, DbTime, Option<String>, bool)> = answer.decode()?.pop();
        let Some((at, slot_at, refusal, is_probe)) = row else {
            return Ok(SlotReservation::NoLane);
        };
        self.clock().observe(answer.clock_reading(at));
        Ok(match refusal {
            Some(refusal) => SlotReservation::Refused(refusal.parse().unwrap_or(Refusal::Busy)),
            None => SlotReservation::Slot {
                slot_at,
                lease_ends: answer.asked.instant + lease,
                is_probe,
            },
        })
    }
}
