//! Logs the first of several failures in a row. A success ends the row. Without it, a database that is down for an hour would
//! fill the log with the same line.

use std::sync::atomic::{AtomicBool, Ordering};

/// Remembers whether the present failure is logged. The caller logs: each failure has its own event and level.
#[derive(Debug, Default)]
pub(crate) struct FailureLog(AtomicBool);

impl FailureLog {
    /// Takes in a failure. True if the caller has to log it: the first failure since the start or the last success.
    pub(crate) fn failed(&self) -> bool {
        !self.0.swap(true, Ordering::Relaxed)
    }

    /// Takes in a success. True if the failure before it was logged, so that the log may show its end.
    pub(crate) fn succeeded(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }

    /// Takes in a result. Returns the error if the caller has to log it.
    pub(crate) fn observe<T, E>(&self, result: Result<T, E>) -> Option<E> {
        match result {
            Ok(_) => {
                self.succeeded();
                None
            }
            Err(error) => self.failed().then_some(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_logged_once_until_the_work_succeeds_and_its_end_once() {
        let log = FailureLog::default();
        assert!(!log.succeeded(), "nothing has failed");
        for _ in 0..2 {
            assert!(log.failed());
            assert!(!log.failed(), "it is logged");
            assert_eq!(log.observe(Err::<(), _>("again")), None);
            assert!(log.succeeded());
            assert!(!log.succeeded(), "its end is logged");
            assert_eq!(log.observe(Err::<(), _>("failed")), Some("failed"));
            assert_eq!(log.observe(Ok::<_, &str>(())), None);
        }
    }
}
