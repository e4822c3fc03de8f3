//! Pool epoch. A connection failure increments it; connections of earlier epochs are not reused.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often connections have shown to be dead. Those that were made before may be dead, too, on whichever line: they
/// lead to the same server, over the same network.
#[derive(Debug, Clone, Default)]
pub(crate) struct PoolEpoch(Arc<Seen>);

#[derive(Debug, Default)]
struct Seen {
    breaks: AtomicU64,
    last_response: Mutex<Option<Instant>>,
}

impl PoolEpoch {
    pub(crate) fn count(&self) -> u64 {
        self.0.breaks.load(Ordering::Relaxed)
    }

    pub(crate) fn advance(&self) {
        self.0.breaks.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn note_response(&self) {
        *self.last_response() = Some(Instant::now());
    }

    /// Whether a statement got a response within that time. If so, the network and the server are reachable.
    pub(crate) fn responded_within(&self, time: Duration) -> bool {
        self.last_response()
            .is_some_and(|answer| answer.elapsed() < time)
    }

    /// When some statement was last answered.
    pub(crate) fn last_response_at(&self) -> Option<Instant> {
        *self.last_response()
    }

    pub(crate) fn last_response(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0
            .last_response
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
