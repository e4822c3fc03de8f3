//! Detects moments in which a processor was not available. A call then arrives later than it started, so a measured pace
//! means nothing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

const TICK: Duration = Duration::from_millis(2);

/// Measures on each processor how long a ready thread waits: other threads run first, or the host of a virtual machine
/// takes the processor away.
#[derive(Debug)]
pub struct SchedulerStalls(Arc<AtomicU64>);

impl SchedulerStalls {
    /// The time that the pace allows between the start of a call and its arrival.
    pub const TOLERABLE: Duration = Duration::from_millis(10);

    /// Watches until the returned value is dropped.
    pub fn watch() -> Self {
        let longest_us = Arc::new(AtomicU64::new(0));
        let processors = thread::available_parallelism().map_or(1, usize::from);
        for processor in 0..processors {
            let longest_us = Arc::downgrade(&longest_us);
            let watching = thread::Builder::new().name("stalls".into());
            // Without the thread, this processor's stalls go unnoticed.
            let _ = watching.spawn(move || {
                pin_to(processor);
                record_waits(&longest_us);
            });
        }
        Self(longest_us)
    }

    /// The longest stall since the last call of this function.
    pub fn take_longest(&self) -> Duration {
        Duration::from_micros(self.0.swap(0, Ordering::Relaxed))
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the thread does nothing but sleep"
)]
fn record_waits(longest_us: &Weak<AtomicU64>) {
    loop {
        let begun = Instant::now();
        thread::sleep(TICK);
        let late = begun.elapsed().saturating_sub(TICK).as_micros();
        // Upgraded after the sleep only: otherwise the threads would keep the counter alive for each other.
        let Some(longest_us) = longest_us.upgrade() else {
            return;
        };
        longest_us.fetch_max(u64::try_from(late).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// Keeps this thread on the processor with this position among those of the process.
#[cfg(target_os = "linux")]
fn pin_to(position: usize) {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    let Ok(allowed) = sched_getaffinity(None) else {
        return;
    };
    let mut processors = (0..CpuSet::MAX_CPU).filter(|&number| allowed.is_set(number));
    if let Some(processor) = processors.nth(position) {
        let mut only = CpuSet::new();
        only.set(processor);
        let _ = sched_setaffinity(None, &only);
    }
}

#[cfg(not(target_os = "linux"))]
fn pin_to(_position: usize) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_noticed_and_the_threads_end_with_the_watch() {
        let stalls = SchedulerStalls::watch();
        let longest_us = Arc::downgrade(&stalls.0);
        // No thread wakes within the very microsecond.
        while stalls.take_longest().is_zero() {
            thread::yield_now();
        }
        drop(stalls);
        while longest_us.strong_count() > 0 {
            thread::yield_now();
        }
    }
}
