//! Whether this machine can be trusted with measuring a pace: a call that waits for a processor arrives later than it
//! started.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

const TICK: Duration = Duration::from_millis(2);
/// How many processors are watched: looking costs each of them half a percent of its time.
const MOST_WATCHED: usize = 8;

/// Watches each processor for how long those who are ready have to wait for it: because others are served first, or
/// because the host of a virtual machine takes it away, which it does one by one.
#[derive(Debug)]
pub struct SchedulerStalls(Arc<AtomicU64>);

impl SchedulerStalls {
    /// What the pace leaves for the way of a call from its start to whoever takes note of it.
    pub const TOLERABLE: Duration = Duration::from_millis(10);

    /// Begins to watch, until this is dropped.
    pub fn watch() -> Self {
        let longest_us = Arc::new(AtomicU64::new(0));
        for processor in processors().into_iter().take(MOST_WATCHED) {
            let seen = Arc::downgrade(&longest_us);
            let watching = thread::Builder::new().name("stalls".into());
            // One that can't be watched is not.
            drop(watching.spawn(move || {
                processor.stay();
                note_waits(&seen);
            }));
        }
        Self(longest_us)
    }

    /// The longest since this was last asked.
    pub fn take_longest(&self) -> Duration {
        Duration::from_micros(self.0.swap(0, Ordering::Relaxed))
    }
}

/// Until nobody asks any more.
#[expect(
    clippy::disallowed_methods,
    reason = "the thread is there for nothing else"
)]
fn note_waits(longest_us: &Weak<AtomicU64>) {
    loop {
        let begun = Instant::now();
        thread::sleep(TICK);
        let late = begun.elapsed().saturating_sub(TICK).as_micros();
        // Not held while asleep: else the threads of several processors would keep each other going for ever.
        let Some(longest_us) = longest_us.upgrade() else {
            return;
        };
        longest_us.fetch_max(u64::try_from(late).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// One of the processors that this process may use.
struct Processor(#[cfg_attr(not(target_os = "linux"), expect(dead_code))] usize);

#[cfg(target_os = "linux")]
impl Processor {
    /// Lets this thread run nowhere else, if that can be.
    fn stay(&self) {
        let mut only = rustix::thread::CpuSet::new();
        only.set(self.0);
        let _ = rustix::thread::sched_setaffinity(None, &only);
    }
}

#[cfg(target_os = "linux")]
fn processors() -> Vec<Processor> {
    use rustix::thread::CpuSet;
    let all = rustix::thread::sched_getaffinity(None);
    let all = all
        .iter()
        .flat_map(|all| (0..CpuSet::MAX_CPU).filter(|number| all.is_set(*number)));
    all.map(Processor).collect()
}

#[cfg(not(target_os = "linux"))]
impl Processor {
    /// Nothing keeps a thread where it is.
    fn stay(&self) {}
}

#[cfg(not(target_os = "linux"))]
fn processors() -> Vec<Processor> {
    let number = thread::available_parallelism().map_or(1, usize::from);
    (0..number).map(Processor).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_is_noticed_until_nobody_asks_any_more() {
        let stalls = SchedulerStalls::watch();
        let seen = Arc::downgrade(&stalls.0);
        // Nobody is ever woken in the very microsecond.
        while stalls.take_longest().is_zero() {
            thread::yield_now();
        }
        drop(stalls);
        while seen.strong_count() > 0 {
            thread::yield_now();
        }
    }
}
