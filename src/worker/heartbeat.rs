//! Shows the ops server whether each lane makes progress.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How much later than promised a lane may beat before it counts as stuck. More than a claim of a slow database takes.
const GRACE: Duration = Duration::from_secs(15);

/// The heartbeat of a lane's loop. It beats when the database has answered a claim or a poll, and promises the time of the
/// next beat. A loop that runs without ever getting an answer does not beat, so it counts as stuck.
#[derive(Debug)]
pub(crate) struct Heartbeat(Mutex<(Instant, Duration)>);

impl Heartbeat {
    /// The lane makes progress at `at`, and waits no longer than `wait` before the next beat.
    pub(super) fn new(at: Instant, wait: Duration) -> Self {
        Self(Mutex::new((at, wait)))
    }

    pub(super) fn beat(&self, wait: Duration) {
        *self.0.lock() = (Instant::now(), wait);
    }

    /// The time of the last beat, if the next one is overdue.
    pub(crate) fn stuck_since(&self) -> Option<Instant> {
        let (at, wait) = *self.0.lock();
        (at.elapsed() > wait + GRACE).then_some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_is_stuck_when_its_promised_beat_is_overdue() {
        let wait = Duration::from_secs(20);
        for (ago, is_stuck) in [(wait, false), (wait + GRACE, true)] {
            let at = Instant::now().checked_sub(ago).expect("a time");
            let stuck_since = Heartbeat::new(at, wait).stuck_since();
            assert_eq!(stuck_since, is_stuck.then_some(at));
        }
    }
}
