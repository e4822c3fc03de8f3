//! The worker's protocol: each operation calls the function of the same name in `migrations/functions/`.

mod claim;
mod lane;
mod record;
mod reserve_slot;

pub(crate) use claim::*;
pub(crate) use lane::*;
pub(crate) use record::*;
pub(crate) use reserve_slot::{Refusal, SlotReservation};
