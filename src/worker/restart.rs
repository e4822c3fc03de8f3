//! Restarts tasks after a panic. A panic is a defect, but it must not lose the outcomes that other tasks hold. The pause grows
//! with each panic. A metric and the log show the panic to the operator.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use metrics::{Counter, counter};
use tokio_util::sync::CancellationToken;

/// The counter of panics, each a defect. Label: `task`.
pub(crate) const TASK_PANICS: &str = "signaling_task_panics_total";

/// The first and the longest pause before a restart. Each panic doubles the pause.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const PAUSE_CAP: Duration = Duration::from_secs(30);
/// After so long without a panic, the next pause is the first one again.
const WORKS_AFTER: Duration = Duration::from_secs(60);

/// The tasks that restart after a panic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Task {
    ClockFollower,
    Lane,
    Delivery,
    Recorder,
    Listener,
    Poller,
    Reporter,
    StatsFlusher,
    Janitor,
}

impl Task {
    const ALL: [Self; 9] = [
        Self::ClockFollower,
        Self::Lane,
        Self::Delivery,
        Self::Recorder,
        Self::Listener,
        Self::Poller,
        Self::Reporter,
        Self::StatsFlusher,
        Self::Janitor,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::ClockFollower => "clock_follower",
            Self::Lane => "lane",
            Self::Delivery => "delivery",
            Self::Recorder => "recorder",
            Self::Listener => "listener",
            Self::Poller => "poller",
            Self::Reporter => "reporter",
            Self::StatsFlusher => "stats_flusher",
            Self::Janitor => "janitor",
        }
    }

    fn panics(self) -> Counter {
        counter!(TASK_PANICS, "task" => self.as_str())
    }

    /// Counts a panic. The panic hook has logged the location.
    pub(super) fn count_panic(self) {
        self.panics().increment(1);
    }
}

/// Registers each task's counter, so that a monitor sees a zero before a one.
pub(super) fn describe_tasks() {
    for task in Task::ALL {
        task.panics().increment(0);
    }
}

/// A future has panicked. The panic dropped everything that the future owned.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Panicked;

/// The result of a future, unless it panics.
pub(super) async fn catch_panic<F: Future>(mut future: Pin<&mut F>) -> Result<F::Output, Panicked> {
    std::future::poll_fn(|context| {
        // Unwind-safe, because tasks share only locks and atomics, and every reader recovers a poisoned lock.
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
            Ok(poll) => poll.map(Ok),
            Err(_) => Poll::Ready(Err(Panicked)),
        }
    })
    .await
}

/// Runs a task until it ends by itself. Restarts the task after a panic, unless `shutdown` is cancelled. `on_panic` runs
/// before the pause.
pub(super) async fn restart_after_panics<T: Future<Output = ()>>(
    task: Task,
    app: Option<&str>,
    shutdown: &CancellationToken,
    mut start: impl FnMut() -> T,
    mut on_panic: impl FnMut(),
) {
    let mut backoff = Backoff::default();
    loop {
        let began = Instant::now();
        let mut running = Box::pin(async { start().await });
        if catch_panic(running.as_mut()).await.is_ok() {
            return;
        }
        on_panic();
        task.count_panic();
        let pause = backoff.next(began.elapsed());
        tracing::error!(
            event = "task_panicked",
            task = task.as_str(),
            app,
            pause_ms = pause.as_millis(),
            "a task of this worker panicked, which is a defect. The worker restarts the task; other tasks go on. Please report the `panicked` line before this one"
        );
        let pausing = tokio::time::sleep(pause);
        if shutdown.run_until_cancelled(pausing).await.is_none() {
            return;
        }
    }
}

/// The pauses of one task.
#[derive(Debug, Default)]
struct Backoff {
    last: Option<Duration>,
}

impl Backoff {
    /// The pause after a panic. `worked` is the time since the task's last start.
    fn next(&mut self, worked: Duration) -> Duration {
        let last = self.last.filter(|_| worked < WORKS_AFTER);
        let pause = last.map_or(FIRST_PAUSE, |last| (last * 2).min(PAUSE_CAP));
        self.last = Some(pause);
        pause
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_is_started_again_until_it_ends() {
        let (starts, panics) = (Cell::new(0), Cell::new(0));
        let start = || {
            starts.set(starts.get() + 1);
            let is_third = starts.get() == 3;
            async move { assert!(is_third, "the first two fail") }
        };
        let shutdown = CancellationToken::new();
        let on_panic = || panics.set(panics.get() + 1);
        restart_after_panics(Task::Poller, None, &shutdown, start, on_panic).await;
        assert_eq!((starts.get(), panics.get()), (3, 2));
    }

    #[test]
    fn a_task_that_panics_each_time_is_started_less_and_less_often() {
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = (0..10)
            .map(|_| backoff.next(Duration::ZERO).as_millis())
            .collect();
        assert_eq!(
            pauses,
            [
                250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000
            ]
        );
        assert_eq!(
            backoff.next(WORKS_AFTER),
            FIRST_PAUSE,
            "it had worked for a minute"
        );
    }

    #[tokio::test]
    async fn a_shutdown_ends_a_task_that_always_panics() {
        let shutdown = CancellationToken::new();
        let start = || async { panic!("always") };
        let cancel = || shutdown.cancel();
        restart_after_panics(Task::Poller, None, &shutdown, start, cancel).await;
    }
}
