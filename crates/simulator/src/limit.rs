//! The limit of calls within any sliding second. The ledger measures the received rate with the same window.
//!
//! Callers pass the times in, so tests need no clock.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// The API decides a call up to five seconds after its arrival, because the body may be slow. The window must still
/// hold the second before that arrival.
const KEPT: Duration = Duration::from_secs(10);

/// With more apps, the limiter forgets the apps without recent calls.
const MAX_APPS: usize = 1_000;

/// The times of recent calls, in order.
///
/// A sliding second is half-open, `(t − 1 s, t]`: two calls exactly one second apart never share one.
#[derive(Debug, Default)]
pub(super) struct SlidingSecond(VecDeque<Duration>);

impl SlidingSecond {
    /// The number of calls in the fullest sliding second that would contain `at`, without `at` itself.
    ///
    /// This includes seconds that end after `at`, because calls that arrived later may be decided earlier.
    pub(super) fn peak_around(&self, at: Duration) -> usize {
        let Self(times) = self;
        let mut start = times.partition_point(|&time| time + SECOND <= at);
        let end = times.partition_point(|&time| time <= at);
        let mut peak = end - start;
        for (index, &time) in times.iter().enumerate().skip(end) {
            if time >= at + SECOND {
                break;
            }
            while times[start] + SECOND <= time {
                start += 1;
            }
            peak = peak.max(index + 1 - start);
        }
        peak
    }

    /// Adds a call, and returns the size of the fullest sliding second that contains it.
    pub(super) fn insert(&mut self, at: Duration) -> u64 {
        let peak = self.peak_around(at) as u64 + 1;
        let Self(times) = self;
        times.insert(times.partition_point(|&time| time <= at), at);
        while times
            .front()
            .zip(times.back())
            .is_some_and(|(&oldest, &newest)| oldest + KEPT < newest)
        {
            times.pop_front();
        }
        peak
    }
}

#[derive(Debug, Default)]
pub(super) struct Limiter(HashMap<String, SlidingSecond>);

impl Limiter {
    /// Admits a call unless a sliding second already holds `limit` admitted calls of the app.
    ///
    /// Without a limit the call counts too, so that a limit set later takes effect at once.
    pub(super) fn admit(&mut self, app_id: &str, at: Duration, limit: Option<u32>) -> bool {
        let Self(apps) = self;
        if apps.len() >= MAX_APPS && !apps.contains_key(app_id) {
            apps.retain(|_, SlidingSecond(times)| {
                times.back().is_some_and(|&newest| newest + KEPT >= at)
            });
        }
        let window = apps.entry(app_id.to_owned()).or_default();
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
    fn a_refused_call_does_not_count() {
        let mut limiter = Limiter::default();
        assert!(limiter.admit("app", ms(0), Some(1)));
        for at_ms in (100..1_000).step_by(100) {
            assert!(!limiter.admit("app", ms(at_ms), Some(1)));
        }
        assert!(limiter.admit("app", ms(1_000), Some(1)));
    }

    #[test]
    fn each_app_has_its_own_limit() {
        let mut limiter = Limiter::default();
        assert!(limiter.admit("one", ms(0), Some(1)));
        assert!(limiter.admit("two", ms(0), Some(1)));
        assert!(!limiter.admit("one", ms(1), Some(1)));
    }

    #[test]
    fn a_call_decided_late_does_not_overfill_a_later_second() {
        let mut limiter = Limiter::default();
        assert!(limiter.admit("app", ms(500), Some(2)));
        assert!(limiter.admit("app", ms(1_200), Some(2)));
        assert!(!limiter.admit("app", ms(400), Some(2)));
        assert!(limiter.admit("app", ms(200), Some(2)));
    }

    #[test]
    fn a_limit_set_later_counts_earlier_calls() {
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
                worst = worst.max(window.insert(at));
            }
            prop_assert_eq!(worst, worst_by_brute_force(&times) as u64);
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
