//! Shows the ops server whether each lane makes progress, its messages in flight, and whether the recorder lags.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::lane::Lane;

/// How much later than promised a lane may beat before it counts as stuck. More than a claim of a slow database takes.
const GRACE: Duration = Duration::from_secs(15);

/// Empty until the lanes are open.
#[derive(Debug, Default)]
pub(crate) struct Liveness(OnceLock<Vec<Arc<Lane>>>);

impl Liveness {
    pub(super) fn begin(&self, lanes: &[Arc<Lane>]) {
        // A process opens its lanes once.
        self.0.set(lanes.to_vec()).ok();
    }

    pub(crate) fn lanes(&self) -> Option<&[Arc<Lane>]> {
        self.0.get().map(Vec::as_slice)
    }

    /// Since when the recorder can't save outcomes, or saves them slowly.
    pub(crate) fn recorder_lagging_since(&self) -> Option<Instant> {
        *self.0.get()?.first()?.shared.recorder_lag.borrow()
    }
}

/// The heartbeat of a lane's loop. It beats when the database has answered a claim or a poll, and promises the time of the
/// next beat. A loop that runs without ever getting an answer does not beat, so it counts as stuck.
#[derive(Debug)]
pub(crate) struct Heartbeat(Mutex<Beat>);

#[derive(Debug)]
struct Beat {
    at: Instant,
    next_by: Instant,
    error: Option<String>,
}

/// A lane whose heartbeat is overdue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stuck {
    pub(crate) silent_for: Duration,
    /// The last error since the last beat.
    pub(crate) error: Option<String>,
}

impl Heartbeat {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Beat::new(Instant::now(), Duration::ZERO)))
    }

    /// The lane makes progress, and waits no longer than this before the next beat.
    pub(super) fn beat(&self, wait: Duration) {
        *self.0.lock() = Beat::new(Instant::now(), wait);
    }

    pub(super) fn failed(&self, error: String) {
        self.0.lock().error = Some(error);
    }

    pub(crate) fn stuck(&self) -> Option<Stuck> {
        self.0.lock().stuck_at(Instant::now())
    }
}

impl Beat {
    fn new(now: Instant, wait: Duration) -> Self {
        Self {
            at: now,
            next_by: now + wait + GRACE,
            error: None,
        }
    }

    fn stuck_at(&self, now: Instant) -> Option<Stuck> {
        (self.next_by < now).then(|| Stuck {
            silent_for: now.saturating_duration_since(self.at),
            error: self.error.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_lane_is_stuck_when_its_promised_beat_is_overdue() {
        let begun = Instant::now();
        let mut beat = Beat::new(begun, SECOND * 20);
        assert_eq!(beat.stuck_at(begun + SECOND * 20 + GRACE), None);
        beat.error = Some("no".into());
        let stuck = Stuck {
            silent_for: SECOND * 60,
            error: Some("no".into()),
        };
        assert_eq!(beat.stuck_at(begun + SECOND * 60), Some(stuck));
    }

    #[test]
    fn a_beat_forgets_the_error_before_it() {
        let heartbeat = Heartbeat::new();
        heartbeat.failed("no".into());
        heartbeat.beat(Duration::ZERO);
        assert_eq!(heartbeat.0.lock().error, None);
    }
}
