//! The worker's protocol with the database: claim, record, and the state of the lane's row.

pub(in crate::outbox) mod claim;
mod lane;
mod record;
mod reserve_slot;

pub(crate) use claim::{Batch, ClaimRequest, Claimed, Ended, Hold, ScanPosition};
pub(crate) use lane::{HoldKind, NextDue};
pub(crate) use record::{CallRecord, Record};
pub(crate) use reserve_slot::{Refusal, SlotReservation};
