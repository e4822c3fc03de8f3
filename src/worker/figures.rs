//! What a lane does, for those who look on: counted for the process's metrics, and added up for the fleet.

use std::time::Duration;

use super::counters::Counters;
use super::tally::Tally;
use crate::outbox::Ended;
use crate::outcome::{FinalStatus, Outcome};
use crate::pace::DbTime;

/// The figures of one app in this process.
#[derive(Debug)]
pub(super) struct LaneFigures {
    counters: Counters,
    pub(super) tally: Tally,
}

impl LaneFigures {
    /// All at zero.
    pub(super) fn new(app: &str) -> Self {
        Self {
            counters: Counters::new(app),
            tally: Tally::default(),
        }
    }

    /// A call is over. One that could not be made for lack of a connection counts, too: as a retry, without a
    /// duration.
    pub(super) fn called(&self, now: DbTime, outcome: &Outcome, took: Option<Duration>) {
        self.counters.called(outcome, took);
        self.tally.called(now, outcome, took);
    }

    /// A message had its first call so long after it was due.
    pub(super) fn waited(&self, now: DbTime, delay: Duration) {
        self.counters.waited(delay);
        self.tally.waited(now, delay);
    }

    /// A slot had passed before its call could start.
    pub(super) fn slot_missed(&self, now: DbTime) {
        self.counters.slot_missed();
        self.tally.slot_missed(now);
    }

    /// A message has ended, and that is written.
    pub(super) fn ended(&self, now: DbTime, status: FinalStatus) {
        self.ended_many(now, status, 1);
    }

    /// Messages have ended in the database, without a call.
    pub(super) fn ended_uncalled(&self, now: DbTime, ended: Ended) {
        self.ended_many(now, FinalStatus::Expired, ended.expired as u64);
        self.ended_many(now, FinalStatus::Unknown, ended.unknown as u64);
    }

    fn ended_many(&self, now: DbTime, status: FinalStatus, messages: u64) {
        if messages > 0 {
            self.counters.ended(status, messages);
            self.tally.ended(now, status, messages);
        }
    }
}
