//! Counts an app's calls and messages: for the metrics of this process, and by minute for `signaling.minute_stats`, which
//! all workers of the fleet add to. The stats flusher saves the minutes once a second. Counting costs a message no row of
//! its own.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use metrics::{Counter, Histogram, counter, histogram};
use parking_lot::Mutex;

use crate::outbox::Ended;
use crate::outcome::{Acceptance, FinalStatus, Outcome};
use crate::pace::DbTime;
use crate::stats::Stats;

/// Counts calls. Labels: `app`, `outcome`.
pub(crate) const CALLS: &str = "signaling_calls_total";
/// Counts messages that ended. Labels: `app`, `status`.
pub(crate) const MESSAGES_FINISHED: &str = "signaling_messages_finished_total";
/// Histogram of the duration of calls in seconds. Label: `app`.
pub(crate) const CALL_DURATION: &str = "signaling_call_duration_seconds";
/// Histogram of the time in seconds from a message's due time to its first call. Label: `app`.
pub(crate) const QUEUE_WAIT: &str = "signaling_queue_wait_seconds";
/// Counts slots that passed before their calls could start. Label: `app`.
pub(crate) const SLOTS_MISSED: &str = "signaling_slots_missed_total";

const OUTCOMES: [&str; 8] = [
    "message_sent",
    "message_delivered",
    "message_offline",
    "transient",
    "throttled",
    "rejected",
    "unauthorized",
    "ambiguous",
];
const STATUSES: [FinalStatus; 6] = [
    FinalStatus::MessageSent,
    FinalStatus::MessageDelivered,
    FinalStatus::MessageOffline,
    FinalStatus::Failed,
    FinalStatus::Expired,
    FinalStatus::Unknown,
];
const MINUTE: Duration = Duration::from_secs(60);
/// Minutes kept in memory while the database is unavailable.
const MAX_MINUTES: usize = 120;

/// Each label has its handle from the start, so that counting allocates nothing, and a monitor sees a zero before a one.
#[derive(Debug)]
pub(crate) struct LaneStats {
    calls: HashMap<&'static str, Counter>,
    finished: HashMap<&'static str, Counter>,
    call_duration: Histogram,
    queue_wait: Histogram,
    slots_missed: Counter,
    minutes: Mutex<BTreeMap<DbTime, Stats>>,
}

impl LaneStats {
    pub(crate) fn new(app: &str) -> Self {
        let app = app.to_owned();
        let calls = OUTCOMES.map(|outcome| {
            (
                outcome,
                counter!(CALLS, "app" => app.clone(), "outcome" => outcome),
            )
        });
        let finished = STATUSES.map(<&str>::from).map(|status| {
            (
                status,
                counter!(MESSAGES_FINISHED, "app" => app.clone(), "status" => status),
            )
        });
        Self {
            calls: calls.into(),
            finished: finished.into(),
            call_duration: histogram!(CALL_DURATION, "app" => app.clone()),
            queue_wait: histogram!(QUEUE_WAIT, "app" => app.clone()),
            slots_missed: counter!(SLOTS_MISSED, "app" => app),
            minutes: Mutex::default(),
        }
    }

    /// Counts a call. A call without a connection counts without a duration.
    pub(crate) fn called(&self, now: DbTime, outcome: Outcome, took: Option<Duration>) {
        let label = match outcome {
            Outcome::Accepted(Acceptance::Sent) => "message_sent",
            Outcome::Accepted(Acceptance::Delivered) => "message_delivered",
            Outcome::Accepted(Acceptance::Offline) => "message_offline",
            failed => failed.attempt_outcome().unwrap_or_default(),
        };
        if let Some(calls) = self.calls.get(label) {
            calls.increment(1);
        }
        if let Some(took) = took {
            self.call_duration.record(took);
        }
        self.in_minute(now, |stats| stats.called(outcome, took));
    }

    /// Counts a first call, by the time for which its message was due.
    pub(crate) fn waited(&self, now: DbTime, wait: Duration) {
        self.queue_wait.record(wait);
        self.in_minute(now, |stats| stats.queue_wait.observe(wait));
    }

    pub(crate) fn slot_missed(&self, now: DbTime) {
        self.slots_missed.increment(1);
        self.in_minute(now, |stats| stats.slots_missed += 1);
    }

    /// Counts messages whose final status is in the database.
    pub(crate) fn ended(&self, now: DbTime, status: FinalStatus, messages: usize) {
        if messages > 0 {
            if let Some(finished) = self.finished.get(<&str>::from(status)) {
                finished.increment(messages as u64);
            }
            self.in_minute(now, |stats| stats.ended(status, messages as u64));
        }
    }

    /// Counts messages that the database ended without a call.
    pub(crate) fn ended_uncalled(&self, now: DbTime, ended: Ended) {
        self.ended(now, FinalStatus::Expired, ended.expired);
        self.ended(now, FinalStatus::Unknown, ended.unknown);
        self.ended(now, FinalStatus::Failed, ended.failed);
    }

    fn in_minute(&self, now: DbTime, count: impl FnOnce(&mut Stats)) {
        count(self.minutes.lock().entry(now.floor(MINUTE)).or_default());
    }

    /// The stats since the last call, by the beginning of their minute.
    pub(crate) fn take_minutes(&self) -> BTreeMap<DbTime, Stats> {
        std::mem::take(&mut *self.minutes.lock())
    }

    /// Keeps stats that could not be saved. Beyond [`MAX_MINUTES`], the oldest are lost.
    pub(crate) fn put_back(&self, minute: DbTime, stats: &Stats) {
        let mut minutes = self.minutes.lock();
        minutes.entry(minute).or_default().merge(stats);
        while minutes.len() > MAX_MINUTES {
            minutes.pop_first();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_s(seconds: i64) -> DbTime {
        DbTime::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn stats_are_counted_in_their_minute_and_taken_once() {
        let stats = LaneStats::new("app");
        stats.waited(at_s(59), Duration::from_millis(3));
        stats.ended(at_s(60), FinalStatus::MessageSent, 2);
        stats.ended(at_s(119), FinalStatus::MessageSent, 1);
        let minutes: Vec<_> = stats
            .take_minutes()
            .into_iter()
            .map(|(minute, stats)| (minute, stats.message_sent, stats.queue_wait.count()))
            .collect();
        assert_eq!(minutes, [(at_s(0), 0, 1), (at_s(60), 3, 0)]);
        assert!(stats.take_minutes().is_empty());
    }

    #[test]
    fn unsaved_stats_are_kept_for_two_hours_of_minutes() {
        let stats = LaneStats::new("app");
        let one = Stats {
            message_sent: 1,
            ..Stats::default()
        };
        for minute in 0..200 {
            stats.put_back(at_s(minute * 60), &one);
            stats.put_back(at_s(minute * 60), &one);
        }
        let kept = stats.take_minutes();
        assert_eq!(kept.len(), MAX_MINUTES);
        let last = kept.last_key_value().expect("a minute");
        assert_eq!((*last.0, last.1.message_sent), (at_s(199 * 60), 2));
    }

    #[test]
    fn each_outcome_of_a_failed_call_has_a_counter() {
        let failed = [
            Outcome::Transient,
            Outcome::Unserved,
            Outcome::Throttled,
            Outcome::Rejected,
            Outcome::Unauthorized,
            Outcome::Ambiguous,
        ];
        for outcome in failed {
            let label = outcome.attempt_outcome().expect("a label");
            assert!(OUTCOMES.contains(&label), "{label}");
        }
    }
}
