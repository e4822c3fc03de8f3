//! Listens for notifications of inserts, for all lanes of a process. Without them, the poller looks more often.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::lane::Lane;
use super::panic_point::panic_point;
use crate::error_text::database_error_text;
use crate::outbox::{Outbox, WakeupListener};

/// The pause before listening is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// After so long a silence the connection is checked.
const CHECK_AFTER: Duration = Duration::from_secs(10);

/// Listens until the shutdown, and again whenever the connection is lost.
pub(super) async fn run(
    outbox: Arc<Outbox>,
    lanes: Vec<Arc<Lane>>,
    listening: Arc<AtomicBool>,
    shutdown: CancellationToken,
) {
    if outbox.has_pooler() {
        tracing::info!(
            event = "listener_disabled",
            "the database is behind a pooler in transaction mode: inserts can't notify this worker, so it polls every 200 ms"
        );
        return;
    }
    let mut was_lost = false;
    while !shutdown.is_cancelled() {
        match outbox.listen().await {
            Ok(mut notifications) => {
                listening.store(true, Ordering::Relaxed);
                if was_lost {
                    tracing::info!(
                        event = "listener_restored",
                        "inserts notify this worker again"
                    );
                }
                // Notifications before this are lost: claim once.
                for lane in &lanes {
                    lane.wake();
                }
                let lost = listen(&mut notifications, &lanes).await;
                listening.store(false, Ordering::Relaxed);
                let Err(error) = lost else {
                    was_lost = false;
                    continue;
                };
                was_lost = true;
                tracing::warn!(
                    event = "listener_lost",
                    error,
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

/// Wakes the lanes that are notified, until the connection is too old.
///
/// # Errors
/// If the connection is lost: why.
async fn listen(notifications: &mut WakeupListener, lanes: &[Arc<Lane>]) -> Result<(), String> {
    loop {
        panic_point("listener", 0);
        let time_left = notifications.time_left();
        if time_left.is_zero() {
            return Ok(());
        }
        let wait = CHECK_AFTER.min(time_left);
        let Ok(report) = tokio::time::timeout(wait, notifications.recv()).await else {
            match notifications.check().await {
                Ok(()) => continue,
                Err(error) => return Err(database_error_text(&error)),
            }
        };
        match report {
            Ok(Some(app)) => {
                for lane in lanes.iter().filter(|lane| lane.app == app) {
                    lane.wake();
                }
            }
            Ok(None) => return Err("the connection was closed".into()),
            Err(error) => return Err(database_error_text(&error)),
        }
    }
}
