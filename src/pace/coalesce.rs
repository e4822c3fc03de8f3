//! Calls of a backlog that start together, so that a process wakes up for several of them at once.

use std::time::Duration;

use super::DbTime;

/// The longest delay of a call after its slot so that it starts with later calls. At 490 a second, two start together. Each
/// wake-up costs a process more than the rest of a call. The rest of [`TOLERANCE`](super::TOLERANCE) is for a busy machine.
const MAX_DELAY: Duration = Duration::from_millis(3);

/// The starts of calls with these slots in order. Calls that can wait for one another start in the last of their slots.
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
    use super::*;

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
}
