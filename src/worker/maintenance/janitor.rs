//! Deletes messages that finished long ago, in the background and for the whole fleet.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::error_text::database_error_text;
use crate::outbox::{AdaptiveTimeout, Deletion, Outbox, is_timeout};
use crate::worker::lane::Lane;
use crate::worker::panic_point::panic_point;

/// How many times as long as a batch took the pause after it is: deleting takes a tenth of one connection's time, also
/// where the database is slow.
const PAUSES_PER_BATCH: u32 = 9;
/// The longest pause within a pass: less than the time after which another process goes on with it.
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// The pause after an error.
const ERROR_PAUSE: Duration = Duration::from_secs(10);
/// The longest time between two looks whether it is this process's turn.
const MAX_REST: Duration = Duration::from_secs(60);
/// The shortest: another process may be in the middle of a batch.
const MIN_REST: Duration = Duration::from_millis(200);

/// Deletes until the shutdown. A batch that is under way then is undone or done, as the database has it.
pub(in crate::worker) async fn run(
    outbox: Arc<Outbox>,
    lanes: Vec<Arc<Lane>>,
    retention: Duration,
    shutdown: CancellationToken,
) {
    shutdown
        .run_until_cancelled(delete_forever(&outbox, &lanes, retention))
        .await;
}

async fn delete_forever(outbox: &Outbox, lanes: &[Arc<Lane>], retention: Duration) {
    let worker = Uuid::new_v4();
    let mut failing = false;
    let timeout = AdaptiveTimeout::default();
    // One message may keep the deletion of all others waiting.
    let mut isolates = false;
    loop {
        panic_point("janitor", 0);
        // With the wrong DATABASE_URL, this worker's retention would delete messages that another environment keeps.
        if lanes.iter().any(|lane| lane.is_refused()) {
            tokio::time::sleep(ERROR_PAUSE).await;
            continue;
        }
        let began = Instant::now();
        let deletion = outbox
            .delete_finished(worker, retention, &timeout, isolates)
            .await;
        isolates = !isolates && deletion.as_ref().is_err_and(is_timeout);
        let pause = match deletion {
            Ok(Deletion::GoesOn) => (began.elapsed() * PAUSES_PER_BATCH).min(MAX_PAUSE),
            Ok(Deletion::PassIsOver { deleted, next_in }) => {
                if deleted > 0 {
                    tracing::info!(
                        event = "messages_deleted",
                        deleted,
                        retention = %humantime::format_duration(retention),
                        "finished messages that were old enough are deleted"
                    );
                }
                next_in.clamp(MIN_REST, MAX_REST)
            }
            Ok(Deletion::NotNow { next_in }) => next_in.clamp(MIN_REST, MAX_REST),
            Err(ref error) => {
                if !failing {
                    tracing::warn!(
                        event = "deletion_failed",
                        error = database_error_text(error),
                        "old messages can't be deleted: tried again later"
                    );
                }
                ERROR_PAUSE
            }
        };
        failing = deletion.is_err();
        tokio::time::sleep(pause).await;
    }
}
