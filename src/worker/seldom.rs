//! A bound for what is said of single messages: an incident may strike every one of them.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often it is said.
const EVERY: Duration = Duration::from_secs(10);

/// Counts what is not said.
#[derive(Debug, Default)]
pub(super) struct Seldom(Mutex<Count>);

#[derive(Debug, Default)]
struct Count {
    said_at: Option<Instant>,
    unsaid: u64,
}

impl Seldom {
    /// Whether it may be said now; then, how often it was not since it last was.
    pub(super) fn may_say(&self) -> Option<u64> {
        let mut count = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if count.said_at.is_some_and(|said_at| now < said_at + EVERY) {
            count.unsaid += 1;
            return None;
        }
        count.said_at = Some(now);
        Some(std::mem::take(&mut count.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_strikes_every_message_is_said_once_and_counted() {
        let seldom = Seldom::default();
        assert_eq!(seldom.may_say(), Some(0));
        for _ in 0..1_000 {
            assert_eq!(seldom.may_say(), None);
        }
        seldom.0.lock().expect("fine").said_at = Instant::now().checked_sub(EVERY);
        assert_eq!(seldom.may_say(), Some(1_000));
    }
}
