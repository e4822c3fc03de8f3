//! Whether this machine can be trusted with measuring a pace: a call that waits for a processor arrives later than it
//! started.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How often is looked.
const TICK: Duration = Duration::from_millis(2);

/// Watches for how long tasks of this process have to wait for their turn.
#[derive(Debug)]
pub struct Stalls(Arc<AtomicU64>);

impl Stalls {
    /// What the pace leaves for the way of a call from its start to whoever takes note of it.
    pub const TOLERABLE: Duration = Duration::from_millis(10);

    /// Begins to watch, until this is dropped.
    pub fn watch() -> Self {
        let longest_us = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&longest_us);
        tokio::spawn(async move {
            // Until nobody asks any more.
            while Arc::strong_count(&seen) > 1 {
                let due = Instant::now() + TICK;
                tokio::time::sleep_until(due.into()).await;
                let late = due.elapsed().as_micros();
                seen.fetch_max(u64::try_from(late).unwrap_or(u64::MAX), Ordering::Relaxed);
            }
        });
        Self(longest_us)
    }

    /// The longest since this was last asked.
    pub fn take_longest(&self) -> Duration {
        Duration::from_micros(self.0.swap(0, Ordering::Relaxed))
    }
}
