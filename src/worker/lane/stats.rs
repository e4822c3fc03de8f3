//! Counts an app's calls and messages: for the metrics of this process, and by minute for `signaling.minute_stats`, which
//! all workers of the fleet add to. The stats flusher saves the minutes once a second, so a message costs no
//! row for its stats.

use std::collections::BTreeMap;
use std::time::Duration;

use metrics::{counter, histogram};
use parking_lot::Mutex;
use strum::VariantArray;

use crate::outbox::Ended;
use crate::outcome::{FinalStatus, Outcome};
use crate::pace::DbTime;
use crate::stats::Stats;

pub(crate) const CALLS: &str = "signaling_calls_total";
pub(crate) const MESSAGES_FINISHED: &str = "signaling_messages_finished_total";
pub(crate) const CALL_DURATION: &str = "signaling_call_duration_seconds";
pub(crate) const QUEUE_WAIT: &str = "signaling_queue_wait_seconds";
pub(crate) const SLOTS_MISSED: &str = "signaling_slots_missed_total";

const MINUTE: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct LaneStats {
    app: String,
    minutes: Mutex<BTreeMap<DbTime, Stats>>,
}

impl LaneStats {
    pub(crate) fn new(app: &str) -> Self {
        let stats = Self {
            app: app.to_owned(),
            minutes: Mutex::default(),
        };
        // A monitor that sees no zero before a one misses the one.
        for outcome in Outcome::VARIANTS {
            stats.count(CALLS, "outcome", outcome.into(), 0);
        }
        for status in FinalStatus::VARIANTS {
            stats.count(MESSAGES_FINISHED, "status", status.into(), 0);
        }
        counter!(SLOTS_MISSED, "app" => stats.app.clone()).increment(0);
        stats
    }

    fn count(&self, name: &'static str, label: &'static str, value: &'static str, more: u64) {
        counter!(name, "app" => self.app.clone(), label => value).increment(more);
    }

    /// Counts a call. A call without a connection counts without a duration.
    pub(crate) fn called(&self, now: DbTime, outcome: Outcome, took: Option<Duration>) {
        self.count(CALLS, "outcome", outcome.into(), 1);
        if let Some(took) = took {
            histogram!(CALL_DURATION, "app" => self.app.clone()).record(took);
        }
        self.in_minute(now, |stats| stats.called(outcome, took));
    }

    /// Counts a first call, with the time that its message has waited since it was due.
    pub(crate) fn waited(&self, now: DbTime, wait: Duration) {
        histogram!(QUEUE_WAIT, "app" => self.app.clone()).record(wait);
        self.in_minute(now, |stats| stats.queue_wait.observe(wait));
    }

    pub(crate) fn slot_missed(&self, now: DbTime) {
        counter!(SLOTS_MISSED, "app" => self.app.clone()).increment(1);
        self.in_minute(now, |stats| stats.slots_missed += 1);
    }

    /// Counts messages whose final status is in the database.
    pub(crate) fn ended(&self, now: DbTime, status: FinalStatus, messages: usize) {
        if messages > 0 {
            let messages = messages as u64;
            self.count(MESSAGES_FINISHED, "status", status.into(), messages);
            self.in_minute(now, |stats| stats.ended(status, messages));
        }
    }

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
}
