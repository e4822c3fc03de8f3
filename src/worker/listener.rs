//! Receives the notifications of inserts, for all lanes of a process.
//!
//! A claim that takes all due messages calls `want_wakeup`. For a minute, the trigger `notify_workers` then sends a `NOTIFY`
//! with each insert of the app, and this listener wakes the lane. A worker with a backlog asks for no notifications,
//! because `NOTIFY` takes a lock over all commits of the cluster. An insert does not notify if its trigger ran before
//! `want_wakeup` was committed, so the poller polls as well. It polls more often while this listener has no connection.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Process;
use super::panic_point::panic_point;
use crate::error_text::database_error_text;
use crate::outbox::WakeupListener;

const RETRY_PAUSE: Duration = Duration::from_secs(1);

pub(super) async fn run(process: Arc<Process>) {
    if process.shared.outbox.has_pooler() {
        tracing::info!(
            event = "listener_disabled",
            "the database is behind a pooler in transaction mode: inserts can't notify this worker, so it polls every 200 ms"
        );
        return process.shared.shutdown.cancelled().await;
    }
    let listening = Box::pin(listen_forever(&process));
    process.shared.shutdown.run_until_cancelled(listening).await;
}

async fn listen_forever(process: &Process) {
    let listening = &process.shared.listening;
    let mut was_lost = false;
    loop {
        match process.shared.outbox.listen().await {
            Ok(mut notifications) => {
                listening.store(true, Ordering::Relaxed);
                if was_lost {
                    tracing::info!(
                        event = "listener_restored",
                        "inserts notify this worker again"
                    );
                }
                // Notifications before this moment are lost, so each lane claims once.
                for lane in &process.lanes {
                    lane.wake();
                }
                let lost = listen(&mut notifications, process).await;
                listening.store(false, Ordering::Relaxed);
                was_lost = lost.is_err();
                let Err(error) = lost else { continue };
                tracing::warn!(
                    event = "listener_lost",
                    error = database_error_text(&error),
                    "inserts can't notify this worker: it polls every 200 ms meanwhile"
                );
            }
            Err(error) => tracing::debug!(
                event = "listener_failed",
                error = database_error_text(&error),
                "can't listen for notifications"
            ),
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

/// Wakes the lanes whose apps have new messages, until the connection is too old or lost.
async fn listen(notifications: &mut WakeupListener, process: &Process) -> Result<(), sqlx::Error> {
    panic_point("listener", 0);
    while let Some(app) = notifications.recv().await? {
        process.lane(&app).into_iter().for_each(|lane| lane.wake());
        panic_point("listener", 0);
    }
    Ok(())
}
