//! The recorder: saves the outcomes of all lanes in batches, and keeps them in memory until the database has them. It alone
//! uses its connection, so nothing else delays it.
//!
//! - If the database is unavailable or slow, the recorder *lags*, and no lane claims. Otherwise a message whose outcome is
//!   known would be sent again when its lease ends.
//! - A row that another session has locked waits apart from the batch, so it delays no other record.
//! - If a trigger or a constraint refuses one record, the statement fails for the whole batch. The recorder then writes the
//!   records one by one.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::lane::{CapacityPermit, Lane, Shared};
use super::panic_point::panic_point;
use crate::error_text::database_error_text;
use crate::outbox::{AdaptiveTimeout, Record, RecordResult, Recorded, is_timeout, may_be_refusal};
use crate::pace::DbTime;
use crate::telemetry::failure_log::FailureLog;
use crate::telemetry::log_throttle::LogThrottle;

const MAX_BATCH: usize = 200;
/// Records of locked rows that a batch tries again.
const MAX_LOCKED: usize = 50;
/// How long the first record of a batch waits for more. At 490 calls a second, a batch has ten records. With a quarter of
/// this time, statements took half of a message's cost in the database.
const LINGER: Duration = Duration::from_millis(20);
const RETRY_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_RETRY_PAUSE: Duration = Duration::from_secs(1);
/// A statement that takes longer than this makes the recorder lag.
const LAG_AFTER: Duration = Duration::from_millis(500);

/// A finished delivery. The recorder drops it when the record is saved or given up, which frees the capacity.
#[derive(Debug)]
pub(super) struct Delivered {
    pub(super) record: Record,
    pub(super) lane: Arc<Lane>,
    /// True if the message was attempted or claimed before this claim.
    pub(super) was_retry: bool,
    pub(super) _permit: CapacityPermit,
    /// Of a probe: tells the delivery that the record is not given up.
    pub(super) on_recorded: Option<oneshot::Sender<()>>,
}

/// The unsaved outcomes outlive a panic of the recorder.
pub(super) struct Recorder {
    shared: Arc<Shared>,
    timeout: AdaptiveTimeout,
    failures: FailureLog,
    discarded_log: LogThrottle,
    refused_log: LogThrottle,
    inbox: mpsc::Receiver<Delivered>,
    batch: Vec<Delivered>,
    locked: VecDeque<Delivered>,
    /// True if the next batch is written record by record. After a timeout, the server may still work on the statement. One of
    /// its rows may delay the next statement, too, so the recorder writes one by one until no row is locked.
    one_by_one: bool,
}

impl Recorder {
    pub(super) fn new(shared: Arc<Shared>, inbox: mpsc::Receiver<Delivered>) -> Self {
        Self {
            shared,
            timeout: AdaptiveTimeout::default(),
            failures: FailureLog::default(),
            discarded_log: LogThrottle::default(),
            refused_log: LogThrottle::default(),
            inbox,
            batch: Vec::with_capacity(MAX_BATCH),
            locked: VecDeque::new(),
            one_by_one: false,
        }
    }

    /// Records until all senders are gone and all outcomes are saved. May run again after a panic.
    pub(super) async fn run(&mut self) {
        // The batch of a panicked run. If a record makes the recorder panic again, the recorder gives up that record only:
        // the lease ends, and the message counts as lost.
        while let Some(delivered) = self.batch.pop() {
            let records = [delivered.record.clone()];
            if let [result] = *self.write(&records).await {
                apply_result(delivered, result, &mut self.locked);
            }
        }
        // Without this, lanes would wait for a recorder that gave up its last record.
        self.shared.recorder_lag.send_replace(None);
        loop {
            let received = self.inbox.recv_many(&mut self.batch, MAX_BATCH);
            if self.locked.is_empty() {
                if received.await == 0 {
                    return;
                }
            } else if tokio::time::timeout(RETRY_PAUSE, received).await == Ok(0) {
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            if self.batch.len() < MAX_BATCH {
                tokio::time::sleep(LINGER).await;
            }
            while self.batch.len() < MAX_BATCH
                && let Ok(delivered) = self.inbox.try_recv()
            {
                self.batch.push(delivered);
            }
            let retried = self.locked.len().min(MAX_LOCKED);
            self.batch.extend(self.locked.drain(..retried));
            let records = self.batch.iter().map(|delivered| delivered.record.clone());
            let records: Vec<_> = records.collect();
            let results = self.write(&records).await;
            // Pops one at a time, so that a panic here leaves the other records in the batch.
            self.batch.reverse();
            for result in results {
                if let Some(delivered) = self.batch.pop() {
                    apply_result(delivered, result, &mut self.locked);
                }
            }
        }
    }

    /// Writes records, and retries until the database answers. Returns the results in order. The recorder gives up a record
    /// that the database refuses: the lease ends, and the message counts as lost.
    async fn write(&mut self, records: &[Record]) -> Vec<(RecordResult, DbTime)> {
        let Shared { outbox, config, .. } = &*self.shared;
        let mut pause = RETRY_PAUSE;
        loop {
            for record in records {
                panic_point("recorder", record.id);
            }
            let recording = outbox.record(records, &config.name, &self.timeout, self.one_by_one);
            tokio::pin!(recording);
            let soon = tokio::time::timeout(LAG_AFTER, &mut recording).await;
            let recorded = if let Ok(recorded) = soon {
                recorded
            } else {
                mark_lagging(&self.shared);
                recording.await
            };
            let error = match recorded {
                Ok(recorded) => {
                    self.shared.recorder_lag.send_replace(None);
                    if self.failures.succeeded() {
                        tracing::info!(event = "records_resumed", "records are written again");
                    }
                    self.log_results(records, &recorded);
                    let mut results = recorded.results.iter();
                    self.one_by_one &= results.any(|(result, _)| *result == RecordResult::Locked);
                    return recorded.results;
                }
                Err(error) => error,
            };
            if !self.one_by_one && may_be_refusal(&error) {
                self.one_by_one = true;
                continue;
            }
            // A function of the application may delay one record, and all others of the statement with it.
            self.one_by_one = !self.one_by_one && is_timeout(&error);
            mark_lagging(&self.shared);
            if self.failures.failed() {
                tracing::warn!(
                    event = "record_failed",
                    records = records.len(),
                    error = database_error_text(&error),
                    "records can't be written: kept, and tried again"
                );
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_RETRY_PAUSE);
        }
    }

    fn log_results(&self, records: &[Record], recorded: &Recorded) {
        for (record, (result, _)) in records.iter().zip(&recorded.results) {
            match result {
                RecordResult::Recorded | RecordResult::Locked => {}
                RecordResult::Discarded => {
                    if let Some(suppressed) = self.discarded_log.admit() {
                        tracing::warn!(
                            event = "record_late",
                            message_id = record.id,
                            called = record.call.is_some(),
                            suppressed,
                            "the lease ended, or the message was released or deleted, before the result was saved: the result is discarded"
                        );
                    }
                }
                RecordResult::Refused | RecordResult::WithoutDetails => {
                    if let Some(suppressed) = self.refused_log.admit() {
                        let error = recorded.refusal.as_deref();
                        tracing::error!(
                            event = "record_refused",
                            message_id = record.id,
                            suppressed,
                            error = error.unwrap_or("none: a trigger skips the update"),
                            is_status_written = *result == RecordResult::WithoutDetails,
                            "a trigger or a constraint in the database refuses the outcome of a message: correct the trigger or the constraint, which `\\d signaling.outbox` in psql lists. Where is_status_written is false, a worker sends the message again, up to max_attempts"
                        );
                    }
                }
            }
        }
    }
}

/// Keeps lanes from claiming until records are written again.
pub(super) fn mark_lagging(shared: &Shared) {
    shared.recorder_lag.send_modify(|since| {
        since.get_or_insert_with(Instant::now);
    });
}

/// Counts the message, puts it back, or keeps the record for another try.
fn apply_result(
    delivered: Delivered,
    (result, due_at): (RecordResult, DbTime),
    locked: &mut VecDeque<Delivered>,
) {
    let Delivered { record, lane, .. } = &delivered;
    match (result, record.status) {
        (RecordResult::Locked, _) => return locked.push_back(delivered),
        (RecordResult::Recorded | RecordResult::WithoutDetails, Some(status)) => {
            lane.stats.ended(lane.shared.now(), status, 1);
        }
        (RecordResult::Recorded | RecordResult::WithoutDetails, None) => {
            let is_retry = delivered.was_retry || record.call.is_some();
            lane.put_back(due_at, record.id, is_retry);
        }
        // A refused message is due again when its lease ends. A discarded one may be due already.
        (RecordResult::Discarded | RecordResult::Refused, _) => lane.poll_soon(),
    }
    if result != RecordResult::Refused
        && let Some(on_recorded) = delivered.on_recorded
    {
        on_recorded.send(()).ok();
    }
}
