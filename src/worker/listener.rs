//! Receives the notifications of inserts, for all lanes of a process.
//!
//! A claim that takes all due messages calls `want_wakeup`. For a minute, the trigger `notify_workers` then sends a `NOTIFY`
//! with each insert of the app, and this listener wakes the lane. A worker with a backlog asks for no notifications,
//! because `NOTIFY` takes a lock over all commits of the cluster. The poller finds the messages of other inserts.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Process;
use super::panic_point::panic_point;
use crate::error_text::database_error_text;
use crate::telemetry::failure_log::FailureLog;

const RETRY_PAUSE: Duration = Duration::from_secs(1);

pub(super) async fn run(process: Arc<Process>) {
    // Behind a pooler in transaction mode, inserts can't notify this worker.
    if process.shared.outbox.has_pooler() {
        return std::future::pending().await;
    }
    let failures = FailureLog::default();
    loop {
        // Also resets the flag after a panic. While it is false, the poller polls more often.
        process.shared.listening.store(false, Ordering::Relaxed);
        let Err(error) = listen(&process, &failures).await else {
            // The connection has reached its maximum age.
            continue;
        };
        if failures.failed() {
            tracing::warn!(
                event = "listener_lost",
                error = database_error_text(&error),
                "inserts can't notify this worker: it polls every 200 ms meanwhile"
            );
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

/// Wakes the lanes whose apps have new messages, until the connection reaches its maximum age or is lost.
async fn listen(process: &Process, failures: &FailureLog) -> Result<(), sqlx::Error> {
    let mut notifications = process.shared.outbox.listen().await?;
    process.shared.listening.store(true, Ordering::Relaxed);
    if failures.succeeded() {
        tracing::info!(
            event = "listener_restored",
            "inserts notify this worker again"
        );
    }
    // Notifications before this moment are lost, so each lane claims once.
    for lane in process.lanes.values() {
        lane.wakeup.notify_one();
    }
    loop {
        panic_point("listener", 0);
        let Some(app) = notifications.recv().await? else {
            return Ok(());
        };
        if let Some(lane) = process.lanes.get(&app) {
            lane.wakeup.notify_one();
        }
    }
}
