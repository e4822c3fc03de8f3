//! The delay before the next attempt of a message. The only module that names the crate `backoff`, which is no longer
//! maintained and is used for its exponential policy alone.

use std::time::Duration;

use backoff::ExponentialBackoffBuilder;
use backoff::backoff::Backoff;

use crate::config::UsageError;

/// Spreads a delay to both sides by this share, so that messages that failed together are not retried together.
const JITTER: f64 = 0.5;

/// Exponential backoff: `base`, twice that, and so on, spread by half to both sides, and never above `cap`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RetryPolicy {
    base: Duration,
    cap: Duration,
    /// A message that still fails so long after its first failure ends as failed, also if its failures were not charged.
    pub(crate) give_up_after: Duration,
}

impl RetryPolicy {
    pub(crate) fn new(
        base: Duration,
        cap: Duration,
        give_up_after: Duration,
    ) -> Result<Self, UsageError> {
        if base < Duration::from_millis(1) {
            let error = "WORKER_RETRY_BASE is zero: set it to at least 1ms";
            return Err(UsageError(error.to_owned()));
        }
        if cap < base {
            return Err(UsageError(format!(
                "the retry cap {cap:?} is shorter than the retry base {base:?}: raise WORKER_RETRY_CAP or lower WORKER_RETRY_BASE"
            )));
        }
        Ok(Self {
            base,
            cap,
            give_up_after,
        })
    }

    /// The delay before the call that follows failed attempt number `attempt` (1 is the first).
    pub(crate) fn delay(&self, attempt: u32) -> Duration {
        let doublings = attempt.saturating_sub(1).min(30);
        // The longest random delay is the cap.
        let longest_middle = self.cap.div_f64(1.0 + JITTER);
        let middle = self.base.saturating_mul(1 << doublings).min(longest_middle);
        let mut backoff = ExponentialBackoffBuilder::new()
            .with_initial_interval(middle)
            .with_randomization_factor(JITTER)
            .with_max_elapsed_time(None)
            .build();
        backoff.next_backoff().unwrap_or(self.cap).min(self.cap)
    }
}

/// A duration shortened by up to a fifth, so that connections that were made together do not end together.
pub(crate) fn shortened_at_random(duration: Duration) -> Duration {
    duration.mul_f64(rand::random_range(0.8..=1.0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    proptest! {
        #[test]
        fn a_delay_is_within_half_of_its_exponential_and_never_above_the_cap(
            base_ms in 1_u64..10_000, cap_factor in 1_u64..1_000, attempt in 1_u32..2_000,
        ) {
            let (base, cap) = (Duration::from_millis(base_ms), Duration::from_millis(base_ms * cap_factor));
            let policy = RetryPolicy::new(base, cap, DAY).expect("valid");
            let middle = base.saturating_mul(1 << attempt.saturating_sub(1).min(30)).min(cap.div_f64(1.5));
            let delay = policy.delay(attempt);
            let rounding = Duration::from_micros(2);
            prop_assert!(delay + rounding >= middle / 2, "{delay:?} < {middle:?} / 2");
            prop_assert!(delay <= middle.mul_f64(1.5) + rounding);
            prop_assert!(delay <= cap);
        }
    }

    #[test]
    fn an_impossible_policy_can_not_be_built() {
        let second = Duration::from_secs(1);
        for (base, cap, setting) in [
            (Duration::ZERO, second, "WORKER_RETRY_BASE"),
            (second, second / 2, "WORKER_RETRY_CAP"),
        ] {
            let error = RetryPolicy::new(base, cap, DAY).expect_err("impossible");
            assert!(error.to_string().contains(setting), "{error}");
        }
    }

    #[test]
    fn delays_of_the_same_attempt_differ() {
        let policy =
            RetryPolicy::new(Duration::from_secs(1), Duration::from_secs(300), DAY).expect("valid");
        let delays: std::collections::HashSet<_> = (0..20).map(|_| policy.delay(3)).collect();
        assert!(delays.len() > 10);
    }
}
