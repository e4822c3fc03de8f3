//! What a process shows of itself while it works: whether its lanes get on, how much they have in flight, and whether
//! what is known of calls gets written.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, watch};

/// How much later than expected a lane may be heard of before it counts as stuck: more than a claim takes that its
/// database lets wait.
const GRACE: Duration = Duration::from_secs(15);

/// The signs of life of one process. Empty until its lanes are open.
#[derive(Debug, Default)]
pub(crate) struct Liveness(OnceLock<Working>);

#[derive(Debug)]
struct Working {
    lanes: Vec<LaneLiveness>,
    recorder_lag: watch::Receiver<Option<Instant>>,
}

#[derive(Debug)]
pub(crate) struct LaneLiveness {
    pub(crate) app: String,
    pub(crate) heartbeat: Arc<Heartbeat>,
    pub(super) capacity: Arc<Semaphore>,
    pub(super) max_in_flight: usize,
}

impl Liveness {
    /// From now on there is something to see.
    pub(super) fn begin(
        &self,
        lanes: Vec<LaneLiveness>,
        recorder_lag: watch::Receiver<Option<Instant>>,
    ) {
        // A process works once.
        self.0
            .set(Working {
                lanes,
                recorder_lag,
            })
            .ok();
    }

    /// The lanes; none until they are open.
    pub(crate) fn lanes(&self) -> Option<&[LaneLiveness]> {
        self.0.get().map(|working| working.lanes.as_slice())
    }

    /// Since when what is known of calls can't be written, or not quickly.
    pub(crate) fn recorder_lagging_since(&self) -> Option<Instant> {
        *self.0.get()?.recorder_lag.borrow()
    }
}

impl LaneLiveness {
    /// Messages between their claim and their record.
    pub(crate) fn in_flight(&self) -> usize {
        self.max_in_flight - self.capacity.available_permits()
    }
}

/// The heartbeat of a lane's loop. It beats when the database has answered a claim or a look, and says by when it will
/// beat again; a loop that goes round without ever getting an answer does not beat.
#[derive(Debug)]
pub(crate) struct Heartbeat(Mutex<Beat>);

#[derive(Debug)]
struct Beat {
    at: Instant,
    next_by: Instant,
    error: Option<String>,
}

/// A lane that should have been heard of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stuck {
    /// For how long nothing was heard.
    pub(crate) silent_for: Duration,
    /// What went wrong last since then, if anything has been said.
    pub(crate) error: Option<String>,
}

impl Heartbeat {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self(Mutex::new(Beat {
            at: now,
            next_by: now + GRACE,
            error: None,
        }))
    }

    /// The loop gets on, and is busy or at rest for no longer than that.
    pub(super) fn beat(&self, rest: Duration) {
        self.beat_at(Instant::now(), rest);
    }

    fn beat_at(&self, now: Instant, rest: Duration) {
        *self.lock() = Beat {
            at: now,
            next_by: now + rest + GRACE,
            error: None,
        };
    }

    /// The loop tries to get on and can't.
    pub(super) fn failed(&self, error: String) {
        self.lock().error = Some(error);
    }

    /// Whether the loop is stuck.
    pub(crate) fn stuck(&self) -> Option<Stuck> {
        self.stuck_at(Instant::now())
    }

    fn stuck_at(&self, now: Instant) -> Option<Stuck> {
        let beat = self.lock();
        (beat.next_by < now).then(|| Stuck {
            silent_for: now.saturating_duration_since(beat.at),
            error: beat.error.clone(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Beat> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_lane_is_stuck_when_it_is_not_heard_of_by_when_it_said() {
        let heartbeat = Heartbeat::new();
        let begun = Instant::now();
        heartbeat.beat_at(begun, SECOND * 20);
        assert_eq!(heartbeat.stuck_at(begun + SECOND * 20 + GRACE), None);
        heartbeat.failed("no".into());
        assert_eq!(
            heartbeat.stuck_at(begun + SECOND * 60),
            Some(Stuck {
                silent_for: SECOND * 60,
                error: Some("no".into())
            })
        );
        heartbeat.beat_at(begun + SECOND * 60, Duration::ZERO);
        assert_eq!(heartbeat.stuck_at(begun + SECOND * 60), None);
        // What went wrong before is over.
        let later = heartbeat.stuck_at(begun + SECOND * 90).expect("stuck");
        assert_eq!(later.error, None);
    }
}
