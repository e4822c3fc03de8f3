//! Saves what the lanes have counted, and refreshes the queue counts of the fleet. The dashboard and the commands read these
//! two small tables instead of the outbox.
//!
//! - `signaling.minute_stats` has a row for each minute and app. Eight days are kept.
//! - `signaling.queue_counts` has the pending messages by app and state. One worker of the fleet counts them every 5 s,
//!   but waits for at least fifty times the duration of the last count. A count of 2 million messages takes a second.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Process;
use super::panic_point::panic_point;
use crate::error_text::database_error_text;
use crate::outbox::MinuteStats;
use crate::telemetry::failure_log::FailureLog;

const SAVE_EVERY: Duration = Duration::from_secs(1);
const COUNT_EVERY: Duration = Duration::from_secs(5);

pub(super) async fn run(process: &Process) {
    let failures = FailureLog::default();
    let shutdown = &process.shared.shutdown;
    let pause = || shutdown.run_until_cancelled(tokio::time::sleep(SAVE_EVERY));
    while pause().await.is_some() {
        panic_point("stats_flusher", 0);
        if let Some(error) = failures.observe(save(process).await) {
            tracing::warn!(
                event = "stats_failed",
                error = database_error_text(&error),
                "the worker can't write minute stats, so `worker status` and the charts may lack some: tried again every second. The sending of messages does not depend on them"
            );
        }
    }
}

pub(super) async fn count(process: Arc<Process>) {
    let failures = FailureLog::default();
    loop {
        let began = Instant::now();
        let outbox = &process.shared.outbox;
        let counted = outbox.refresh_queue_counts(COUNT_EVERY / 2).await;
        if let Some(error) = failures.observe(counted) {
            tracing::warn!(
                event = "queue_counts_failed",
                error = database_error_text(&error),
                "the worker can't count the pending messages, so `worker status` and the metrics show the last count: tried again every 5 s. The sending of messages does not depend on the count"
            );
        }
        tokio::time::sleep_until((began + COUNT_EVERY).into()).await;
    }
}

/// Saves the stats of all lanes. An error loses them. They are few, because no lane claims while the database fails.
pub(super) async fn save(process: &Process) -> Result<(), sqlx::Error> {
    let mut rows = Vec::new();
    for lane in process.lanes.values() {
        let minutes = lane.stats.take_minutes().into_iter();
        rows.extend(minutes.map(|(minute, stats)| MinuteStats {
            minute,
            app: lane.app.clone(),
            stats,
            backlog: None,
        }));
    }
    if rows.is_empty() {
        return Ok(());
    }
    process.shared.outbox.add_minute_stats(&rows).await
}
