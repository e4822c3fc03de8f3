//! What a lane does, added up by the minute.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::figures::Figures;
use crate::outcome::{FinalStatus, Outcome};
use crate::pace::DbTime;

/// What one app's lane has done, until the bookkeeper takes it.
#[derive(Debug, Default)]
pub(super) struct Tally {
    minutes: Mutex<BTreeMap<DbTime, Figures>>,
}

/// A minute of the database's clock.
const MINUTE: Duration = Duration::from_secs(60);
/// Most minutes that are kept for a database that is away.
const MAX_MINUTES: usize = 120;

impl Tally {
    /// A call has ended.
    pub(super) fn called(&self, now: DbTime, outcome: &Outcome, took: Option<Duration>) {
        self.count(now, |figures| figures.called(outcome, took));
    }

    /// A message that was due for that long is called for the first time.
    pub(super) fn waited(&self, now: DbTime, delay: Duration) {
        self.count(now, |figures| figures.delay.observe(delay));
    }

    /// A slot has passed unused.
    pub(super) fn slot_missed(&self, now: DbTime) {
        self.count(now, |figures| figures.slots_missed += 1);
    }

    /// Messages have ended, and their rows say so.
    pub(super) fn ended(&self, now: DbTime, status: FinalStatus, messages: u64) {
        if messages > 0 {
            self.count(now, |figures| figures.ended(status, messages));
        }
    }

    /// What was counted since this was last asked, with the beginnings of the minutes.
    pub(super) fn take(&self) -> BTreeMap<DbTime, Figures> {
        std::mem::take(&mut *self.minutes())
    }

    /// Takes back what could not be written. Of too many minutes the oldest are forgotten.
    pub(super) fn put_back(&self, minute: DbTime, figures: &Figures) {
        let mut minutes = self.minutes();
        minutes.entry(minute).or_default().merge(figures);
        while minutes.len() > MAX_MINUTES {
            minutes.pop_first();
        }
    }

    fn count(&self, now: DbTime, change: impl FnOnce(&mut Figures)) {
        change(self.minutes().entry(now.floor(MINUTE)).or_default());
    }

    fn minutes(&self) -> MutexGuard<'_, BTreeMap<DbTime, Figures>> {
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
        let tally = Tally::default();
        tally.waited(at_s(59), Duration::from_millis(3));
        tally.ended(at_s(60), FinalStatus::MessageSent, 2);
        tally.ended(at_s(119), FinalStatus::MessageSent, 1);
        let taken = tally.take();
        let minutes: Vec<_> = taken
            .iter()
            .map(|(minute, figures)| (*minute, figures.message_sent, figures.delay.count()))
            .collect();
        assert_eq!(minutes, [(at_s(0), 0, 1), (at_s(60), 3, 0)]);
        assert!(tally.take().is_empty());
    }

    #[test]
    fn what_could_not_be_written_is_kept_for_two_hours_of_minutes() {
        let tally = Tally::default();
        let one = Figures {
            message_sent: 1,
            ..Figures::default()
        };
        for minute in 0..200 {
            tally.put_back(at_s(minute * 60), &one);
            tally.put_back(at_s(minute * 60), &one);
        }
        let kept = tally.take();
        assert_eq!(kept.len(), MAX_MINUTES);
        assert_eq!(
            kept.last_key_value()
                .map(|(minute, figures)| (*minute, figures.message_sent)),
            Some((at_s(199 * 60), 2))
        );
    }
}
