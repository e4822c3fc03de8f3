//! A bound for what is said of single messages: an incident may strike every one of them.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often it is said.
const EVERY: Duration = Duration::from_secs(10);

/// Counts what is not said.
#[derive(Debug, Default)]
pub(crate) struct LogThrottle(Mutex<Count>);

#[derive(Debug, Default)]
struct Count {
    logged_at: Option<Instant>,
    suppressed: u64,
}

impl LogThrottle {
    /// Whether it may be said now; then, how often it was not since it last was.
    pub(crate) fn admit(&self) -> Option<u64> {
        let mut count = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if count
            .logged_at
            .is_some_and(|logged_at| now < logged_at + EVERY)
        {
            count.suppressed += 1;
            return None;
        }
        count.logged_at = Some(now);
        Some(std::mem::take(&mut count.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_strikes_every_message_is_said_once_and_counted() {
        let log_throttle = LogThrottle::default();
        assert_eq!(log_throttle.admit(), Some(0));
        for _ in 0..1_000 {
            assert_eq!(log_throttle.admit(), None);
        }
        log_throttle.0.lock().expect("fine").logged_at = Instant::now().checked_sub(EVERY);
        assert_eq!(log_throttle.admit(), Some(1_000));
    }
}
