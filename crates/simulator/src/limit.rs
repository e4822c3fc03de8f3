//! The limit of calls in any sliding second, and the same window used to measure what really came.
//!
//! Everything here is arithmetic over given times: no clock is read.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// The span that a limit is about.
const SECOND: Duration = Duration::from_secs(1);

/// How late a call may be judged after its arrival: longer than a request body may take to come in, plus the second
/// before the arrival.
const KEPT: Duration = Duration::from_secs(10);

/// Windows kept by the limiter before those of silent apps are forgotten.
const MAX_APPS: usize = 1_000;

/// Times of the last seconds, in order, to ask how full a sliding second is.
///
/// A sliding second is half-open, `(t − 1 s, t]`: two calls exactly one second apart are never in the same one.
/// Times may be inserted late, up to nine seconds behind the newest.
#[derive(Debug, Default)]
pub(super) struct SlidingSecond {
    times: VecDeque<Duration>,
}

impl SlidingSecond {
    /// The number of times in the fullest sliding second that would contain `at`, without `at` itself.
    ///
    /// It looks at the seconds that end after `at` too: a call whose body came in slowly is judged after calls that
    /// arrived later.
    pub(super) fn peak_around(&self, at: Duration) -> usize {
        let mut start = self.times.partition_point(|&time| time + SECOND <= at);
        let end = self.times.partition_point(|&time| time <= at);
        let mut peak = end - start;
        for (index, &time) in self.times.iter().enumerate().skip(end) {
            if time >= at + SECOND {
                break;
            }
            while self.times[start] + SECOND <= time {
                start += 1;
            }
            peak = peak.max(index + 1 - start);
        }
        peak
    }

    /// Takes `at` in, and forgets what can matter no longer.
    pub(super) fn insert(&mut self, at: Duration) {
        let place = self.times.partition_point(|&time| time <= at);
        self.times.insert(place, at);
        while let (Some(&oldest), Some(&newest)) = (self.times.front(), self.times.back())
            && oldest + KEPT < newest
        {
            self.times.pop_front();
        }
    }

    fn is_silent_at(&self, now: Duration) -> bool {
        self.times.back().is_none_or(|&newest| newest + KEPT < now)
    }
}

/// Admits at most so many calls of an app in any sliding second.
#[derive(Debug, Default)]
pub(super) struct Limiter {
    admitted: HashMap<String, SlidingSecond>,
}

impl Limiter {
    /// Whether the call of `app_id` that arrived `at` is admitted; `limit` is `None` when there is none.
    ///
    /// Admitted calls are remembered without a limit too, so that one set later holds at once.
    pub(super) fn admit(&mut self, app_id: &str, at: Duration, limit: Option<u32>) -> bool {
        if !self.admitted.contains_key(app_id) {
            if self.admitted.len() >= MAX_APPS {
                self.admitted.retain(|_, window| !window.is_silent_at(at));
            }
            self.admitted
                .insert(app_id.to_owned(), SlidingSecond::default());
        }
        let Some(window) = self.admitted.get_mut(app_id) else {
            return false;
        };
        let has_room = limit.is_none_or(|limit| window.peak_around(at) < limit as usize);
        if has_room {
            window.insert(at);
        }
        has_room
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_call_over_the_limit_in_a_sliding_second_is_refused() {
        let mut limiter = Limiter::default();
        assert!(limiter.admit("app", ms(0), Some(2)));
        assert!(limiter.admit("app", ms(600), Some(2)));
        assert!(!limiter.admit("app", ms(999), Some(2)));
        assert!(limiter.admit("app", ms(1_000), Some(2)));
        assert!(!limiter.admit("app", ms(1_599), Some(2)));
        assert!(limiter.admit("app", ms(1_600), Some(2)));
    }

    #[test]
    fn a_refused_call_takes_no_room() {
        let mut limiter = Limiter::default();
        assert!(limiter.admit("app", ms(0), Some(1)));
        for at_ms in (100..1_000).step_by(100) {
            assert!(!limiter.admit("app", ms(at_ms), Some(1)));
        }
        assert!(limiter.admit("app", ms(1_000), Some(1)));
    }

    #[test]
    fn each_app_has_a_limit_of_its_own() {
        let mut limiter = Limiter::default();
        assert!(limiter.admit("one", ms(0), Some(1)));
        assert!(limiter.admit("two", ms(0), Some(1)));
        assert!(!limiter.admit("one", ms(1), Some(1)));
    }

    #[test]
    fn a_call_judged_late_does_not_overfill_a_later_second() {
        let mut limiter = Limiter::default();
        assert!(limiter.admit("app", ms(500), Some(2)));
        assert!(limiter.admit("app", ms(1_200), Some(2)));
        assert!(!limiter.admit("app", ms(400), Some(2)));
        assert!(limiter.admit("app", ms(200), Some(2)));
    }

    #[test]
    fn a_limit_set_later_counts_the_calls_before_it() {
        let mut limiter = Limiter::default();
        assert!(limiter.admit("app", ms(0), None));
        assert!(!limiter.admit("app", ms(10), Some(1)));
    }

    fn worst_by_brute_force(times: &[Duration]) -> usize {
        times
            .iter()
            .map(|&end| {
                times
                    .iter()
                    .filter(|&&time| time <= end && time + SECOND > end)
                    .count()
            })
            .max()
            .unwrap_or(0)
    }

    proptest! {
        #[test]
        fn the_worst_sliding_second_is_that_of_brute_force(
            calls in prop::collection::vec((0_u64..400, 0_u64..2_000), 1..120),
        ) {
            let mut window = SlidingSecond::default();
            let mut worst = 0;
            let mut now_ms = 2_000;
            let mut times = Vec::new();
            for (gap_ms, late_by_ms) in calls {
                now_ms += gap_ms;
                let at = ms(now_ms - late_by_ms);
                times.push(at);
                worst = worst.max(window.peak_around(at) + 1);
                window.insert(at);
            }
            prop_assert_eq!(worst, worst_by_brute_force(&times));
        }

        #[test]
        fn no_sliding_second_holds_more_than_the_limit(
            calls in prop::collection::vec((0_u64..100, 0_u64..2_000), 1..200),
            limit in 1_u32..20,
        ) {
            let mut limiter = Limiter::default();
            let mut now_ms = 2_000;
            let mut admitted = Vec::new();
            for (gap_ms, late_by_ms) in calls {
                now_ms += gap_ms;
                let at = ms(now_ms - late_by_ms);
                if limiter.admit("app", at, Some(limit)) {
                    admitted.push(at);
                }
            }
            prop_assert!(worst_by_brute_force(&admitted) <= limit as usize);
        }
    }
}
