//! Deletes messages that finished before the retention time, for the whole fleet.
//!
//! This task paces `signaling.delete_finished`, which explains the pass and returns after 5 ms. The row of
//! `signaling.retention` has the progress of the pass and the worker whose turn it is. Another worker takes over after 10 s.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Process;
use super::panic_point::panic_point;
use crate::error_text::database_error_text;
use crate::outbox::{AdaptiveTimeout, is_timeout};
use crate::telemetry::failure_log::FailureLog;

/// The pause after a batch is this many times its duration, so that deletions take a tenth of one connection's time even if
/// the database is slow.
const PAUSES_PER_BATCH: u32 = 9;
/// Less than the time after which another worker continues the pass.
const MAX_BATCH_PAUSE: Duration = Duration::from_secs(5);
const ERROR_PAUSE: Duration = Duration::from_secs(10);
/// The pause until this worker asks again for its turn. Another worker may be in the middle of a batch.
const MIN_TURN_PAUSE: Duration = Duration::from_millis(200);
const MAX_TURN_PAUSE: Duration = Duration::from_secs(60);

pub(super) async fn run(process: Arc<Process>) {
    let Some(retention) = process.shared.config.retention else {
        return std::future::pending().await;
    };
    let failures = FailureLog::default();
    let timeout = AdaptiveTimeout::default();
    // After a timeout, the next statement finds the message that delays the deletion of all others.
    let mut one_by_one = false;
    loop {
        panic_point("janitor", 0);
        // With the wrong DATABASE_URL, this worker's retention would delete messages that another environment keeps.
        if process
            .lanes
            .values()
            .any(|lane| lane.is_of_other_environment())
        {
            tokio::time::sleep(ERROR_PAUSE).await;
            continue;
        }
        let began = Instant::now();
        let outbox = &process.shared.outbox;
        let deleting = outbox.delete_finished(process.id, retention, &timeout, one_by_one);
        let pause = match deleting.await {
            Ok(batch) => {
                failures.succeeded();
                one_by_one = false;
                if let Some(deleted @ 1..) = batch.deleted.filter(|_| batch.is_pass_over) {
                    tracing::info!(
                        event = "messages_deleted",
                        deleted,
                        retention = %humantime::format_duration(retention),
                        "finished messages that were old enough are deleted"
                    );
                }
                if batch.has_turn && !batch.is_pass_over {
                    (began.elapsed() * PAUSES_PER_BATCH).min(MAX_BATCH_PAUSE)
                } else {
                    let turn_in = batch.held_until.since(batch.at);
                    turn_in.clamp(MIN_TURN_PAUSE, MAX_TURN_PAUSE)
                }
            }
            Err(error) => {
                one_by_one = !one_by_one && is_timeout(&error);
                if failures.failed() {
                    tracing::warn!(
                        event = "deletion_failed",
                        error = database_error_text(&error),
                        "the worker can't delete old messages: it tries again every ten seconds"
                    );
                }
                ERROR_PAUSE
            }
        };
        tokio::time::sleep(pause).await;
    }
}
