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
