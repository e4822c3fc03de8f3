//! Restarts tasks after a panic. A panic is a defect, but it must not lose the outcomes that other tasks hold. Each panic in
//! a row doubles the pause before the restart. A metric and the log show the panic to the operator.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use metrics::counter;
use tokio_util::sync::CancellationToken;

pub(crate) const TASK_PANICS: &str = "signaling_task_panics_total";

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// After this time without a panic, the next pause is the first one again.
const WORKS_AFTER: Duration = Duration::from_secs(60);

/// Counts panics, whose locations the panic hook logs. Zero registers the counter: a monitor that sees no zero before a one
/// misses the one.
pub(super) fn count_panics(task: &'static str, panics: u64) {
    counter!(TASK_PANICS, "task" => task).increment(panics);
}

/// Runs a task until it ends by itself. Restarts the task after a panic, unless `shutdown` is cancelled. `on_panic` runs
/// before the pause.
pub(super) async fn restart_after_panics<T: Future<Output = ()>>(
    task: &'static str,
    app: Option<&str>,
    shutdown: &CancellationToken,
    mut start: impl FnMut() -> T,
    mut on_panic: impl FnMut(),
) {
    count_panics(task, 0);
    let mut pause = None;
    loop {
        let began = Instant::now();
        // Unwind-safe, because tasks share only atomics and locks that a panic does not poison.
        let running = AssertUnwindSafe(async { start().await });
        if Box::pin(running.catch_unwind()).await.is_ok() {
            return;
        }
        on_panic();
        count_panics(task, 1);
        let next_pause = pause_after(pause, began.elapsed());
        tracing::error!(
            event = "task_panicked",
            task,
            app,
            pause_ms = next_pause.as_millis(),
            "a task of this worker panicked, which is a defect. The worker restarts the task; other tasks go on. Please report the `panicked` line before this one"
        );
        pause = Some(next_pause);
        let pausing = tokio::time::sleep(next_pause);
        if shutdown.run_until_cancelled(pausing).await.is_none() {
            return;
        }
    }
}

fn pause_after(last_pause: Option<Duration>, worked: Duration) -> Duration {
    match last_pause {
        Some(last_pause) if worked < WORKS_AFTER => (last_pause * 2).min(LONGEST_PAUSE),
        _ => FIRST_PAUSE,
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
        restart_after_panics("poller", None, &shutdown, start, on_panic).await;
        assert_eq!((starts.get(), panics.get()), (3, 2));
    }

    #[test]
    fn a_task_that_panics_each_time_is_started_less_and_less_often() {
        let mut pause = None;
        let pauses_ms = [(); 9].map(|()| {
            pause = Some(pause_after(pause, Duration::ZERO));
            pause.map_or(0, |pause| pause.as_millis())
        });
        let expected = [250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000];
        assert_eq!(pauses_ms, expected);
        assert_eq!(pause_after(pause, WORKS_AFTER), FIRST_PAUSE);
    }

    #[tokio::test]
    async fn a_shutdown_ends_a_task_that_always_panics() {
        let shutdown = CancellationToken::new();
        let start = || async { panic!("always") };
        let cancel = || shutdown.cancel();
        restart_after_panics("poller", None, &shutdown, start, cancel).await;
    }
}
