//! The pace of an app's calls: slots on the database's clock, and how a process keeps to them.
//!
//! ARCHITECTURE.md shows why no sliding second holds more calls than the limit.

pub(crate) mod clock;
mod coalesce;
mod db_time;
mod lookahead;
mod permit;
mod shared_clock;

pub(crate) use clock::{ClockStep, DbClock};
pub(crate) use coalesce::coalesced_starts;
pub(crate) use db_time::DbTime;
pub(crate) use lookahead::Lookahead;
pub(crate) use permit::{ClaimedSlot, Late, SendPermit};
pub(crate) use shared_clock::SharedClock;

use std::time::Duration;

pub(crate) const TOLERANCE: Duration = Duration::from_millis(10);

/// A claim takes slots up to this far ahead: many round trips to the database, and short enough that the fleet follows a
/// change of the lane at once.
pub(crate) const HORIZON: Duration = Duration::from_millis(150);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    /// Slots a second for a limit of calls in any sliding second, as `signaling.slot_rate` has it.
    fn slot_rate(limit_per_s: f64) -> f64 {
        limit_per_s / 1.02
    }

    /// The most values in any half-open window of a second.
    fn worst_sliding_second(mut starts_us: Vec<i64>) -> usize {
        starts_us.sort_unstable();
        let mut worst = 0;
        let mut first = 0;
        for (last, start) in starts_us.iter().enumerate() {
            while starts_us[first] <= start - 1_000_000 {
                first += 1;
            }
            worst = worst.max(last + 1 - first);
        }
        worst
    }

    /// The claim's arithmetic: slots after `next`, never in the past, to the microsecond as Postgres rounds.
    #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
    fn take_slots(next: &mut i64, now: i64, rate: f64, count: usize) -> Vec<i64> {
        let spacing_us = (1e6 / rate).round();
        let first = (*next).max(now);
        *next = first + (count as f64 * spacing_us) as i64;
        (0..count)
            .map(|place| first + (place as f64 * spacing_us) as i64)
            .collect()
    }

    proptest! {
        #[test]
        fn no_sliding_second_holds_more_than_the_limit(
            limit in 2_u32..2_000,
            claims in prop::collection::vec((0_i64..400_000, 1_usize..150), 1..60),
            lateness in prop::collection::vec(0_i64..=10_000, 150),
        ) {
            let rate = slot_rate(f64::from(limit));
            let (mut now, mut next) = (0, 0);
            let mut starts = Vec::new();
            for (pause_us, count) in claims {
                now += pause_us;
                let slots = take_slots(&mut next, now, rate, count);
                starts.extend(slots.iter().zip(&lateness).map(|(slot, late)| slot + late));
            }
            prop_assert!(worst_sliding_second(starts) <= limit as usize);
        }
    }
}
