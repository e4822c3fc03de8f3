//! Starts a task again that has panicked. A panic is a defect, but one app's defect must not stop the others.

use std::time::Duration;

use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;

/// The pause before a task is started again.
const PAUSE: Duration = Duration::from_secs(1);

/// Runs a task until it ends by itself, and reports each panic. After a panic it is started again, unless the worker shuts
/// down.
pub(super) async fn restart_after_panics<T>(
    mut start: impl FnMut() -> T,
    shutdown: &CancellationToken,
    mut report: impl FnMut(JoinError),
) where
    T: Future<Output = ()> + Send + 'static,
{
    while let Err(panic) = tokio::spawn(start()).await {
        report(panic);
        let pause = tokio::time::sleep(PAUSE);
        if shutdown.run_until_cancelled(pause).await.is_none() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_is_reported_and_started_again_until_it_ends() {
        let starts = Arc::new(AtomicU32::new(0));
        let mut panics = 0;
        let start = || {
            let starts = Arc::clone(&starts);
            async move {
                let before = starts.fetch_add(1, Ordering::Relaxed);
                assert!(before >= 2, "the first two fail");
            }
        };
        restart_after_panics(start, &CancellationToken::new(), |_| panics += 1).await;
        assert_eq!((starts.load(Ordering::Relaxed), panics), (3, 2));
    }

    #[tokio::test]
    async fn a_shutdown_ends_a_task_that_always_panics() {
        let shutdown = CancellationToken::new();
        let start = || async { panic!("always") };
        let mut panics = 0;
        restart_after_panics(start, &shutdown, |_| {
            panics += 1;
            shutdown.cancel();
        })
        .await;
        assert_eq!(panics, 1);
    }
}
