//! Bounds the log lines about single messages or calls. Without it, an outage that fails every call would log every call.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

const INTERVAL: Duration = Duration::from_secs(10);

/// Admits one line in an interval. Holds the time of the last line, and the number of lines suppressed since then.
#[derive(Debug, Default)]
pub(crate) struct LogThrottle(Mutex<(Option<Instant>, u64)>);

impl LogThrottle {
    /// Returns the number of lines suppressed since the last line if the caller may log now, and None otherwise.
    pub(crate) fn admit(&self) -> Option<u64> {
        let mut last = self.0.lock();
        let (logged_at, suppressed) = &mut *last;
        if logged_at.is_some_and(|at| at.elapsed() < INTERVAL) {
            *suppressed += 1;
            return None;
        }
        *logged_at = Some(Instant::now());
        Some(std::mem::take(suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_an_interval_is_admitted_and_counts_the_suppressed_lines() {
        let log_throttle = LogThrottle::default();
        assert_eq!(log_throttle.admit(), Some(0));
        for _ in 0..1_000 {
            assert_eq!(log_throttle.admit(), None);
        }
        log_throttle.0.lock().0 = Instant::now().checked_sub(INTERVAL);
        assert_eq!(log_throttle.admit(), Some(1_000));
    }
}
