//! Shows whether the loop of a lane is stuck. The loop beats after a claim and before each bounded wait, and the poller
//! beats for an idle loop. A loop that misses the end of its wait by `GRACE` counts as stuck.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How much later than promised a lane may beat before it counts as stuck. More than a claim of a slow database takes.
const GRACE: Duration = Duration::from_secs(15);

#[derive(Debug)]
pub(crate) struct Heartbeat(Mutex<Beat>);

#[derive(Debug)]
struct Beat {
    at: Instant,
    /// The longest time until the next beat.
    wait: Duration,
    /// The last error of the database since the beat.
    error: Option<String>,
}

impl Heartbeat {
    /// The lane makes progress at `at`, and waits no longer than `wait` before the next beat.
    pub(super) fn new(at: Instant, wait: Duration) -> Self {
        let error = None;
        Self(Mutex::new(Beat { at, wait, error }))
    }

    pub(in crate::worker) fn beat(&self, wait: Duration) {
        let (at, error) = (Instant::now(), None);
        *self.0.lock() = Beat { at, wait, error };
    }

    pub(in crate::worker) fn failed(&self, error: &str) {
        self.0.lock().error = Some(error.to_owned());
    }

    /// The time since the last beat, and the last error since, as text. None until the next beat is overdue.
    pub(crate) fn stuck(&self) -> Option<String> {
        let Beat { at, wait, error } = &*self.0.lock();
        let silent_for = at.elapsed();
        if silent_for <= *wait + GRACE {
            return None;
        }
        let error = error.as_ref();
        let error = error.map(|error| format!("; last database error: {error}"));
        let error = error.unwrap_or_default();
        Some(format!("{} s{error}", silent_for.as_secs()))
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
            let heartbeat = Heartbeat::new(at, wait);
            heartbeat.failed("refused");
            let stuck = is_stuck.then_some("35 s; last database error: refused".into());
            assert_eq!(heartbeat.stuck(), stuck);
            heartbeat.beat(wait);
            assert_eq!(heartbeat.0.lock().error, None, "the error is over");
        }
    }
}
