//! Hears the doorbell for all lanes of a process. Without it, lanes look for themselves more often.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::lane::Lane;
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
            "the database is behind a pooler in transaction mode: no doorbell, looking for work every 200 ms"
        );
        return;
    }
    let mut was_lost = false;
    while !shutdown.is_cancelled() {
        match outbox.listen().await {
            Ok(mut bell) => {
                listening.store(true, Ordering::Relaxed);
                if was_lost {
                    tracing::info!(event = "listener_restored", "the doorbell is heard again");
                }
                // What rang before was not heard: look once.
                for lane in &lanes {
                    lane.wake();
                }
                let error = hear(&mut bell, &lanes).await;
                listening.store(false, Ordering::Relaxed);
                was_lost = true;
                tracing::warn!(
                    event = "listener_lost",
                    error,
                    "the doorbell is lost: looking for work every 200 ms meanwhile"
                );
            }
            Err(error) => tracing::debug!(
                event = "listener_failed",
                error = database_error_text(&error),
                "can't listen for the doorbell"
            ),
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

/// Rings for the lanes until the connection is lost; says why.
async fn hear(bell: &mut WakeupListener, lanes: &[Arc<Lane>]) -> String {
    loop {
        let Ok(report) = tokio::time::timeout(CHECK_AFTER, bell.recv()).await else {
            match bell.check().await {
                Ok(()) => continue,
                Err(error) => return database_error_text(&error),
            }
        };
        match report {
            Ok(Some(app)) => {
                for lane in lanes.iter().filter(|lane| lane.app == app) {
                    lane.wake();
                }
            }
            Ok(None) => return "the connection was closed".into(),
            Err(error) => return database_error_text(&error),
        }
    }
}
