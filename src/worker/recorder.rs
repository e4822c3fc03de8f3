//! The recorder: writes what became of messages, many at a time, and keeps it until the database has it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, mpsc, watch};

use super::lane::{Lane, Place};
use super::panic_point::panic_point;
use crate::error_text::database_error_text;
use crate::outbox::{
    AdaptiveTimeout, Outbox, Record, RecordResult, Recorded, is_data_error, is_timeout,
    may_be_refusal,
};
use crate::pace::DbTime;
use crate::telemetry::log_throttle::LogThrottle;

/// A message that is through, with its place in the lane until it is recorded.
#[derive(Debug)]
pub(super) struct Delivered {
    pub(super) record: Record,
    pub(super) lane: Arc<Lane>,
    /// It goes back only for a new slot.
    pub(super) wants_slot: bool,
    /// It was attempted, or claimed, before this claim.
    pub(super) was_retry: bool,
    pub(super) _place: Place,
}

impl Delivered {
    /// Has the lane look for the message, which waits again until `due_at`.
    fn return_to_queue(&self, due_at: DbTime) {
        let Self { record, lane, .. } = self;
        let is_retry = self.was_retry || record.call.is_some();
        lane.returned(due_at, record.id, is_retry);
        if self.wants_slot {
            lane.wake();
        }
    }
}

/// Most records of one statement.
const MAX_BATCH: usize = 200;
/// Most of these whose rows were locked at the last try.
const MAX_LOCKED: usize = 50;
/// How long the first record waits for others. At 490 calls a second that makes ten of a statement: with a quarter of
/// this, half of all that a message costs the database was for the statements.
const LINGER: Duration = Duration::from_millis(20);
/// No more than these in a batch are few: then the next ones are not looked at one by one, for each that is waited
/// for wakes the recorder up, which costs more than to take it.
const FEW: usize = MAX_BATCH / 4;
/// The pause before a failed statement is tried again, at first and at most.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
const RETRY_PAUSE_CAP: Duration = Duration::from_secs(1);

/// When a statement takes so long, the recorder is behind: lanes claim nothing until it has caught up, so that no
/// message whose outcome is known is called again because its lease has ended meanwhile.
const LAG_AFTER: Duration = Duration::from_millis(500);

/// What the recorder works with.
pub(super) struct Recorder {
    outbox: Arc<Outbox>,
    name: String,
    /// How long it waits for a statement.
    timeout: AdaptiveTimeout,
    /// Since when it is behind.
    lag: watch::Sender<Option<Instant>>,
    /// Of records that came too late.
    late: LogThrottle,
    /// Of records that the database refuses.
    refused: LogThrottle,
    /// Of records that the database accepts without details only.
    bare: LogThrottle,
    work: Mutex<Work>,
}

/// Outcomes that are not recorded yet. They outlive a panic of the recorder.
struct Work {
    inbox: mpsc::Receiver<Delivered>,
    batch: Vec<Delivered>,
    /// Rows that another session has locked stand aside: however many they are, the others go on.
    locked: VecDeque<Delivered>,
    /// The batch that was being written when the recorder panicked.
    suspects: VecDeque<Delivered>,
    /// How the next batch is written at first. One by one, after a statement that did not end in time, as long as rows are
    /// locked: the server may still work on that statement, and one of its rows may keep the next statement waiting, too.
    writing: Writing,
}

/// How to write a batch. If the database refuses a record, the recorder tries the next variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writing {
    /// All records in one statement.
    Together,
    /// Each record by itself, without details if the database refuses those.
    OneByOne,
    /// The same without texts, because the database's encoding can't store one of them.
    WithoutTexts,
}

impl Writing {
    /// How the next batch is written at first.
    fn after(self, results: &[RecordResult]) -> Self {
        match self {
            Self::OneByOne if results.contains(&RecordResult::Locked) => Self::OneByOne,
            Self::Together | Self::OneByOne | Self::WithoutTexts => Self::Together,
        }
    }
}

impl Recorder {
    pub(super) fn new(
        outbox: Arc<Outbox>,
        name: String,
        lag: watch::Sender<Option<Instant>>,
        inbox: mpsc::Receiver<Delivered>,
    ) -> Self {
        Self {
            outbox,
            name,
            timeout: AdaptiveTimeout::default(),
            lag,
            late: LogThrottle::default(),
            refused: LogThrottle::default(),
            bare: LogThrottle::default(),
            work: Mutex::new(Work {
                inbox,
                batch: Vec::with_capacity(MAX_BATCH),
                locked: VecDeque::new(),
                suspects: VecDeque::new(),
                writing: Writing::Together,
            }),
        }
    }

    /// Records until all senders are gone and everything is written. After a panic, it may run again.
    pub(super) async fn run(&self) {
        let work = &mut *self.work.lock().await;
        self.write_suspects(work).await;
        let mut few = true;
        loop {
            if work.locked.is_empty() {
                if work.inbox.recv_many(&mut work.batch, MAX_BATCH).await == 0 {
                    return;
                }
            } else {
                let pause = tokio::time::sleep(RETRY_PAUSE);
                tokio::pin!(pause);
                tokio::select! {
                    received = work.inbox.recv_many(&mut work.batch, MAX_BATCH) => if received == 0 { pause.await },
                    () = &mut pause => {}
                }
            }
            gather(&mut work.inbox, &mut work.batch, few).await;
            few = work.batch.len() <= FEW;
            let again = work.locked.len().min(MAX_LOCKED);
            work.batch.extend(work.locked.drain(..again));
            let records: Vec<Record> = work
                .batch
                .iter()
                .map(|delivered| delivered.record.clone())
                .collect();
            let (results, writing) = self.write(&records, work.writing).await;
            work.writing = writing.after(&results);
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
            let record = delivered.record.clone();
            let (results, _) = self
                .write(std::slice::from_ref(&record), Writing::Together)
                .await;
            if let Some(&result) = results.first() {
                apply_result(delivered, result, &mut work.locked);
            }
        }
        // Without this, lanes would wait for a recorder that gave up its last record.
        self.lag.send_replace(None);
    }

    /// Writes records, and retries until the database answers. Returns the results in order, and how they were written. The recorder gives up a record
    /// that the database refuses: the lease ends, and the message is due again unless that was its last attempt.
    async fn write(&self, records: &[Record], first: Writing) -> (Vec<RecordResult>, Writing) {
        let mut pause = RETRY_PAUSE;
        let mut writing = first;
        loop {
            let error = match self.try_write(records, writing).await {
                Ok(recorded) => {
                    self.lag.send_replace(None);
                    if pause != RETRY_PAUSE {
                        tracing::info!(event = "records_resumed", "records are written again");
                    }
                    self.log_discarded(records, &recorded.results);
                    self.log_refused(records, &recorded);
                    return (recorded.results, writing);
                }
                Err(error) => error,
            };
            match writing {
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
                    self.log_refused(records, &refused);
                    return (refused.results, writing);
                }
                Writing::Together | Writing::OneByOne | Writing::WithoutTexts => {}
            }
            writing = match writing {
                // A function of the application may keep one record waiting, and all others with it.
                Writing::Together if is_timeout(&error) => Writing::OneByOne,
                Writing::Together | Writing::OneByOne | Writing::WithoutTexts => Writing::Together,
            };
            self.mark_lagging();
            if pause == RETRY_PAUSE {
                tracing::warn!(
                    event = "record_failed",
                    records = records.len(),
                    error = database_error_text(&error),
                    "records can't be written: kept, and tried again"
                );
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_PAUSE_CAP);
        }
    }

    fn log_discarded(&self, records: &[Record], results: &[RecordResult]) {
        for (record, result) in records.iter().zip(results) {
            if *result == RecordResult::Discarded
                && let Some(suppressed) = self.late.admit()
            {
                tracing::warn!(
                    event = "record_late",
                    message_id = record.id,
                    called = record.call.is_some(),
                    suppressed,
                    "lease ended, or the message was deleted, before the result was saved; the result is discarded"
                );
            }
        }
    }

    fn log_refused(&self, records: &[Record], recorded: &Recorded) {
        let error = recorded
            .refusal
            .as_deref()
            .unwrap_or("none: a trigger skips the update");
        for (record, result) in records.iter().zip(&recorded.results) {
            match result {
                RecordResult::Refused => {
                    if let Some(suppressed) = self.refused.admit() {
                        tracing::error!(
                            event = "record_refused",
                            message_id = record.id,
                            suppressed,
                            error,
                            "a trigger or a constraint in the database refuses the outcome of a message, so the message is called again when its lease ends, up to max_attempts: `worker check` names the trigger or the constraint; correct it"
                        );
                    }
                }
                RecordResult::Bare { .. } => {
                    if let Some(suppressed) = self.bare.admit() {
                        tracing::error!(
                            event = "record_bare",
                            message_id = record.id,
                            suppressed,
                            error,
                            "a trigger or a constraint in the database refuses details of an outcome, so only the status is written: `worker check` names the trigger or the constraint; correct it"
                        );
                    }
                }
                RecordResult::Recorded { .. } | RecordResult::Locked | RecordResult::Discarded => {}
            }
        }
    }

    /// Keeps lanes from claiming until records are written again.
    pub(super) fn mark_lagging(&self) {
        self.lag.send_modify(|since| {
            since.get_or_insert_with(Instant::now);
        });
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
        let isolates = writing != Writing::Together;
        let recording = self
            .outbox
            .record(records, &self.name, &self.timeout, isolates);
        tokio::pin!(recording);
        if let Ok(recorded) = tokio::time::timeout(LAG_AFTER, &mut recording).await {
            return recorded;
        }
        self.mark_lagging();
        recording.await
    }
}

/// Applies the result of a record: counts the message, queues it again, or retries the record.
fn apply_result(delivered: Delivered, result: RecordResult, locked: &mut VecDeque<Delivered>) {
    match (result, delivered.record.status) {
        (RecordResult::Locked, _) => locked.push_back(delivered),
        (RecordResult::Recorded { .. } | RecordResult::Bare { .. }, Some(status)) => {
            let lane = &delivered.lane;
            lane.stats.ended(lane.now(), status);
        }
        (RecordResult::Recorded { due_at } | RecordResult::Bare { due_at }, None) => {
            delivered.return_to_queue(due_at);
        }
        // The message is due again when its lease ends.
        (RecordResult::Discarded | RecordResult::Refused, _) => delivered.lane.look_soon(),
    }
}

/// Adds to a batch what comes within [`LINGER`]. Goes on at once with a full one, unless few are expected.
async fn gather(inbox: &mut mpsc::Receiver<Delivered>, batch: &mut Vec<Delivered>, few: bool) {
    let linger = tokio::time::sleep(LINGER);
    tokio::pin!(linger);
    if few {
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
