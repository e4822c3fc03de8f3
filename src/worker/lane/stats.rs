//! What a lane does, for those who look on: counted for the process's metrics, and added up for the fleet.

use std::time::Duration;

use super::metrics::LaneMetrics;
use super::minute_buffer::MinuteBuffer;
use crate::outbox::Ended;
use crate::outcome::{FinalStatus, Outcome};
use crate::pace::DbTime;

/// The stats of one app in this process.
#[derive(Debug)]
pub(in crate::worker) struct LaneStats {
    metrics: LaneMetrics,
    pub(in crate::worker) minutes: MinuteBuffer,
}

impl LaneStats {
    pub(in crate::worker) fn new(app: &str) -> Self {
        Self {
            metrics: LaneMetrics::new(app),
            minutes: MinuteBuffer::default(),
        }
    }

    /// A call is over. One that could not be made for lack of a connection counts, too: as a retry, without a
    /// duration.
    pub(in crate::worker) fn called(&self, now: DbTime, outcome: Outcome, took: Option<Duration>) {
        self.metrics.called(outcome, took);
        self.minutes.called(now, outcome, took);
    }

    /// A message had its first call so long after it was due.
    pub(in crate::worker) fn waited(&self, now: DbTime, delay: Duration) {
        self.metrics.waited(delay);
        self.minutes.waited(now, delay);
    }

    /// A slot had passed before its call could start.
    pub(in crate::worker) fn slot_missed(&self, now: DbTime) {
        self.metrics.slot_missed();
        self.minutes.slot_missed(now);
    }

    /// A message has ended, and that is written.
    pub(in crate::worker) fn ended(&self, now: DbTime, status: FinalStatus) {
        self.ended_many(now, status, 1);
    }

    /// Messages have ended in the database, without a call.
    pub(in crate::worker) fn ended_uncalled(&self, now: DbTime, ended: Ended) {
        self.ended_many(now, FinalStatus::Expired, ended.expired as u64);
        self.ended_many(now, FinalStatus::Unknown, ended.unknown as u64);
        self.ended_many(now, FinalStatus::Failed, ended.failed as u64);
    }

    fn ended_many(&self, now: DbTime, status: FinalStatus, messages: u64) {
        if messages > 0 {
            self.metrics.ended(status, messages);
            self.minutes.ended(now, status, messages);
        }
    }
}
