//! What one process counts of an app's calls and messages since it began, for its metrics.

use std::time::Duration;

use metrics::{Counter, Histogram, counter, histogram};

use crate::outcome::{Acceptance, FinalStatus, Outcome};

/// The counter of calls. Labels: `app`, `outcome`.
pub(crate) const CALLS: &str = "signaling_calls_total";
/// The counter of messages that ended. Labels: `app`, `status`.
pub(crate) const MESSAGES_FINISHED: &str = "signaling_messages_finished_total";
/// The histogram of how long calls took, in seconds. Label: `app`.
pub(crate) const CALL_DURATION: &str = "signaling_call_duration_seconds";
/// The histogram of how long messages waited for their first call, in seconds. Label: `app`.
pub(crate) const QUEUE_WAIT: &str = "signaling_queue_wait_seconds";
/// The counter of slots that had passed before their calls could start. Label: `app`.
pub(crate) const SLOTS_MISSED: &str = "signaling_slots_missed_total";

/// The metrics of one app. Each label has its handle from the start, so that counting makes no text, and a monitor
/// sees a zero before it sees a one.
#[derive(Debug)]
pub(in crate::worker) struct LaneMetrics {
    calls: Calls,
    finished: Finished,
    call_duration: Histogram,
    delay: Histogram,
    slots_missed: Counter,
}

#[derive(Debug)]
struct Calls {
    message_sent: Counter,
    message_delivered: Counter,
    message_offline: Counter,
    transient: Counter,
    throttled: Counter,
    rejected: Counter,
    unauthorized: Counter,
    ambiguous: Counter,
}

#[derive(Debug)]
struct Finished {
    message_sent: Counter,
    message_delivered: Counter,
    message_offline: Counter,
    failed: Counter,
    expired: Counter,
    unknown: Counter,
}

impl LaneMetrics {
    /// All at zero; counted nowhere, if no recorder of metrics is installed by now.
    pub(in crate::worker) fn new(app: &str) -> Self {
        let app = app.to_owned();
        let call =
            |outcome: &'static str| counter!(CALLS, "app" => app.clone(), "outcome" => outcome);
        let finished = |status: FinalStatus| counter!(MESSAGES_FINISHED, "app" => app.clone(), "status" => status.as_str());
        Self {
            calls: Calls {
                message_sent: call("message_sent"),
                message_delivered: call("message_delivered"),
                message_offline: call("message_offline"),
                transient: call("transient"),
                throttled: call("throttled"),
                rejected: call("rejected"),
                unauthorized: call("unauthorized"),
                ambiguous: call("ambiguous"),
            },
            finished: Finished {
                message_sent: finished(FinalStatus::MessageSent),
                message_delivered: finished(FinalStatus::MessageDelivered),
                message_offline: finished(FinalStatus::MessageOffline),
                failed: finished(FinalStatus::Failed),
                expired: finished(FinalStatus::Expired),
                unknown: finished(FinalStatus::Unknown),
            },
            call_duration: histogram!(CALL_DURATION, "app" => app.clone()),
            delay: histogram!(QUEUE_WAIT, "app" => app.clone()),
            slots_missed: counter!(SLOTS_MISSED, "app" => app.clone()),
        }
    }

    /// A call is over. One that could not be made for lack of a connection counts, too: as a retry, without a
    /// duration.
    pub(in crate::worker) fn called(&self, outcome: Outcome, took: Option<Duration>) {
        let calls = &self.calls;
        match outcome {
            Outcome::Accepted(Acceptance::Sent) => &calls.message_sent,
            Outcome::Accepted(Acceptance::Delivered) => &calls.message_delivered,
            Outcome::Accepted(Acceptance::Offline) => &calls.message_offline,
            Outcome::Transient | Outcome::Unserved => &calls.transient,
            Outcome::Throttled => &calls.throttled,
            Outcome::Rejected => &calls.rejected,
            Outcome::Unauthorized => &calls.unauthorized,
            Outcome::Ambiguous => &calls.ambiguous,
        }
        .increment(1);
        if let Some(took) = took {
            self.call_duration.record(took);
        }
    }

    /// A message had its first call so long after it was due.
    pub(in crate::worker) fn waited(&self, delay: Duration) {
        self.delay.record(delay);
    }

    /// A slot had passed before its call could start.
    pub(in crate::worker) fn slot_missed(&self) {
        self.slots_missed.increment(1);
    }

    /// So many messages have ended, and that is written.
    pub(in crate::worker) fn ended(&self, status: FinalStatus, messages: u64) {
        let finished = &self.finished;
        match status {
            FinalStatus::MessageSent => &finished.message_sent,
            FinalStatus::MessageDelivered => &finished.message_delivered,
            FinalStatus::MessageOffline => &finished.message_offline,
            FinalStatus::Failed => &finished.failed,
            FinalStatus::Expired => &finished.expired,
            FinalStatus::Unknown => &finished.unknown,
        }
        .increment(messages);
    }
}
