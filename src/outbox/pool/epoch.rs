//! Pool epoch. A connection failure increments it; connections of earlier epochs are not reused.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

/// Counts connection failures, for all pools of a process: their connections lead to the same server over the same
/// network, and one that is dead without notice blocks a statement until its deadline.
#[derive(Debug, Clone, Default)]
pub(crate) struct PoolEpoch(Arc<Seen>);

#[derive(Debug, Default)]
struct Seen {
    failures: AtomicU64,
    last_response: Mutex<Option<Instant>>,
}

impl PoolEpoch {
    pub(crate) fn count(&self) -> u64 {
        self.0.failures.load(Ordering::Relaxed)
    }

    pub(crate) fn advance(&self) {
        self.0.failures.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn note_response(&self) {
        *self.last_response() = Some(Instant::now());
    }

    /// Whether a statement got a response within that time. If so, the network and the server are reachable.
    pub(crate) fn responded_within(&self, time: Duration) -> bool {
        let last = self.last_response_at();
        last.is_some_and(|answer| answer.elapsed() < time)
    }

    pub(crate) fn last_response_at(&self) -> Option<Instant> {
        *self.last_response()
    }

    fn last_response(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.last_response.lock()
    }
}
