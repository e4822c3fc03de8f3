//! Calls of a backlog that start together, so that a process wakes up for several of them at once.

use std::time::Duration;

use super::DbTime;

/// How much later than its slot a call starts at most so that it starts with others: at 490 a second, two start
/// together. To wake up for a call, and again for its answer, costs a process more than all the rest that it does for
/// it. What is left of [`TOLERANCE`](super::TOLERANCE) is for a machine that is busy.
const AT_MOST: Duration = Duration::from_millis(3);

/// When calls start that have these slots, which are in order: the slot of the last one that can wait for the first.
pub(crate) fn coalesced_starts(slots: &[DbTime]) -> Vec<DbTime> {
    let mut starts = Vec::with_capacity(slots.len());
    while let Some(&first) = slots.get(starts.len()) {
        let rest = &slots[starts.len()..];
        let together = rest.partition_point(|slot| *slot <= first + AT_MOST);
        let last = rest[together - 1];
        starts.extend(std::iter::repeat_n(last, together));
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
