//! The pace of an app's calls: slots on the database's clock, and how a process keeps to them.
//!
//! ARCHITECTURE.md shows why no sliding second holds more calls than the limit.

pub(crate) mod clock;
mod db_time;
mod permit;
mod shared_clock;

pub(crate) use clock::{ClockStep, DbClock};
pub(crate) use db_time::DbTime;
pub(crate) use permit::{ClaimedSlot, NoPermit, SendPermit};
pub(crate) use shared_clock::SharedClock;

use std::time::Duration;

/// How late a call may start after its slot. A later start could put one call too many into a sliding second.
/// `slot_rate.sql` lowers the rate by this time: change both.
pub(crate) const TOLERANCE: Duration = Duration::from_millis(10);

/// A claim takes slots up to this far ahead: many round trips to the database, and short enough that the fleet follows a
/// change of the lane at once.
pub(crate) const HORIZON: Duration = Duration::from_millis(150);

/// The time from a claim's own time on the database's clock to the arrival of its rows. Without a lookahead of that length,
/// a slow claim would miss its first slot by more than the tolerance, and every later claim would do the same.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lookahead(pub(crate) Duration);

/// A claim that takes less time than this needs no lookahead.
const IN_TIME: Duration = TOLERANCE.checked_div(2).expect("two is not zero");

impl Lookahead {
    /// With the horizon, this stays below the second for which `open_lane.sql` and `adopt.sql` let old slots pass. A worker
    /// sends nothing while each claim takes longer.
    pub(crate) const MAX: Duration = Duration::from_millis(800);

    /// Follows the duration of a claim. The next claim may take a quarter longer.
    pub(crate) fn observe(&mut self, took: Duration) {
        let faded = self.0 * 7 / 8;
        let enough = (took * 5 / 4).saturating_sub(IN_TIME);
        self.0 = enough.max(faded).min(Self::MAX);
    }
}

/// A call may wait this long after its slot to start together with later calls, because a wake-up of the process costs more
/// than the rest of a call. At 490 calls a second, two start together. The rest of [`TOLERANCE`] is for a busy machine.
const MAX_DELAY: Duration = Duration::from_millis(3);

/// The start of each call, for slots in order. Calls that can wait for one another start in the last of their slots.
pub(crate) fn coalesced_starts(slots: &[DbTime]) -> Vec<DbTime> {
    let mut starts = Vec::with_capacity(slots.len());
    while let Some(&first) = slots.get(starts.len()) {
        let rest = &slots[starts.len()..];
        let together = rest.partition_point(|slot| *slot <= first + MAX_DELAY);
        starts.extend(std::iter::repeat_n(rest[together - 1], together));
    }
    starts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_database_nearby_needs_no_lookahead() {
        let mut lookahead = Lookahead::default();
        lookahead.observe(4 * MS);
        assert_eq!(lookahead.0, Duration::ZERO);
    }

    #[test]
    fn a_slow_claim_counts_at_once_and_is_forgotten_little_by_little() {
        let mut lookahead = Lookahead::default();
        lookahead.observe(40 * MS);
        assert_eq!(lookahead.0, 45 * MS);
        lookahead.observe(20 * MS);
        assert_eq!(lookahead.0, 45 * MS * 7 / 8);
        for _ in 0..30 {
            lookahead.observe(MS);
        }
        assert!(lookahead.0 < MS);
        lookahead.observe(90_000 * MS);
        assert_eq!(lookahead.0, Lookahead::MAX);
    }

    fn starts_us(slots_us: &[i64]) -> Vec<i64> {
        let slots: Vec<_> = slots_us.iter().copied().map(DbTime::from_micros).collect();
        coalesced_starts(&slots)
            .into_iter()
            .map(DbTime::as_micros)
            .collect()
    }

    #[test]
    fn calls_close_together_start_at_once_and_none_before_its_slot() {
        assert_eq!(
            starts_us(&[0, 2_040, 4_080, 6_120, 8_160]),
            [2_040, 2_040, 6_120, 6_120, 8_160]
        );
        assert_eq!(
            starts_us(&[0, 1, 2, 3_000, 3_001]),
            [3_000, 3_000, 3_000, 3_000, 3_001]
        );
    }

    #[test]
    fn calls_far_apart_start_in_their_slots() {
        assert_eq!(starts_us(&[0, 20_000, 40_000]), [0, 20_000, 40_000]);
        assert_eq!(starts_us(&[]), [0_i64; 0]);
    }

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
