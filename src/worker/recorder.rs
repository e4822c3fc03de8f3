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

use tokio::sync::{Mutex, mpsc};

use super::lane::{CapacityPermit, Lane, Shared};
use super::panic_point::panic_point;
use crate::error_text::database_error_text;
use crate::outbox::{
    AdaptiveTimeout, Record, RecordResult, Recorded, is_data_error, is_timeout, may_be_refusal,
};
use crate::telemetry::failure_log::FailureLog;
use crate::telemetry::log_throttle::LogThrottle;

const MAX_BATCH: usize = 200;
/// Records of locked rows that a batch tries again.
const MAX_LOCKED: usize = 50;
/// How long the first record of a batch waits for more. At 490 calls a second, a batch has ten records. With a quarter of
/// this time, statements took half of a message's cost in the database.
const LINGER: Duration = Duration::from_millis(20);
/// After a batch of at most this size, the recorder sleeps for [`LINGER`] instead of waking up for each record.
const SMALL_BATCH: usize = MAX_BATCH / 4;
const RETRY_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_RETRY_PAUSE: Duration = Duration::from_secs(1);
/// A statement that takes longer than this makes the recorder lag.
const LAG_AFTER: Duration = Duration::from_millis(500);

/// A finished delivery. Its permit frees the capacity when the record is saved.
#[derive(Debug)]
pub(super) struct Delivered {
    pub(super) record: Record,
    pub(super) lane: Arc<Lane>,
    /// The message was attempted, or claimed, before this claim.
    pub(super) was_retry: bool,
    pub(super) _permit: CapacityPermit,
}

pub(super) struct Recorder {
    shared: Arc<Shared>,
    timeout: AdaptiveTimeout,
    failures: FailureLog,
    discarded_log: LogThrottle,
    refused_log: LogThrottle,
    without_details_log: LogThrottle,
    work: Mutex<Work>,
}

/// Unsaved outcomes. They outlive a panic of the recorder.
struct Work {
    inbox: mpsc::Receiver<Delivered>,
    batch: Vec<Delivered>,
    locked: VecDeque<Delivered>,
    /// The batch of a run that panicked.
    suspects: VecDeque<Delivered>,
    /// How to write the next batch at first. After a timeout, the server may still work on the statement. One of its rows may
    /// delay the next statement, too, so the recorder writes one by one until no row is locked.
    writing: Writing,
}

/// How to write a batch. If the database refuses a record, the recorder tries the next variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writing {
    Together,
    /// Each record by itself, without details if the database refuses those.
    OneByOne,
    /// The same without texts, because the database's encoding can't store one of them.
    WithoutTexts,
}

impl Recorder {
    pub(super) fn new(shared: Arc<Shared>, inbox: mpsc::Receiver<Delivered>) -> Self {
        Self {
            shared,
            timeout: AdaptiveTimeout::default(),
            failures: FailureLog::default(),
            discarded_log: LogThrottle::default(),
            refused_log: LogThrottle::default(),
            without_details_log: LogThrottle::default(),
            work: Mutex::new(Work {
                inbox,
                batch: Vec::with_capacity(MAX_BATCH),
                locked: VecDeque::new(),
                suspects: VecDeque::new(),
                writing: Writing::Together,
            }),
        }
    }

    /// Records until all senders are gone and all outcomes are saved. It may run again after a panic.
    pub(super) async fn run(&self) {
        let work = &mut *self.work.lock().await;
        self.write_suspects(work).await;
        let mut is_small = true;
        loop {
            let received = work.inbox.recv_many(&mut work.batch, MAX_BATCH);
            if work.locked.is_empty() {
                if received.await == 0 {
                    return;
                }
            } else if tokio::time::timeout(RETRY_PAUSE, received).await == Ok(0) {
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            gather(&mut work.inbox, &mut work.batch, is_small).await;
            is_small = work.batch.len() <= SMALL_BATCH;
            let retried = work.locked.len().min(MAX_LOCKED);
            work.batch.extend(work.locked.drain(..retried));
            let records = work.batch.iter().map(|delivered| delivered.record.clone());
            let records: Vec<_> = records.collect();
            let (results, writing) = self.write(&records, work.writing).await;
            let some_are_locked = results.contains(&RecordResult::Locked);
            work.writing = match writing {
                Writing::OneByOne if some_are_locked => Writing::OneByOne,
                Writing::Together | Writing::OneByOne | Writing::WithoutTexts => Writing::Together,
            };
            // Pops one at a time, so that a panic here leaves the other records in the batch.
            work.batch.reverse();
            for result in results {
                if let Some(delivered) = work.batch.pop() {
                    apply_result(delivered, result, &mut work.locked);
                }
            }
        }
    }

    /// Writes the batch of a panicked run record by record. If the recorder panics again, it gives up that record only: the
    /// lease ends, and the message counts as lost.
    async fn write_suspects(&self, work: &mut Work) {
        work.suspects.extend(work.batch.drain(..));
        while let Some(delivered) = work.suspects.pop_front() {
            let records = [delivered.record.clone()];
            let (results, _) = self.write(&records, Writing::Together).await;
            if let Some(&result) = results.first() {
                apply_result(delivered, result, &mut work.locked);
            }
        }
        // Without this, lanes would wait for a recorder that gave up its last record.
        self.shared.recorder_lag.send_replace(None);
    }

    /// Writes records, and retries until the database answers. Returns the results in order, and the last variant. The
    /// recorder gives up a record that the database refuses: the lease ends, and the message counts as lost.
    async fn write(
        &self,
        records: &[Record],
        mut writing: Writing,
    ) -> (Vec<RecordResult>, Writing) {
        let mut pause = RETRY_PAUSE;
        loop {
            let error = match self.try_write(records, writing).await {
                Ok(recorded) => {
                    self.shared.recorder_lag.send_replace(None);
                    if self.failures.succeeded() {
                        tracing::info!(event = "records_resumed", "records are written again");
                    }
                    self.log_results(records, &recorded);
                    return (recorded.results, writing);
                }
                Err(error) => error,
            };
            writing = match writing {
                Writing::Together if may_be_refusal(&error) => {
                    writing = Writing::OneByOne;
                    continue;
                }
                Writing::OneByOne if is_data_error(&error) => {
                    writing = Writing::WithoutTexts;
                    continue;
                }
                Writing::WithoutTexts if is_data_error(&error) => {
                    let refused = Recorded {
                        results: vec![RecordResult::Refused; records.len()],
                        refusal: Some(database_error_text(&error)),
                    };
                    self.log_results(records, &refused);
                    return (refused.results, writing);
                }
                // A function of the application may delay one record, and all others of the statement with it.
                Writing::Together if is_timeout(&error) => Writing::OneByOne,
                Writing::Together | Writing::OneByOne | Writing::WithoutTexts => Writing::Together,
            };
            self.mark_lagging();
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

    async fn try_write(
        &self,
        records: &[Record],
        writing: Writing,
    ) -> Result<Recorded, sqlx::Error> {
        for record in records {
            panic_point("recorder", record.id);
        }
        let without_texts: Vec<Record>;
        let records = if writing == Writing::WithoutTexts {
            without_texts = records.iter().map(Record::without_texts).collect();
            &without_texts
        } else {
            records
        };
        let one_by_one = writing != Writing::Together;
        let Shared { outbox, name, .. } = &*self.shared;
        let recording = outbox.record(records, name, &self.timeout, one_by_one);
        tokio::pin!(recording);
        if let Ok(recorded) = tokio::time::timeout(LAG_AFTER, &mut recording).await {
            return recorded;
        }
        self.mark_lagging();
        recording.await
    }

    /// Keeps lanes from claiming until records are written again.
    pub(super) fn mark_lagging(&self) {
        self.shared.recorder_lag.send_modify(|since| {
            since.get_or_insert_with(Instant::now);
        });
    }

    fn log_results(&self, records: &[Record], recorded: &Recorded) {
        let refusal = recorded.refusal.as_deref();
        let error = refusal.unwrap_or("none: a trigger skips the update");
        for (record, result) in records.iter().zip(&recorded.results) {
            match result {
                RecordResult::Discarded => {
                    if let Some(suppressed) = self.discarded_log.admit() {
                        tracing::warn!(
                            event = "record_late",
                            message_id = record.id,
                            called = record.call.is_some(),
                            suppressed,
                            "lease ended, or the message was deleted, before the result was saved; the result is discarded"
                        );
                    }
                }
                RecordResult::Refused => {
                    if let Some(suppressed) = self.refused_log.admit() {
                        tracing::error!(
                            event = "record_refused",
                            message_id = record.id,
                            suppressed,
                            error,
                            "a trigger or a constraint in the database refuses the outcome of a message, so the message is called again when its lease ends, up to max_attempts: `worker check` names the trigger or the constraint; correct it"
                        );
                    }
                }
                RecordResult::WithoutDetails { .. } => {
                    if let Some(suppressed) = self.without_details_log.admit() {
                        tracing::error!(
                            event = "record_without_details",
                            message_id = record.id,
                            suppressed,
                            error,
                            "a trigger or a constraint in the database refuses details of an outcome, so only the status is written: `worker check` names the trigger or the constraint; correct it"
                        );
                    }
                }
                RecordResult::Recorded { .. } | RecordResult::Locked => {}
            }
        }
    }
}

/// Counts the message, puts it back, or keeps the record for another try.
fn apply_result(delivered: Delivered, result: RecordResult, locked: &mut VecDeque<Delivered>) {
    let Delivered { record, lane, .. } = &delivered;
    match (result, record.status) {
        (RecordResult::Locked, _) => locked.push_back(delivered),
        (RecordResult::Recorded { .. } | RecordResult::WithoutDetails { .. }, Some(status)) => {
            lane.stats.ended(lane.shared.now(), status, 1);
        }
        (RecordResult::Recorded { due_at } | RecordResult::WithoutDetails { due_at }, None) => {
            let is_retry = delivered.was_retry || record.call.is_some();
            lane.put_back(due_at, record.id, is_retry);
        }
        // The message is due again when its lease ends.
        (RecordResult::Discarded | RecordResult::Refused, _) => lane.poll_soon(),
    }
}

/// Adds the records to a batch that come within [`LINGER`]. Returns at once with a full batch, unless the last one was small.
async fn gather(inbox: &mut mpsc::Receiver<Delivered>, batch: &mut Vec<Delivered>, is_small: bool) {
    let linger = tokio::time::sleep(LINGER);
    tokio::pin!(linger);
    if is_small {
        linger.as_mut().await;
    }
    while batch.len() < MAX_BATCH {
        let capacity = MAX_BATCH - batch.len();
        tokio::select! {
            biased;
            received = inbox.recv_many(batch, capacity) => if received == 0 { break },
            () = &mut linger => break,
        }
    }
}
