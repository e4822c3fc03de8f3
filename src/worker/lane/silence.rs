//! Detects an API that answers no call, long before the calls time out. The worker then starts one call a second instead of
//! filling all places.

use std::time::{Duration, Instant};

/// An API that answers no call for so long is silent.
const SILENT_AFTER: Duration = Duration::from_secs(2);

/// The calls of a lane that are open, except those that wait for a receiver.
#[derive(Debug)]
pub(in crate::worker) struct OpenCalls {
    count: usize,
    /// When a call was last answered, or when the first of the open ones began, if that is later.
    waiting_since: Instant,
}

impl OpenCalls {
    pub(in crate::worker) fn new(now: Instant) -> Self {
        Self {
            count: 0,
            waiting_since: now,
        }
    }

    pub(in crate::worker) fn began(&mut self, now: Instant) {
        if self.count == 0 {
            self.waiting_since = now;
        }
        self.count += 1;
    }

    pub(in crate::worker) fn ended(&mut self) {
        self.count = self.count.saturating_sub(1);
    }

    /// A call has a response, whatever that says.
    pub(in crate::worker) fn response_received(&mut self, now: Instant) {
        self.waiting_since = now;
    }

    pub(in crate::worker) fn is_silent(&self, now: Instant) -> bool {
        self.count > 0 && now.saturating_duration_since(self.waiting_since) > SILENT_AFTER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_api_is_silent_while_calls_are_open_and_none_is_answered() {
        let begun = Instant::now();
        let later = begun + SILENT_AFTER + Duration::from_millis(1);
        let mut calls = OpenCalls::new(begun);
        assert!(!calls.is_silent(later), "no call is open");
        calls.began(begun);
        calls.began(later);
        assert!(!calls.is_silent(begun + SILENT_AFTER));
        assert!(calls.is_silent(later));
        calls.response_received(later);
        calls.ended();
        assert!(!calls.is_silent(later));
        assert!(calls.is_silent(later + SILENT_AFTER * 2));
        calls.ended();
        assert!(!calls.is_silent(later + SILENT_AFTER * 2));
    }
}
