//! The delay before the next attempt of a message. The only module that names the crate `backoff`, which is no longer
//! maintained. This module computes the doubling, and the crate spreads the delay.

use std::time::Duration;

use backoff::ExponentialBackoffBuilder;
use backoff::backoff::Backoff;
use clap::Args;

use crate::config::UsageError;
use crate::time_text::{parse_duration, parse_positive};

/// Spreads a delay to both sides by this share, so that messages that failed together are not retried together.
const JITTER: f64 = 0.5;

/// Exponential backoff: `retry_base`, twice that, and so on, spread by half to both sides, and never above `retry_cap`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Args)]
pub(crate) struct RetryPolicy {
    /// The average delay after the first failed attempt of a message. It doubles with each failure, and varies by half
    #[arg(long, env = "WORKER_RETRY_BASE", default_value = "1s", value_parser = parse_positive)]
    pub(crate) retry_base: Duration,

    /// The longest delay that the worker chooses. A Retry-After of the API may be longer, up to an hour
    #[arg(long, env = "WORKER_RETRY_CAP", default_value = "5m", value_parser = parse_positive)]
    pub(crate) retry_cap: Duration,

    /// A message that still fails this long after its first failure ends as failed, even if the attempts were not charged
    #[arg(long, env = "WORKER_GIVE_UP_AFTER", default_value = "24h", value_parser = parse_duration)]
    pub(crate) give_up_after: Duration,
}

impl RetryPolicy {
    pub(crate) fn check(&self) -> Result<(), UsageError> {
        let (base, cap) = (self.retry_base, self.retry_cap);
        if cap >= base {
            return Ok(());
        }
        Err(UsageError(format!(
            "the retry cap {cap:?} is shorter than the retry base {base:?}: raise WORKER_RETRY_CAP or lower WORKER_RETRY_BASE"
        )))
    }

    /// The delay before the call that follows failed attempt number `attempt` (1 is the first).
    pub(crate) fn delay(&self, attempt: u32) -> Duration {
        let doublings = attempt.saturating_sub(1).min(30);
        // The longest random delay is the cap.
        let longest_middle = self.retry_cap.div_f64(1.0 + JITTER);
        let middle = self
            .retry_base
            .saturating_mul(1 << doublings)
            .min(longest_middle);
        let mut backoff = ExponentialBackoffBuilder::new()
            .with_initial_interval(middle)
            .with_randomization_factor(JITTER)
            .with_max_elapsed_time(None)
            .build();
        backoff
            .next_backoff()
            .unwrap_or(self.retry_cap)
            .min(self.retry_cap)
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

    fn policy(retry_base: Duration, retry_cap: Duration) -> RetryPolicy {
        RetryPolicy {
            retry_base,
            retry_cap,
            give_up_after: Duration::from_hours(24),
        }
    }

    proptest! {
        #[test]
        fn a_delay_is_within_half_of_its_exponential_and_never_above_the_cap(
            base_ms in 1_u64..10_000, cap_factor in 1_u64..1_000, attempt in 1_u32..2_000,
        ) {
            let (base, cap) = (Duration::from_millis(base_ms), Duration::from_millis(base_ms * cap_factor));
            let policy = policy(base, cap);
            let middle = base.saturating_mul(1 << attempt.saturating_sub(1).min(30)).min(cap.div_f64(1.5));
            let delay = policy.delay(attempt);
            let rounding = Duration::from_micros(2);
            prop_assert!(delay + rounding >= middle / 2, "{delay:?} < {middle:?} / 2");
            prop_assert!(delay <= middle.mul_f64(1.5) + rounding);
            prop_assert!(delay <= cap);
        }
    }

    #[test]
    fn a_cap_below_the_base_is_refused() {
        let second = Duration::from_secs(1);
        let error = policy(second, second / 2).check().expect_err("impossible");
        assert!(error.to_string().contains("WORKER_RETRY_CAP"), "{error}");
        assert!(policy(second, second).check().is_ok());
    }

    #[test]
    fn delays_of_the_same_attempt_differ() {
        let policy = policy(Duration::from_secs(1), Duration::from_secs(300));
        let delays: std::collections::HashSet<_> = (0..20).map(|_| policy.delay(3)).collect();
        assert!(delays.len() > 10);
    }
}
