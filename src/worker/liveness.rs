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

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Beat {
    pub(crate) at: Instant,
    next_by: Instant,
    /// The last error since this beat.
    pub(crate) error: Option<String>,
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self(Mutex::new(Beat::new(Instant::now(), Duration::ZERO)))
    }
}

impl Heartbeat {
    /// The lane makes progress, and waits no longer than this before the next beat.
    pub(super) fn beat(&self, wait: Duration) {
        *self.0.lock() = Beat::new(Instant::now(), wait);
    }

    pub(super) fn failed(&self, error: String) {
        self.0.lock().error = Some(error);
    }

    /// The last beat, if the next one is overdue.
    pub(crate) fn stuck(&self) -> Option<Beat> {
        let beat = self.0.lock();
        (beat.next_by < Instant::now()).then(|| beat.clone())
    }
}

impl Beat {
    pub(crate) fn new(at: Instant, wait: Duration) -> Self {
        Self {
            at,
            next_by: at + wait + GRACE,
            error: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_is_stuck_when_its_promised_beat_is_overdue() {
        let heartbeat = Heartbeat::default();
        let wait = Duration::from_secs(20);
        for (ago, is_stuck) in [(wait, false), (wait + GRACE, true)] {
            let at = Instant::now().checked_sub(ago).expect("a time");
            *heartbeat.0.lock() = Beat::new(at, wait);
            assert_eq!(heartbeat.stuck().is_some(), is_stuck);
        }
    }

    #[test]
    fn a_beat_forgets_the_error_before_it() {
        let heartbeat = Heartbeat::default();
        heartbeat.failed("no".into());
        heartbeat.beat(Duration::ZERO);
        assert_eq!(heartbeat.0.lock().error, None);
    }
}
