//! The counters and histograms of an app's minute, and their sums. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::outcome::{FinalStatus, Outcome};

/// Upper bounds of a [`Histogram`]'s buckets in seconds, inclusive. A last bucket has no bound. The comment of
/// `signaling.minute_stats` repeats them. Workers of several versions add to the same rows, so the bounds must not change.
pub(crate) const BOUNDS_S: [f64; 18] = [
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 300.0,
    1_800.0, 3_600.0,
];
pub(crate) const BUCKETS: usize = BOUNDS_S.len() + 1;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<u64>")]
pub(crate) struct Histogram([u64; BUCKETS]);

/// A missing count is 0. Excess counts belong to the last bucket.
impl From<Vec<u64>> for Histogram {
    fn from(counts: Vec<u64>) -> Self {
        let mut histogram = Self::default();
        for (index, count) in counts.into_iter().enumerate() {
            let bucket = &mut histogram.0[index.min(BUCKETS - 1)];
            *bucket = bucket.saturating_add(count);
        }
        histogram
    }
}

impl Histogram {
    pub(crate) fn observe(&mut self, duration: Duration) {
        let duration_s = duration.as_secs_f64();
        let bucket = BOUNDS_S.partition_point(|bound_s| *bound_s < duration_s);
        self.0[bucket] += 1;
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (count, more) in self.0.iter_mut().zip(other.0) {
            *count = count.saturating_add(more);
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.iter().copied().fold(0, u64::saturating_add)
    }

    /// The duration that this share of all durations (0 to 1) does not exceed, interpolated within its bucket. None for
    /// an empty histogram. The last bucket counts as the last bound.
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    pub(crate) fn quantile(&self, share: f64) -> Option<Duration> {
        let total = self.count();
        if total == 0 {
            return None;
        }
        let wanted = share.clamp(0.0, 1.0) * total as f64;
        let mut below = 0.0;
        let mut lower_s = 0.0;
        for (bound_s, count) in BOUNDS_S.iter().zip(self.0) {
            let count = count as f64;
            if count > 0.0 && below + count >= wanted {
                let part = ((wanted - below) / count).clamp(0.0, 1.0);
                lower_s += (bound_s - lower_s) * part;
                break;
            }
            below += count;
            lower_s = *bound_s;
        }
        Some(Duration::from_secs_f64(lower_s))
    }
}

macro_rules! stats {
    ($($counter:ident)*) => {
        /// The counters and histograms of `signaling.minute_stats`.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub(crate) struct Stats {
            $(pub(crate) $counter: u64,)*
            pub(crate) call_time: Histogram,
            /// From the later of insert and due time to the first call.
            pub(crate) queue_wait: Histogram,
        }

        impl Stats {
            pub(crate) fn merge(&mut self, other: &Self) {
                $(self.$counter = self.$counter.saturating_add(other.$counter);)*
                self.call_time.merge(&other.call_time);
                self.queue_wait.merge(&other.queue_wait);
            }
        }
    };
}

stats! {
    message_sent message_delivered message_offline failed expired unknown
    calls_transient calls_throttled calls_rejected calls_unauthorized calls_ambiguous
    slots_missed
}

impl Stats {
    /// Counts a call. A call without a connection has no duration.
    pub(crate) fn called(&mut self, outcome: Outcome, took: Option<Duration>) {
        if let Some(took) = took {
            self.call_time.observe(took);
        }
        match outcome {
            // The final status of the message counts the call.
            Outcome::MessageSent | Outcome::MessageDelivered | Outcome::MessageOffline => {}
            Outcome::Transient | Outcome::Unserved => self.calls_transient += 1,
            Outcome::Throttled => self.calls_throttled += 1,
            Outcome::Rejected => self.calls_rejected += 1,
            Outcome::Unauthorized => self.calls_unauthorized += 1,
            Outcome::Ambiguous => self.calls_ambiguous += 1,
        }
    }

    pub(crate) fn ended(&mut self, status: FinalStatus, messages: u64) {
        *match status {
            FinalStatus::MessageSent => &mut self.message_sent,
            FinalStatus::MessageDelivered => &mut self.message_delivered,
            FinalStatus::MessageOffline => &mut self.message_offline,
            FinalStatus::Failed => &mut self.failed,
            FinalStatus::Expired => &mut self.expired,
            FinalStatus::Unknown => &mut self.unknown,
        } += messages;
    }

    pub(crate) fn calls(&self) -> u64 {
        self.calls_accepted()
            + self.calls_transient
            + self.calls_throttled
            + self.calls_rejected
            + self.calls_unauthorized
            + self.calls_ambiguous
    }

    pub(crate) fn calls_accepted(&self) -> u64 {
        self.message_sent + self.message_delivered + self.message_offline
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_call_without_a_connection_is_counted_and_has_no_duration() {
        let mut stats = Stats::default();
        stats.called(Outcome::Transient, None);
        stats.called(Outcome::Transient, Some(Duration::from_millis(3)));
        assert_eq!(stats.calls_transient, 2);
        assert_eq!(stats.call_time.count(), 1);
    }

    #[test]
    fn a_duration_at_a_bound_is_within_it() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), None);
        histogram.observe(Duration::from_millis(1));
        histogram.observe(Duration::from_micros(1_001));
        histogram.observe(Duration::from_hours(2));
        assert_eq!(&histogram.0[..2], [1, 1]);
        assert_eq!(histogram.0[BUCKETS - 1], 1);
    }

    proptest! {
        #[test]
        fn a_quantile_is_within_the_bucket_of_the_true_one(
            mut durations_us in proptest::collection::vec(0_u64..4_000_000_000, 1..200),
            share in 0.01_f64..1.0,
        ) {
            let mut histogram = Histogram::default();
            for us in &durations_us {
                histogram.observe(Duration::from_micros(*us));
            }
            durations_us.sort_unstable();
            #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "few")]
            let rank = ((share * durations_us.len() as f64).ceil() as usize).clamp(1, durations_us.len());
            let truth_s = Duration::from_micros(durations_us[rank - 1]).as_secs_f64();
            let upper = BOUNDS_S.partition_point(|bound_s| *bound_s < truth_s);
            let estimate_s = histogram.quantile(share).expect("some").as_secs_f64();
            let lower_s = if upper == 0 { 0.0 } else { BOUNDS_S[upper - 1] };
            let upper_s = BOUNDS_S.get(upper).copied().unwrap_or(lower_s);
            prop_assert!((lower_s - 1e-9..=upper_s + 1e-9).contains(&estimate_s), "{estimate_s} not in {lower_s}..={upper_s}");
        }

        #[test]
        fn histograms_add_up(one in proptest::collection::vec(0_u64..1_000, BUCKETS), other in proptest::collection::vec(0_u64..1_000, BUCKETS)) {
            let all: Vec<u64> = one.iter().zip(&other).map(|(one, other)| one + other).collect();
            let mut sum = Histogram::from(one);
            sum.merge(&Histogram::from(other));
            prop_assert_eq!(sum, Histogram::from(all));
        }
    }
}
