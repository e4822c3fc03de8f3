//! What a lane does, added up by the minute.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::outcome::{FinalStatus, Outcome};
use crate::pace::DbTime;
use crate::stats::Stats;

/// What one app's lane has done, until the stats flusher takes it.
#[derive(Debug, Default)]
pub(in crate::worker) struct MinuteBuffer {
    minutes: Mutex<BTreeMap<DbTime, Stats>>,
}

/// A minute of the database's clock.
const MINUTE: Duration = Duration::from_secs(60);
/// Most minutes that are kept for a database that is away.
const MAX_MINUTES: usize = 120;

impl MinuteBuffer {
    pub(in crate::worker) fn called(&self, now: DbTime, outcome: Outcome, took: Option<Duration>) {
        self.count(now, |stats| stats.called(outcome, took));
    }

    /// A message that was due for that long is called for the first time.
    pub(in crate::worker) fn waited(&self, now: DbTime, delay: Duration) {
        self.count(now, |stats| stats.queue_wait.observe(delay));
    }

    /// A slot has passed unused.
    pub(in crate::worker) fn slot_missed(&self, now: DbTime) {
        self.count(now, |stats| stats.slots_missed += 1);
    }

    /// Messages have ended, and their rows say so.
    pub(in crate::worker) fn ended(&self, now: DbTime, status: FinalStatus, messages: u64) {
        if messages > 0 {
            self.count(now, |stats| stats.ended(status, messages));
        }
    }

    /// What was counted since this was last asked, with the beginnings of the minutes.
    pub(in crate::worker) fn take(&self) -> BTreeMap<DbTime, Stats> {
        std::mem::take(&mut *self.minutes())
    }

    /// Takes back what could not be written. Of too many minutes the oldest are forgotten.
    pub(in crate::worker) fn put_back(&self, minute: DbTime, stats: &Stats) {
        let mut minutes = self.minutes();
        minutes.entry(minute).or_default().merge(stats);
        while minutes.len() > MAX_MINUTES {
            minutes.pop_first();
        }
    }

    fn count(&self, now: DbTime, change: impl FnOnce(&mut Stats)) {
        change(self.minutes().entry(now.floor(MINUTE)).or_default());
    }

    fn minutes(&self) -> MutexGuard<'_, BTreeMap<DbTime, Stats>> {
        self.minutes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_s(seconds: i64) -> DbTime {
        DbTime::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn what_happens_is_counted_in_its_minute_and_given_out_once() {
        let buffer = MinuteBuffer::default();
        buffer.waited(at_s(59), Duration::from_millis(3));
        buffer.ended(at_s(60), FinalStatus::MessageSent, 2);
        buffer.ended(at_s(119), FinalStatus::MessageSent, 1);
        let taken = buffer.take();
        let minutes: Vec<_> = taken
            .iter()
            .map(|(minute, stats)| (*minute, stats.message_sent, stats.queue_wait.count()))
            .collect();
        assert_eq!(minutes, [(at_s(0), 0, 1), (at_s(60), 3, 0)]);
        assert!(buffer.take().is_empty());
    }

    #[test]
    fn what_could_not_be_written_is_kept_for_two_hours_of_minutes() {
        let buffer = MinuteBuffer::default();
        let one = Stats {
            message_sent: 1,
            ..Stats::default()
        };
        for minute in 0..200 {
            buffer.put_back(at_s(minute * 60), &one);
            buffer.put_back(at_s(minute * 60), &one);
        }
        let kept = buffer.take();
        assert_eq!(kept.len(), MAX_MINUTES);
        assert_eq!(
            kept.last_key_value()
                .map(|(minute, stats)| (*minute, stats.message_sent)),
            Some((at_s(199 * 60), 2))
        );
    }
}
